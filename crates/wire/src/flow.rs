//! Flows: the packets between two sockets, told apart by their five-tuple.

use crate::ip::IpAddrs;
use crate::{ipv4, ipv6, tcp, udp};

/// What the packets of one flow have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Sender and receiver.
    pub addrs: IpAddrs,
    /// The protocol above IP.
    pub protocol: u8,
    /// The sender's port, 0 where the protocol has none or the packet is a later fragment.
    pub source_port: u16,
    /// The receiver's port, 0 likewise.
    pub destination_port: u16,
}

impl FiveTuple {
    /// The flow of an IP packet; nothing if the packet's lengths lie.
    #[must_use]
    pub fn of(packet: &[u8]) -> Option<Self> {
        if packet.first()? >> 4 == 4 {
            let packet = ipv4::Packet::parse(packet).ok()?;
            let addrs = IpAddrs::V4 { src: packet.source(), dst: packet.destination() };
            Some(Self::new(addrs, packet.protocol(), packet.is_fragment(), packet.payload()))
        } else {
            let packet = ipv6::Packet::parse(packet).ok()?;
            let addrs = IpAddrs::V6 { src: packet.source(), dst: packet.destination() };
            let is_fragment = packet.fragment().is_some();
            Some(Self::new(addrs, packet.protocol(), is_fragment, packet.payload()))
        }
    }

    /// A hash for tables and queues in this process. It is fast and not secret: who chooses ports
    /// chooses collisions, so nothing but speed may depend on it.
    #[must_use]
    pub fn hash(&self) -> u32 {
        let ports = u32::from(self.source_port) << 16 | u32::from(self.destination_port);
        let ports = ports.to_be_bytes();
        match self.addrs {
            IpAddrs::V4 { src, dst } => {
                let [[a, b, c, d], [e, f, g, h]] = [src.octets(), dst.octets()];
                hash_v4([a, b, c, d, e, f, g, h], ports, self.protocol)
            }
            IpAddrs::V6 { src, dst } => hash_v6(&src.octets(), &dst.octets(), ports, self.protocol),
        }
    }

    /// All fragments of a datagram belong together, and only the first has ports: none counts them.
    fn new(addrs: IpAddrs, protocol: u8, is_fragment: bool, payload: &[u8]) -> Self {
        let ports = match payload.first_chunk() {
            Some(ports) if !is_fragment && has_ports(protocol) => *ports,
            _ => [0; 4],
        };
        let [s0, s1, d0, d1] = ports;
        let source_port = u16::from_be_bytes([s0, s1]);
        Self { addrs, protocol, source_port, destination_port: u16::from_be_bytes([d0, d1]) }
    }
}

/// The hash of an IPv4 flow from both addresses, both ports and the protocol as they stand in a packet.
#[inline]
pub(crate) fn hash_v4(addrs: [u8; 8], ports: [u8; 4], protocol: u8) -> u32 {
    mix(u64::from_le_bytes(addrs), tail(ports, protocol))
}

/// The hash of an IPv6 flow, likewise.
#[inline]
pub(crate) fn hash_v6(src: &[u8; 16], dst: &[u8; 16], ports: [u8; 4], protocol: u8) -> u32 {
    let addrs = u128::from_le_bytes(*src).rotate_left(29) ^ u128::from_le_bytes(*dst);
    let (high, low) = (addrs >> 64, addrs & u128::from(u64::MAX));
    let halves = high.wrapping_mul(u128::from(MULTIPLIER)) ^ low;
    #[expect(clippy::cast_possible_truncation, reason = "keeps the well mixed part")]
    let addrs = (halves ^ halves >> 64) as u64;
    mix(addrs, tail(ports, protocol))
}

/// An odd number without pattern: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

fn tail(ports: [u8; 4], protocol: u8) -> u64 {
    u64::from(u32::from_le_bytes(ports)) << 8 | u64::from(protocol)
}

/// One wide multiplication, whose high half depends on every bit.
#[expect(clippy::cast_possible_truncation, reason = "keeps the well mixed part")]
fn mix(addrs: u64, tail: u64) -> u32 {
    let product = u128::from(addrs ^ MULTIPLIER) * u128::from(tail.wrapping_mul(MULTIPLIER) | 1);
    (product >> 64) as u32 ^ (product >> 32) as u32
}

fn has_ports(protocol: u8) -> bool {
    const SCTP: u8 = 132;
    const UDP_LITE: u8 = 136;
    matches!(protocol, tcp::PROTOCOL | udp::PROTOCOL | SCTP | UDP_LITE)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const UDP: [u8; 28] = [
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 1, 0, 3, 0x9c, 0x40, 0x1f, 0x90,
        0, 8, 0, 0,
    ];

    #[test]
    fn the_five_tuple_of_a_udp_packet_is_read() {
        let expected = FiveTuple {
            addrs: IpAddrs::V4 { src: [10, 9, 0, 1].into(), dst: [10, 1, 0, 3].into() },
            protocol: 17,
            source_port: 40_000,
            destination_port: 8080,
        };
        assert_eq!(FiveTuple::of(&UDP), Some(expected));
    }

    #[test]
    fn fragments_of_a_datagram_share_a_flow_without_ports() {
        let (mut first, mut second) = (UDP, UDP);
        first[6] = 0x20;
        second[7] = 1;
        second[20..24].fill(0xee);
        let flow = FiveTuple::of(&first).unwrap();
        assert_eq!((flow.source_port, flow.destination_port), (0, 0));
        assert_eq!(FiveTuple::of(&second), Some(flow));
    }

    #[test]
    fn neighbouring_flows_get_different_hashes() {
        let mut v4 = FiveTuple::of(&UDP).unwrap();
        let mut v6 = v4;
        let (src, dst) = ([0xfd; 16].into(), [0xfe; 16].into());
        v6.addrs = IpAddrs::V6 { src, dst };
        let mut hashes = HashSet::new();
        for port in 0..2000 {
            v4.source_port = port;
            v6.destination_port = port;
            hashes.extend([v4.hash(), v6.hash()]);
        }
        assert!(hashes.len() > 3995, "{} of 4000 hashes differ", hashes.len());
    }

    #[test]
    fn what_is_not_ip_has_no_flow() {
        assert_eq!(FiveTuple::of(&[]), None);
        assert_eq!(FiveTuple::of(&UDP[..27]), None);
    }
}
