//! When each name is looked up.
//!
//! # Theory of operation
//!
//! Every name has the instant at which it is due, and the one that has been due for longest comes first. Who asks for
//! a name moves that instant forward, to a *patience* after the last look; so asking cannot make anybody look more
//! often, nor let the other names wait for ever. The patience doubles while asking brings nothing new.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Addresses are good for at least so long: a host that moves more often has no use of its name, and a server that
/// says 0 would be asked without pause.
pub(super) const SHORTEST: Duration = Duration::from_secs(5);

/// Addresses are good for at most so long, so that a name that moves although it promised otherwise is followed the
/// same day.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// How long addresses are good of which nobody says so: what is usual for names of hosts that move.
pub(super) const UNKNOWN: Duration = Duration::from_secs(60);

/// After which time a look that is asked for happens, at first and at most. At first it is as long as an initiation
/// is waited for (whitepaper, section 6.1).
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The name has no address, or nobody knows.
    Missing,
    /// The addresses of before, for so long if that is known.
    Same(Option<Duration>),
    /// Others, for so long if that is known.
    Other(Option<Duration>),
}

/// Names, each with the instant at which it is due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    names: HashMap<Arc<str>, Entry>,
    due: BTreeSet<(Instant, Arc<str>)>,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    /// When it was looked up last.
    looked: Option<Instant>,
    patience: Duration,
    /// Whether it is due earlier than its addresses say.
    is_asked: bool,
}

impl Schedule {
    /// These are the names from here on. Who is new is due `now`; who stays is due when it was.
    pub(super) fn replace(&mut self, names: impl IntoIterator<Item = Arc<str>>, now: Instant) {
        let mut before = std::mem::take(&mut self.names);
        self.due.clear();
        for name in names {
            let new = || Entry { due: now, looked: None, patience: PATIENCE.0, is_asked: false };
            let entry = before.remove(&name).unwrap_or_else(new);
            self.due.insert((entry.due, Arc::clone(&name)));
            self.names.insert(name, entry);
        }
    }

    /// Somebody wants `name` to be looked up; whether that makes it due earlier.
    pub(super) fn ask(&mut self, name: &str) -> bool {
        let Some((name, entry)) = self.names.get_key_value(name) else { return false };
        // Without a look so far, it is due as early as it can be.
        let Some(earliest) = entry.looked.map(|looked| looked + entry.patience) else {
            return false;
        };
        if entry.due <= earliest {
            return false;
        }
        self.set_due(&Arc::clone(name), earliest, true);
        true
    }

    /// Somebody wants all names to be looked up.
    pub(super) fn ask_all(&mut self) {
        let names: Vec<_> = self.names.keys().cloned().collect();
        for name in names {
            self.ask(&name);
        }
    }

    /// Whether it is one of the names.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// When a name is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The name that has been due for longest, which is looked up `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<Arc<str>> {
        let (_, name) = self.due.first().filter(|(due, _)| *due <= now)?.clone();
        let is_asked = self.names.get(&name)?.is_asked;
        // Until it is known better.
        self.set_due(&name, now + UNKNOWN, is_asked);
        self.names.get_mut(&name)?.looked = Some(now);
        Some(name)
    }

    /// A look has ended `now`.
    pub(super) fn looked(&mut self, name: &Arc<str>, now: Instant, outcome: Outcome) {
        let Some(entry) = self.names.get_mut(name) else { return };
        let doubled = (entry.patience * 2).min(PATIENCE.1);
        let (good_for, patience) = match outcome {
            Outcome::Missing => (entry.patience, doubled),
            Outcome::Same(life) if entry.is_asked => (good_for(life), doubled),
            Outcome::Same(life) | Outcome::Other(life) => (good_for(life), PATIENCE.0),
        };
        entry.looked = Some(now);
        entry.patience = patience;
        self.set_due(name, now + good_for, false);
    }

    fn set_due(&mut self, name: &Arc<str>, due: Instant, is_asked: bool) {
        let Some(entry) = self.names.get_mut(name) else { return };
        self.due.remove(&(entry.due, Arc::clone(name)));
        (entry.due, entry.is_asked) = (due, is_asked);
        self.due.insert((due, Arc::clone(name)));
    }
}

