//! The timestamp in an initiation, and the mark by which adit knows itself.
//!
//! # Theory of operation
//!
//! An initiation carries a TAI64N label (<https://cr.yp.to/libtai/tai64.html>): 8 octets of seconds,
//! 4 octets of nanoseconds, big-endian, so that octet order is time order. A responder accepts only
//! timestamps greater than the last one from the same peer (whitepaper, section 5.1), so replays of
//! old initiations are refused without state that outlives the peer.
//!
//! Linux does not tell the exact time: it clears the low 24 bits of the nanoseconds, because a peer may
//! not send more than 50 initiations a second anyway (`wg_noise_handshake_create_initiation`,
//! `INITIATIONS_PER_SECOND`). These 24 bits are inside an encrypted field and no peer gives them a
//! meaning. adit writes [`MARK`] there; a responder that finds it knows that the initiator
//! understands frames.

use std::time::Duration;

/// What adit writes into the low 24 bits of the nanoseconds.
pub const MARK: u32 = 0x00AD17;

/// The label of the second in which the Unix epoch begins, in TAI: 2^62 and 10 leap seconds.
const UNIX_EPOCH: u64 = 0x4000_0000_0000_000a;

/// The step of the clock that others see, in nanoseconds: about 16.8 ms.
const STEP: u32 = 1 << 24;

const NANOS_PER_SEC: u32 = 1_000_000_000;

/// A TAI64N label; its order is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n([u8; 12]);

impl Tai64n {
    /// The label of a time since the Unix epoch, rounded down to a multiple of 2^24 nanoseconds of its
    /// second.
    pub fn from_unix(since_epoch: Duration) -> Self {
        let nanos = since_epoch.subsec_nanos() & !(STEP - 1);
        Self::new(UNIX_EPOCH.saturating_add(since_epoch.as_secs()), nanos)
    }

    /// The label that a peer sent; any octets will do, since labels are only compared.
    pub fn from_octets(octets: [u8; 12]) -> Self {
        Self(octets)
    }

    /// The label as it is sent.
    pub fn as_octets(&self) -> &[u8; 12] {
        &self.0
    }

    /// The same label with [`MARK`] in its low 24 bits.
    #[must_use]
    pub fn marked(self) -> Self {
        Self::new(self.seconds(), self.nanos() & !(STEP - 1) | MARK)
    }

    /// Whether an adit sent this; a peer that writes random bits there is mistaken for one with
    /// probability 2^-24, and then drops one hello.
    pub fn is_marked(self) -> bool {
        self.nanos() & (STEP - 1) == MARK
    }

    /// The next greater label that others can tell from this one; the mark stays.
    #[must_use]
    pub fn next(self) -> Self {
        match self.nanos().checked_add(STEP) {
            Some(nanos) if nanos < NANOS_PER_SEC => Self::new(self.seconds(), nanos),
            _ => Self::new(self.seconds().saturating_add(1), self.nanos() & (STEP - 1)),
        }
    }

    fn new(seconds: u64, nanos: u32) -> Self {
        let mut octets = [0; 12];
        octets[..8].copy_from_slice(&seconds.to_be_bytes());
        octets[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(octets)
    }

    fn seconds(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    fn nanos(self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_label_is_that_of_the_specification() {
        // The example of cr.yp.to/libtai/tai64.html is 400000002a2b2c2d, the second 707472429 of TAI;
        // WireGuard puts the Unix epoch at the second 10.
        let unix = Duration::new(707_472_429, 0x1234_5678);
        let label = [0x40, 0, 0, 0, 0x2a, 0x2b, 0x2c, 0x37, 0x12, 0, 0, 0];
        assert_eq!(Tai64n::from_unix(unix).as_octets(), &label);
    }

    #[test]
    fn the_mark_is_in_the_low_bits() {
        let plain = Tai64n::from_unix(Duration::new(5, 999_999_999));
        assert!(!plain.is_marked());
        assert!(plain.marked().is_marked());
        assert_eq!(plain.marked().as_octets()[8..], [0x3b, 0x00, 0xad, 0x17]);
        assert!(plain.next().marked() > plain.marked());
    }

    #[test]
    fn the_next_label_passes_the_second() {
        let last = Tai64n::from_unix(Duration::new(5, 999_999_999)).marked();
        let next = last.next();
        assert_eq!(next, Tai64n::from_unix(Duration::from_secs(6)).marked());
    }

    proptest! {
        #[test]
        fn later_is_greater(a in any::<u32>(), b in any::<u32>(), nanos in 0..NANOS_PER_SEC) {
            let at = |secs| Tai64n::from_unix(Duration::new(u64::from(secs), nanos));
            prop_assert_eq!(at(a).cmp(&at(b)), a.cmp(&b));
            prop_assert_eq!(at(a).marked().cmp(&at(b).marked()), a.cmp(&b));
        }

        #[test]
        fn any_octets_have_a_greater_label(octets in any::<[u8; 12]>()) {
            let label = Tai64n::from_octets(octets);
            prop_assert!(label.next() > label || octets.starts_with(&[0xff; 8]));
        }
    }
}
