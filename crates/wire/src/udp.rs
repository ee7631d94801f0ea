//! UDP headers (RFC 768).

use crate::parse_error::{Header, ParseError};

/// The protocol number.
pub const PROTOCOL: u8 = 17;
/// Length of the header in octets.
pub const HEADER_LEN: usize = 8;
/// Where the length stands.
pub const LEN_AT: usize = 4;
/// Where the checksum stands.
pub const CHECKSUM_AT: usize = 6;

/// A checked datagram.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    fixed: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks the length.
    ///
    /// # Errors
    ///
    /// [`ParseError::Truncated`] and `TotalLength`.
    pub fn parse(octets: &'a [u8]) -> Result<Self, ParseError> {
        let (fixed, _) = octets.split_first_chunk().ok_or(ParseError::Truncated {
            header: Header::Udp,
            needs: HEADER_LEN,
            has: octets.len(),
        })?;
        let [_, _, _, _, len_high, len_low, _, _] = *fixed;
        let says = usize::from(u16::from_be_bytes([len_high, len_low]));
        let payload = octets.get(HEADER_LEN..says).ok_or(ParseError::TotalLength {
            header: Header::Udp,
            says,
            least: HEADER_LEN,
            most: octets.len(),
        })?;
        Ok(Self { fixed, payload })
    }

    /// The sender's port.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.fixed[0], self.fixed[1]])
    }

    /// The receiver's port.
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// The checksum as it stands; 0 means that the sender made none.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }

    /// The payload, without octets beyond the length.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: [u8; 11] = [0x9c, 0x40, 0x1f, 0x90, 0, 10, 0xab, 0xcd, 1, 2, 0];

    #[test]
    fn every_field_of_a_literal_header_is_read() {
        let packet = Packet::parse(&DATAGRAM).unwrap();
        assert_eq!((packet.source_port(), packet.destination_port()), (40_000, 8080));
        assert_eq!((packet.checksum(), packet.payload()), (0xabcd, &[1, 2][..]));
    }

    #[test]
    fn a_length_that_lies_is_an_error_with_the_values() {
        let error = |octets: &[u8]| Packet::parse(octets).unwrap_err().to_string();
        assert_eq!(error(&DATAGRAM[..7]), "UDP, truncated: 7 of 8 octets");
        assert_eq!(error(&DATAGRAM[..9]), "UDP, total length 10 is not within 8 to 9");
        assert_eq!(error(&[0, 1, 0, 2, 0, 7, 0, 0]), "UDP, total length 7 is not within 8 to 8");
    }
}
