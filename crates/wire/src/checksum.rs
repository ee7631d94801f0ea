//! The Internet checksum: the ones' complement of the ones' complement sum of 16-bit words.
//!
//! The sum is the same in every byte order and every word size that is a multiple of 16 bits, up to
//! a swap at the end (RFC 1071, section 2). So octets are read as wide little-endian words, which costs
//! nothing on the machines that matter, and carries are folded once at the end.
//!
//! References: RFC 1071; RFC 1624 (incremental update).

use std::net::{Ipv4Addr, Ipv6Addr};

/// A running ones' complement sum.
///
/// Pieces are added in any order. A piece of odd length is padded with a zero octet, so only the
/// last piece of what a checksum covers may have one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of little-endian words; every addition is below 2^37, so that 2^27 of them fit.
    words: u64,
}

impl Sum {
    /// The sum of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: 0 }
    }

    /// Adds octets, the first of which is the high half of a word.
    #[inline]
    pub fn add(&mut self, octets: &[u8]) {
        self.words += sum_le(octets);
    }

    /// Adds what another sum has added.
    #[inline]
    pub fn add_sum(&mut self, other: Self) {
        self.words += other.words;
    }

    /// Adds one word.
    #[inline]
    pub fn add_u16(&mut self, word: u16) {
        self.words += u64::from(word.swap_bytes());
    }

    /// Adds two words, the high half first.
    #[inline]
    pub fn add_u32(&mut self, words: u32) {
        self.words += u64::from(words.swap_bytes());
    }

    /// Adds the pseudo-header of TCP or UDP in IPv4 (RFC 9293, section 3.1).
    #[inline]
    pub fn add_pseudo_header_v4(&mut self, src: Ipv4Addr, dst: Ipv4Addr, proto: u8, len: u16) {
        self.words += u64::from(u32::from_le_bytes(src.octets()));
        self.words += u64::from(u32::from_le_bytes(dst.octets()));
        self.add_u16(u16::from(proto));
        self.add_u16(len);
    }

    /// Adds the pseudo-header of an upper layer in IPv6 (RFC 8200, section 8.1).
    #[inline]
    pub fn add_pseudo_header_v6(&mut self, src: Ipv6Addr, dst: Ipv6Addr, proto: u8, len: u32) {
        self.add(&src.octets());
        self.add(&dst.octets());
        self.add_u32(len);
        self.add_u16(u16::from(proto));
    }

    /// The sum as one word, not complemented: what `NEEDS_CSUM` wants in the checksum's place.
    ///
    /// A region that holds a correct checksum sums to 0xffff.
    #[inline]
    #[must_use]
    pub fn fold(self) -> u16 {
        fold_le(self.words).swap_bytes()
    }

    /// The checksum: the complement of the sum.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    /// The checksum as UDP sends it, where 0 means that there is none (RFC 768).
    #[inline]
    #[must_use]
    pub fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// The checksum of `octets` alone, as for IPv4 headers and ICMP.
#[must_use]
pub fn checksum(octets: &[u8]) -> u16 {
    let mut sum = Sum::new();
    sum.add(octets);
    sum.finish()
}

/// The checksum after one word that it covers changed from `old` to `new` (RFC 1624, equation 3).
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = Sum::new();
    sum.add_u16(!checksum);
    sum.add_u16(!old);
    sum.add_u16(new);
    sum.finish()
}

/// From how many octets on the vector loop is faster (measured on Zen 5 with SSE2).
const LONG: usize = 128;

/// The most octets that one vector loop takes: no 32-bit lane can overflow in 2^16 rounds of 32 octets.
const MAX_BLOCK: usize = 32 << 16;

/// The sum of 16-bit little-endian words, below 2^37 for anything shorter than a gibibyte.
#[inline]
fn sum_le(octets: &[u8]) -> u64 {
    if octets.len() < LONG { sum_short(octets) } else { sum_long(octets) }
}

/// One chain of additions with carry; best when there are few words.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "takes the low half of a sum apart")]
fn sum_short(octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<8>();
    let mut sum = 0u128;
    for word in words {
        sum += u128::from(u64::from_le_bytes(*word));
    }
    sum += u128::from(last_word(octets, rest));
    let (low, carries) = (sum as u64, (sum >> 64) as u64);
    (low >> 32) + (low & 0xffff_ffff) + carries
}

