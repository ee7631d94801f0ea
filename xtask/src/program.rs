//! Other programs: run to their end, found on the path; and where the repository is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The cargo that started this program, in the root of the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    command
}

/// Runs `command` to its end; it shares this program's terminal.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let name = name(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| Failure::of(format!("start {name}"), error))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{name} ended with {status}"))) }
}

/// Runs `command` to its end and returns what it wrote to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let name = name(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::of(format!("start {name}"), error))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Failure::new(format!("{name} ended with {}", output.status)))
    }
}

/// The file that the shell would run for `program`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Where Debian keeps programs of the administrator, which the path of others may lack.
    let sbin = ["/usr/sbin".into(), "/sbin".into()];
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Whether this runs where nobody watches: `CI=true`.
pub(crate) fn is_unattended() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Program and first arguments, as a person would name it.
pub(crate) fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut name =
        program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for argument in command.get_args().take(2) {
        name.push(' ');
        name.push_str(&argument.to_string_lossy());
    }
    name
}
