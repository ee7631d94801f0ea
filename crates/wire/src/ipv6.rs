//! IPv6 headers and the extension headers between them and the upper layer (RFC 8200).

use std::net::Ipv6Addr;

use crate::parse_error::{Header, ParseError};

/// Length of the fixed header in octets.
pub const HEADER_LEN: usize = 40;
/// Where the payload length stands.
pub const PAYLOAD_LEN_AT: usize = 4;
/// How many extension headers are walked; RFC 8200, section 4.1 orders seven.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// The protocol number of the hop-by-hop options header.
pub const HOP_BY_HOP: u8 = 0;
/// The protocol number of the routing header.
pub const ROUTING: u8 = 43;
/// The protocol number of the fragment header.
pub const FRAGMENT: u8 = 44;
/// The protocol number of the authentication header (RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// The protocol number of the destination options header.
pub const DESTINATION: u8 = 60;

/// A checked packet whose extension headers were walked.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    fixed: &'a [u8; HEADER_LEN],
    extensions: &'a [u8],
    fragment: Option<Fragment>,
    protocol: u8,
    payload: &'a [u8],
}

/// What a fragment header says (RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where the payload belongs in its datagram, in octets.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// What the fragments of one datagram have in common.
    pub id: u32,
}

impl<'a> Packet<'a> {
    /// Checks version and payload length, and walks the extension headers up to the upper layer or
    /// behind a fragment header that is not the datagram's first.
    ///
    /// # Errors
    ///
    /// [`ParseError::Truncated`], `Version`, `TotalLength` and `ExtensionHeaders`.
    pub fn parse(octets: &'a [u8]) -> Result<Self, ParseError> {
        let (fixed, rest) = octets
            .split_first_chunk::<HEADER_LEN>()
            .ok_or_else(|| truncated(octets, HEADER_LEN))?;
        let [first, _, _, _, len_high, len_low, next_header, ..] = *fixed;
        if first >> 4 != 6 {
            return Err(ParseError::Version { header: Header::Ipv6, found: first >> 4 });
        }
        let payload_len = usize::from(u16::from_be_bytes([len_high, len_low]));
        let payload = rest.get(..payload_len).ok_or(ParseError::TotalLength {
            header: Header::Ipv6,
            says: HEADER_LEN + payload_len,
            least: HEADER_LEN,
            most: octets.len(),
        })?;
        let walk = Walk::over(payload, next_header)?;
        let (extensions, payload) = payload.split_at(walk.len);
        Ok(Self { fixed, extensions, fragment: walk.fragment, protocol: walk.protocol, payload })
    }

    /// Octets of the fixed header and all extension headers.
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.extensions.len()
    }

    /// Octets of all headers and payload, as the header says.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.header_len() + self.payload.len()
    }

    /// Six bits of DSCP, two of ECN.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.fixed[0] << 4 | self.fixed[1] >> 4
    }

    /// What the packets of one flow have in common (RFC 6437).
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.fixed[1] & 0x0f, self.fixed[2], self.fixed[3]])
    }

    /// How many routers may still forward the packet.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// The protocol of the payload, behind all extension headers.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// What the fragment header says, if there is one.
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    /// The sender.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        address(self.fixed, 8)
    }

    /// The receiver.
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        address(self.fixed, 24)
    }

    /// The extension headers.
    #[must_use]
    pub fn extensions(&self) -> &'a [u8] {
        self.extensions
    }

    /// What follows all headers, without octets beyond the payload length.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// The address at octet `at` (8 or 24) of a fixed header.
pub(crate) fn address(fixed: &[u8; HEADER_LEN], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&fixed[at..at + 16]);
    octets.into()
}

/// How far the extension headers reach, and what comes behind them.
struct Walk {
    protocol: u8,
    len: usize,
    fragment: Option<Fragment>,
}

impl Walk {
    fn over(payload: &[u8], next_header: u8) -> Result<Self, ParseError> {
        let mut walk = Self { protocol: next_header, len: 0, fragment: None };
        for _ in 0..MAX_EXTENSION_HEADERS {
            if walk.is_over() {
                return Ok(walk);
            }
            walk.step(payload)?;
        }
        if walk.is_over() {
            return Ok(walk);
        }
        Err(ParseError::ExtensionHeaders { limit: MAX_EXTENSION_HEADERS })
    }