/// How long addresses are taken for granted that live for so long.
fn good_for(life: Option<Duration>) -> Duration {
    life.map_or(UNKNOWN, |life| life.clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A schedule that began at the instant that comes with it.
    fn schedule<const N: usize>(names: [&str; N]) -> (Schedule, Instant) {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.replace(names.map(Arc::from), start);
        (schedule, start)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Takes what is due, and says that it was so; its name.
    fn look(schedule: &mut Schedule, now: Instant, outcome: Outcome) -> Option<String> {
        let name = schedule.take(now)?;
        schedule.looked(&name, now, outcome);
        Some(name.to_string())
    }

    /// How long after `now` something is due.
    fn pause(schedule: &Schedule, now: Instant) -> Duration {
        schedule.next().unwrap() - now
    }

    #[test]
    fn a_name_is_looked_up_at_once_and_then_by_its_life() {
        let (mut schedule, start) = schedule(["b.test"]);
        for (life, wanted) in [
            (Some(seconds(0)), 5),
            (Some(seconds(30)), 30),
            (Some(seconds(86_400)), 3600),
            (None, 60),
        ] {
            let now = schedule.next().unwrap();
            assert_eq!(look(&mut schedule, now, Outcome::Same(life)).as_deref(), Some("b.test"));
            assert_eq!(pause(&schedule, now), seconds(wanted), "{life:?}");
            assert_eq!(schedule.take(now), None);
        }
        assert!(schedule.next().unwrap() > start);
    }

    #[test]
    fn who_asks_again_and_again_has_to_be_ever_more_patient() {
        let (mut schedule, mut now) = schedule(["b.test"]);
        let same = Outcome::Same(Some(seconds(3600)));
        look(&mut schedule, now, same);
        for wanted in [5, 10, 20, 40, 60, 60] {
            assert!(schedule.ask("b.test"));
            assert!(!schedule.ask("b.test"), "it is due already");
            assert_eq!(pause(&schedule, now), seconds(wanted));
            now += seconds(wanted);
            look(&mut schedule, now, same).unwrap();
            assert_eq!(pause(&schedule, now), seconds(3600));
        }
        schedule.ask("b.test");
        now += seconds(60);
        look(&mut schedule, now, Outcome::Other(None)).unwrap();
        schedule.ask("b.test");
        assert_eq!(pause(&schedule, now), seconds(5));
    }

    #[test]
    fn a_name_that_is_missing_is_looked_for_with_growing_patience() {
        let (mut schedule, mut now) = schedule(["b.test"]);
        for wanted in [5, 10, 20, 40, 60, 60] {
            look(&mut schedule, now, Outcome::Missing).unwrap();
            assert_eq!(pause(&schedule, now), seconds(wanted));
            now += seconds(wanted);
        }
        look(&mut schedule, now, Outcome::Other(Some(seconds(30)))).unwrap();
        assert_eq!(pause(&schedule, now), seconds(30));
    }

    #[test]
    fn asking_lets_no_other_name_wait_for_ever() {
        let (mut schedule, start) = schedule(["asked.test", "other.test"]);
        let short = Outcome::Same(Some(seconds(5)));
        assert_eq!(look(&mut schedule, start, short).as_deref(), Some("asked.test"));
        assert_eq!(look(&mut schedule, start + seconds(1), short).as_deref(), Some("other.test"));
        // Both are long due, and the machine has time for one of them.
        let late = start + seconds(100);
        schedule.ask("asked.test");
        assert_eq!(look(&mut schedule, late, short).as_deref(), Some("asked.test"));
        schedule.ask("asked.test");
        assert_eq!(look(&mut schedule, late, short).as_deref(), Some("other.test"));
    }

    #[test]
    fn names_that_stay_keep_their_time() {
        let (mut schedule, start) = schedule(["b.test", "c.test"]);
        let name = schedule.take(start).unwrap();
        schedule.looked(&name, start, Outcome::Same(Some(seconds(30))));
        schedule.replace(["b.test", "d.test"].map(Arc::from), start + seconds(1));
        let now = start + seconds(2);
        assert_eq!(look(&mut schedule, now, Outcome::Missing).as_deref(), Some("d.test"));
        assert_eq!(schedule.take(now), None, "c.test is gone");
        assert_eq!(pause(&schedule, start), seconds(7));
        schedule.replace(["b.test"].map(Arc::from), now);
        assert_eq!(pause(&schedule, start), seconds(30));
    }

    #[test]
    fn a_name_that_left_while_it_was_looked_up_stays_away() {
        let (mut schedule, start) = schedule(["b.test"]);
        let name = schedule.take(start).unwrap();
        schedule.replace([], start);
        schedule.looked(&name, start, Outcome::Missing);
        assert_eq!(schedule.next(), None);
        assert!(!schedule.ask("b.test"));
    }
}
