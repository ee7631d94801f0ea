//! Datagrams that no adit would send, from the address of the peer.
//!
//! ```text
//!   host A                            host B
//!   a plain UDP socket .............. adit0 192.0.2.2, fd00:7::2
//!   eth0  10.1.0.1:4740 ------------- eth0  10.1.0.2:4740
//! ```

use std::net::{SocketAddr, UdpSocket};

use rustix::process::Signal;

use crate::rig::pair::{End, Family, PORT, hosts};
use crate::rig::tunnel::{Files, Traffic, Tunnel};
use crate::rig::{Pattern, packet, sys, udp};

const EMPTY: &str = "empty datagram";
const TOO_SHORT: &str = "too short for a header";
const UNKNOWN_VERSION: &str = "neither IPv4 nor IPv6";
const LENGTH_MISMATCH: &str = "length in the header is wrong";

/// Datagrams that are sent before it is asked how many were counted, so that none is lost in between.
const AT_A_TIME: usize = 40;

/// Datagrams of random octets.
const RANDOM: u64 = 2000;

/// The port at B that only good packets may reach.
const INNER_PORT: u16 = 6000;

/// B's tunnel, the socket of its peer, and B's listeners inside.
struct Scene {
    tunnel: Tunnel,
    peer: UdpSocket,
    listeners: [UdpSocket; 2],
    /// Datagrams sent so far.
    sent: u64,
    _files: Files,
    _hosts: lab::TwoHosts,
}

fn scene(device: &'static str) -> Option<Scene> {
    let hosts = hosts()?;
    let files = Files::new();
    let tunnel = Tunnel::up(&hosts.b, &files, "b", &End::B.device(device).toml());
    let peer = udp::bind(&hosts.a, (Family::V4.outer(1), PORT).into());
    hosts.a.run({
        let peer = peer.try_clone().unwrap();
        move || peer.connect(SocketAddr::new(Family::V4.outer(2), PORT)).unwrap()
    });
    let listeners =
        Family::BOTH.map(|inner| udp::bind(&hosts.b, (inner.inner(2), INNER_PORT).into()));
    Some(Scene { tunnel, peer, listeners, sent: 0, _files: files, _hosts: hosts })
}

impl Scene {
    /// Sends `datagrams` and waits until each is counted; returns all counts since the start.
    fn send(&mut self, datagrams: &[Vec<u8>]) -> Traffic {
        for some in datagrams.chunks(AT_A_TIME) {
            for datagram in some {
                self.peer.send(datagram).unwrap();
            }
            self.sent += some.len() as u64;
            self.wait_until_counted();
        }
        self.wait_until_counted()
    }

    /// Waits until every datagram sent so far was either carried or dropped.
    fn wait_until_counted(&self) -> Traffic {
        self.tunnel.wait_for_traffic(|traffic| {
            traffic.from_peers.packets + traffic.from_peers.dropped_in_all() == self.sent
        })
    }

    /// Fails unless a good packet of each family comes out, and nothing has come out before.
    fn assert_only_good_packets_pass(&mut self) {
        let good = Family::BOTH.map(|inner| good(inner, b"good"));
        self.send(&good);
        for listener in &self.listeners {
            let mut buffer = [0; 65_536];
            let count = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"good");
        }
    }
}

/// A packet for one of B's listeners.
fn good(inner: Family, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = ((inner.inner(1), 5000), (inner.inner(2), INNER_PORT));
    packet::udp(source.into(), destination.into(), payload)
}

/// The same, changed.
fn changed(inner: Family, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = good(inner, b"this must not be delivered");
    change(&mut packet);
    packet
}

