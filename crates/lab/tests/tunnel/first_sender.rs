//! A peer without endpoint is the first sender, for good; everybody else is a stranger.
//!
//! ```text
//!   host A                 host B                        host C
//!   adit0 192.0.2.1 ...... adit0 192.0.2.2               a plain UDP socket
//!   eth0  10.1.0.1         eth0  10.1.0.2, 10.1.0.22     eth0 10.1.0.3
//!    |    fd01::1           |    fd01::2, fd01::22        |
//!  --+----------------------+-----------------------------+-- lan
//! ```

use std::net::{IpAddr, SocketAddr, UdpSocket};

use lab::topology::ETH0;
use lab::{Capture, Filter, ThreeHosts};
use rustix::process::Signal;

use crate::rig::pair::{Family, PORT};
use crate::rig::ping::Pinger;
use crate::rig::tunnel::{DEVICE, Files, Traffic, Tunnel, runnable};
use crate::rig::{packet, soon, state, udp};

/// B listens on every address and does not know where its peer is.
const B: &str = r#"
device.name = "adit0"
device.addresses = ["192.0.2.2/24", "fd00:7::2/64"]
local.security = "none"
local.listen = ["udp://0.0.0.0:4740", "udp://[::]:4740"]
[[peer]]
name = "somebody"
"#;

const STRANGER: &str = "from a stranger";
const NO_ENDPOINT: &str = "peer without endpoint";

/// The hosts, of which B has a second address of each family, and B's tunnel.
struct Scene {
    b_tunnel: Tunnel,
    hosts: ThreeHosts,
    files: Files,
}

fn scene() -> Option<Scene> {
    if !runnable() {
        return None;
    }
    let hosts = ThreeHosts::build().unwrap();
    state::add_address(&hosts.b, ETH0, "10.1.0.22/24");
    state::add_address(&hosts.b, ETH0, "fd01::22/64");
    let files = Files::new();
    let b_tunnel = Tunnel::up(&hosts.b, &files, "b", B);
    Some(Scene { b_tunnel, hosts, files })
}

impl Scene {
    /// A's tunnel to `b`, one of B's addresses.
    fn a_tunnel(&self, b: &str) -> Tunnel {
        let toml = format!(
            r#"
device.name = "adit0"
device.addresses = ["192.0.2.1/24", "fd00:7::1/64"]
local.security = "none"
local.listen = ["udp://0.0.0.0:4740", "udp://[::]:4740"]
[[peer]]
name = "b"
endpoints = ["udp://{b}"]
"#
        );
        Tunnel::up(&self.hosts.a, &self.files, "a", &toml)
    }

    /// C's socket on the port that a peer would have.
    fn c_socket(&self) -> UdpSocket {
        udp::bind(&self.hosts.c, (Family::V4.outer(3), PORT).into())
    }
}

/// An inner packet for B's port 6000, as A would send it.
fn forged(family: Family, payload: &[u8]) -> Vec<u8> {
    packet::udp((family.inner(1), 5000).into(), (family.inner(2), 6000).into(), payload)
}

#[test]
fn the_first_sender_becomes_the_peer_and_others_are_strangers() {
    let Some(mut scene) = scene() else { return };
    let listener = udp::bind(&scene.hosts.b, (Family::V4.inner(2), 6000).into());
    let _a_tunnel = scene.a_tunnel("10.1.0.2:4740");
    Pinger::new(&scene.hosts.a, Family::V4.inner(2)).assert_answers(56);
    scene.b_tunnel.wait_for("peer \"somebody\" is at 10.1.0.1:4740: it sent first");

    let c_socket = scene.c_socket();
    let before = scene.b_tunnel.traffic().from_peers;
    for target in ["10.1.0.2:4740", "10.1.0.22:4740"] {
        c_socket.send_to(&forged(Family::V4, b"from a stranger"), target).unwrap();
    }
    let after = scene.b_tunnel.wait_for_traffic(|traffic| {
        traffic.from_peers.dropped(STRANGER) == before.dropped(STRANGER) + 2
    });
    assert_eq!(after.to_peers.dropped_in_all(), 0, "{after:?}");

    // What comes out first is A's, so nothing of C's has come out before.
    let to_b = udp::connect(&scene.hosts.a, listener.local_addr().unwrap());
    to_b.send(b"from the peer").unwrap();
    let mut buffer = [0; 100];
    let count = listener.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"from the peer");
    assert_eq!(scene.b_tunnel.times_said("sent first"), 1);

    // The end comes with a report of the same counts.
    let ended = scene.b_tunnel.end(Signal::TERM);
    let last = Traffic::reports(&ended.said).pop().unwrap();
    assert_eq!(last.from_peers.dropped(STRANGER), before.dropped(STRANGER) + 2);
}

#[test]
fn before_the_first_sender_packets_have_nowhere_to_go_and_are_counted() {
    let Some(scene) = scene() else { return };
    let said = scene.b_tunnel.said();
    assert!(said.contains("peer \"somebody\" has no endpoint: it will be the first sender"));
    let to_a = udp::connect(&scene.hosts.b, (Family::V4.inner(1), 9).into());
    for _ in 0..5 {
        to_a.send(b"to nowhere").unwrap();
    }
    let traffic =
        scene.b_tunnel.wait_for_traffic(|traffic| traffic.to_peers.dropped(NO_ENDPOINT) >= 5);
    assert_eq!(traffic.to_peers.packets, 0);
}

