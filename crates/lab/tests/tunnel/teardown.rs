//! A tunnel that ends, or that cannot begin, leaves the host as it was.
//!
//! ```text
//!   host A                                        host B
//!   adit0 192.0.2.1/24, fd00:7::1/64 ............ adit0
//!     |   routes, forwarding; gone in the end
//!   eth0  10.1.0.1/24, fd01::1/64 --------------- eth0
//! ```

use std::net::UdpSocket;

use lab::{Host, TwoHosts};
use rustix::process::Signal;

use crate::rig::pair::{End, Family, PORT, Pair, Site, hosts};
use crate::rig::ping::assert_answers;
use crate::rig::state;
use crate::rig::tunnel::{DEVICE, Ended, Files, Tunnel, add_device};

/// Everything that a tunnel can change.
const NETWORK: &str = "routes = [\"203.0.113.0/24\", \"fd00:20::/64\"]\nforward = true";

fn assert_leaves_nothing(signal: Signal) {
    let Some(hosts) = hosts() else { return };
    let before = hosts.hosts().map(state::of);
    let Pair { a, b, files } =
        Pair::between(hosts, End::A.network(NETWORK), End::B.network(NETWORK)).unwrap();
    let configured = files.contents();
    let during = state::of(&a.host);
    assert!(during.contains("net.ipv4.ip_forward = 1"), "{during:#?}");
    assert!(during.contains("net.ipv6.conf.all.forwarding = 1"), "{during:#?}");
    for route in ["203.0.113.0/24", "fd00:20::/64"] {
        assert!(during.iter().any(|line| line.contains(route)), "{during:#?}");
    }
    for inner in Family::BOTH {
        assert_answers(&a.host, inner.inner(2));
    }
    for tunnel in [a.tunnel, b.tunnel] {
        let ended = tunnel.end(signal);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        assert!(!ended.said.contains("error:") && !ended.said.contains("undo"), "{}", ended.said);
    }
    for (host, before) in [&a.host, &b.host].into_iter().zip(before) {
        state::assert_same(&before, &state::of(host));
    }
    assert_eq!(files.contents(), configured);
}

#[test]
fn sigint_leaves_nothing() {
    assert_leaves_nothing(Signal::INT);
}

#[test]
fn sigterm_leaves_nothing() {
    assert_leaves_nothing(Signal::TERM);
}

/// A start at A that fails; the host is as it was before.
fn failed_start(hosts: &TwoHosts, toml: &str) -> Ended {
    let files = Files::new();
    let before = state::of(&hosts.a);
    let ended = Tunnel::fail(&hosts.a, &files, "a", toml);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.starts_with("error: "), "{}", ended.said);
    state::assert_same(&before, &state::of(&hosts.a));
    assert_eq!(files.contents().len(), 1);
    let journals = std::fs::read_dir(files.runtime_directory()).unwrap();
    assert_eq!(journals.count(), 0, "a journal is left");
    ended
}

/// Fails unless the last error is exactly this.
fn assert_error(ended: &Ended, expected: &str) {
    let error = ended.said.lines().find(|line| line.starts_with("error: "));
    assert_eq!(error, Some(expected), "{}", ended.said);
}

fn end() -> End {
    End::A.network(NETWORK)
}

#[test]
fn a_port_that_is_in_use_is_an_error_and_changes_nothing() {
    let Some(hosts) = hosts() else { return };
    let _holder = hosts.a.run(|| UdpSocket::bind(("10.1.0.1", PORT)).unwrap());
    let ended = failed_start(&hosts, &end().toml());
    assert!(ended.said.contains("10.1.0.1:4740"), "{}", ended.said);
    assert!(ended.said.contains("Address already in use"), "{}", ended.said);
}

#[test]
fn an_address_that_is_not_there_is_an_error_and_changes_nothing() {
    let Some(hosts) = hosts() else { return };
    let toml = end().toml().replace("udp://10.1.0.1:4740", "udp://10.1.0.99:4740");
    let ended = failed_start(&hosts, &toml);
    assert!(ended.said.contains("10.1.0.99:4740"), "{}", ended.said);
    assert!(ended.said.contains("Cannot assign requested address"), "{}", ended.said);
}

