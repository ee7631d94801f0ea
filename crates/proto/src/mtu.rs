//! How large packets may be, at which layer.
//!
//! - [`OuterMtu`]: what the network below carries in one piece, outer IP header included.
//! - [`InnerMtu`]: the MTU of the TUN or TAP device, which is an IP packet for both (a TAP device's
//!   MTU does not count the Ethernet header).
//!
//! Between them stand the outer IP and UDP headers, what a session adds to a message and, for frames, the Ethernet header with one
//! VLAN tag. An inner packet of at most the inner MTU then travels in one outer packet, so that nothing
//! is fragmented outside.

use std::fmt;
use std::net::IpAddr;

use wire::message::DATA_OVERHEAD;
use wire::{ethernet, ipv4, ipv6, udp};

/// The most octets that an inner packet can have: the total length field of IPv4 (RFC 791, section 3.1).
const LARGEST_PACKET: u32 = 65_535;

/// Octets before a frame in a message ([`wire::frame::ETHERNET`]).
const FRAME_TYPE: usize = 1;

/// What a datagram holds: an IP packet or an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// An IP packet of a TUN device.
    Packet,
    /// An Ethernet frame of a TAP device.
    Frame,
}

/// How a datagram holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// As it is.
    Plain,
    /// Sealed in a message: a frame has its type before it.
    Sealed,
}

/// The largest IP packet, in octets, that the network below carries unfragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OuterMtu(pub u32);

impl OuterMtu {
    /// The largest inner packet that fits into one datagram to `remote`; at least 68 (RFC 791).
    pub fn inner(self, remote: IpAddr, content: Content, encapsulation: Encapsulation) -> InnerMtu {
        let ip = if remote.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let frame = match content {
            Content::Packet => 0,
            Content::Frame => ethernet::HEADER_LEN + ethernet::TAG_LEN,
        };
        let message = match (encapsulation, content) {
            (Encapsulation::Plain, _) => 0,
            (Encapsulation::Sealed, Content::Packet) => DATA_OVERHEAD,
            (Encapsulation::Sealed, Content::Frame) => DATA_OVERHEAD + FRAME_TYPE,
        };
        let headers = ip + udp::HEADER_LEN + message + frame;
        let headers = u32::try_from(headers).unwrap_or(u32::MAX);
        let inner = self.0.saturating_sub(headers);
        InnerMtu(inner.clamp(InnerMtu::SMALLEST.0, LARGEST_PACKET - headers))
    }
}

/// The MTU of the tunnel's device, in octets of IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InnerMtu(pub u32);

impl InnerMtu {
    /// What every IPv4 host must be able to forward (RFC 791, section 3.2).
    pub const SMALLEST: Self = Self(68);
    /// What IPv6 needs (RFC 8200, section 5).
    pub const SMALLEST_IPV6: Self = Self(1280);
    /// The longest IP packet.
    pub const LARGEST: Self = Self(LARGEST_PACKET);
}

impl fmt::Display for InnerMtu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for OuterMtu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::Encapsulation::{Plain, Sealed};
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn headers_are_taken_off() {
        assert_eq!(OuterMtu(1500).inner(V4, Content::Packet, Plain), InnerMtu(1472));
        assert_eq!(OuterMtu(1500).inner(V6, Content::Packet, Plain), InnerMtu(1452));
        assert_eq!(OuterMtu(1500).inner(V4, Content::Frame, Plain), InnerMtu(1454));
        assert_eq!(OuterMtu(9000).inner(V6, Content::Frame, Plain), InnerMtu(8934));
    }

    #[test]
    fn a_session_takes_32_octets_and_a_frame_in_it_one_more() {
        assert_eq!(OuterMtu(1500).inner(V4, Content::Packet, Sealed), InnerMtu(1440));
        assert_eq!(OuterMtu(1500).inner(V6, Content::Packet, Sealed), InnerMtu(1420));
        assert_eq!(OuterMtu(1500).inner(V4, Content::Frame, Sealed), InnerMtu(1421));
    }

    #[test]
    fn loopback_is_larger_than_a_datagram() {
        assert_eq!(OuterMtu(65_536).inner(V4, Content::Packet, Plain), InnerMtu(65_507));
    }

    #[test]
    fn a_tiny_network_still_has_the_smallest_mtu() {
        assert_eq!(OuterMtu(20).inner(V4, Content::Packet, Plain), InnerMtu::SMALLEST);
    }
}