    /// Behind a later fragment's header stands the middle of a payload, whatever its protocol.
    fn is_over(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
            || !matches!(
                self.protocol,
                HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
            )
    }

    fn step(&mut self, payload: &[u8]) -> Result<(), ParseError> {
        let rest = &payload[self.len..];
        let cut = |needs: usize| ParseError::Truncated {
            header: Header::Ipv6,
            needs: HEADER_LEN + self.len + needs,
            has: HEADER_LEN + payload.len(),
        };
        let header = rest.first_chunk::<8>().ok_or_else(|| cut(8))?;
        let [next_header, units, offset_high, offset_low, id @ ..] = *header;
        let len = match self.protocol {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(units) + 2) * 4,
            _ => (usize::from(units) + 1) * 8,
        };
        if rest.len() < len {
            return Err(cut(len));
        }
        if self.protocol == FRAGMENT {
            let word = u16::from_be_bytes([offset_high, offset_low]);
            self.fragment = Some(Fragment {
                offset: usize::from(word & 0xfff8),
                more: word & 1 != 0,
                id: u32::from_be_bytes(id),
            });
        }
        self.protocol = next_header;
        self.len += len;
        Ok(())
    }
}

fn truncated(octets: &[u8], needs: usize) -> ParseError {
    ParseError::Truncated { header: Header::Ipv6, needs, has: octets.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut octets = vec![0x6b, 0x8a, 0xbc, 0xde, 0, 0, next_header, 64];
        octets[5] = u8::try_from(payload.len()).unwrap();
        octets.extend([0xfd, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        octets.extend([0xfd, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        octets.extend(payload);
        octets
    }

    #[test]
    fn every_field_of_a_literal_header_is_read() {
        let octets = packet(17, &[1, 2, 3]);
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!(packet.traffic_class(), 0xb8);
        assert_eq!(packet.flow_label(), 0xabcde);
        assert_eq!((packet.header_len(), packet.total_len(), packet.hop_limit()), (40, 43, 64));
        assert_eq!(packet.protocol(), 17);
        assert_eq!(packet.source().to_string(), "fd00:7::1");
        assert_eq!(packet.destination().to_string(), "fd00:7::2");
        assert_eq!(packet.payload(), [1, 2, 3]);
        assert_eq!(packet.fragment(), None);
    }

    #[test]
    fn extension_headers_are_walked_up_to_the_upper_layer() {
        let payload = [
            60, 0, 1, 4, 0, 0, 0, 0, // hop-by-hop
            44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, // destination options, 16 octets
            6, 0, 0, 1, 0, 0, 0, 9, // first fragment
            0xaa,
        ];
        let octets = packet(0, &payload);
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!((packet.protocol(), packet.header_len()), (6, 72));
        assert_eq!(packet.extensions().len(), 32);
        assert_eq!(packet.fragment(), Some(Fragment { offset: 0, more: true, id: 9 }));
        assert_eq!(packet.payload(), [0xaa]);
    }

    #[test]
    fn nothing_behind_a_later_fragments_header_is_taken_for_a_header() {
        let octets = packet(44, &[0, 0, 0, 0x10, 0, 0, 0, 9, 0xff, 0xff]);
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!(packet.fragment(), Some(Fragment { offset: 16, more: false, id: 9 }));
        assert_eq!((packet.protocol(), packet.payload()), (0, &[0xff, 0xff][..]));
    }

    #[test]
    fn a_header_that_lies_is_an_error_with_the_values() {
        let error = |octets: &[u8]| Packet::parse(octets).unwrap_err().to_string();
        let octets = packet(6, &[1, 2]);
        assert_eq!(error(&octets[..39]), "IPv6, truncated: 39 of 40 octets");
        assert_eq!(error(&octets[..41]), "IPv6, total length 42 is not within 40 to 41");
        assert_eq!(error(&[0x45; 40]), "IPv6, version 4");
        let short = packet(0, &[6, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(error(&short), "IPv6, truncated: 48 of 56 octets");
        let endless = packet(0, &[0; 200]);
        assert_eq!(error(&endless), "IPv6, more than 8 extension headers");
    }
}
