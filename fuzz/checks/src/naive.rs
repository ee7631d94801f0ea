//! Checksums word by word, to hold the fast ones against.

use wire::ip::{self, IpAddrs};

/// The ones' complement sum of 16-bit words (RFC 1071), not complemented.
pub(crate) fn sum(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    octets.chunks(2).map(word).fold(0, add)
}

/// The ones' complement sum of two words.
pub(crate) fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The sum of the pseudo-header of `len` octets of `protocol` in the packet that `packet` starts.
pub(crate) fn pseudo_header_sum(packet: &[u8], protocol: u8, len: usize) -> Option<u16> {
    let addresses = match ip::addresses(packet)? {
        IpAddrs::V4 { src, dst } => add(sum(&src.octets()), sum(&dst.octets())),
        IpAddrs::V6 { src, dst } => add(sum(&src.octets()), sum(&dst.octets())),
    };
    let len = u16::try_from(len).ok()?;
    Some(add(addresses, add(u16::from(protocol), len)))
}

/// Whether two sums stand for the same: 0x0000 and 0xffff do.
pub(crate) fn is_same(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}
