//! Sysctls of a namespace.

use std::process::Command;
use std::thread;

use netlink::{Netns, sysctl};

use crate::namespace::{in_namespace, inside, pair};

const FORWARD: &str = "net.ipv4.ip_forward";

fn flipped(value: &str) -> &'static str {
    if value == "0" { "1" } else { "0" }
}

#[test]
fn a_threads_sysctls_are_those_of_its_namespace() {
    let outside = sysctl::read(FORWARD).unwrap();
    in_namespace(|_| {
        let there = Netns::create().unwrap();
        let before = sysctl::read(FORWARD).unwrap();
        let changed = flipped(&before);
        inside(&there, || sysctl::write(FORWARD, changed).unwrap());

        assert_eq!(sysctl::read(FORWARD).unwrap(), before, "this namespace is untouched");
        inside(&there, || {
            assert_eq!(sysctl::read(FORWARD).unwrap(), changed);
            let cat = Command::new("cat").arg("/proc/sys/net/ipv4/ip_forward").output().unwrap();
            assert_eq!(String::from_utf8(cat.stdout).unwrap().trim_end(), changed);
        });
    });
    assert_eq!(sysctl::read(FORWARD).unwrap(), outside, "the machine's namespace is untouched");
}

#[test]
fn a_thread_that_enters_a_namespace_sees_its_sysctls_from_then_on() {
    in_namespace(|_| {
        let there = Netns::create().unwrap();
        let before = sysctl::read(FORWARD).unwrap();
        inside(&there, || sysctl::write(FORWARD, flipped(&before)).unwrap());
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(sysctl::read(FORWARD).unwrap(), before);
                there.enter().unwrap();
                assert_eq!(sysctl::read(FORWARD).unwrap(), flipped(&before));
            });
        });
    });
}

#[test]
fn an_interface_with_a_dot_in_its_name_has_its_own_settings() {
    in_namespace(|socket| {
        pair(socket);
        socket.add_bridge("left.5").unwrap();
        let dotted = sysctl::key_for_interface("net.ipv4.conf", "left.5", "rp_filter");
        let plain = sysctl::key_for_interface("net.ipv4.conf", "left", "rp_filter");
        sysctl::write(&dotted, "2").unwrap();
        sysctl::write(&plain, "1").unwrap();
        assert_eq!(sysctl::read(&dotted).unwrap(), "2");
        assert_eq!(sysctl::read(&plain).unwrap(), "1");
    });
}

#[test]
fn what_cannot_be_read_or_written_is_named() {
    in_namespace(|_| {
        let error = sysctl::read("net.ipv4.conf.nowhere.rp_filter").unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "read sysctl net.ipv4.conf.nowhere.rp_filter");
        let error = sysctl::write(FORWARD, "perhaps").unwrap_err();
        assert!(!error.is_not_found());
        assert_eq!(error.to_string(), "write sysctl net.ipv4.ip_forward = perhaps");
    });
}
