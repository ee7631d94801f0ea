//! TCP headers (RFC 9293).

use std::fmt;

use crate::parse_error::{Header, ParseError};

/// The protocol number.
pub const PROTOCOL: u8 = 6;
/// Length of a header without options in octets.
pub const HEADER_LEN: usize = 20;
/// Length of the longest header in octets.
pub const MAX_HEADER_LEN: usize = 60;
/// Where the sequence number stands.
pub const SEQUENCE_AT: usize = 4;
/// Where the flags stand.
pub const FLAGS_AT: usize = 13;
/// Where the checksum stands.
pub const CHECKSUM_AT: usize = 16;

/// A checked segment.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    fixed: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

/// The control bits of the fourteenth octet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl<'a> Packet<'a> {
    /// Checks the data offset.
    ///
    /// # Errors
    ///
    /// [`ParseError::Truncated`] and `HeaderLength`.
    pub fn parse(octets: &'a [u8]) -> Result<Self, ParseError> {
        let (fixed, rest) =
            octets.split_first_chunk().ok_or_else(|| truncated(octets, HEADER_LEN))?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        let Some(options_len) = header_len.checked_sub(HEADER_LEN) else {
            let (says, least) = (header_len, HEADER_LEN);
            return Err(ParseError::HeaderLength { header: Header::Tcp, says, least });
        };
        let (options, payload) =
            rest.split_at_checked(options_len).ok_or_else(|| truncated(octets, header_len))?;
        Ok(Self { fixed, options, payload })
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

    /// Where the payload belongs in the stream.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = *self.fixed;
        u32::from_be_bytes([a, b, c, d])
    }

    /// What the sender expects next; has a meaning with [`Flags::ACK`] only.
    #[must_use]
    pub fn acknowledgment(&self) -> u32 {
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *self.fixed;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Octets of the header with options.
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// The control bits.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags(self.fixed[FLAGS_AT])
    }

    /// The receive window, not scaled.
    #[must_use]
    pub fn window(&self) -> u16 {
        u16::from_be_bytes([self.fixed[14], self.fixed[15]])
    }

    /// The checksum as it stands.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.fixed[16], self.fixed[17]])
    }

    /// The options with their padding.
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// The octets of the stream.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl Flags {
    /// The sender has no more data.
    pub const FIN: Self = Self(0x01);
    /// Synchronizes sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Resets the connection.
    pub const RST: Self = Self(0x04);
    /// Hands data to the application at once.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number is valid.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is valid.
    pub const URG: Self = Self(0x20);
    /// Congestion was experienced (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Whether any of `flags` is set.
    #[must_use]
    pub fn intersects(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// These flags without `flags`.
    #[must_use]
    pub fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The letters of tcpdump: `S.` for SYN and ACK, `none` for nothing.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(Flags, &str); 8] = [
            (Flags::FIN, "F"),
            (Flags::SYN, "S"),
            (Flags::RST, "R"),
            (Flags::PSH, "P"),
            (Flags::ACK, "."),
            (Flags::URG, "U"),
            (Flags::ECE, "E"),
            (Flags::CWR, "W"),
        ];
        if self.0 == 0 {
            return f.write_str("none");
        }
        LETTERS
            .iter()
            .filter(|(flag, _)| self.intersects(*flag))
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

fn truncated(octets: &[u8], needs: usize) -> ParseError {
    ParseError::Truncated { header: Header::Tcp, needs, has: octets.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN_ACK: [u8; 25] = [
        0x9c, 0x40, 0x00, 0x50, 0, 0, 1, 0, 0, 0, 2, 0, 0x60, 0x12, 0xfa, 0xf0, 0x12, 0x34, 0, 0,
        2, 4, 5, 0xb4, 0xaa,
    ];

    #[test]
    fn every_field_of_a_literal_header_is_read() {
        let packet = Packet::parse(&SYN_ACK).unwrap();
        assert_eq!((packet.source_port(), packet.destination_port()), (40_000, 80));
        assert_eq!((packet.sequence(), packet.acknowledgment()), (256, 512));
        assert_eq!(packet.flags(), Flags::SYN | Flags::ACK);
        assert_eq!(packet.flags().to_string(), "S.");
        assert_eq!((packet.window(), packet.checksum()), (64_240, 0x1234));
        assert_eq!((packet.header_len(), packet.options()), (24, &[2, 4, 5, 0xb4][..]));
        assert_eq!(packet.payload(), [0xaa]);
    }

    #[test]
    fn a_header_that_lies_is_an_error_with_the_values() {
        let error = |octets: &[u8]| Packet::parse(octets).unwrap_err().to_string();
        assert_eq!(error(&SYN_ACK[..19]), "TCP, truncated: 19 of 20 octets");
        assert_eq!(error(&SYN_ACK[..23]), "TCP, truncated: 23 of 24 octets");
        let mut short = SYN_ACK;
        short[12] = 0x4f;
        assert_eq!(error(&short), "TCP, header length 16 is below 20");
    }
}
