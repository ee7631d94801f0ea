//! Ethernet frames with up to two VLAN tags (IEEE 802.3, 802.1Q, 802.1ad), without preamble and FCS.

use std::fmt;

use crate::parse_error::{Header, ParseError};

/// Length of addresses and EtherType in octets.
pub const HEADER_LEN: usize = 14;
/// Length of one VLAN tag in octets.
pub const TAG_LEN: usize = 4;
/// How many tags are taken off: a service tag and a customer tag. A third is left as payload.
pub const MAX_TAGS: usize = 2;

/// The EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// The EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// The EtherType of an 802.1Q customer tag.
pub const CUSTOMER_TAG: u16 = 0x8100;
/// The EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// The EtherType of an 802.1ad service tag.
pub const SERVICE_TAG: u16 = 0x88a8;

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

/// A checked frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    addresses: &'a [u8; 12],
    tags: &'a [[u8; TAG_LEN]],
    ethertype: u16,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks that addresses, tags and EtherType are complete.
    ///
    /// # Errors
    ///
    /// [`ParseError::Truncated`].
    pub fn parse(octets: &'a [u8]) -> Result<Self, ParseError> {
        let header_len = header_len(octets)?;
        let truncated = truncated(octets, header_len);
        let (addresses, rest) = octets.split_first_chunk().ok_or(truncated)?;
        let (tags, rest) = rest.split_at_checked(header_len - HEADER_LEN).ok_or(truncated)?;
        let (ethertype, payload) = rest.split_first_chunk().ok_or(truncated)?;
        let ethertype = u16::from_be_bytes(*ethertype);
        Ok(Self { addresses, tags: tags.as_chunks().0, ethertype, payload })
    }

    /// Who the frame is for.
    #[must_use]
    pub fn destination(&self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = *self.addresses;
        MacAddr([a, b, c, d, e, f])
    }

    /// Who sent the frame.
    #[must_use]
    pub fn source(&self) -> MacAddr {
        let [.., a, b, c, d, e, f] = *self.addresses;
        MacAddr([a, b, c, d, e, f])
    }

    /// The VLAN identifiers, outermost first.
    pub fn vlans(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.tags.iter().map(|[_, _, high, low]| u16::from_be_bytes([high & 0x0f, *low]))
    }

    /// The EtherType behind the tags, or the length of an 802.3 frame if below 0x600.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// Octets of addresses, tags and EtherType.
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + size_of_val(self.tags)
    }

    /// What follows the EtherType, with any padding.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl MacAddr {
    /// Every station.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether a group of stations is meant, as with broadcast.
    #[must_use]
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

fn header_len(octets: &[u8]) -> Result<usize, ParseError> {
    let mut len = HEADER_LEN;
    for _ in 0..MAX_TAGS {
        match octets.get(len - 2..len) {
            Some(&[high, low]) if is_tag(u16::from_be_bytes([high, low])) => len += TAG_LEN,
            Some(_) => break,
            None => return Err(truncated(octets, len)),
        }
    }
    Ok(len)
}

fn is_tag(ethertype: u16) -> bool {
    ethertype == CUSTOMER_TAG || ethertype == SERVICE_TAG
}

fn truncated(octets: &[u8], needs: usize) -> ParseError {
    ParseError::Truncated { header: Header::Ethernet, needs, has: octets.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGGED: [u8; 24] = [
        0x02, 0, 0, 0, 0, 0x0b, 0x02, 0, 0, 0, 0, 0x0a, // addresses
        0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0xe0,
        0x05, // tags 100 and 5, the latter with priority 7
        0x08, 0x06, 0x00, 0x01, // ARP
    ];

    #[test]
    fn a_frame_with_two_tags_is_read() {
        let frame = Frame::parse(&TAGGED).unwrap();
        assert_eq!(frame.destination().to_string(), "02:00:00:00:00:0b");
        assert_eq!(frame.source(), MacAddr([2, 0, 0, 0, 0, 10]));
        assert_eq!(frame.vlans().collect::<Vec<_>>(), [100, 5]);
        assert_eq!(frame.ethertype(), ARP);
        assert_eq!(frame.header_len(), 22);
        assert_eq!(frame.payload(), [0, 1]);
    }

    #[test]
    fn an_untagged_frame_is_read() {
        let octets = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60];
        let frame = Frame::parse(&octets).unwrap();
        assert_eq!(frame.destination(), MacAddr::BROADCAST);
        assert!(frame.destination().is_multicast());
        assert_eq!(frame.vlans().count(), 0);
        assert_eq!(
            (frame.ethertype(), frame.header_len(), frame.payload()),
            (IPV6, 14, &[0x60][..])
        );
    }

    #[test]
    fn a_frame_that_ends_within_its_header_says_what_is_missing() {
        let needs = |needs, has| ParseError::Truncated { header: Header::Ethernet, needs, has };
        assert_eq!(Frame::parse(&TAGGED[..13]).unwrap_err(), needs(14, 13));
        assert_eq!(Frame::parse(&TAGGED[..17]).unwrap_err(), needs(18, 17));
        assert_eq!(Frame::parse(&TAGGED[..21]).unwrap_err(), needs(22, 21));
        assert!(Frame::parse(&TAGGED[..22]).is_ok());
    }
}
