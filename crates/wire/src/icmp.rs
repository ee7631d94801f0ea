//! ICMP messages for IPv4 (RFC 792) and IPv6 (RFC 4443), whose headers have the same shape.

use std::fmt;

use crate::checksum::Sum;
use crate::ip::IpAddrs;
use crate::parse_error::{Header, ParseError};

/// The protocol number in IPv4.
pub const PROTOCOL_V4: u8 = 1;
/// The protocol number in IPv6.
pub const PROTOCOL_V6: u8 = 58;
/// Length of type, code, checksum and the type's own word in octets.
pub const HEADER_LEN: usize = 8;

/// Which of the two protocols a message belongs to; their types differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// ICMP in IPv4.
    V4,
    /// ICMPv6.
    V6,
}

/// The meaning of a message's type, as far as it is told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the RFCs")]
#[non_exhaustive]
pub enum Kind {
    EchoRequest,
    EchoReply,
    DestinationUnreachable,
    PacketTooBig,
    TimeExceeded,
    ParameterProblem,
    Redirect,
    RouterSolicitation,
    RouterAdvertisement,
    NeighbourSolicitation,
    NeighbourAdvertisement,
    Other,
}

/// A checked message.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    version: Version,
    fixed: &'a [u8; HEADER_LEN],
    octets: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks that the header is complete.
    ///
    /// # Errors
    ///
    /// [`ParseError::Truncated`].
    pub fn parse(version: Version, octets: &'a [u8]) -> Result<Self, ParseError> {
        let header = match version {
            Version::V4 => Header::Icmp,
            Version::V6 => Header::IcmpV6,
        };
        let (fixed, payload) = octets.split_first_chunk().ok_or(ParseError::Truncated {
            header,
            needs: HEADER_LEN,
            has: octets.len(),
        })?;
        Ok(Self { version, fixed, octets, payload })
    }

    /// The type as a number.
    #[must_use]
    pub fn kind_number(&self) -> u8 {
        self.fixed[0]
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (self.version, self.fixed[0]) {
            (Version::V4, 8) | (Version::V6, 128) => Kind::EchoRequest,
            (Version::V4, 0) | (Version::V6, 129) => Kind::EchoReply,
            (Version::V4, 3) | (Version::V6, 1) => Kind::DestinationUnreachable,
            (Version::V6, 2) => Kind::PacketTooBig,
            (Version::V4, 11) | (Version::V6, 3) => Kind::TimeExceeded,
            (Version::V4, 12) | (Version::V6, 4) => Kind::ParameterProblem,
            (Version::V4, 5) | (Version::V6, 137) => Kind::Redirect,
            (Version::V4, 10) | (Version::V6, 133) => Kind::RouterSolicitation,
            (Version::V4, 9) | (Version::V6, 134) => Kind::RouterAdvertisement,
            (Version::V6, 135) => Kind::NeighbourSolicitation,
            (Version::V6, 136) => Kind::NeighbourAdvertisement,
            _ => Kind::Other,
        }
    }

    /// What refines the type.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.fixed[1]
    }

    /// The identifier of an echo request or reply.
    #[must_use]
    pub fn echo_id(&self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    /// The sequence number of an echo request or reply.
    #[must_use]
    pub fn echo_sequence(&self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }

    /// The MTU of the next hop, where a message carries one: fragmentation needed in IPv4 (RFC 1191),
    /// packet too big in IPv6.
    #[must_use]
    pub fn next_hop_mtu(&self) -> Option<u32> {
        let word = [self.fixed[4], self.fixed[5], self.fixed[6], self.fixed[7]];
        match (self.version, self.fixed[0], self.fixed[1]) {
            (Version::V4, 3, 4) => Some(u32::from_be_bytes(word) & 0xffff),
            (Version::V6, 2, _) => Some(u32::from_be_bytes(word)),
            _ => None,
        }
    }

    /// Whether the message is as it was sent; ICMPv6 includes the addresses in its checksum.
    #[must_use]
    pub fn checksum_is_valid(&self, addrs: IpAddrs) -> bool {
        let mut sum = Sum::new();
        sum.add(self.octets);
        if let (Version::V6, IpAddrs::V6 { src, dst }) = (self.version, addrs) {
            let Ok(len) = u32::try_from(self.octets.len()) else {
                return false;
            };
            sum.add_pseudo_header_v6(src, dst, PROTOCOL_V6, len);
        }
        sum.finish() == 0
    }

    /// What follows the header: echo data, or the start of the packet that an error is about.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// The name in words, in lower case.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EchoRequest => "echo request",
            Self::EchoReply => "echo reply",
            Self::DestinationUnreachable => "destination unreachable",
            Self::PacketTooBig => "packet too big",
            Self::TimeExceeded => "time exceeded",
            Self::ParameterProblem => "parameter problem",
            Self::Redirect => "redirect",
            Self::RouterSolicitation => "router solicitation",
            Self::RouterAdvertisement => "router advertisement",
            Self::NeighbourSolicitation => "neighbour solicitation",
            Self::NeighbourAdvertisement => "neighbour advertisement",
            Self::Other => "message",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_is_read() {
        let octets = [8, 0, 0x6f, 0xf8, 0x12, 0x34, 0, 7, 0x75, 0xcc];
        let packet = Packet::parse(Version::V4, &octets).unwrap();
        assert_eq!((packet.kind(), packet.kind_number(), packet.code()), (Kind::EchoRequest, 8, 0));
        assert_eq!((packet.echo_id(), packet.echo_sequence()), (0x1234, 7));
        assert_eq!(packet.payload(), [0x75, 0xcc]);
        let addrs = IpAddrs::V4 { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into() };
        assert!(packet.checksum_is_valid(addrs));
    }

    #[test]
    fn the_mtu_is_read_where_a_message_carries_one() {
        let needed = [3, 4, 0, 0, 0, 0, 0x05, 0x8c];
        let packet = Packet::parse(Version::V4, &needed).unwrap();
        assert_eq!(
            (packet.kind(), packet.next_hop_mtu()),
            (Kind::DestinationUnreachable, Some(1420))
        );
        let too_big = [2, 0, 0, 0, 0, 0, 0x05, 0x00];
        let packet = Packet::parse(Version::V6, &too_big).unwrap();
        assert_eq!((packet.kind(), packet.next_hop_mtu()), (Kind::PacketTooBig, Some(1280)));
        let packet = Packet::parse(Version::V4, &too_big).unwrap();
        assert_eq!((packet.kind(), packet.next_hop_mtu()), (Kind::Other, None));
    }

    #[test]
    fn a_message_that_ends_within_its_header_says_what_is_missing() {
        let error = |version| Packet::parse(version, &[8, 0, 0]).unwrap_err().to_string();
        assert_eq!(error(Version::V4), "ICMP, truncated: 3 of 8 octets");
        assert_eq!(error(Version::V6), "ICMPv6, truncated: 3 of 8 octets");
    }
}