#[test]
fn what_is_no_whole_packet_is_dropped_and_counted_by_reason() {
    let Some(mut scene) = scene("") else { return };
    let (v4, v6) = (good(Family::V4, b"whole"), good(Family::V6, b"whole"));

    let traffic = scene.send(&[vec![], vec![], vec![]]);
    assert_eq!(traffic.from_peers.dropped(EMPTY), 3);

    let stumps: Vec<_> = (1..20)
        .map(|len| v4[..len].to_vec())
        .chain((1..40).map(|len| v6[..len].to_vec()))
        .collect();
    let traffic = scene.send(&stumps);
    assert_eq!(traffic.from_peers.dropped(TOO_SHORT), 19 + 39);

    let versions: Vec<_> = (0..16_u8)
        .filter(|version| ![4, 6].contains(version))
        .map(|version| [&[version << 4 | 5], &v4[1..]].concat())
        .collect();
    let traffic = scene.send(&versions);
    assert_eq!(traffic.from_peers.dropped(UNKNOWN_VERSION), 14);

    let mut liars = Vec::new();
    for (whole, length_at) in [(&v4, 2), (&v6, 4)] {
        liars.push(whole[..whole.len() - 1].to_vec());
        liars.push([&whole[..], &[0]].concat());
        liars.push([&whole[..], &whole[..]].concat());
        for length in [0_u16, 1, 19, 65_535] {
            let mut liar = whole.clone();
            liar[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
            liars.push(liar);
        }
    }
    // As long as a datagram can be.
    liars.push([&v4[..], &vec![0; udp::MAX_PAYLOAD - v4.len()]].concat());
    liars.push([&v6[..], &vec![0xff; udp::MAX_PAYLOAD - v6.len()]].concat());
    let traffic = scene.send(&liars);
    assert_eq!(traffic.from_peers.dropped(LENGTH_MISMATCH), 2 * 7 + 2, "{traffic:?}");

    assert_eq!(traffic.from_peers.packets, 0, "{traffic:?}");
    scene.assert_only_good_packets_pass();
    let ended = scene.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let last = Traffic::reports(&ended.said).pop().unwrap().from_peers;
    let reasons =
        [EMPTY, TOO_SHORT, UNKNOWN_VERSION, LENGTH_MISMATCH].map(|reason| last.dropped(reason));
    assert_eq!((reasons, last.packets), ([3, 58, 14, 16], 2));
}

#[test]
fn trains_of_rubbish_are_counted_one_by_one() {
    let Some(mut scene) = scene("") else { return };
    sys::set_segment_size(&scene.peer, 1000).unwrap();
    for _ in 0..5 {
        scene.peer.send(&vec![0xff; 60 * 1000 - 500]).unwrap();
        scene.sent += 60;
        scene.wait_until_counted();
    }
    // Good packets between bad ones of the same length get through.
    let length = good(Family::V4, &[7; 100]).len();
    sys::set_segment_size(&scene.peer, i32::try_from(length).unwrap()).unwrap();
    let mut train = Vec::new();
    for number in 0..10 {
        train.extend(good(Family::V4, &[number; 100]));
        train.extend(vec![0xff; length]);
    }
    scene.peer.send(&train).unwrap();
    scene.sent += 20;
    let traffic = scene.wait_until_counted();
    assert_eq!(traffic.from_peers.dropped(UNKNOWN_VERSION), 5 * 60 + 10);
    let mut buffer = [0; 2000];
    for number in 0..10 {
        let count = scene.listeners[0].recv(&mut buffer).unwrap();
        assert_eq!(buffer[..count], [number; 100]);
    }
    sys::set_segment_size(&scene.peer, 0).unwrap();
    scene.assert_only_good_packets_pass();
}

#[test]
fn a_broken_checksum_is_not_repaired_by_joining_packets() {
    let Some(mut scene) = scene("") else { return };
    for (inner, listener) in Family::BOTH.into_iter().zip(scene.listeners.each_ref()) {
        let length = good(inner, &[7; 100]).len();
        sys::set_segment_size(&scene.peer, i32::try_from(length).unwrap()).unwrap();
        let train = (0..20).flat_map(|number| {
            let mut packet = good(inner, &[number; 100]);
            if number % 7 == 3 {
                *packet.last_mut().unwrap() ^= 1;
            }
            packet
        });
        scene.peer.send(&train.collect::<Vec<_>>()).unwrap();
        scene.sent += 20;
        scene.wait_until_counted();
        let mut buffer = [0; 2000];
        for number in (0..20).filter(|number| number % 7 != 3) {
            let count = listener.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..count], [number; 100]);
        }
    }
    sys::set_segment_size(&scene.peer, 0).unwrap();
    scene.assert_only_good_packets_pass();
}

/// Packets of the right length that a host must not deliver to anyone.
fn undeliverable() -> Vec<Vec<u8>> {
    let v4 = |change: fn(&mut Vec<u8>)| {
        changed(Family::V4, |packet| {
            change(packet);
            packet::fix_header_checksum(packet);
        })
    };
    let v6 = |change: fn(&mut Vec<u8>)| changed(Family::V6, change);
    let (a, b) = (Family::V6.inner(1), Family::V6.inner(2));
    vec![
        // Header checksum, UDP checksum, header lengths 0 and 60.
        changed(Family::V4, |packet| packet[10] ^= 1),
        v4(|packet| packet[26] ^= 1),
        v4(|packet| packet[0] = 0x40),
        v4(|packet| packet[0] = 0x4f),
        // The first of several fragments, the last one, and one that ends beyond 65,535.
        v4(|packet| packet[6] = 0x20),
        v4(|packet| packet[7] = 0x07),
        v4(|packet| packet[6..8].copy_from_slice(&[0x1f, 0xff])),
        // From a loopback address, from a multicast one, to somebody else, of no known protocol.
        v4(|packet| packet[12] = 127),
        v4(|packet| packet[12] = 224),
        v4(|packet| packet[19] = 99),
        v4(|packet| packet[9] = 253),
        // A UDP length that lies.
        v4(|packet| packet[24..26].copy_from_slice(&[0xff, 0xff])),
        // The same in IPv6.
        v6(|packet| packet[46] ^= 1),
        v6(|packet| packet[8] = 0xff),
        v6(|packet| packet[39] = 0x99),
        v6(|packet| packet[6] = 253),
        v6(|packet| packet[44..46].copy_from_slice(&[0xff, 0xff])),
        // Extension headers: without end, nested, fragments without others, a jumbo payload.
        packet::ip(a, b, 0, &[0, 255, 0, 0, 0, 0, 0, 0]),
        packet::ip(a, b, 60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(100)),
        packet::ip(a, b, 44, &[17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8]),
        packet::ip(a, b, 44, &[17, 0, 0xff, 0xf8, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8]),
        packet::ip(a, b, 0, &[17, 0, 0xc2, 4, 0, 1, 0, 0]),
        packet::ip(a, b, 43, &[17, 2, 0, 1, 0, 0, 0, 0].repeat(3)),
        // Nothing behind the header.
        packet::ip(a, b, 17, &[]),
        packet::ip(Family::V4.inner(1), Family::V4.inner(2), 6, &[]),
        packet::ip(Family::V4.inner(1), Family::V4.inner(2), 17, &[0; 7]),
    ]
}