#[test]
fn an_interface_of_another_kind_is_an_error_and_changes_nothing() {
    let Some(hosts) = hosts() else { return };
    let toml = end().toml().replace("\"adit0\"", "\"eth0\"");
    let ended = failed_start(&hosts, &toml);
    assert_error(
        &ended,
        "error: tunnel \"a\": attach to TUN device \"eth0\": it is an interface of another kind \
         (driver \"veth\")",
    );
}

#[test]
fn a_device_of_the_other_mode_is_an_error_and_changes_nothing() {
    let Some(hosts) = hosts() else { return };
    add_device(&hosts.a, &["--mode", "tap"]);
    let ended = failed_start(&hosts, &end().toml());
    let expected = "error: tunnel \"a\": attach to TUN device \"adit0\": it is a TAP device";
    assert_error(&ended, expected);
}

#[test]
fn a_device_with_too_few_queues_is_an_error_and_changes_nothing() {
    let Some(hosts) = hosts() else { return };
    add_device(&hosts.a, &[]);
    let ended = failed_start(&hosts, &end().device("queues = 2").toml());
    let expected = "error: tunnel \"a\": attach to TUN device \"adit0\": it was made for one queue";
    assert_error(&ended, expected);
}

/// Gives A a route to the network of [`NETWORK`] that leads elsewhere.
fn add_route_elsewhere(host: &Host) {
    state::change(host, "eth0", |socket, link| {
        let destination = "203.0.113.0/24".parse().unwrap();
        socket.add_route(&netlink::Route { link: Some(link), ..netlink::Route::new(destination) })
    });
}

#[test]
fn a_route_that_exists_is_an_error_and_everything_is_undone() {
    let Some(hosts) = hosts() else { return };
    add_route_elsewhere(&hosts.a);
    let ended = failed_start(&hosts, &end().toml());
    assert!(ended.said.contains("203.0.113.0/24"), "{}", ended.said);
    assert!(ended.said.contains("already by \"eth0\""), "{}", ended.said);
}

#[test]
fn a_failed_start_on_a_persistent_device_leaves_the_device_as_it_was() {
    let Some(hosts) = hosts() else { return };
    add_device(&hosts.a, &["--vnet-hdr", "--address", "192.0.2.1/24"]);
    add_route_elsewhere(&hosts.a);
    let ended = failed_start(&hosts, &end().toml());
    assert!(ended.said.contains("already by \"eth0\""), "{}", ended.said);
}

#[test]
fn a_file_with_errors_changes_nothing() {
    let Some(hosts) = hosts() else { return };
    let ended = failed_start(&hosts, "[device]\nadress = []\n");
    assert!(ended.said.contains("a.toml:2:1: [device]: unknown key \"adress\""), "{}", ended.said);
}

#[test]
fn what_others_have_changed_since_is_left_alone() {
    let Some(pair) = Pair::with(End::A.network(NETWORK), End::B) else { return };
    let Site { tunnel, host } = pair.a;
    // An administrator turns forwarding off, takes a route away and gives the device an address.
    state::write_sysctl(&host, "net.ipv4.ip_forward", "0");
    state::change(&host, DEVICE, |socket, link| {
        let destination = "203.0.113.0/24".parse().unwrap();
        socket
            .delete_route(&netlink::Route { link: Some(link), ..netlink::Route::new(destination) })
    });
    state::delete_address(&host, DEVICE, "fd00:7::1/64");
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(!ended.said.contains("undo"), "{}", ended.said);
    let after = state::of(&host);
    assert!(after.contains("net.ipv4.ip_forward = 0"), "{after:#?}");
    assert!(after.contains("net.ipv6.conf.all.forwarding = 0"), "{after:#?}");
    assert_eq!(state::link(&host, DEVICE), None);
}
