//! Labs of a user who is not root.
//!
//! ```text
//!   user namespace of user 65534, who is root in it
//!     host A          host B          host C
//!     10.1.0.1        10.1.0.2        10.1.0.3
//!       |               |               |
//!     --+---------------+---------------+-- lan
//! ```
//!
//! This test has no harness, since a process that enters a user namespace must have one thread only.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use lab::rootless::{self, RootlessError};
use lab::{Network, ThreeHosts, Topology};
use netlink::sysctl;

/// The user `nobody` of most systems.
const NOBODY: u32 = 65_534;

/// Tells a second process what to do.
const PART: &str = "ADIT_LAB_TEST_PART";

fn main() {
    match std::env::var(PART).as_deref() {
        Ok("check") => checking_says_what_is_missing(),
        Ok("build") => a_user_who_is_not_root_builds_a_topology(),
        _ if rustix::process::geteuid().is_root() => {
            let directory = common::Directory::new("rootless");
            fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).unwrap();
            // Where the test was built may be closed to others.
            let copy = directory.0.join("test");
            fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
            for part in ["check", "build"] {
                let mut command = Command::new(&copy);
                command.env(PART, part).uid(NOBODY).gid(NOBODY);
                assert!(command.status().unwrap().success(), "part {part} failed");
                eprintln!("test {part} ... ok");
            }
        }
        _ => eprintln!("skipped: only root becomes another user"),
    }
}

fn checking_says_what_is_missing() {
    let open = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    match (rootless::check(), open) {
        (Err(error @ RootlessError::TunNode { .. }), Err(_)) => {
            assert_eq!(error.to_string(), "open /dev/net/tun as user 65534");
        }
        (checked, Err(_)) => panic!("{checked:?}, although the node cannot be opened"),
        (Err(RootlessError::TunNode { .. }), Ok(_)) => panic!("the node can be opened"),
        (_, Ok(_)) => {}
    }
}

fn a_user_who_is_not_root_builds_a_topology() {
    if let Err(error) = rootless::enter_user_namespace() {
        let insisted = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!insisted, "{error}: {:?}", std::error::Error::source(&error));
        eprintln!("skipped: {error}");
        return;
    }
    let Network::ThreeHosts(topology) = Topology::ThreeHosts.build().unwrap() else {
        panic!("another topology was built");
    };
    let ThreeHosts { a, b, .. } = &topology;
    assert_eq!(a.run(|| sysctl::read("net.ipv4.conf.eth0.rp_filter").unwrap()), "1");
    b.run(|| sysctl::write("net.ipv4.ip_forward", "1").unwrap());
    assert_eq!(b.run(|| sysctl::read("net.ipv4.ip_forward").unwrap()), "1");
    assert_eq!(a.run(|| sysctl::read("net.ipv4.ip_forward").unwrap()), "0");
}
