//! Control messages (cmsg(3)): what the kernel says of a message besides its octets, and is told.
//!
//! A control buffer is a row of entries, each a `cmsghdr` (length including itself, level, type)
//! and data, padded to the size of a machine word. Three kinds occur here:
//!
//! | level, type | data | direction |
//! |---|---|---|
//! | `IPPROTO_IP`, `IP_PKTINFO` | `in_pktinfo`: interface, our address, destination | both |
//! | `IPPROTO_IPV6`, `IPV6_PKTINFO` | `in6_pktinfo`: our address, interface | both |
//! | `SOL_UDP`, `UDP_SEGMENT` | `u16`: segment size | to the kernel |
//! | `SOL_UDP`, `UDP_GRO` | `int`: segment size | from the kernel |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{LocalAddr, field};

/// A packet information of IPv6 (16 + 20, padded to 40) and a segment size (16 + 4, padded to 24).
const CONTROL_OCTETS: usize = 64;

/// Entries start at multiples of a machine word, cmsg(3) `CMSG_ALIGN`.
const WORD: usize = size_of::<usize>();

/// Length of the header of an entry.
const HEADER_OCTETS: usize = size_of::<libc::cmsghdr>();

/// One control buffer.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control {
    octets: [u8; CONTROL_OCTETS],
    len: usize,
}

impl Control {
    /// No entries.
    pub(super) const EMPTY: Self = Self { octets: [0; CONTROL_OCTETS], len: 0 };

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Asks the kernel to send from `local`.
    pub(super) fn push_source(&mut self, local: &LocalAddr) {
        match local.ip {
            IpAddr::V4(ip) => {
                let mut data = [0; 12];
                data[0..4].copy_from_slice(&local.interface.to_ne_bytes());
                data[4..8].copy_from_slice(&ip.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
            }
            IpAddr::V6(ip) => {
                let mut data = [0; 20];
                data[0..16].copy_from_slice(&ip.octets());
                data[16..20].copy_from_slice(&local.interface.to_ne_bytes());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
            }
        }
    }

    /// Asks the kernel to cut the message into datagrams of `size` octets.
    pub(super) fn push_segment_size(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// Which of our addresses the message was sent to, and the segment size if it was coalesced.
    pub(super) fn parse(&self) -> (Option<LocalAddr>, Option<usize>) {
        let mut local = None;
        let mut segment_size = None;
        for (level, kind, data) in self.entries() {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => local = parse_v4(data),
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => local = parse_v6(data),
                (libc::SOL_UDP, libc::UDP_GRO) => segment_size = parse_segment_size(data),
                _ => {}
            }
        }
        (local, segment_size)
    }

    /// What the kernel reads.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..self.len.min(CONTROL_OCTETS)]
    }

