//! Programs of others: whether they can be run, and running them.

use std::fs;
use std::process::Command;

use lab::{Host, Process};

/// Whether a program can be run. Says so if not, and insists on it where `CI` is `true`.
pub(crate) fn available(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Whether programs can change their user: not for root of a user namespace, who has no other.
pub(crate) fn may_change_users() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let has_all_users = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let may = rustix::process::geteuid().is_root() && has_all_users;
    if !may {
        skip("only root of the machine can become another user");
    }
    may
}

/// Says why a test does not run. Where `CI` is `true` that is a failure.
pub(crate) fn skip(reason: &str) {
    let insisted = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!insisted, "{reason}");
    eprintln!("skipped: {reason}");
}

/// Starts a program in `host`.
pub(crate) fn spawn(host: &Host, program: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(program);
    command.args(arguments);
    host.spawn(command).unwrap()
}
