//! IPv4 headers (RFC 791).

use std::net::Ipv4Addr;

use crate::checksum;
use crate::parse_error::{Header, ParseError};

/// Length of a header without options in octets.
pub const HEADER_LEN: usize = 20;
/// Length of the longest header in octets.
pub const MAX_HEADER_LEN: usize = 60;
/// Where the total length stands.
pub const TOTAL_LEN_AT: usize = 2;
/// Where the identification stands.
pub const ID_AT: usize = 4;
/// Where the header checksum stands.
pub const CHECKSUM_AT: usize = 10;

/// The flag that forbids routers to fragment, in the word at octet 6.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The flag of every fragment but the last, in the word at octet 6.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The part of the word at octet 6 that is the fragment's offset in units of 8 octets.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A checked packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    fixed: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks version, header length and total length; the checksum is left to [`Self::checksum_is_valid`].
    ///
    /// # Errors
    ///
    /// [`ParseError::Truncated`], `Version`, `HeaderLength` and `TotalLength`.
    pub fn parse(octets: &'a [u8]) -> Result<Self, ParseError> {
        let fixed: &[u8; HEADER_LEN] =
            octets.first_chunk().ok_or_else(|| truncated(octets, HEADER_LEN))?;
        let [version_and_length, _, total_high, total_low, ..] = *fixed;
        if version_and_length >> 4 != 4 {
            let found = version_and_length >> 4;
            return Err(ParseError::Version { header: Header::Ipv4, found });
        }
        let header_len = usize::from(version_and_length & 0x0f) * 4;
        if header_len < HEADER_LEN {
            let (says, least) = (header_len, HEADER_LEN);
            return Err(ParseError::HeaderLength { header: Header::Ipv4, says, least });
        }
        let options =
            octets.get(HEADER_LEN..header_len).ok_or_else(|| truncated(octets, header_len))?;
        let says = usize::from(u16::from_be_bytes([total_high, total_low]));
        let payload = octets.get(header_len..says).ok_or(ParseError::TotalLength {
            header: Header::Ipv4,
            says,
            least: header_len,
            most: octets.len(),
        })?;
        Ok(Self { fixed, options, payload })
    }

    /// Octets of the header with options.
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Octets of header and payload, as the header says.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.header_len() + self.payload.len()
    }

    /// The former type of service: six bits of DSCP, two of ECN (RFC 2474, RFC 3168).
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.fixed[1]
    }

    /// What the fragments of one datagram have in common.
    #[must_use]
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    /// Whether routers must not fragment.
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.fragment_word() & DONT_FRAGMENT != 0
    }

    /// Whether this is a part of a datagram.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.fragment_word() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// Where the payload belongs in its datagram, in octets.
    #[must_use]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.fragment_word() & FRAGMENT_OFFSET) * 8
    }

    /// How many routers may still forward the packet.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// The protocol of the payload (IANA protocol numbers).
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// Whether the header is as it was sent.
    #[must_use]
    pub fn checksum_is_valid(&self) -> bool {
        let mut sum = checksum::Sum::new();
        sum.add(self.fixed);
        sum.add(self.options);
        sum.finish() == 0
    }

    /// The sender.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The receiver.
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The options with their padding.
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// What follows the header, without octets beyond the total length.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    fn fragment_word(&self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }
}

/// Writes the total length and a checksum that fits into a header that is complete otherwise.
pub fn set_total_len(fixed: &mut [u8; HEADER_LEN], options: &[u8], total_len: u16) {
    [fixed[2], fixed[3]] = total_len.to_be_bytes();
    [fixed[10], fixed[11]] = [0, 0];
    let mut sum = checksum::Sum::new();
    sum.add(fixed);
    sum.add(options);
    [fixed[10], fixed[11]] = sum.finish().to_be_bytes();
}

fn truncated(octets: &[u8], needs: usize) -> ParseError {
    ParseError::Truncated { header: Header::Ipv4, needs, has: octets.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The well-known example of a checksum: 0xb861.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    fn packet() -> Vec<u8> {
        let mut octets = HEADER.to_vec();
        octets.resize(0x73, 7);
        octets
    }

    #[test]
    fn every_field_of_a_literal_header_is_read() {
        let mut octets = packet();
        octets.extend([0; 6]);
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!(packet.header_len(), 20);
        assert_eq!(packet.total_len(), 0x73);
        assert_eq!(packet.payload(), [7; 0x73 - 20]);
        assert_eq!((packet.traffic_class(), packet.id(), packet.ttl()), (0, 0, 64));
        assert!(packet.dont_fragment() && !packet.is_fragment());
        assert_eq!(packet.protocol(), 17);
        assert_eq!(packet.source(), Ipv4Addr::new(192, 168, 0, 1));
        assert_eq!(packet.destination(), Ipv4Addr::new(192, 168, 0, 199));
        assert!(packet.checksum_is_valid());
    }

    #[test]
    fn options_and_fragments_are_read() {
        let octets = [
            0x46, 0, 0, 25, 0x12, 0x34, 0x20, 0x02, 9, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x94, 4, 0,
            0, 0xaa,
        ];
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!(packet.options(), [0x94, 4, 0, 0]);
        assert_eq!(packet.payload(), [0xaa]);
        assert_eq!((packet.id(), packet.fragment_offset()), (0x1234, 16));
        assert!(packet.is_fragment() && !packet.dont_fragment() && !packet.checksum_is_valid());
    }

    #[test]
    fn a_header_that_lies_is_an_error_with_the_values() {
        let parse = |change: fn(&mut Vec<u8>)| {
            let mut octets = packet();
            change(&mut octets);
            Packet::parse(&octets).unwrap_err().to_string()
        };
        assert_eq!(parse(|o| o.truncate(19)), "IPv4, truncated: 19 of 20 octets");
        assert_eq!(parse(|o| o[0] = 0x65), "IPv4, version 6");
        assert_eq!(parse(|o| o[0] = 0x44), "IPv4, header length 16 is below 20");
        assert_eq!(
            parse(|o| {
                o[0] = 0x4f;
                o.truncate(59);
            }),
            "IPv4, truncated: 59 of 60 octets"
        );
        assert_eq!(parse(|o| o[3] = 19), "IPv4, total length 19 is not within 20 to 115");
        assert_eq!(parse(|o| o[2] = 1), "IPv4, total length 371 is not within 20 to 115");
    }

    #[test]
    fn a_new_total_length_brings_its_checksum() {
        let mut header = HEADER;
        header[10] = 0xee;
        set_total_len(&mut header, &[], 0x74);
        assert_eq!(header[2..4], [0, 0x74]);
        assert_eq!(header[10..12], [0xb8, 0x60]);
    }
}
