//! Programs that see another /etc, or other things at some paths, than the machine does.
//!
//! Each runs in a mount namespace of its own (unshare(1)), which ends with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::Host;

use super::program;
use super::tunnel::{Ended, Files, Tunnel};

/// What of /etc programs need to find users and hosts.
const NEEDED: [&str; 4] = ["passwd", "group", "nsswitch.conf", "hosts"];

/// Whether programs can have mounts of their own.
pub(crate) fn available() -> bool {
    program::available("unshare") && program::available("mount") && program::may_change_users()
}

/// A directory that stands for /etc, with the few files that programs need.
pub(crate) fn etc(files: &Files) -> PathBuf {
    let etc = files.path().join("etc");
    fs::create_dir(&etc).unwrap();
    for name in NEEDED {
        let _ = fs::copy(Path::new("/etc").join(name), etc.join(name));
    }
    etc
}

/// A shell command that puts `source` in the place of `target`.
pub(crate) fn bind(source: &Path, target: &str) -> String {
    format!("mount --bind {} {target}", source.display())
}

/// Starts `adit` with `arguments` after `prepare`, in a mount namespace of its own.
pub(crate) fn start(host: &Host, files: &Files, prepare: &str, arguments: &[&str]) -> Tunnel {
    let adit = lab::binary().unwrap();
    let line = format!("{prepare} && exec {} {}", adit.display(), arguments.join(" "));
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &line]);
    command.env("RUNTIME_DIRECTORY", files.runtime_directory());
    Tunnel::of(host.spawn(command).unwrap())
}

/// Runs `adit` like [`start`] to its end.
pub(crate) fn run(host: &Host, files: &Files, prepare: &str, arguments: &[&str]) -> Ended {
    start(host, files, prepare, arguments).wait()
}

/// Runs a command line in which `wg` finds the tunnels of `files`.
pub(crate) fn try_wg(host: &Host, files: &Files, line: &str) -> Ended {
    let sockets = files.path().join("wireguard");
    let line = format!(
        "mount -t tmpfs none /var/run/ && mkdir /var/run/wireguard && {} && {line}",
        bind(&sockets, "/var/run/wireguard")
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &line]);
    Tunnel::of(host.spawn(command).unwrap()).wait()
}

/// The same to its successful end; what it prints.
pub(crate) fn wg(host: &Host, files: &Files, line: &str) -> String {
    let ended = try_wg(host, files, line);
    assert_eq!(ended.code, Some(0), "{line}: {}", ended.said);
    ended.printed
}
