//! What adit is to reach, and whether it does.

use serde::Serialize;

use super::figures::{Figures, Metric};
use super::rig::Way;

/// What is wanted of one metric of one way.
struct Target {
    way: Way,
    metric: Metric,
    wanted: Wanted,
}

/// Compared are the medians of all rounds.
#[derive(Clone, Copy)]
enum Wanted {
    /// At least this share of what the other way has.
    Share(f64, Way),
    /// At most so many times what the other way has.
    Times(f64, Way),
    /// At most so much more than the other way has.
    Above(f64, Way),
    Limit(f64),
}

use Wanted::{Above, Limit, Share, Times};

const TARGETS: [Target; 14] = [
    Target::of(Way::Adit, Metric::Tcp1, Share(0.5, Way::Vxlan)),
    Target::of(Way::Adit, Metric::Small, Share(0.5, Way::Vxlan)),
    Target::of(Way::Adit, Metric::PingMedian, Above(130.0, Way::Bare)),
    Target::of(Way::Adit, Metric::LoadedPingMedian, Limit(1500.0)),
    Target::of(Way::Adit, Metric::CpuPerGigabit, Limit(0.13)),
    Target::of(Way::Adit, Metric::PeakMemory, Limit(32.0)),
    Target::of(Way::AditAes, Metric::Tcp1, Share(0.4, Way::Vxlan)),
    Target::of(Way::AditAes, Metric::CpuPerGigabit, Limit(0.20)),
    Target::of(Way::AditSpool, Metric::Tcp1, Share(0.5, Way::AditAes)),
    Target::of(Way::AditSpool, Metric::PingMedian, Limit(300.0)),
    Target::of(Way::AditSpoolDisk, Metric::Tcp1, Share(0.25, Way::AditSpool)),
    Target::of(Way::AditPeers, Metric::CpuPerPacket, Times(1.1, Way::AditAes)),
    Target::of(Way::AditStock, Metric::Tcp1, Share(10.0, Way::WireguardGo)),
    Target::of(Way::AditStock, Metric::CpuPerGigabit, Limit(0.32)),
];

/// A target beside what was measured.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Verdict {
    pub(super) way: &'static str,
    pub(super) name: &'static str,
    pub(super) wanted: String,
    pub(super) measured: f64,
    pub(super) met: bool,
    #[serde(skip)]
    pub(super) digits: usize,
}

/// Judges all targets of which there are figures.
pub(super) fn judge(figures: &Figures) -> Vec<Verdict> {
    TARGETS.iter().filter_map(|target| target.judge(figures)).collect()
}

impl Target {
    const fn of(way: Way, metric: Metric, wanted: Wanted) -> Self {
        Self { way, metric, wanted }
    }

    fn judge(&self, figures: &Figures) -> Option<Verdict> {
        let (way, metric) = (self.way, self.metric);
        let unit = metric.unit();
        let (measured, met, wanted, digits) = match self.wanted {
            Share(factor, other) => {
                let ratio = figures.ratio(metric, way, other)?.median;
                let wanted = format!("at least {factor} of {}", other.name());
                (ratio, ratio >= factor, wanted, 2)
            }
            Times(factor, other) => {
                let ratio = figures.ratio(metric, way, other)?.median;
                let wanted = format!("at most {factor} of {}", other.name());
                (ratio, ratio <= factor, wanted, 2)
            }
            Above(limit, other) => {
                let more = figures.difference(metric, way, other)?.median;
                let wanted = format!("at most {limit} {unit} more than {}", other.name());
                (more, more <= limit, wanted, metric.digits())
            }
            Limit(limit) => {
                let value = figures.summary(metric, way)?.median;
                (value, value <= limit, format!("at most {limit} {unit}"), metric.digits())
            }
        };
        Some(Verdict { way: way.name(), name: metric.name(), wanted, measured, met, digits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(metric: Metric, adit: f64, other: f64) -> Verdict {
        let mut figures = Figures::default();
        for (way, value) in [(Way::Adit, adit), (Way::Bare, other), (Way::Vxlan, other)] {
            figures.add(metric, way, value);
        }
        judge(&figures).remove(0)
    }

    #[test]
    fn a_target_is_met_at_its_limit() {
        assert!(verdict(Metric::Tcp1, 5.0, 10.0).met);
        assert!(!verdict(Metric::Tcp1, 4.9, 10.0).met);
        assert!(verdict(Metric::PingMedian, 150.0, 20.0).met);
        assert!(!verdict(Metric::PingMedian, 151.0, 20.0).met);
        assert!(verdict(Metric::PeakMemory, 32.0, 0.0).met);
        assert!(!verdict(Metric::PeakMemory, 32.1, 0.0).met);
    }

    #[test]
    fn many_peers_may_cost_a_tenth_more() {
        let judged = |cost| {
            let mut figures = Figures::default();
            figures.add(Metric::CpuPerPacket, Way::AditAes, 2.0);
            figures.add(Metric::CpuPerPacket, Way::AditPeers, cost);
            judge(&figures).remove(0)
        };
        assert!(judged(2.2).met);
        assert!(!judged(2.3).met);
        assert_eq!(
            (judged(2.2).way, judged(2.2).wanted.as_str()),
            ("adit-peers", "at most 1.1 of adit-aes")
        );
    }

    #[test]
    fn a_verdict_says_what_was_compared() {
        let verdict = verdict(Metric::Small, 300.0, 400.0);
        assert_eq!(verdict.wanted, "at least 0.5 of vxlan");
        assert_eq!(verdict.measured, 0.75);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(judge(&Figures::default()), []);
    }
}
