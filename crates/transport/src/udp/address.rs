//! Where datagrams come from and go to, for people and for the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for a `sockaddr_in` (16 octets) or a `sockaddr_in6` (28 octets).
const ADDRESS_OCTETS: usize = size_of::<libc::sockaddr_in6>();

/// Length of a `sockaddr_in`, ip(7).
const V4_OCTETS: usize = size_of::<libc::sockaddr_in>();

/// Address families as they stand in the first two octets of a socket address.
const V4_FAMILY: [u8; 2] = family(libc::AF_INET);
const V6_FAMILY: [u8; 2] = family(libc::AF_INET6);

/// One of this machine's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddr {
    /// The address.
    pub ip: IpAddr,
    /// Index of the interface of a link-local IPv6 address, which means nothing without it;
    /// otherwise 0.
    pub interface: u32,
}

/// Where a datagram came from and which of our addresses it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The sender, as the outer header claims.
    pub remote: SocketAddr,
    /// Our address that a reply should leave from; `None` when it was sent to a multicast group.
    pub local: Option<LocalAddr>,
}

/// Where a datagram goes and which of our addresses it leaves from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The receiver.
    pub remote: SocketAddr,
    /// The source address; the kernel chooses when it is `None` or no longer an address of this
    /// machine. Without meaning for a socket that is bound to one address.
    pub local: Option<LocalAddr>,
}

impl From<Origin> for Destination {
    /// The way back: a reply leaves from the address that was addressed.
    fn from(origin: Origin) -> Self {
        Self { remote: origin.remote, local: origin.local }
    }
}

/// A socket address in the layout of the kernel (`sockaddr_in`, `sockaddr_in6`).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct RawAddress {
    octets: [u8; ADDRESS_OCTETS],
    len: usize,
}

impl RawAddress {
    /// No address, to be filled by the kernel.
    pub(super) const EMPTY: Self = Self { octets: [0; ADDRESS_OCTETS], len: 0 };

    pub(super) fn emit(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::emit_v4(address),
            SocketAddr::V6(address) => Self::emit_v6(address),
        }
    }

    /// The address, unless its family is neither IPv4 nor IPv6 or it is too short for it.
    pub(super) fn parse(&self) -> Option<SocketAddr> {
        let octets = self.octets();
        match *octets.first_chunk()? {
            V4_FAMILY => Self::parse_v4(octets),
            V6_FAMILY => Self::parse_v6(octets),
            _ => None,
        }
    }

    /// What the kernel reads.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..self.len.min(ADDRESS_OCTETS)]
    }

    /// What the kernel may write; it says the length to [`set_len`](Self::set_len).
    pub(super) fn room(&mut self) -> &mut [u8; ADDRESS_OCTETS] {
        &mut self.octets
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    fn emit_v4(address: SocketAddrV4) -> Self {
        let mut raw = Self::EMPTY;
        raw.octets[0..2].copy_from_slice(&V4_FAMILY);
        raw.octets[2..4].copy_from_slice(&address.port().to_be_bytes());
        raw.octets[4..8].copy_from_slice(&address.ip().octets());
        raw.len = V4_OCTETS;
        raw
    }

    fn emit_v6(address: SocketAddrV6) -> Self {
        let mut raw = Self::EMPTY;
        raw.octets[0..2].copy_from_slice(&V6_FAMILY);
        raw.octets[2..4].copy_from_slice(&address.port().to_be_bytes());
        raw.octets[8..24].copy_from_slice(&address.ip().octets());
        raw.octets[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
        raw.len = ADDRESS_OCTETS;
        raw
    }

    fn parse_v4(octets: &[u8]) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(field(octets, 2)?);
        let ip = Ipv4Addr::from(field::<4>(octets, 4)?);
        Some(SocketAddrV4::new(ip, port).into())
    }

    fn parse_v6(octets: &[u8]) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(field(octets, 2)?);
        let ip = Ipv6Addr::from(field::<16>(octets, 8)?);
        let scope = u32::from_ne_bytes(field(octets, 24)?);
        Some(SocketAddrV6::new(ip, port, 0, scope).into())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "families are small")]
const fn family(family: i32) -> [u8; 2] {
    (family as libc::sa_family_t).to_ne_bytes()
}

/// The `N` octets at `offset`, if there are so many.
pub(super) fn field<const N: usize>(octets: &[u8], offset: usize) -> Option<[u8; N]> {
    octets.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_laid_out_as_sockaddr_in() {
        let raw = RawAddress::emit("192.0.2.1:4740".parse().unwrap());
        let [first, second] = V4_FAMILY;
        let expected = [first, second, 0x12, 0x84, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(raw.octets(), expected);
        assert_eq!(raw.parse(), Some("192.0.2.1:4740".parse().unwrap()));
    }

    #[test]
    fn an_ipv6_address_is_laid_out_as_sockaddr_in6() {
        let ip: Ipv6Addr = "fe80::102".parse().unwrap();
        let address = SocketAddrV6::new(ip, 4740, 0, 0x0303_0303);
        let raw = RawAddress::emit(address.into());
        let [first, second] = V6_FAMILY;
        let expected = [
            first, second, 0x12, 0x84, 0, 0, 0, 0, // family, port, flow
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, // address
            3, 3, 3, 3, // scope
        ];
        assert_eq!(raw.octets(), expected);
        assert_eq!(raw.parse(), Some(address.into()));
    }

    #[test]
    fn what_is_no_internet_address_is_refused() {
        let mut raw = RawAddress::emit("192.0.2.1:4740".parse().unwrap());
        raw.set_len(7);
        assert_eq!(raw.parse(), None);
        raw.set_len(0);
        assert_eq!(raw.parse(), None);
        raw.set_len(16);
        raw.room()[0..2].copy_from_slice(&family(libc::AF_UNIX));
        assert_eq!(raw.parse(), None);
    }
}
