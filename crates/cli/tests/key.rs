//! `adit key` as scripts see it: texts, exit codes, files.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what fails here fails the test")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};

use snapbox::cmd::{Command, OutputAssert};
use snapbox::str;

/// A private key and its public key, as `wg pubkey` has it.
const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PUBLIC: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

fn adit(arguments: &[&str]) -> Command {
    Command::new(env!("CARGO_BIN_EXE_adit")).arg("key").args(arguments).env_remove("NO_COLOR")
}

fn stdout(output: &OutputAssert) -> String {
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

/// What `adit key public` says to this input.
fn public(input: &str) -> OutputAssert {
    adit(&["public"]).stdin(input.to_owned()).assert()
}

/// A directory of one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-cli-key-{test}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn help_names_the_three_commands() {
    adit(&["--help"]).assert().success().stdout_eq(str![[r#"
Makes keys, in the text format of "wg genkey", "wg pubkey" and "wg genpsk"

Usage: adit key [OPTIONS] <COMMAND>

Commands:
  new        Makes a private key and prints it
  public     Reads a private key from standard input and prints its public key
  preshared  Makes a key for two peers to share beforehand and prints it

Options:
  -v, --verbose...  Says more; twice for even more
  -h, --help        Print help
  -V, --version     Print version

"#]]);
}

#[test]
fn a_public_key_is_the_one_that_wg_computes() {
    for input in [PRIVATE.to_owned(), format!("{PRIVATE}\n"), format!("{PRIVATE} \r\n")] {
        public(&input).success().stdout_eq(format!("{PUBLIC}\n")).stderr_eq("");
    }
}

#[test]
fn a_new_key_is_a_clamped_private_key_and_never_the_same() {
    let keys: Vec<_> = (0..3).map(|_| stdout(&adit(&["new"]).assert().success())).collect();
    assert_ne!(keys[0], keys[1]);
    for key in &keys {
        assert_eq!(key.len(), 45);
        // Clamping clears the lowest three bits of the first octet (RFC 7748, section 5): one of the first
        // character, two of the second.
        assert!(b"ACEGIKMOQSUWYacegikmoqsuwy02468+".contains(&key.as_bytes()[0]), "{key}");
        assert!(key.as_bytes()[1].is_ascii_uppercase() && key.as_bytes()[1] <= b'P', "{key}");
        assert_eq!(stdout(&public(key).success()).len(), 45);
    }
    let preshared = stdout(&adit(&["preshared"]).assert().success());
    assert_eq!(preshared.len(), 45);
    assert_ne!(preshared, stdout(&adit(&["preshared"]).assert().success()));
}

#[test]
fn what_is_no_private_key_is_refused_without_a_word_of_it() {
    let key = "a key is 44 characters of base64, of which the last is \"=\"";
    for (input, message) in [
        (String::new(), "it is empty".to_owned()),
        ("\n".to_owned(), "it is empty".to_owned()),
        (PRIVATE[..43].to_owned(), format!("its 43 characters are no key: {key}")),
        (format!("{PRIVATE}{PRIVATE}"), format!("its 88 characters are no key: {key}")),
        ("*".repeat(44), format!("its 44 characters are no key: {key}")),
        (format!("{PRIVATE}\n{PRIVATE}\n"), "it has more than one line".to_owned()),
        ("x".repeat(5000), "it has more than 4096 octets".to_owned()),
    ] {
        public(&input)
            .code(1)
            .stdout_eq("")
            .stderr_eq(format!("error: read a private key from standard input: {message}\n"));
    }
}

#[test]
fn a_key_file_is_made_for_its_owner_alone_and_never_overwritten() {
    let directory = Directory::new("file");
    let path = directory.path("home.key");
    let file = path.to_str().unwrap();
    adit(&["new", "-o", file]).assert().success().stdout_eq("").stderr_eq("");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let key = fs::read_to_string(&path).unwrap();
    assert_eq!(key.len(), 45);
    for command in ["new", "preshared"] {
        adit(&[command, "-o", file])
            .assert()
            .code(1)
            .stdout_eq("")
            .stderr_eq(format!("error: create key file {file}: File exists (os error 17)\n"));
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
}

#[test]
fn a_key_that_cannot_be_written_is_a_failure() {
    // A device that is always full stands for a file system that is.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command(&["new"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let directory = Directory::new("missing");
    let file = directory.path("none/home.key");
    let file = file.to_str().unwrap();
    adit(&["preshared", "-o", file]).assert().code(1).stderr_eq(format!(
        "error: create key file {file}: No such file or directory (os error 2)\n"
    ));
}

#[test]
fn a_secret_that_goes_where_everybody_can_read_it_is_warned_of() {
    let directory = Directory::new("warn");
    let path = directory.path("key");
    for (mode, warning) in [
        (0o600, ""),
        (0o640, ""),
        (
            0o644,
            "warning: the secret key goes to a file that everybody may read or write; -o FILE makes one that \
             only its owner may\n",
        ),
    ] {
        for arguments in [["new"], ["preshared"]] {
            let output = command(&arguments).stdout(created(&path, mode)).output().unwrap();
            assert!(output.status.success());
            assert_eq!(String::from_utf8(output.stderr).unwrap(), warning, "{mode:o}");
            assert_eq!(fs::read_to_string(&path).unwrap().len(), 45);
        }
    }
    let public = command(&["public"])
        .stdin(File::open(&path).unwrap())
        .stdout(created(&directory.path("public"), 0o644))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(public.stderr).unwrap(), "", "a public key is no secret");
}

fn command(arguments: &[&str]) -> process::Command {
    let mut command = process::Command::new(env!("CARGO_BIN_EXE_adit"));
    command.arg("key").args(arguments).stdin(Stdio::null());
    command
}

/// An empty file of this mode.
fn created(path: &Path, mode: u32) -> File {
    let file = File::create(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    file
}
