//! What an IP header says to who cuts a packet, whatever its version.

use crate::parse_error::ParseError;
use crate::{ipv4, ipv6};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

/// An IP header with its options or extension headers.
pub(super) struct Network {
    pub(super) version: Version,
    pub(super) header_len: usize,
    pub(super) total_len: usize,
    pub(super) protocol: u8,
    pub(super) is_fragment: bool,
}

impl Network {
    pub(super) fn parse(ip: &[u8]) -> Result<Self, ParseError> {
        if ip.first().is_some_and(|first| first >> 4 == 6) {
            let packet = ipv6::Packet::parse(ip)?;
            return Ok(Self {
                version: Version::V6,
                header_len: packet.header_len(),
                total_len: packet.total_len(),
                protocol: packet.protocol(),
                is_fragment: packet.fragment().is_some(),
            });
        }
        let packet = ipv4::Packet::parse(ip)?;
        Ok(Self {
            version: Version::V4,
            header_len: packet.header_len(),
            total_len: packet.total_len(),
            protocol: packet.protocol(),
            is_fragment: packet.is_fragment(),
        })
    }

    /// Whether a transport header stands directly behind it, so that nothing but this header decides
    /// the pseudo-header: no IPv6 extension header does.
    pub(super) fn is_followed_by_transport(&self) -> bool {
        !self.is_fragment && (self.version == Version::V4 || self.header_len == ipv6::HEADER_LEN)
    }
}
