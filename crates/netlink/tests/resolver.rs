//! Against the real thing: a system bus and systemd-resolved of the test's own, and a file that is a mount
//! point.
//!
//! Each test runs again inside namespaces of its own, where `/run` is empty and `/etc` is a copy to
//! write to. Needs root, unshare(1), mount(8), iproute2, dbus-daemon and, for one test, systemd-resolved:
//! that of the system, or that of the directory `ADIT_RESOLVED`, into which the Debian packages
//! systemd-resolved and libsystemd-shared were unpacked. What is missing is said and the test passes,
//! unless the environment has `CI=true`.
//!
//! ```text
//!  adit0 (tun) ── systemd-resolved ── dbus-daemon ── test
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "everything here is a test; clippy takes only functions marked as tests for one"
)]

#[path = "resolver/machine.rs"]
mod machine;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use netlink::plan::{Device, Reverted};
use netlink::resolver::{
    CALL_TIMEOUT, Change, Names, Resolver, ResolverError, Settings, Tunnel, Undo, observe, plan,
    recover, revert,
};
use netlink::{LinkIndex, Socket};

use crate::machine::{BUS, Machine, inside};

const CONF: &str = "/etc/resolv.conf";

fn change(device: &Device, server: &str, applied: bool) -> Option<Change> {
    let names = Names { servers: vec![server.parse().unwrap()], domains: vec!["lan".to_owned()] };
    let tunnel = Tunnel { name: "home", device, applied };
    plan(&names, tunnel, &observe(Some(device.index())).unwrap()).unwrap()
}

fn apply(device: &Device, server: &str) -> Undo {
    let todo = change(device, server, false).unwrap();
    todo.apply().unwrap();
    assert_eq!(change(device, server, true), None, "nothing is to be done a second time");
    todo.undo()
}

/// Waits until systemd-resolved says of all links together that it asks this server, or that it does not.
fn await_uplink(server: &str, asked: bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let line = format!("nameserver {server}\n");
    let listed = || fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap().contains(&line);
    while listed() != asked {
        assert!(Instant::now() < deadline, "{server} is asked: {}", !asked);
        std::thread::yield_now();
    }
}

fn settings(device: &Device) -> Settings {
    match observe(Some(device.index())).unwrap() {
        Resolver::Resolved(settings) => settings,
        file @ Resolver::File(_) => panic!("{file:?}"),
    }
}

fn add_device() -> Device {
    machine::ip("tuntap add adit0 mode tun");
    machine::ip("address add 10.9.0.1/24 dev adit0");
    machine::ip("link set adit0 up");
    let link = Socket::open().unwrap().link("adit0").unwrap().unwrap();
    Device { index: link.index.0, name: "adit0".to_owned() }
}

#[test]
fn systemd_resolved_asks_the_servers_while_it_shall() {
    inside("systemd_resolved_asks_the_servers_while_it_shall", true, |machine: &mut Machine| {
        let device = add_device();
        machine.start_bus();
        machine.start_resolved();
        fs::remove_file(CONF).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", CONF).unwrap();
        let before = settings(&device);
        assert!(before.servers.is_empty() && before.domains.is_empty());

        let first = apply(&device, "10.9.0.53");
        await_uplink("10.9.0.53", true);
        let written = settings(&device);
        let second = apply(&device, "fd00::53");
        await_uplink("10.9.0.53", false);
        let found = "name servers fd00::53".to_owned();
        assert_eq!(revert(&first).unwrap(), Reverted::ChangedSince { found });
        assert_eq!(revert(&second).unwrap(), Reverted::Done);
        assert_eq!(settings(&device), written, "settings before the change come back");
        assert_eq!(revert(&first).unwrap(), Reverted::Done);
        await_uplink("10.9.0.53", false);
        assert_eq!(settings(&device), before);
        assert_eq!(revert(&first).unwrap(), Reverted::NotThere);

        let third = apply(&device, "10.9.0.53");
        machine::ip("link delete adit0");
        await_uplink("10.9.0.53", false);
        assert_eq!(revert(&third).unwrap(), Reverted::NotThere);
        assert!(fs::read_link(CONF).unwrap().ends_with("systemd/resolve/stub-resolv.conf"));
    });
}

#[test]
fn the_file_serves_where_systemd_resolved_is_not_on_the_bus() {
    inside("the_file_serves_where_systemd_resolved_is_not_on_the_bus", false, |machine| {
        fs::write(CONF, "nameserver 127.0.0.53\n").unwrap();
        assert!(matches!(observe(None).unwrap(), Resolver::File(_)), "without a bus");
        machine.start_bus();
        assert!(matches!(observe(None).unwrap(), Resolver::File(_)), "without the service");
    });
}

