//! Super-packets at A, single packets at B, whose kernel verifies every checksum.
//!
//! ```text
//!   host A                                host B
//!   adit0 offload = true ................ adit0 offload = false
//!     |   super-packets of 64 KiB           |   nothing longer than the MTU,
//!     |                                     |   the kernel verifies each checksum
//!   eth0 -------------------------------- eth0
//! ```

use std::time::Duration;

use lab::{Capture, Deadline, Filter, Host};
use wire::{ipv4, ipv6, tcp};

use crate::rig::pair::{End, Family, Pair, hosts};
use crate::rig::state::{assert_no_checksum_errors, write_sysctl};
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::DEVICE;
use crate::rig::{Pattern, soon, sys, udp};

const MTU: usize = 1472;

/// Octets that are transferred each way.
const OCTETS: usize = 8 << 20;

/// The payload of each datagram that UDP segmentation makes, and how many of them.
const SEGMENT: usize = 1200;
const SEGMENTS: usize = 40;

fn one_sided() -> Option<Pair> {
    Pair::with(End::A, End::B.device("offload = false"))
}

/// The longest packet that a device hands to its reader, and the longest that is written to it,
/// until the returned function is called.
fn longest_packets(host: &Host) -> impl FnOnce() -> (usize, usize) {
    let mut capture = Capture::start(host, DEVICE, &Filter::everything()).unwrap();
    let (mut read, mut written) = (0, 0);
    move || {
        while let Some(packet) = capture.take().unwrap() {
            let longest = if packet.outgoing { &mut read } else { &mut written };
            *longest = packet.octets.len().max(*longest);
        }
        (read, written)
    }
}

#[test]
fn tcp_in_super_packets_arrives_whole_with_right_checksums() {
    let Some(pair) = one_sided() else { return };
    let (a, b) = (&pair.a.host, &pair.b.host);
    for inner in Family::BOTH {
        let at_a = longest_packets(a);
        let at_b = longest_packets(b);
        assert_transfers(a, b, inner.inner(2), OCTETS);
        let (read, written) = at_a();
        assert!(read > 2 * MTU, "A's device made no super-packets: {read}");
        assert!(written > 2 * MTU, "A's device got no super-packets: {written}");
        let (read, written) = at_b();
        assert!(read <= MTU && written <= MTU, "B's device has super-packets: {read} {written}");
    }
    assert_no_checksum_errors(a);
    assert_no_checksum_errors(b);
}

#[test]
fn tcp_with_offload_at_both_ends_arrives_whole() {
    let Some(pair) = Pair::up() else { return };
    let (a, b) = (&pair.a.host, &pair.b.host);
    for inner in Family::BOTH {
        assert_transfers(a, b, inner.inner(2), OCTETS);
    }
    assert_no_checksum_errors(a);
    assert_no_checksum_errors(b);
}

#[test]
fn tcp_without_offload_at_either_end_arrives_whole() {
    let ends = [End::A, End::B].map(|end| end.device("offload = false"));
    let Some(pair) = Pair::with(ends[0], ends[1]) else { return };
    let (a, b) = (&pair.a.host, &pair.b.host);
    for inner in Family::BOTH {
        assert_transfers(a, b, inner.inner(2), OCTETS / 2);
    }
    assert_no_checksum_errors(a);
    assert_no_checksum_errors(b);
}

#[test]
fn tcp_with_ecn_arrives_whole_with_right_checksums() {
    let Some(hosts) = hosts() else { return };
    for host in hosts.hosts() {
        write_sysctl(host, "net.ipv4.tcp_ecn", "1");
    }
    let pair = Pair::between(hosts, End::A, End::B.device("offload = false")).unwrap();
    let (a, b) = (&pair.a.host, &pair.b.host);
    for inner in Family::BOTH {
        let mut capture = Capture::start(b, DEVICE, &Filter::everything()).unwrap();
        assert_transfers(a, b, inner.inner(2), OCTETS);
        // Without packets that say "ECN-capable" (RFC 3168) this test would be about nothing.
        let marked = capture.find(soon(), |packet| {
            (ecn_capable_data(&packet.octets) && !packet.outgoing).then_some(())
        });
        marked.unwrap();
    }
    assert_no_checksum_errors(a);
    assert_no_checksum_errors(b);
}

/// Whether this is a TCP segment with data whose ECN field is not zero.
fn ecn_capable_data(packet: &[u8]) -> bool {
    let (class, payload) = match packet[0] >> 4 {
        4 => {
            let packet = ipv4::Packet::parse(packet).unwrap();
            (packet.traffic_class(), packet.payload())
        }
        _ => {
            let packet = ipv6::Packet::parse(packet).unwrap();
            (packet.traffic_class(), packet.payload())
        }
    };
    let has_data = tcp::Packet::parse(payload).is_ok_and(|segment| !segment.payload().is_empty());
    class & 0b11 != 0 && has_data
}

/// Sends trains of datagrams by `UDP_SEGMENT`; each datagram arrives, alone and in order.
fn assert_trains_arrive(from: &Host, to: &Host, address: std::net::IpAddr) {
    let receiver = udp::bind(to, (address, 0).into());
    let sender = udp::connect(from, receiver.local_addr().unwrap());
    sys::set_segment_size(&sender, i32::try_from(SEGMENT).unwrap()).unwrap();
    let mut buffer = vec![0; 65_536];
    for train in 0..20 {
        // The last datagram is shorter than the others, and of odd length.
        let octets = Pattern::new(train).octets(SEGMENT * SEGMENTS - 77);
        sender.send(&octets).unwrap();
        for expected in octets.chunks(SEGMENT) {
            let count = receiver.recv(&mut buffer).unwrap();
            assert!(buffer[..count] == *expected, "wrong datagram of {count} octets");
        }
    }
    // Nothing comes twice.
    let more = Deadline::after(Duration::from_millis(20))
        .wait_readable(&[std::os::fd::AsFd::as_fd(&receiver)]);
    assert!(more.is_err(), "more datagrams arrived than were sent");
}

#[test]
fn udp_super_packets_arrive_as_single_datagrams_with_right_checksums() {
    let Some(pair) = one_sided() else { return };
    let (a, b) = (&pair.a.host, &pair.b.host);
    for inner in Family::BOTH {
        let at_a = longest_packets(a);
        assert_trains_arrive(a, b, inner.inner(2));
        assert_trains_arrive(b, a, inner.inner(1));
        let (read, _) = at_a();
        assert!(read > 2 * MTU, "A's device made no super-packets: {read}");
    }
    assert_no_checksum_errors(a);
    assert_no_checksum_errors(b);
}
