//! `wire::virtio`: ten octets, read and written again.
//!
//! Input: the header; shorter input is filled up with zeros, and the rest of longer input is ignored.

use wire::virtio::{VirtioError, VirtioNetHdr};

/// A header that is read is written as the same octets, and only unknown kinds are refused.
pub fn check(data: &[u8]) {
    let octets = header(data);
    match VirtioNetHdr::parse(&octets) {
        Ok(header) => assert_eq!(header.emit(), octets),
        Err(VirtioError::UnknownGso(gso)) => {
            assert_eq!(gso, octets[1]);
            assert!(!matches!(gso & 0x7f, 0 | 1 | 4 | 5), "a known kind was refused");
        }
        Err(error) => panic!("no other error is known than {error}"),
    }
}

/// The first ten octets of `data`.
pub(crate) fn header(data: &[u8]) -> [u8; VirtioNetHdr::LEN] {
    let mut octets = [0; VirtioNetHdr::LEN];
    for (octet, given) in octets.iter_mut().zip(data) {
        *octet = *given;
    }
    octets
}
