//! What happens to a tunnel when the network around it is disturbed: nothing that does not mend.
//!
//! ```text
//!   host A                                        host B
//!   adit0 192.0.2.1/24, fd00:7::1/64 ............ adit0 192.0.2.2/24, fd00:7::2/64
//!     |   down and up, deleted and made again
//!   eth0  10.1.0.1/24, fd01::1/64 --------------- eth0  10.1.0.2/24, fd01::2/64
//!         down and up, addresses taken away             10.1.0.22/24 taken away
//! ```

use std::net::UdpSocket;
use std::time::Duration;

use lab::topology::ETH0;
use lab::{Deadline, Host};
use rustix::process::Signal;

use crate::rig::pair::{End, Family, PORT, Pair, Site, hosts};
use crate::rig::ping::{Pinger, assert_answers};
use crate::rig::tcp::{Session, assert_transfers};
use crate::rig::tunnel::{DEVICE, Files, Tunnel, add_device};
use crate::rig::{packet, soon, state, udp};

const DEVICE_DOWN: &str = "device down";
const SEND_FAILED: &str = "transport refused";

/// Routes that a disturbance must not cost.
const NETWORK: &str = "routes = [\"203.0.113.0/24\", \"fd00:20::/64\"]";

/// Datagrams of a flood.
const FLOOD: usize = 20_000;

/// What the time of half a second is at most, in clock ticks of 10 ms, of a process that rests.
const TICKS_AT_REST: u64 = 15;

fn pair() -> Option<Pair> {
    Pair::with(End::A.network(NETWORK), End::B.network(NETWORK))
}

/// Sends many datagrams into the tunnel, and does not care.
fn flood(from: &Host, family: Family, to: u8) {
    let client = udp::connect(from, (family.inner(to), 9).into());
    for _ in 0..FLOOD {
        // Refused when the network says that nobody is there.
        let _ = client.send(b"flood");
    }
}

/// What a tunnel says without being asked.
fn messages(tunnel: &Tunnel) -> Vec<String> {
    let reports =
        ["to the peers: ", "from the peers: ", "tunnel \"a\" so far", "tunnel \"b\" so far"];
    let said = tunnel.said();
    let unasked = said.lines().filter(|line| !reports.iter().any(|part| line.starts_with(part)));
    unasked.map(str::to_owned).collect()
}

/// Fails if the process of `tunnel` uses more of a processor than one that waits.
fn assert_rests(tunnel: &Tunnel) {
    let before = tunnel.ticks();
    let busy = Deadline::after(Duration::from_millis(500))
        .wait_until(|| (tunnel.ticks() > before + TICKS_AT_REST).then_some(()));
    assert!(busy.is_err(), "it spins");
}

fn assert_passes(pair: &Pair) {
    for inner in Family::BOTH {
        Pinger::new(&pair.a.host, inner.inner(2)).wait_for_answer();
        Pinger::new(&pair.b.host, inner.inner(1)).wait_for_answer();
        assert_transfers(&pair.a.host, &pair.b.host, inner.inner(2), 1 << 20);
    }
}

/// Waits until A's network is as it was.
fn wait_for_state(host: &Host, before: &std::collections::BTreeSet<String>) {
    let same = soon().wait_until(|| (state::of(host) == *before).then_some(()));
    let differences = || {
        let after = state::of(host);
        before.symmetric_difference(&after).cloned().collect::<Vec<_>>()
    };
    assert!(same.is_ok(), "{:#?}", differences());
}

#[test]
fn a_device_that_goes_down_and_up_gets_its_routes_and_addresses_back() {
    let Some(mut pair) = pair() else { return };
    assert_passes(&pair);
    let before = state::of(&pair.a.host);
    let mut session = Session::begin(&pair.a.host, &pair.b.host, Family::V4.inner(2));
    session.exchange(1000);

    state::set_up(&pair.a.host, DEVICE, false);
    pair.a.tunnel.wait_for("device adit0 is down");
    let messages_before = messages(&pair.a.tunnel);
    flood(&pair.b.host, Family::V4, 1);
    flood(&pair.b.host, Family::V6, 1);
    let traffic = pair.a.tunnel.wait_for_traffic(|traffic| {
        traffic.from_peers.dropped(DEVICE_DOWN) >= u64::try_from(FLOOD / 10).unwrap()
    });
    let in_all = traffic.from_peers.dropped_in_all();
    assert_eq!(traffic.from_peers.dropped(DEVICE_DOWN), in_all, "{traffic:?}");
    assert_eq!(messages(&pair.a.tunnel), messages_before, "it tells of single packets");
    assert_rests(&pair.a.tunnel);

    state::set_up(&pair.a.host, DEVICE, true);
    pair.a.tunnel.wait_for("device adit0 is up again");
    wait_for_state(&pair.a.host, &before);
    session.exchange(1000);
    assert_passes(&pair);
}

