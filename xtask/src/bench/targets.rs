//! What adit is to reach, and whether it does.

use serde::Serialize;

use super::figures::{Figures, Metric};
use super::rig::Way;

/// What is wanted of one metric of adit.
struct Target {
    metric: Metric,
    wanted: Wanted,
}

/// Compared are the medians of all rounds.
#[derive(Clone, Copy)]
enum Wanted {
    /// At least this share of what the other way has.
    Share(f64, Way),
    /// At most so much more than the other way has.
    Above(f64, Way),
    Limit(f64),
}

use Wanted::{Above, Limit, Share};

const TARGETS: [Target; 6] = [
    Target { metric: Metric::Tcp1, wanted: Share(0.5, Way::Vxlan) },
    Target { metric: Metric::Small, wanted: Share(0.5, Way::Vxlan) },
    Target { metric: Metric::PingMedian, wanted: Above(130.0, Way::Bare) },
    Target { metric: Metric::LoadedPingMedian, wanted: Limit(1500.0) },
    Target { metric: Metric::CpuPerGigabit, wanted: Limit(0.13) },
    Target { metric: Metric::PeakMemory, wanted: Limit(32.0) },
];

/// A target beside what was measured.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Verdict {
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
    fn judge(&self, figures: &Figures) -> Option<Verdict> {
        let metric = self.metric;
        let unit = metric.unit();
        let (measured, met, wanted, digits) = match self.wanted {
            Share(factor, other) => {
                let ratio = figures.ratio(metric, Way::Adit, other)?.median;
                let wanted = format!("at least {factor} of {}", other.name());
                (ratio, ratio >= factor, wanted, 2)
            }
            Above(limit, other) => {
                let more = figures.difference(metric, Way::Adit, other)?.median;
                let wanted = format!("at most {limit} {unit} more than {}", other.name());
                (more, more <= limit, wanted, metric.digits())
            }
            Limit(limit) => {
                let value = figures.summary(metric, Way::Adit)?.median;
                (value, value <= limit, format!("at most {limit} {unit}"), metric.digits())
            }
        };
        Some(Verdict { name: metric.name(), wanted, measured, met, digits })
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
