//! Several peers on one device: each has its own inner addresses.
//!
//! ```text
//!   host A                     host B               host C
//!   adit0 192.0.2.1 .......... adit0 192.0.2.2
//!     |  ........................................... adit0 192.0.2.3, or a plain UDP socket
//!   eth0  10.1.0.1             eth0  10.1.0.2       eth0  10.1.0.3
//!    |                          |                    |
//!  --+--------------------------+--------------------+-- lan
//! ```
//!
//! B owns 192.0.2.2, fd00:7::2 and 203.0.113.0/24, of which 203.0.113.128/25 is C's, with
//! 192.0.2.3 and fd00:7::3.

use lab::{Capture, Filter, ThreeHosts};

use crate::rig::pair::{End, Family, PORT};
use crate::rig::ping::{Pinger, assert_answers};
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::{DEVICE, Files, Tunnel, runnable};
use crate::rig::{packet, state, udp};

const A: &str = r#"
device.name = "adit0"
device.addresses = ["192.0.2.1/24", "fd00:7::1/64"]
local.security = "none"
local.listen = ["udp://10.1.0.1:4740"]
network.forward = true
[[peer]]
name = "b"
endpoints = ["udp://10.1.0.2:4740"]
allowed-ips = ["192.0.2.2/32", "fd00:7::2/128", "203.0.113.0/24"]
[[peer]]
name = "c"
endpoints = ["udp://10.1.0.3:4740"]
allowed-ips = ["192.0.2.3/32", "fd00:7::3/128", "203.0.113.128/25"]
"#;

const C: &str = r#"
device.name = "adit0"
device.addresses = ["192.0.2.3/24", "fd00:7::3/64"]
local.security = "none"
local.listen = ["udp://10.1.0.3:4740"]
[[peer]]
name = "a"
endpoints = ["udp://10.1.0.1:4740"]
"#;

const NOT_ALLOWED: &str = "source not allowed for the peer";
const NO_PEER: &str = "no peer for the destination";

/// A's and B's tunnels, which end before the hosts.
struct Scene {
    a: Tunnel,
    _b: Tunnel,
    files: Files,
    hosts: ThreeHosts,
}

fn scene() -> Option<Scene> {
    if !runnable() {
        return None;
    }
    let hosts = ThreeHosts::build().unwrap();
    let files = Files::new();
    let a = Tunnel::up(&hosts.a, &files, "a", A);
    let b = Tunnel::up(&hosts.b, &files, "b", &End::B.toml());
    Some(Scene { a, _b: b, files, hosts })
}

#[test]
fn packets_go_to_the_peer_that_owns_their_destination() {
    let Some(scene) = scene() else { return };
    let ThreeHosts { a, b, c, .. } = &scene.hosts;
    let _c = Tunnel::up(c, &scene.files, "c", C);
    for inner in Family::BOTH {
        assert_answers(a, inner.inner(2));
        assert_answers(a, inner.inner(3));
        assert_transfers(a, b, inner.inner(2), 1 << 20);
        assert_transfers(a, c, inner.inner(3), 1 << 20);
    }
    // The longest prefix wins.
    state::add_address(b, DEVICE, "203.0.113.127/32");
    state::add_address(c, DEVICE, "203.0.113.128/32");
    assert_answers(a, "203.0.113.127".parse().unwrap());
    assert_answers(a, "203.0.113.128".parse().unwrap());
}

#[test]
fn peers_reach_each_other_through_a_host_that_forwards() {
    let Some(scene) = scene() else { return };
    let ThreeHosts { b, c, .. } = &scene.hosts;
    let _c = Tunnel::up(c, &scene.files, "c", C);
    for inner in Family::BOTH {
        assert_answers(b, inner.inner(3));
        assert_answers(c, inner.inner(2));
        assert_transfers(b, c, inner.inner(3), 1 << 20);
    }
}

#[test]
fn a_destination_that_nobody_owns_is_counted() {
    let Some(scene) = scene() else { return };
    for inner in Family::BOTH {
        // The kernel sends multicast listener reports (RFC 3810) into the device, to nobody as well.
        let before = scene.a.traffic().to_peers;
        let client = udp::connect(&scene.hosts.a, (inner.inner(77), 9).into());
        for _ in 0..100 {
            client.send(b"to nobody").unwrap();
        }
        let after = scene.a.wait_for_traffic(|traffic| {
            traffic.to_peers.dropped(NO_PEER) >= before.dropped(NO_PEER) + 100
        });
        assert_eq!(after.to_peers.packets, before.packets);
    }
}

#[test]
fn an_inner_source_that_is_not_the_senders_is_dropped_and_counted() {
    let Some(scene) = scene() else { return };
    let ThreeHosts { a, c, .. } = &scene.hosts;
    let c_socket = udp::bind(c, (Family::V4.outer(3), PORT).into());
    let mut at_a = Capture::start(a, DEVICE, &Filter::everything()).unwrap();
    let mut refused = 0;
    for inner in Family::BOTH {
        let listener = udp::bind(a, (inner.inner(1), 6000).into());
        let send_as = |number, payload: &[u8]| {
            let source = (inner.inner(number), 5000).into();
            let inner_packet = packet::udp(source, (inner.inner(1), 6000).into(), payload);
            c_socket.send_to(&inner_packet, "10.1.0.1:4740").unwrap();
        };
        // B's, A's own, nobody's.
        for forged in [2, 1, 99] {
            send_as(forged, b"forged");
            refused += 1;
        }
        scene.a.wait_for_traffic(|traffic| traffic.from_peers.dropped(NOT_ALLOWED) == refused);
        send_as(3, b"genuine");
        let mut buffer = [0; 100];
        let (count, sender) = listener.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], sender.ip()), (&b"genuine"[..], inner.inner(3)));
    }
    // Not even the kernel has seen a forged packet.
    let mut genuine = 0;
    while let Some(packet) = at_a.take().unwrap() {
        assert!(!packet.octets.ends_with(b"forged"), "{packet:02x?}");
        genuine += usize::from(packet.octets.ends_with(b"genuine"));
    }
    assert_eq!(genuine, 2);
    // Nobody else suffers.
    Pinger::new(a, Family::V4.inner(2)).assert_answers(56);
}
