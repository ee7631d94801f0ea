//! A lab that is killed leaves nothing.
//!
//! ```text
//!   this test               a second process of it, which is killed
//!                             host A      host B      host C
//!                             10.1.0.1    10.1.0.2    10.1.0.3    sleep in A
//!                               |           |           |
//!                             --+-----------+-----------+-- lan
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{assert_gone, namespace, privileged};
use lab::{Deadline, ThreeHosts};

/// Tells the second process that it is the one.
const BUILDS: &str = "ADIT_LAB_TEST_BUILDS";

/// What the second process says about itself: each namespace on a line, then the program in A.
fn build_and_wait_to_be_killed() {
    let topology = ThreeHosts::build().unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let process = topology.a.spawn(sleep).unwrap();
    let mut stderr = std::io::stderr().lock();
    for host in topology.hosts().into_iter().chain([&topology.lan]) {
        writeln!(stderr, "namespace {}", namespace(host).display()).unwrap();
    }
    writeln!(stderr, "program {}", process.id()).unwrap();
    std::thread::park();
}

fn second_process() -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kill_9_leaves_no_namespace_and_no_program", "--nocapture"]);
    command.env(BUILDS, "yes").stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn kill_9_leaves_no_namespace_and_no_program() {
    if std::env::var_os(BUILDS).is_some() {
        return build_and_wait_to_be_killed();
    }
    if !privileged() {
        return;
    }
    let mut child = second_process();
    let mut namespaces = Vec::new();
    let mut program = None;
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        match line.split_once(' ') {
            Some(("namespace", name)) => namespaces.push(PathBuf::from(name)),
            Some(("program", pid)) => program = Some(Path::new("/proc").join(pid)),
            _ => {}
        }
        if program.is_some() {
            break;
        }
    }
    let program = program.expect("the second process built its topology");
    assert_eq!(namespaces.len(), 4);
    assert!(program.exists() && !common::holders(&namespaces).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_gone(&namespaces);
    let ended = Deadline::after(Duration::from_secs(10))
        .wait_until(|| common::has_ended(&program).then_some(()));
    assert!(ended.is_ok(), "{} still runs", program.display());
}
