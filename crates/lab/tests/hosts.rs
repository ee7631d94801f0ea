//! Hosts alone, without links.
//!
//! ```text
//!   host A        host B
//!   lo            lo
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod common;

use std::fs;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use common::{namespace, privileged};
use lab::{Deadline, Host};

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn soon() -> Deadline<'static> {
    Deadline::after(Duration::from_secs(10))
}

#[test]
fn every_host_has_a_namespace_of_its_own_and_the_machine_is_not_among_them() {
    if !privileged() {
        return;
    }
    let (a, b) = (Host::new("A").unwrap(), Host::new("B").unwrap());
    let here = fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_ne!(namespace(&a), namespace(&b));
    assert_ne!(namespace(&a), here);
    assert_eq!(a.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap()), namespace(&a));
}

#[test]
fn a_panic_in_a_host_goes_on_in_the_caller_and_the_host_stays_usable() {
    if !privileged() {
        return;
    }
    let host = Host::new("A").unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        host.run(|| -> u32 { panic!("on purpose") })
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(host.run(|| 7), 7);
}

#[test]
fn a_socket_stays_in_the_host_where_it_was_opened() {
    if !privileged() {
        return;
    }
    let host = Host::new("A").unwrap();
    // The loopback device of a bare host is down, so sending fails there and nowhere else.
    let socket = host.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let error = socket.send_to(b"x", "127.0.0.1:9").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
}

#[test]
fn programs_run_inside_the_host_and_what_they_say_can_be_waited_for() {
    if !privileged() {
        return;
    }
    let host = Host::new("A").unwrap();
    let mut process =
        host.spawn(shell("readlink /proc/self/ns/net; echo 'it is ready' >&2; exit 3")).unwrap();
    assert_eq!(process.wait_for_line("is ready", soon()).unwrap(), "it is ready");
    assert_eq!(process.wait(soon()).unwrap().code(), Some(3));
    assert_eq!(process.stdout().trim_end(), namespace(&host).to_str().unwrap());
}

#[test]
fn a_program_that_ends_too_early_is_an_error_with_its_last_words() {
    if !privileged() {
        return;
    }
    let host = Host::new("A").unwrap();
    let mut process = host.spawn(shell("echo 'error: no luck' >&2; exit 1")).unwrap();
    let error = process.wait_for_line("is up", soon()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/bin/sh ended (exit status: 1) before the line \"is up\", saying \"error: no luck\""
    );
}

#[test]
fn waiting_for_a_line_that_never_comes_ends_at_the_deadline() {
    if !privileged() {
        return;
    }
    let host = Host::new("A").unwrap();
    let mut process = host.spawn(shell("echo other >&2; exec sleep 60")).unwrap();
    let error = process.wait_for_line("is up", Deadline::after(Duration::from_millis(50)));
    assert_eq!(error.unwrap_err().to_string(), "wait for the line \"is up\" of /bin/sh");
}

#[test]
fn a_program_that_ignores_sigterm_is_killed() {
    if !privileged() {
        return;
    }
    let host = Host::new("A").unwrap();
    let mut process =
        host.spawn(shell("trap '' TERM; echo deaf >&2; while :; do sleep 0.01; done")).unwrap();
    process.wait_for_line("deaf", soon()).unwrap();
    let status = process.stop(Duration::from_millis(50)).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

#[test]
fn output_beyond_the_limit_is_forgotten_from_its_beginning() {
    if !privileged() {
        return;
    }
    let host = Host::new("A").unwrap();
    let mut process =
        host.spawn(shell("echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo last")).unwrap();
    process.wait(soon()).unwrap();
    let stdout = process.stdout();
    assert_eq!(stdout.len(), 1 << 20);
    assert!(stdout.ends_with("xlast\n"));
}

#[test]
fn dropping_a_host_ends_its_programs_and_its_namespace() {
    if !privileged() {
        return;
    }
    let host = Host::new("A").unwrap();
    let name = namespace(&host);
    let process = host.spawn(shell("exec sleep 60")).unwrap();
    let pid = process.id();
    assert!(host.as_fd().as_raw_fd() > 2);
    drop(process);
    drop(host);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    common::assert_gone(&[name]);
}