/// The up to seven octets `rest` at the end of `octets`, padded with zeros.
#[inline]
fn last_word(octets: &[u8], rest: &[u8]) -> u64 {
    if rest.is_empty() {
        return 0;
    }
    if let Some(last) = octets.last_chunk::<8>() {
        return u64::from_le_bytes(*last) >> (8 * (8 - rest.len()));
    }
    rest.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet))
}

/// Eight lanes side by side, which compilers turn into vector instructions.
///
/// A lane adds 32-bit words modulo 2^32, and their high halves apart. The sum of the low halves is
/// what remains when the high halves are taken out again, so that no word needs to be split twice.
fn sum_long(octets: &[u8]) -> u64 {
    let (rounds, rest) = octets.as_chunks::<32>();
    let mut sum = 0;
    for block in rounds.chunks(MAX_BLOCK / 32) {
        let mut words = [0u32; 8];
        let mut highs = [0u32; 8];
        for round in block {
            let (round, _) = round.as_chunks::<4>();
            for lane in 0..8 {
                let word = u32::from_le_bytes(round[lane]);
                words[lane] = words[lane].wrapping_add(word);
                highs[lane] = highs[lane].wrapping_add(word >> 16);
            }
        }
        for (word, high) in words.into_iter().zip(highs) {
            sum += u64::from(word.wrapping_sub(high << 16)) + u64::from(high);
        }
    }
    sum + sum_short(rest)
}

#[expect(clippy::cast_possible_truncation, reason = "the carries are folded in before")]
fn fold_le(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 word by word.
    fn naive(octets: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in octets.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    fn fast(octets: &[u8]) -> u16 {
        let mut sum = Sum::new();
        sum.add(octets);
        sum.fold()
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        assert_eq!(fast(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn every_length_and_alignment_agrees_with_the_naive_sum() {
        let octets: Vec<u8> = (0..2200u32).map(|i| (i * i * 31 + i / 7).to_le_bytes()[1]).collect();
        for start in 0..16 {
            for len in (0..300).chain(1400..1520).chain([2048, 2183]) {
                let piece = &octets[start..start + len];
                assert_eq!(fast(piece), naive(piece), "{len} octets from {start}");
            }
        }
    }

    #[test]
    fn no_lane_overflows_when_every_bit_is_set() {
        let ones = vec![0xff; 3 * MAX_BLOCK + 37];
        assert_eq!(fast(&ones), naive(&ones));
    }

    #[test]
    fn pseudo_headers_are_the_same_as_their_octets() {
        let mut sum = Sum::new();
        sum.add_pseudo_header_v4([10, 9, 0, 1].into(), [10, 1, 0, 3].into(), 17, 0x0203);
        assert_eq!(sum.fold(), naive(&[10, 9, 0, 1, 10, 1, 0, 3, 0, 17, 2, 3]));

        let (src, dst) = ([0xfd; 16], [0x3e; 16]);
        let mut sum = Sum::new();
        sum.add_pseudo_header_v6(src.into(), dst.into(), 6, 0x0001_0203);
        let octets = [&src[..], &dst, &[0, 1, 2, 3, 0, 0, 0, 6]].concat();
        assert_eq!(sum.fold(), naive(&octets));
    }

    #[test]
    fn the_example_of_rfc_1624_updates_to_zero() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn udp_never_sends_a_checksum_of_zero() {
        assert_eq!(checksum(&[0xff, 0xff]), 0);
        let mut sum = Sum::new();
        sum.add(&[0xff, 0xff]);
        assert_eq!(sum.finish_udp(), 0xffff);
    }

    proptest! {
        #[test]
        fn pieces_sum_like_the_whole(octets: Vec<u8>, at: prop::sample::Index) {
            let at = at.index(octets.len() + 1) & !1;
            let (front, back) = octets.split_at(at);
            let mut sum = Sum::new();
            sum.add(back);
            sum.add(front);
            prop_assert_eq!(sum.fold(), naive(&octets));
        }

        #[test]
        fn an_update_is_the_same_as_a_new_sum(
            mut octets in prop::collection::vec(any::<u8>(), 2..64),
            new: u16,
        ) {
            // Without a word that stays and is not zero, 0x0000 and 0xffff cannot be told apart.
            octets.extend([0x45, 0x00]);
            let before = checksum(&octets);
            let old = u16::from_be_bytes([octets[0], octets[1]]);
            octets[..2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), checksum(&octets));
        }
    }
}