#[test]
fn a_device_that_is_switched_often_ends_up_as_it_was() {
    let Some(pair) = pair() else { return };
    let before = state::of(&pair.a.host);
    for _ in 0..50 {
        state::set_up(&pair.a.host, DEVICE, false);
        state::set_up(&pair.a.host, DEVICE, true);
    }
    wait_for_state(&pair.a.host, &before);
    assert_passes(&pair);
    let Site { tunnel, host } = pair.a;
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(state::link(&host, DEVICE), None);
}

#[test]
fn a_device_that_was_made_by_the_tunnel_is_made_again_when_it_is_deleted() {
    let Some(mut pair) = pair() else { return };
    assert_passes(&pair);
    let carried = pair.a.tunnel.traffic().to_peers.packets;
    state::change(&pair.a.host, DEVICE, netlink::Socket::delete_link);
    pair.a.tunnel.wait_for("device adit0 is gone");
    pair.a.tunnel.wait_for("device adit0 is back");
    assert_passes(&pair);
    let lines = state::of(&pair.a.host);
    for route in ["203.0.113.0/24", "fd00:20::/64"] {
        assert!(lines.iter().any(|line| line.contains(route)), "{lines:#?}");
    }
    // Counters go on.
    assert!(pair.a.tunnel.traffic().to_peers.packets > carried);
    assert_rests(&pair.a.tunnel);
}

#[test]
fn a_device_that_an_administrator_made_is_waited_for_when_it_is_deleted() {
    let Some(hosts) = hosts() else { return };
    add_device(&hosts.a, &[]);
    let mut pair = Pair::between(hosts, End::A.network(NETWORK), End::B).unwrap();
    assert_passes(&pair);
    state::change(&pair.a.host, DEVICE, netlink::Socket::delete_link);
    pair.a.tunnel.wait_for("device adit0 is gone");
    let messages_before = messages(&pair.a.tunnel);
    let made = Deadline::after(Duration::from_millis(700))
        .wait_until(|| state::link(&pair.a.host, DEVICE));
    assert!(made.is_err(), "the tunnel has made a device that was not its own");
    assert_rests(&pair.a.tunnel);
    assert_eq!(messages(&pair.a.tunnel), messages_before);
    add_device(&pair.a.host, &[]);
    pair.a.tunnel.wait_for("device adit0 is back");
    assert_passes(&pair);
}

#[test]
fn a_tunnel_that_waits_for_its_device_can_be_ended() {
    let Some(hosts) = hosts() else { return };
    add_device(&hosts.a, &[]);
    let before = state::of(&hosts.b);
    let forwarding = "routes = [\"203.0.113.0/24\"]\nforward = true";
    let mut pair = Pair::between(hosts, End::A.network(forwarding), End::B).unwrap();
    state::change(&pair.a.host, DEVICE, netlink::Socket::delete_link);
    pair.a.tunnel.wait_for("device adit0 is gone");
    let Site { tunnel, host } = pair.a;
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(state::of(&host).contains("net.ipv4.ip_forward = 0"));
    let Site { tunnel, host } = pair.b;
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    wait_for_state(&host, &before);
}

fn assert_uplink_may_go_down_and_up(outer: Family) {
    let ends = [End::A, End::B].map(|end| end.over(outer));
    let Some(pair) = Pair::with(ends[0], ends[1]) else { return };
    assert_passes(&pair);
    let mut session = Session::begin(&pair.a.host, &pair.b.host, Family::V4.inner(2));
    session.exchange(1000);
    state::set_up(&pair.a.host, ETH0, false);
    let messages_before = messages(&pair.a.tunnel);
    flood(&pair.a.host, Family::V4, 2);
    pair.a.tunnel.wait_for_traffic(|traffic| traffic.to_peers.dropped(SEND_FAILED) > 0);
    assert_eq!(messages(&pair.a.tunnel), messages_before, "it tells of single packets");
    assert_rests(&pair.a.tunnel);
    state::set_up(&pair.a.host, ETH0, true);
    if outer == Family::V6 {
        // The kernel forgets IPv6 addresses of links that go down; what configured it does it again.
        state::add_address(&pair.a.host, ETH0, "fd01::1/64");
    }
    assert_passes(&pair);
    session.exchange(1000);
}

