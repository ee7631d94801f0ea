//! Programs of others: is one there, and what does it say.

use std::process::Command;

use lab::{Host, Process};

/// Whether a program can be run. Says so if not, and insists on it where `CI` is `true`.
pub(crate) fn available(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        let insisted = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!insisted, "{program} is not installed");
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Starts a program in `host`.
pub(crate) fn spawn(host: &Host, program: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(program);
    command.args(arguments);
    host.spawn(command).unwrap()
}
