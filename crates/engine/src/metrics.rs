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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Inner packets, each segment counted.
    pub packets: u64,
    /// Octets of inner packets.
    pub octets: u64,
    /// By [`DropReason::index`].
    #[serde(default, with = "drops")]
    drops: [u64; DropReason::ALL.len()],
}

impl Default for Traffic {
    fn default() -> Self {
        Self { packets: 0, octets: 0, drops: [0; DropReason::ALL.len()] }
    }
}

impl Traffic {
    /// How many packets were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()]
    }

    /// The reasons for which packets were dropped, and how many.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().copied().zip(self.drops).filter(|&(_, count)| count > 0)
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
#[serde(default)]
pub struct Totals {
    /// To the peers.
    pub out: Traffic,
    /// From the peers.
    pub back: Traffic,
}

impl Totals {
    /// Drops alone, by [`DropReason::index`], each in its direction.
    pub(crate) fn of_drops(drops: &[u64; DropReason::ALL.len()]) -> Self {
        let mut totals = Self::default();
        for (&reason, &count) in DropReason::ALL.iter().zip(drops) {
            let direction = if reason.is_outgoing() { &mut totals.out } else { &mut totals.back };
            direction.drops[reason.index()] = count;
        }
        totals
    }
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
        for (reason, count) in self.drops() {
            write!(formatter, "{separator}{reason}: {count}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Drops as a map from the reason's name ("source_not_allowed") to a count that is not zero.
mod drops {
    use std::collections::BTreeMap;

    use proto::DropReason;
    use serde::{Deserialize, Deserializer, Serializer};

    type Drops = [u64; DropReason::ALL.len()];

    pub(super) fn serialize<S: Serializer>(drops: &Drops, to: S) -> Result<S::Ok, S::Error> {
        let named = DropReason::ALL.iter().zip(drops).filter(|&(_, &count)| count > 0);
        to.collect_map(named.map(|(&reason, count)| (name(reason), count)))
    }

    /// A reason that is not known is one of another version, and passed over.
    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Drops, D::Error> {
        let named = BTreeMap::<String, u64>::deserialize(from)?;
        let mut drops = [0; DropReason::ALL.len()];
        if !named.is_empty() {
            for &reason in DropReason::ALL {
                drops[reason.index()] = named.get(&name(reason)).copied().unwrap_or_default();
            }
        }
        Ok(drops)
    }

    /// The variant's name in snake case.
    fn name(reason: DropReason) -> String {
        let mut name = String::new();
        for letter in format!("{reason:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
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

    #[test]
    fn drops_of_both_directions_are_told_apart() {
        let mut drops = [0; DropReason::ALL.len()];
        drops[DropReason::NoHello.index()] = 2;
        drops[DropReason::BadMac.index()] = 3;
        let totals = Totals::of_drops(&drops);
        let out: Vec<_> = totals.out.drops().collect();
        let back: Vec<_> = totals.back.drops().collect();
        assert_eq!((out, back), (vec![(DropReason::NoHello, 2)], vec![(DropReason::BadMac, 3)]));
    }

    #[test]
    fn drops_travel_by_name() {
        let counters = Counters::default();
        counters.dropped(DropReason::SourceNotAllowed, 3);
        counters.dropped(DropReason::Empty, 1);
        let json = serde_json::to_string(&counters.traffic()).unwrap();
        assert_eq!(json, r#"{"packets":0,"octets":0,"drops":{"empty":1,"source_not_allowed":3}}"#);
        assert_eq!(serde_json::from_str::<Traffic>(&json).unwrap(), counters.traffic());
    }

    #[test]
    fn every_counter_arrives_in_its_place() {
        let counters = Counters::default();
        for (place, &reason) in DropReason::ALL.iter().enumerate() {
            counters.dropped(reason, place + 1);
        }
        let json = serde_json::to_string(&counters.traffic()).unwrap();
        assert_eq!(serde_json::from_str::<Traffic>(&json).unwrap(), counters.traffic());
    }
}