#[test]
fn the_uplink_may_go_down_and_up_under_ipv4() {
    assert_uplink_may_go_down_and_up(Family::V4);
}

#[test]
fn the_uplink_may_go_down_and_up_under_ipv6() {
    assert_uplink_may_go_down_and_up(Family::V6);
}

fn assert_outer_address_may_go_and_come(outer: Family, address: &str) {
    let ends = [End::A, End::B].map(|end| end.over(outer));
    let Some(pair) = Pair::with(ends[0], ends[1]) else { return };
    assert_passes(&pair);
    state::delete_address(&pair.a.host, ETH0, address);
    flood(&pair.a.host, Family::V4, 2);
    pair.a.tunnel.wait_for_traffic(|traffic| traffic.to_peers.dropped(SEND_FAILED) > 0);
    assert_rests(&pair.a.tunnel);
    state::add_address(&pair.a.host, ETH0, address);
    assert_passes(&pair);
}

#[test]
fn the_outer_ipv4_address_may_go_and_come() {
    assert_outer_address_may_go_and_come(Family::V4, "10.1.0.1/24");
}

#[test]
fn the_outer_ipv6_address_may_go_and_come() {
    assert_outer_address_may_go_and_come(Family::V6, "fd01::1/64");
}

#[test]
fn a_peer_that_is_not_there_yet_is_no_reason_to_end() {
    let Some(hosts) = hosts() else { return };
    let files = Files::new();
    let a = Tunnel::up(&hosts.a, &files, "a", &End::A.toml());
    // B's kernel answers each datagram with "port unreachable".
    flood(&hosts.a, Family::V4, 2);
    let said = messages(&a);
    assert!(
        !said.iter().any(|line| line.starts_with("error") || line.contains("refused")),
        "{said:?}"
    );
    let _b = Tunnel::up(&hosts.b, &files, "b", &End::B.toml());
    Pinger::new(&hosts.a, Family::V4.inner(2)).wait_for_answer();
    assert_answers(&hosts.b, Family::V6.inner(1));
}

/// The source address of the next outer datagram that a plain socket at A gets with `payload` in it.
fn source_of(socket: &UdpSocket, payload: &[u8]) -> std::net::SocketAddr {
    let mut buffer = [0; 2000];
    loop {
        let (count, sender) = socket.recv_from(&mut buffer).unwrap();
        if buffer[..count].ends_with(payload) {
            return sender;
        }
    }
}

#[test]
fn answers_go_on_from_another_address_when_the_one_that_was_addressed_is_gone() {
    let Some(hosts) = hosts() else { return };
    state::add_address(&hosts.b, ETH0, "10.1.0.22/24");
    let files = Files::new();
    let toml = End::B.toml().replace("udp://10.1.0.2:4740", "udp://0.0.0.0:4740");
    let _b = Tunnel::up(&hosts.b, &files, "b", &toml);
    let peer = udp::bind(&hosts.a, (Family::V4.outer(1), PORT).into());
    let echo = udp::Echo::serve(&hosts.b, Family::V4.inner(2));
    let question =
        |payload| packet::udp((Family::V4.inner(1), 5000).into(), echo.address(), payload);

    peer.send_to(&question(b"first"), "10.1.0.22:4740").unwrap();
    assert_eq!(source_of(&peer, b"first"), "10.1.0.22:4740".parse().unwrap());
    state::delete_address(&hosts.b, ETH0, "10.1.0.22/24");
    let to_a = udp::connect(&hosts.b, (Family::V4.inner(1), 9).into());
    to_a.send(b"second").unwrap();
    assert_eq!(source_of(&peer, b"second"), "10.1.0.2:4740".parse().unwrap());
    peer.send_to(&question(b"third"), "10.1.0.2:4740").unwrap();
    assert_eq!(source_of(&peer, b"third"), "10.1.0.2:4740".parse().unwrap());
}
