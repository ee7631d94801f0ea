//! What was measured, round by round, and what to say of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::rig::Way;

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    Tcp1,
    Tcp4,
    Reverse,
    Small,
    PingMedian,
    PingP99,
    LoadedPingMedian,
    LoadedPingP99,
    CpuPerGigabit,
    /// Of packets of 64 octets that arrive.
    CpuPerPacket,
    PeakMemory,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Figures(BTreeMap<(Metric, Way), Vec<f64>>);

/// Some values, and the middle of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// In the order of the rounds.
    pub(super) rounds: Vec<f64>,
}

impl Metric {
    /// All metrics, in the order of the table.
    pub(super) const ALL: [Self; 11] = [
        Self::Tcp1,
        Self::Tcp4,
        Self::Reverse,
        Self::Small,
        Self::PingMedian,
        Self::PingP99,
        Self::LoadedPingMedian,
        Self::LoadedPingP99,
        Self::CpuPerGigabit,
        Self::CpuPerPacket,
        Self::PeakMemory,
    ];

    /// The name in tables and JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP, one stream",
            Self::Tcp4 => "TCP, four streams",
            Self::Reverse => "TCP, reverse",
            Self::Small => "packets of 64 octets",
            Self::PingMedian => "ping, median",
            Self::PingP99 => "ping, 99 %",
            Self::LoadedPingMedian => "ping under load, median",
            Self::LoadedPingP99 => "ping under load, 99 %",
            Self::CpuPerGigabit => "processor time of TCP",
            Self::CpuPerPacket => "processor time of 64 octets",
            Self::PeakMemory => "peak memory",
        }
    }

    /// The unit of its values.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp4 | Self::Reverse => "Gbit/s",
            Self::Small => "1000/s",
            Self::PingMedian | Self::PingP99 | Self::LoadedPingMedian | Self::LoadedPingP99 => "µs",
            Self::CpuPerGigabit => "s/Gbit",
            Self::CpuPerPacket => "µs/packet",
            Self::PeakMemory => "MiB",
        }
    }

    /// Digits behind the point that mean something.
    pub(super) fn digits(self) -> usize {
        match self.unit() {
            "s/Gbit" => 3,
            "Gbit/s" | "µs/packet" => 2,
            "MiB" => 1,
            _ => 0,
        }
    }
}

impl Figures {
    /// Adds the value of the next round.
    pub(super) fn add(&mut self, metric: Metric, way: Way, value: f64) {
        self.0.entry((metric, way)).or_default().push(value);
    }

    /// The values of all rounds; `None` if it was not measured.
    pub(super) fn summary(&self, metric: Metric, way: Way) -> Option<Summary> {
        Summary::of(self.rounds(metric, way).to_vec())
    }

    /// How many times the value of `other` that of `way` is, in each round.
    pub(super) fn ratio(&self, metric: Metric, way: Way, other: Way) -> Option<Summary> {
        self.compare(metric, way, other, |value, other| value / other)
    }

    /// How much larger than the value of `other` that of `way` is, in each round.
    pub(super) fn difference(&self, metric: Metric, way: Way, other: Way) -> Option<Summary> {
        self.compare(metric, way, other, |value, other| value - other)
    }

    fn compare(
        &self,
        metric: Metric,
        way: Way,
        other: Way,
        by: impl Fn(f64, f64) -> f64,
    ) -> Option<Summary> {
        let others = self.rounds(metric, other);
        let pairs = self.rounds(metric, way).iter().zip(others);
        Summary::of(pairs.map(|(value, other)| by(*value, *other)).collect())
    }

    fn rounds(&self, metric: Metric, way: Way) -> &[f64] {
        self.0.get(&(metric, way)).map_or(&[], Vec::as_slice)
    }
}

impl Summary {
    /// `None` of nothing.
    fn of(rounds: Vec<f64>) -> Option<Self> {
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: f64::midpoint(below, above), min, max, rounds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(bare: &[f64], adit: &[f64]) -> Figures {
        let mut figures = Figures::default();
        bare.iter().for_each(|value| figures.add(Metric::Tcp1, Way::Bare, *value));
        adit.iter().for_each(|value| figures.add(Metric::Tcp1, Way::Adit, *value));
        figures
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_two() {
        let figures = figures(&[5.0, 1.0, 2.0], &[4.0, 1.0, 2.0, 8.0]);
        let bare = figures.summary(Metric::Tcp1, Way::Bare).unwrap();
        assert_eq!((bare.median, bare.min, bare.max), (2.0, 1.0, 5.0));
        assert_eq!(bare.rounds, [5.0, 1.0, 2.0]);
        assert_eq!(figures.summary(Metric::Tcp1, Way::Adit).unwrap().median, 3.0);
        assert_eq!(figures.summary(Metric::Tcp4, Way::Adit), None);
    }

    #[test]
    fn ratios_are_those_of_each_round() {
        let figures = figures(&[10.0, 20.0, 40.0], &[5.0, 5.0, 30.0]);
        let ratio = figures.ratio(Metric::Tcp1, Way::Adit, Way::Bare).unwrap();
        assert_eq!(ratio.rounds, [0.5, 0.25, 0.75]);
        assert_eq!(ratio.median, 0.5);
        let difference = figures.difference(Metric::Tcp1, Way::Adit, Way::Bare).unwrap();
        assert_eq!(difference.rounds, [-5.0, -15.0, -10.0]);
    }
}
