//! Outer datagrams on a host's Ethernet, each of them judged.
//!
//! A judge sees what really travels only if the Ethernet device does not take super-packets, so it is
//! told to take none. What is expected of each packet between the two ends: it is no fragment, it is no
//! longer than the Ethernet's MTU, and the datagram in it is exactly one IP packet whose checksums are
//! right. Checksums are summed up here in the plainest way, not by the code that is tested.

use std::net::IpAddr;

use lab::topology::ETH0;
use lab::{Capture, Filter, Host};
use wire::ethernet::{self, Frame};
use wire::{icmp, ipv4, ipv6, tcp, udp};

use super::pair::{Family, PORT};
use super::state;

/// The longest packet that the wire carries, in octets.
const MTU: usize = 1500;

/// Lets the Ethernet device of `host` take no super-packets, as many real ones do.
pub(crate) fn refuse_super_packets(host: &Host) {
    state::change(host, ETH0, |socket, eth0| socket.set_gso_max_segments(eth0, 1));
}

/// Looks at every packet on the Ethernet of one host.
#[derive(Debug)]
pub(crate) struct Judge {
    capture: Capture,
    outer: Family,
    datagrams: usize,
    longest: usize,
}

impl Judge {
    /// Judges from here on the datagrams of a TUN tunnel over `outer`.
    pub(crate) fn watch(host: &Host, outer: Family) -> Self {
        let capture = Capture::start(host, ETH0, &Filter::everything()).unwrap();
        Self { capture, outer, datagrams: 0, longest: 0 }
    }

    /// Judges what came so far, so that the capture does not overflow.
    pub(crate) fn look(&mut self) {
        while let Some(packet) = self.capture.take().unwrap() {
            let frame = Frame::parse(&packet.octets).unwrap();
            let datagram = match frame.ethertype() {
                ethernet::IPV4 => datagram_v4(frame.payload()),
                ethernet::IPV6 => datagram_v6(frame.payload()),
                _ => None,
            };
            let Some(datagram) = datagram else { continue };
            let outer = if frame.ethertype() == ethernet::IPV4 { Family::V4 } else { Family::V6 };
            assert_eq!(outer, self.outer, "a datagram of the wrong family");
            assert_complete(datagram);
            self.datagrams += 1;
            self.longest = self.longest.max(frame.payload().len());
        }
    }

    /// Judges what is left; returns how many datagrams there were and the octets of the longest
    /// packet on the wire.
    pub(crate) fn verdict(mut self) -> (usize, usize) {
        self.look();
        assert_eq!(self.capture.tally().unwrap().lost, 0, "not every packet was seen");
        (self.datagrams, self.longest)
    }
}

/// The datagram of the tunnel in an IPv4 packet, if it is one.
fn datagram_v4(packet: &[u8]) -> Option<&[u8]> {
    let packet = ipv4::Packet::parse(packet).unwrap();
    assert!(!packet.is_fragment(), "a fragment on the wire");
    assert!(packet.total_len() <= MTU, "{} octets on the wire", packet.total_len());
    (packet.protocol() == udp::PROTOCOL).then(|| payload(packet.payload()))?
}

/// The datagram of the tunnel in an IPv6 packet, if it is one.
fn datagram_v6(packet: &[u8]) -> Option<&[u8]> {
    let packet = ipv6::Packet::parse(packet).unwrap();
    assert!(packet.fragment().is_none(), "a fragment on the wire");
    assert!(packet.total_len() <= MTU, "{} octets on the wire", packet.total_len());
    (packet.protocol() == udp::PROTOCOL).then(|| payload(packet.payload()))?
}

fn payload(datagram: &[u8]) -> Option<&[u8]> {
    let datagram = udp::Packet::parse(datagram).unwrap();
    (datagram.destination_port() == PORT).then(|| datagram.payload())
}

/// Fails unless `octets` is exactly one IP packet whose checksums are right.
pub(crate) fn assert_complete(octets: &[u8]) {
    match octets.first().map(|first| first >> 4) {
        Some(4) => {
            let packet = ipv4::Packet::parse(octets).unwrap();
            assert_eq!(packet.total_len(), octets.len(), "the length in the header is wrong");
            assert_eq!(sum(&octets[..packet.header_len()]), 0xffff, "wrong header checksum");
            if !packet.is_fragment() {
                let addresses = (packet.source().into(), packet.destination().into());
                assert_checksum(addresses, packet.protocol(), packet.payload());
            }
        }
        Some(6) => {
            let packet = ipv6::Packet::parse(octets).unwrap();
            assert_eq!(packet.total_len(), octets.len(), "the length in the header is wrong");
            if packet.fragment().is_none() {
                let addresses = (packet.source().into(), packet.destination().into());
                assert_checksum(addresses, packet.protocol(), packet.payload());
            }
        }
        _ => panic!("no IP packet in a datagram: {octets:02x?}"),
    }
}

/// Fails unless the checksum of a whole TCP, UDP or ICMP packet is right.
fn assert_checksum(addresses: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) {
    let mut summed = Vec::new();
    if matches!(protocol, tcp::PROTOCOL | udp::PROTOCOL | icmp::PROTOCOL_V6) {
        for address in [addresses.0, addresses.1] {
            match address {
                IpAddr::V4(address) => summed.extend(address.octets()),
                IpAddr::V6(address) => summed.extend(address.octets()),
            }
        }
        summed.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        summed.extend([0, 0, 0, protocol]);
    } else if protocol != icmp::PROTOCOL_V4 {
        return;
    }
    summed.extend(payload);
    assert_eq!(sum(&summed), 0xffff, "wrong checksum of protocol {protocol}");
}

/// The ones' complement sum (RFC 1071), in the plainest way.
fn sum(octets: &[u8]) -> u32 {
    octets.chunks(2).fold(0, |sum, pair| {
        let word = u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    })
}
