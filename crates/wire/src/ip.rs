//! What IPv4 and IPv6 have in common: addresses, read per packet for routing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{ipv4, ipv6};

/// Both addresses of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpAddrs {
    /// Of an IPv4 packet.
    V4 {
        /// The sender.
        src: Ipv4Addr,
        /// The receiver.
        dst: Ipv4Addr,
    },
    /// Of an IPv6 packet.
    V6 {
        /// The sender.
        src: Ipv6Addr,
        /// The receiver.
        dst: Ipv6Addr,
    },
}

/// Where an IP packet goes; nothing if it is shorter than its fixed header or not IP.
#[inline]
#[must_use]
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    Some(match addresses(packet)? {
        IpAddrs::V4 { dst, .. } => dst.into(),
        IpAddrs::V6 { dst, .. } => dst.into(),
    })
}

/// Where an IP packet comes from; nothing if it is shorter than its fixed header or not IP.
#[inline]
#[must_use]
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    Some(match addresses(packet)? {
        IpAddrs::V4 { src, .. } => src.into(),
        IpAddrs::V6 { src, .. } => src.into(),
    })
}

/// Both addresses of an IP packet; nothing if it is shorter than its fixed header or not IP.
#[inline]
#[must_use]
pub fn addresses(packet: &[u8]) -> Option<IpAddrs> {
    match packet.first()? >> 4 {
        4 => {
            let fixed: &[u8; ipv4::HEADER_LEN] = packet.first_chunk()?;
            let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *fixed;
            let src = Ipv4Addr::new(s0, s1, s2, s3);
            Some(IpAddrs::V4 { src, dst: Ipv4Addr::new(d0, d1, d2, d3) })
        }
        6 => {
            let fixed = packet.first_chunk()?;
            let src = ipv6::address(fixed, 8);
            Some(IpAddrs::V6 { src, dst: ipv6::address(fixed, 24) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_versions_are_read() {
        let mut v4 = [0; 20];
        v4[0] = 0x45;
        v4[12..].copy_from_slice(&[10, 9, 0, 1, 10, 1, 0, 3]);
        assert_eq!(source(&v4), Some(IpAddr::from([10, 9, 0, 1])));
        assert_eq!(destination(&v4), Some(IpAddr::from([10, 1, 0, 3])));

        let mut v6 = [0; 40];
        v6[0] = 0x60;
        v6[8] = 0xfd;
        v6[24] = 0xfe;
        v6[39] = 2;
        assert_eq!(source(&v6).unwrap().to_string(), "fd00::");
        assert_eq!(destination(&v6).unwrap().to_string(), "fe00::2");
    }

    #[test]
    fn what_is_short_or_not_ip_has_no_address() {
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0x45; 19]), None);
        assert_eq!(source(&[0x60; 39]), None);
        assert_eq!(destination(&[0x50; 64]), None);
    }
}