#[test]
fn a_bus_that_hangs_is_given_up() {
    inside("a_bus_that_hangs_is_given_up", false, |_| {
        fs::write(CONF, "nameserver 127.0.0.53\n").unwrap();
        let _listener = UnixListener::bind(BUS).unwrap();
        let begin = Instant::now();
        let error = observe(Some(LinkIndex(1))).unwrap_err();
        assert!(matches!(error, ResolverError::TimedOut { .. }), "{error}");
        assert!(begin.elapsed() < CALL_TIMEOUT * 2);
    });
}

#[test]
fn a_file_that_is_a_mount_point_is_written_in_place() {
    inside("a_file_that_is_a_mount_point_is_written_in_place", false, |_| {
        let former = "nameserver 192.0.2.1\noptions edns0\n";
        fs::write("/run/resolv.conf", former).unwrap();
        machine::run("mount", "--bind /run/resolv.conf /etc/resolv.conf");
        let inode = fs::metadata(CONF).unwrap().ino();
        let device = Device { index: 1, name: "lo".to_owned() };
        let undo = apply(&device, "10.9.0.53");
        let text = fs::read_to_string(CONF).unwrap();
        assert!(
            text.contains("\nsearch lan\nnameserver 10.9.0.53\noptions edns0\n#:adit "),
            "{text}"
        );
        assert_eq!(revert(&undo).unwrap(), Reverted::Done);
        assert_eq!(fs::read_to_string(CONF).unwrap(), former);
        assert_eq!(fs::metadata(CONF).unwrap().ino(), inode);
        assert!(!fs::exists("/etc/.resolv.conf.adit").unwrap());
    });
}

/// Has the kernel tell of another boot, as systemd-nspawn(1) does. What was in `/run` is not looked at.
fn reboot() {
    fs::write("/run/boot", "00000000-0000-4000-8000-000000000000\n").unwrap();
    machine::run("mount", "--bind /run/boot /proc/sys/kernel/random/boot_id");
}

#[test]
fn a_file_is_as_before_when_the_machine_was_booted_under_a_tunnel() {
    inside("a_file_is_as_before_when_the_machine_was_booted_under_a_tunnel", false, |_| {
        let former = "nameserver 192.0.2.1\noptions edns0";
        let device = Device { index: 1, name: "lo".to_owned() };
        fs::remove_file(CONF).unwrap();
        symlink("resolv.theirs", CONF).unwrap();
        fs::write("/etc/resolv.theirs", former).unwrap();
        apply(&device, "10.9.0.53");
        assert_eq!(recover("home").unwrap(), None, "the tunnel may be up");
        reboot();
        assert_eq!(recover("another").unwrap(), None);
        assert_eq!(recover("home").unwrap().unwrap().device, "lo");
        assert_eq!(fs::read_link(CONF).unwrap().to_str(), Some("resolv.theirs"));
        assert_eq!(fs::read_to_string(CONF).unwrap(), former);
        assert_eq!(recover("home").unwrap(), None, "nothing is left");
    });
}

#[test]
fn a_mount_point_is_as_before_when_the_machine_was_booted_under_a_tunnel() {
    inside("a_mount_point_is_as_before_when_the_machine_was_booted_under_a_tunnel", false, |_| {
        let former = "nameserver 192.0.2.1\n".repeat(500);
        fs::write("/run/resolv.conf", &former).unwrap();
        machine::run("mount", "--bind /run/resolv.conf /etc/resolv.conf");
        let device = Device { index: 1, name: "lo".to_owned() };
        apply(&device, "10.9.0.53");
        let ours = fs::read_to_string(CONF).unwrap();
        reboot();
        // A file of this boot takes over what the former one has kept.
        let undo = apply(&device, "10.9.0.54");
        assert_eq!(revert(&undo).unwrap(), Reverted::Done);
        assert_eq!(fs::read_to_string(CONF).unwrap(), former);
        // Of what is written in place, a crash leaves a part.
        let record = &ours[ours.find("#:adit ").unwrap()..];
        let gap = "\n".repeat(ours.len() - former.len());
        let torn = [&ours[..4096], &former[4096..], &gap, record].concat();
        fs::write(CONF, torn).unwrap();
        assert!(recover("home").unwrap().is_some());
        assert_eq!(fs::read_to_string(CONF).unwrap(), former);
    });
}
