//! The scenarios of `adit lab run`, with the real program.
//!
//! ```text
//!   host A                     host B                     host C
//!   adit0 10.9.0.1 =========== adit0 10.9.0.2
//!     |  route to C              |  forwards                 route to 10.9.0.0/24
//!   eth0 10.1.0.1              eth0 10.1.0.2              eth0 10.1.0.3
//!     |                          |                          |
//!   --+--------------------------+--------------------------+-- lan (a wire for two hosts)
//! ```
//!
//! And with a gateway, where C is the internet of B and not a neighbour of A:
//!
//! ```text
//!   host A                     host B                     host C
//!   adit0 10.9.0.1 =========== adit0 10.9.0.2
//!     |  everything              |  masquerades
//!   eth0 10.1.0.1 ------------ eth0 10.1.0.2
//!                              eth1 198.51.100.2 -------- eth0 198.51.100.3
//! ```
//!
//! And with a folder in the place of the wire between A, which has no other, and B:
//!
//! ```text
//!   host A                     host B                     host C
//!   adit0 10.9.0.1 =========== adit0 10.9.0.2
//!   the folder --------------- the folder
//!                              eth0 198.51.100.2 -------- eth0 198.51.100.3
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{adit, privileged};
use lab::Deadline;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn run(adit: &Path, topology: &str) -> (Value, Option<i32>) {
    let output = Command::new(adit)
        .args(["lab", "run", topology, "--json", "--count=50", "--duration=300ms"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|error| panic!("{error}: {stderr}")), output.status.code())
}

fn assert_passed(report: &Value, exit: Option<i32>) {
    let checks = report["checks"].as_array().unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| check["passed"] != true).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!((&report["passed"], exit), (&Value::Bool(true), Some(0)));
}

/// Host, device, and whether the packet was going out.
fn hops(report: &Value) -> Vec<(String, bool)> {
    let place = |hop: &Value| {
        let name = format!("{} {}", hop["host"].as_str().unwrap(), hop["device"].as_str().unwrap());
        (name, hop["outgoing"].as_bool().unwrap())
    };
    report["hops"].as_array().unwrap().iter().map(place).collect()
}

#[test]
fn two_hosts_pass_every_check() {
    let (true, Some(adit)) = (privileged(), adit()) else { return };
    let (report, exit) = run(&adit, "two-hosts");
    assert_passed(&report, exit);
    assert_eq!(report["traffic"]["received"], 50);
    assert_eq!(report["throughput"].as_array().unwrap().len(), 3);
}

#[test]
fn three_hosts_pass_every_check_and_messages_go_there_and_back_through_the_tunnel() {
    let (true, Some(adit)) = (privileged(), adit()) else { return };
    let (report, exit) = run(&adit, "three-hosts");
    assert_passed(&report, exit);
    assert_eq!(report["traffic"]["answered"], 50);
    let way = [("A adit0", true), ("A eth0", true), ("B adit0", false), ("C eth0", false)];
    let there = way.map(|(place, outgoing)| (place.to_owned(), outgoing));
    let back = way.map(|(place, outgoing)| (place.to_owned(), !outgoing)).into_iter().rev();
    assert_eq!(hops(&report), there.into_iter().chain(back).collect::<Vec<_>>());
    let arrived = report["hops"][3]["packet"].as_str().unwrap();
    assert!(arrived.starts_with("IPv4 10.9.0.1 > 10.1.0.3: UDP "), "{arrived}");
}

#[test]
fn the_gateway_passes_every_check_and_c_sees_its_address() {
    let (true, Some(adit)) = (privileged(), adit()) else { return };
    let (report, exit) = run(&adit, "gateway");
    assert_passed(&report, exit);
    assert_eq!(report["traffic"]["answered"], 50);
    let way = [("A adit0", true), ("B adit0", false), ("B eth1", true), ("C eth0", false)];
    let there = way.map(|(place, outgoing)| (place.to_owned(), outgoing));
    let back = way.map(|(place, outgoing)| (place.to_owned(), !outgoing)).into_iter().rev();
    assert_eq!(hops(&report), there.into_iter().chain(back).collect::<Vec<_>>());
    let packet = |hop: usize| report["hops"][hop]["packet"].as_str().unwrap();
    assert!(packet(1).starts_with("IPv4 10.9.0.1 > 198.51.100.3: UDP "), "{}", packet(1));
    assert!(packet(3).starts_with("IPv4 198.51.100.2 > 198.51.100.3: UDP "), "{}", packet(3));
}

#[test]
fn the_shared_folder_passes_every_check_and_a_page_comes_through_it() {
    let (true, Some(adit)) = (privileged(), adit()) else { return };
    let (report, exit) = run(&adit, "shared-folder");
    assert_passed(&report, exit);
    assert_eq!(report["traffic"]["answered"], 50);
    let way = [("A adit0", true), ("B adit0", false), ("B eth0", true), ("C eth0", false)];
    let there = way.map(|(place, outgoing)| (place.to_owned(), outgoing));
    let back = way.map(|(place, outgoing)| (place.to_owned(), !outgoing)).into_iter().rev();
    assert_eq!(hops(&report), there.into_iter().chain(back).collect::<Vec<_>>());
    let names = report["checks"].as_array().unwrap().iter().map(|check| &check["name"]);
    let names: Vec<_> = names.map(|name| name.as_str().unwrap()).collect();
    for name in [
        "without a tunnel A has no way to C",
        "A resolves a name",
        "A fetches a page over HTTP",
        "nobody who reads the folder can read a message",
        "the folder is as before, a file of others untouched",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
}

#[test]
fn a_run_leaves_the_runtime_directory_of_the_machine_alone() {
    let (true, Some(adit)) = (privileged(), adit()) else { return };
    let directory = common::Directory::new("machine");
    let changed = || std::fs::metadata(&directory.0).unwrap().modified().unwrap();
    let before = changed();
    let output = Command::new(adit)
        .args(["lab", "run", "two-hosts", "--count=1", "--duration=50ms"])
        .env("RUNTIME_DIRECTORY", &directory.0)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // So it is even for a journal that was made there and removed.
    assert_eq!(changed(), before);
}

/// A running program, killed when a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A scenario that would take an hour, once its tunnel is up.
fn endless(adit: &Path) -> Running {
    let child = Command::new(adit)
        .args(["lab", "run", "three-hosts", "--count=360000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "Send the other messages"));
    running
}

#[test]
fn ctrl_c_and_sigterm_end_a_run_at_once_with_everything_cleaned_up() {
    let (true, Some(adit)) = (privileged(), adit()) else { return };
    for signal in [Signal::INT, Signal::TERM] {
        let mut running = endless(&adit);
        let child = &mut running.0;
        let programs: Vec<_> = common::descendants(child.id())
            .into_iter()
            .map(|pid| Path::new("/proc").join(pid.to_string()))
            .collect();
        assert!(programs.len() >= 6, "two tunnels with workers, source, sink: {programs:?}");
        kill_process(Pid::from_child(child), signal).unwrap();
        let patience = Deadline::after(Duration::from_secs(10));
        let status = patience.wait_until(|| child.try_wait().unwrap());
        let status = status.unwrap_or_else(|error| panic!("{error} after {signal:?}"));
        assert_eq!((status.code(), status.signal()), (Some(1), None));
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(stderr, "error: interrupted\n");
        assert!(programs.iter().all(|program| common::has_ended(program)), "{programs:?}");
    }
}
