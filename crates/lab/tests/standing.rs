//! A topology that stands until it is taken down, with the real program.
//!
//! ```text
//!   host A                     host B
//!   adit0 10.9.0.1 =========== adit0 10.9.0.2
//!   eth0 10.1.0.1 ------------ eth0 10.1.0.2         held by a process of its own
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::{adit, privileged};
use lab::Deadline;
use lab::Topology;
use lab::standing::{Registry, Standing};
use rustix::process::{Pid, Signal, kill_process};

/// Root's registry is the machine's, so only one test at a time may use it.
const TOPOLOGY: &str = "two-hosts";

fn lab(adit: &Path, arguments: &[&str]) -> Output {
    Command::new(adit).arg("lab").args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The topology, up; taken down when a test fails.
struct Up<'a>(&'a Path);

impl<'a> Up<'a> {
    fn new(adit: &'a Path) -> Self {
        let output = lab(adit, &["up", TOPOLOGY]);
        assert!(output.status.success(), "{}", stderr(&output));
        Self(adit)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        lab(self.0, &["down", TOPOLOGY]);
    }
}

fn state() -> Standing {
    Registry::of_user().unwrap().standing(Topology::TwoHosts).unwrap()
}

/// The namespaces of the hosts, by way of the holder's descriptors.
fn namespaces(standing: &Standing) -> Vec<PathBuf> {
    let descriptors = Path::new("/proc").join(standing.holder.pid.to_string()).join("fd");
    let link = |descriptor: i32| fs::read_link(descriptors.join(descriptor.to_string())).unwrap();
    standing.hosts.iter().map(|place| link(place.descriptor)).collect()
}

#[test]
fn a_topology_stands_can_be_entered_and_goes_without_a_trace() {
    let (true, Some(adit)) = (privileged(), adit()) else { return };
    if Registry::of_user().unwrap().find(Topology::TwoHosts).unwrap().is_some() {
        eprintln!("skipped: somebody's lab {TOPOLOGY} stands");
        return;
    }
    let up = Up::new(&adit);
    let standing = state();
    let namespaces = namespaces(&standing);
    assert_eq!(standing.hosts.len(), 2);

    let entered = lab(&adit, &["enter", TOPOLOGY, "B", "--", "readlink", "/proc/self/ns/net"]);
    assert_eq!(Path::new(String::from_utf8(entered.stdout).unwrap().trim_end()), namespaces[1]);
    let devices = lab(&adit, &["enter", TOPOLOGY, "A", "--", "cat", "/proc/self/net/dev"]);
    assert!(String::from_utf8(devices.stdout).unwrap().contains("adit0:"));

    let runtime = lab(&adit, &["enter", TOPOLOGY, "A", "--", "printenv", "RUNTIME_DIRECTORY"]);
    let runtime = PathBuf::from(String::from_utf8(runtime.stdout).unwrap().trim_end());
    assert_eq!(runtime, standing.runtime_directory);
    assert!(runtime.join("lab-a.toml").is_file());

    let second = lab(&adit, &["up", TOPOLOGY]);
    let pid = standing.holder.pid;
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(
        stderr(&second).lines().next().unwrap(),
        format!("error: lab two-hosts stands already, held by process {pid}")
    );
    let nowhere = lab(&adit, &["enter", TOPOLOGY, "D"]);
    assert_eq!(stderr(&nowhere), "error: lab two-hosts has no host \"D\", only A, B\n");

    let down = lab(&adit, &["down", TOPOLOGY]);
    assert!(down.status.success(), "{}", stderr(&down));
    common::assert_gone(&namespaces);
    assert!(!runtime.exists());
    let again = lab(&adit, &["down", TOPOLOGY]);
    assert_eq!(stderr(&again).lines().next().unwrap(), "error: lab two-hosts does not stand");
    drop(up);

    a_killed_holder_leaves_only_a_file_that_is_known_to_be_stale(&adit);
}

/// Part of the test above, since both use the same topology of the same user.
fn a_killed_holder_leaves_only_a_file_that_is_known_to_be_stale(adit: &Path) {
    let _up = Up::new(adit);
    let killed = state();
    let namespaces = namespaces(&killed);
    kill_process(Pid::from_raw(killed.holder.pid).unwrap(), Signal::KILL).unwrap();
    common::assert_gone(&namespaces);
    let gone = || Registry::of_user().unwrap().find(Topology::TwoHosts).unwrap().is_none();
    let found = Deadline::after(Duration::from_secs(5)).wait_until(|| gone().then_some(()));
    found.unwrap();
    let entered = lab(adit, &["enter", TOPOLOGY, "A", "--", "true"]);
    assert_eq!(stderr(&entered).lines().next().unwrap(), "error: lab two-hosts does not stand");
    let _again = Up::new(adit);
    assert_ne!(state().holder, killed.holder);
}