    /// What the kernel may write; it says the length to [`set_len`](Self::set_len).
    pub(super) fn room(&mut self) -> &mut [u8; CONTROL_OCTETS] {
        &mut self.octets
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let entry = &mut self.octets[self.len..];
        let len = HEADER_OCTETS + data.len();
        entry[..WORD].copy_from_slice(&len.to_ne_bytes());
        entry[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        entry[WORD + 4..HEADER_OCTETS].copy_from_slice(&kind.to_ne_bytes());
        entry[HEADER_OCTETS..len].copy_from_slice(data);
        self.len += len.next_multiple_of(WORD);
    }

    /// Level, type and data of each entry, up to the first that is malformed.
    pub(super) fn entries(&self) -> impl Iterator<Item = (i32, i32, &[u8])> {
        let mut rest = self.octets();
        std::iter::from_fn(move || {
            let len = usize::from_ne_bytes(field(rest, 0)?);
            let level = i32::from_ne_bytes(field(rest, WORD)?);
            let kind = i32::from_ne_bytes(field(rest, WORD + 4)?);
            let data = rest.get(HEADER_OCTETS..len)?;
            rest = rest.get(len.next_multiple_of(WORD)..).unwrap_or_default();
            Some((level, kind, data))
        })
    }
}

/// `in_pktinfo`: the second field is the address that a reply should leave from, ip(7).
fn parse_v4(data: &[u8]) -> Option<LocalAddr> {
    let ip = Ipv4Addr::from(field::<4>(data, 4)?);
    (!ip.is_unspecified()).then_some(LocalAddr { ip: ip.into(), interface: 0 })
}

/// `in6_pktinfo`: the destination in the header, which may be a group.
fn parse_v6(data: &[u8]) -> Option<LocalAddr> {
    let ip = Ipv6Addr::from(field::<16>(data, 0)?);
    let interface = u32::from_ne_bytes(field(data, 16)?);
    let interface = if ip.is_unicast_link_local() { interface } else { 0 };
    (!ip.is_multicast()).then_some(LocalAddr { ip: ip.into(), interface })
}

fn parse_segment_size(data: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_ne_bytes(field(data, 0)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn local(ip: &str, interface: u32) -> LocalAddr {
        LocalAddr { ip: ip.parse().unwrap(), interface }
    }

    fn received(octets: &[u8]) -> Control {
        let mut control = Control::EMPTY;
        control.room()[..octets.len()].copy_from_slice(octets);
        control.set_len(octets.len());
        control
    }

    #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
    #[test]
    fn a_source_and_a_segment_size_are_laid_out_as_in_cmsg() {
        let mut control = Control::EMPTY;
        control.push_source(&local("192.0.2.1", 0));
        control.push_segment_size(1472);
        let expected = [
            28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0,
            0, // 28 octets, IPPROTO_IP, IP_PKTINFO
            0, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, // in_pktinfo, padding
            18, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 103, 0, 0,
            0, // 18 octets, SOL_UDP, UDP_SEGMENT
            0xc0, 0x05, 0, 0, 0, 0, 0, 0, // 1472, padding
        ];
        assert_eq!(control.octets(), expected);
    }

    #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
    #[test]
    fn the_local_address_and_the_segment_size_of_a_received_message_are_found() {
        let control = received(&[
            28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0,
            0, // 28 octets, IPPROTO_IP, IP_PKTINFO
            2, 0, 0, 0, 192, 0, 2, 1, 192, 0, 2, 255, 0, 0, 0,
            0, // sent to the broadcast address
            20, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 104, 0, 0, 0, // 20 octets, SOL_UDP, UDP_GRO
            0xc0, 0x05, 0, 0, 0, 0, 0, 0, // 1472, padding
        ]);
        assert_eq!(control.parse(), (Some(local("192.0.2.1", 0)), Some(1472)));
    }

    #[test]
    fn an_ipv6_source_and_a_segment_size_fill_the_buffer() {
        let mut control = Control::EMPTY;
        control.push_source(&local("fe80::1", 3));
        control.push_segment_size(1232);
        assert_eq!(control.octets().len(), CONTROL_OCTETS);
        assert_eq!(control.parse(), (Some(local("fe80::1", 3)), None));
        control.clear();
        assert_eq!(control.octets(), []);
    }

    #[test]
    fn only_a_link_local_address_needs_its_interface() {
        let mut control = Control::EMPTY;
        control.push_source(&local("2001:db8::1", 3));
        assert_eq!(control.parse(), (Some(local("2001:db8::1", 0)), None));
    }

    #[test]
    fn a_group_is_no_local_address() {
        let mut control = Control::EMPTY;
        control.push_source(&local("ff02::1", 3));
        assert_eq!(control.parse(), (None, None));
    }

    proptest! {
        #[test]
        fn any_octets_are_parsed(
            octets: [u8; CONTROL_OCTETS],
            len in 0..=CONTROL_OCTETS,
            first: u8,
        ) {
            let mut octets = octets;
            octets[0..WORD].copy_from_slice(&usize::from(first).to_ne_bytes());
            let control = received(&octets[..len]);
            prop_assert!(control.entries().count() <= CONTROL_OCTETS / HEADER_OCTETS);
            control.parse();
        }
    }
}
