//! Counters of packets, octets and drops.
//!
//! Each lane has [`Counters`] of its own on cache lines of their own, which it alone writes: an
//! addition is a plain load and store, without a locked instruction. Readers may see a packet
//! counted before its octets; nobody needs more.

use std::fmt;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::DropReason;
use serde::{Deserialize, Serialize};

/// The counters of one lane. Aligned to two cache lines, since processors prefetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    packets: AtomicU64,
    octets: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            packets: AtomicU64::new(0),
            octets: AtomicU64::new(0),
            drops: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
        }
    }
}

impl Counters {
    /// Counts `packets` carried, of `octets` together. Only the lane that owns the counters calls this.
    #[inline]
    pub(crate) fn carried(&self, packets: usize, octets: usize) {
        add(&self.packets, packets);
        add(&self.octets, octets);
    }

    /// Counts dropped packets. Only the lane that owns the counters calls this.
    #[inline]
    pub(crate) fn dropped(&self, reason: DropReason, packets: usize) {
        add(&self.drops[reason.index()], packets);
    }

    /// The values as they are.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            packets: self.packets.load(Ordering::Relaxed),
            octets: self.octets.load(Ordering::Relaxed),
            drops: std::array::from_fn(|place| self.drops[place].load(Ordering::Relaxed)),
        }
    }
}

#[inline]
fn add(counter: &AtomicU64, count: usize) {
    counter.store(counter.load(Ordering::Relaxed) + count as u64, Ordering::Relaxed);
}

/// What was carried in one direction, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Inner packets, each segment counted.
    pub packets: u64,
    /// Octets of inner packets.
    pub octets: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Traffic {
    /// How many packets were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()]
    }
}

impl AddAssign<&Self> for Traffic {
    fn add_assign(&mut self, other: &Self) {
        // What another process says is not beyond doubt, so nothing is added that does not fit.
        self.packets = self.packets.saturating_add(other.packets);
        self.octets = self.octets.saturating_add(other.octets);
        for (sum, drops) in self.drops.iter_mut().zip(other.drops) {
            *sum = sum.saturating_add(drops);
        }
    }
}

/// What was carried both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// To the peers.
    pub out: Traffic,
    /// From the peers.
    pub back: Traffic,
}

impl AddAssign<&Self> for Totals {
    fn add_assign(&mut self, other: &Self) {
        self.out += &other.out;
        self.back += &other.back;
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} packets, {} octets", self.packets, self.octets)?;
        let mut separator = "; dropped: ";
        for &reason in DropReason::ALL {
            let count = self.dropped(reason);
            if count > 0 {
                write!(formatter, "{separator}{reason}: {count}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_told_by_reason() {
        let counters = Counters::default();
        counters.carried(2, 120);
        counters.dropped(DropReason::Stranger, 5);
        counters.dropped(DropReason::Empty, 1);
        let mut sum = counters.traffic();
        sum += &counters.traffic();
        assert_eq!(
            sum.to_string(),
            "4 packets, 240 octets; dropped: from a stranger: 10, empty datagram: 2"
        );
    }
}
