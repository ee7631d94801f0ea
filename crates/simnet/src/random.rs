//! Chance, from a seed.

use std::ops::Range;
use std::time::Duration;

/// Numbers that look random and repeat with the seed: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014). For tests, never for keys.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Other numbers, which depend on this generator and leave it undisturbed by how many are taken.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.u64())
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `range`, or its start if it is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        match range.end.saturating_sub(range.start) {
            0 => range.start,
            // Not quite even for huge ranges, which no test notices.
            width => range.start + self.u64() % width,
        }
    }

    /// A time in `range`.
    pub fn duration(&mut self, range: Range<Duration>) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.within(nanos(range.start)..nanos(range.end)))
    }

    /// True in `per_mille` of 1000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.within(0..1000) < per_mille
    }

    /// Fills `octets`.
    pub fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            chunk.copy_from_slice(&self.u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_algorithm() {
        // From the reference implementation with seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn chances_come_out() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.chance(250)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        assert!(!random.chance(0) && random.chance(1000));
    }
}