#[test]
fn packets_that_only_the_kernel_can_judge_are_left_to_it() {
    for device in ["", "offload = false"] {
        let Some(mut scene) = scene(device) else { return };
        let undeliverable = undeliverable();
        let traffic = scene.send(&undeliverable);
        assert_eq!(scene.sent, undeliverable.len() as u64, "{traffic:?}");
        // All of them twice and together, where joining could go wrong.
        scene.send(&[&undeliverable[..], &undeliverable[..]].concat());
        scene.assert_only_good_packets_pass();
    }
}

#[test]
fn fragments_and_the_longest_packets_pass() {
    let Some(mut scene) = scene("") else { return };
    let payload = Pattern::new(4).octets(1000);
    let whole = good(Family::V4, &payload);
    let fragment = |octets: &[u8], word: u16| {
        let mut packet = packet::ip(Family::V4.inner(1), Family::V4.inner(2), 17, octets);
        packet[4..8].copy_from_slice(&[0, 77, word.to_be_bytes()[0], word.to_be_bytes()[1]]);
        packet::fix_header_checksum(&mut packet);
        packet
    };
    // Out of order: the last one first.
    let traffic =
        scene.send(&[fragment(&whole[20 + 400..], 50), fragment(&whole[20..20 + 400], 0x2000)]);
    assert_eq!(traffic.from_peers.packets, 2, "{traffic:?}");
    let mut buffer = vec![0; 65_536];
    let count = scene.listeners[0].recv(&mut buffer).unwrap();
    assert!(buffer[..count] == payload);

    for (inner, header) in [(Family::V4, 28), (Family::V6, 48)] {
        let payload = Pattern::new(5).octets(udp::MAX_PAYLOAD - header);
        scene.send(&[good(inner, &payload)]);
        let count = scene.listeners[usize::from(inner == Family::V6)].recv(&mut buffer).unwrap();
        assert!(buffer[..count] == payload);
    }
    scene.assert_only_good_packets_pass();
}

#[test]
fn random_octets_end_nothing() {
    let Some(mut scene) = scene("") else { return };
    let mut pattern = Pattern::new(11);
    let datagrams: Vec<_> = (0..RANDOM)
        .map(|number| {
            let length = usize::try_from(pattern.next() % 1400).unwrap();
            let mut octets = pattern.octets(length);
            // Every other one looks like an IP packet at first sight.
            if let Some(first) = octets.first_mut().filter(|_| number % 2 == 0) {
                *first = if number % 4 == 0 { 0x45 } else { 0x60 };
            }
            octets
        })
        .collect();
    let traffic = scene.send(&datagrams);
    assert_eq!(traffic.from_peers.packets + traffic.from_peers.dropped_in_all(), RANDOM);
    assert!(traffic.from_peers.dropped(UNKNOWN_VERSION) > RANDOM / 4, "{traffic:?}");
    scene.assert_only_good_packets_pass();
    assert_eq!(scene.tunnel.end(Signal::TERM).code, Some(0));
}

#[test]
fn frames_without_a_whole_header_are_dropped_and_counted() {
    let Some(mut scene) = scene("mode = \"tap\"") else { return };
    let stumps: Vec<_> = (0..14).map(|len| vec![0xff; len]).collect();
    let traffic = scene.send(&stumps);
    let reasons = [EMPTY, TOO_SHORT].map(|reason| traffic.from_peers.dropped(reason));
    assert_eq!((reasons, traffic.from_peers.packets), ([1, 13], 0), "{traffic:?}");
    let mut pattern = Pattern::new(12);
    let frames: Vec<_> = (0..200)
        .map(|_| {
            let length = usize::try_from(pattern.next() % 1400).unwrap() + 14;
            pattern.octets(length)
        })
        .collect();
    scene.send(&frames);
    assert_eq!(scene.tunnel.end(Signal::TERM).code, Some(0));
}