#[test]
fn a_configured_endpoint_leaves_no_room_for_a_first_sender() {
    let Some(scene) = scene() else { return };
    let a_tunnel = scene.a_tunnel("10.1.0.2:4740");
    let c_socket = scene.c_socket();
    c_socket.send_to(&forged(Family::V4, b"me first"), "10.1.0.1:4740").unwrap();
    a_tunnel.wait_for_traffic(|traffic| traffic.from_peers.dropped(STRANGER) == 1);
    // The same host from another port is a stranger, too.
    let other_port = udp::bind(&scene.hosts.b, (Family::V4.outer(2), 4741).into());
    other_port.send_to(&forged(Family::V4, b"me first"), "10.1.0.1:4740").unwrap();
    a_tunnel.wait_for_traffic(|traffic| traffic.from_peers.dropped(STRANGER) == 2);
    Pinger::new(&scene.hosts.a, Family::V4.inner(2)).assert_answers(56);
    assert_eq!(a_tunnel.times_said("sent first"), 0);
}

/// B answers from the address that A addressed, though the kernel would choose the other one.
fn assert_answers_leave_from(b: IpAddr) {
    let Some(scene) = scene() else { return };
    let mut on_wire = Capture::start(&scene.hosts.a, ETH0, &Filter::everything()).unwrap();
    let _a_tunnel = scene.a_tunnel(&SocketAddr::new(b, PORT).to_string());
    for inner in Family::BOTH {
        Pinger::new(&scene.hosts.a, inner.inner(2)).assert_answers(56);
        Pinger::new(&scene.hosts.b, inner.inner(1)).assert_answers(56);
    }
    // The first sender was asked and answered before the pings ended.
    let mut datagrams = 0;
    while let Some(packet) = on_wire.take().unwrap() {
        let is_ours = |datagram: &[u8]| {
            wire::udp::Packet::parse(datagram).unwrap().destination_port() == PORT
        };
        let source = match u16::from_be_bytes([packet.octets[12], packet.octets[13]]) {
            wire::ethernet::IPV4 => wire::ipv4::Packet::parse(&packet.octets[14..])
                .ok()
                .filter(|outer| outer.protocol() == 17 && is_ours(outer.payload()))
                .map(|outer| IpAddr::from(outer.source())),
            wire::ethernet::IPV6 => wire::ipv6::Packet::parse(&packet.octets[14..])
                .ok()
                .filter(|outer| outer.protocol() == 17 && is_ours(outer.payload()))
                .map(|outer| IpAddr::from(outer.source())),
            _ => None,
        };
        let Some(source) = source.filter(|_| !packet.outgoing) else { continue };
        assert_eq!(source, b);
        datagrams += 1;
    }
    assert!(datagrams >= 4, "{datagrams}");
}

#[test]
fn answers_leave_from_the_ipv4_address_that_was_addressed() {
    assert_answers_leave_from("10.1.0.2".parse().unwrap());
    assert_answers_leave_from("10.1.0.22".parse().unwrap());
}

#[test]
fn answers_leave_from_the_ipv6_address_that_was_addressed() {
    assert_answers_leave_from("fd01::2".parse().unwrap());
    assert_answers_leave_from("fd01::22".parse().unwrap());
}

#[test]
fn the_way_of_the_first_sender_decides_the_mtu() {
    let Some(mut scene) = scene() else { return };
    let mtu = || state::link(&scene.hosts.b, DEVICE).unwrap().mtu;
    assert_eq!(mtu(), 1452, "the sender may come over IPv6");
    let _a_tunnel = scene.a_tunnel("10.1.0.2:4740");
    Pinger::new(&scene.hosts.a, Family::V4.inner(2)).assert_answers(56);
    scene.b_tunnel.wait_for("sent first");
    soon().wait_until(|| (mtu() == 1472).then_some(())).unwrap();
}

#[test]
fn a_first_sender_does_not_switch_on_a_device_that_was_switched_off() {
    let Some(mut scene) = scene() else { return };
    let device = || state::link(&scene.hosts.b, DEVICE).unwrap();
    state::set_up(&scene.hosts.b, DEVICE, false);
    scene.b_tunnel.wait_for("device adit0 is down");
    let a_tunnel = scene.a_tunnel("10.1.0.2:4740");
    let to_b = udp::connect(&scene.hosts.a, (Family::V4.inner(2), 9).into());
    to_b.send(b"to a device that is off").unwrap();
    scene.b_tunnel.wait_for("sent first");
    // The report comes after what was to be done about the sender.
    scene.b_tunnel.wait_for_traffic(|traffic| traffic.from_peers.dropped("device down") > 0);
    assert_eq!((device().up, device().mtu), (false, 1452));
    state::set_up(&scene.hosts.b, DEVICE, true);
    soon().wait_until(|| (device().mtu == 1472).then_some(())).unwrap();
    Pinger::new(&scene.hosts.a, Family::V4.inner(2)).wait_for_answer();
    drop(a_tunnel);
}
