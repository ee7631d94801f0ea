//! When to look into the inbox next.
//!
//! # Theory of operation
//!
//! inotify(7) announces at once what this machine does in a folder, and never what another machine does.
//! Looking finds both. So both are done always; the question is how often to look:
//!
//! * After traffic, soon, because traffic comes in bursts; then less and less often, up to a limit.
//! * The limit is the setting, *poll*, unless inotify has earned *trust*: each sender's last
//!   [`TRUST`] files were announced. Then looking only guards against a mistake and may be rare.
//!
//! Traffic that is announced does not put a look off for longer than that limit: what another machine writes
//! at the same time is found by looking only.
//!
//! A file counts as announced if its announcement came before it was taken or within `GRACE` after, as a
//! look may overtake the announcement on the way. One that was not takes all trust in its sender away.

use std::time::Duration;

/// Until the first look after traffic.
const SOON: Duration = Duration::from_micros(50);

/// Between looks where inotify is trusted.
pub const RARELY: Duration = Duration::from_millis(500);

/// How many files in a row must have been announced.
pub const TRUST: u8 = 16;

/// How late an announcement may be.
const GRACE: Duration = Duration::from_millis(10);

/// The time of the next look.
#[derive(Debug)]
pub struct Pace {
    /// The longest pause without trust.
    poll: Duration,
    pause: Duration,
    next: Duration,
    /// When everything was looked at last.
    looked: Option<Duration>,
}

/// Whether inotify announces the files of one sender.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// How many files in a row were announced, up to [`TRUST`].
    streak: u8,
    /// A file that was taken without having been announced, and when.
    owed: Option<(u64, Duration)>,
}

impl Pace {
    /// The first look is due now. `poll` is the longest pause between looks that find something new.
    pub fn new(poll: Duration, now: Duration) -> Self {
        let poll = poll.clamp(SOON, RARELY);
        Self { poll, pause: poll, next: now, looked: None }
    }

    /// Something was there.
    pub fn handle_traffic(&mut self, trusted: bool, now: Duration) {
        self.pause = if trusted { self.poll } else { SOON };
        self.next = now + self.pause;
    }

    /// Everything was looked at.
    pub fn handle_look(&mut self, now: Duration) {
        self.looked = Some(now);
    }

    /// Nothing was there, after a look at everything.
    pub fn handle_idle(&mut self, trusted: bool, now: Duration) {
        let limit = self.limit(trusted);
        self.next = now + self.pause.min(limit);
        self.pause = (self.pause * 2).min(limit);
    }

    /// When the next look is due, if nothing is there until then.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Whether a look is due whatever is there.
    pub fn is_overdue(&self, trusted: bool, now: Duration) -> bool {
        self.looked.is_none_or(|looked| now >= looked + self.limit(trusted))
    }

    fn limit(&self, trusted: bool) -> Duration {
        if trusted { RARELY } else { self.poll }
    }
}

impl Evidence {
    /// The file of this number was taken.
    pub fn handle_taken(&mut self, number: u64, announced: bool, now: Duration) {
        if self.owed.is_some() {
            self.streak = 0;
        }
        self.owed = (!announced).then_some((number, now));
        if announced {
            self.streak = TRUST.min(self.streak + 1);
        }
    }

    /// A file of this number, which has been taken, was announced.
    pub fn handle_announced(&mut self, number: u64, now: Duration) {
        if let Some((owed, taken)) = self.owed
            && owed == number
            && now <= taken + GRACE
        {
            self.owed = None;
            self.streak = TRUST.min(self.streak + 1);
        }
    }

    /// Whether what this sender writes is announced.
    pub fn is_trusted(&self, now: Duration) -> bool {
        let overdue = self.owed.is_some_and(|(_, taken)| now > taken + GRACE);
        self.streak >= TRUST && !overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The pauses between looks that find nothing, in microseconds.
    fn pauses(pace: &mut Pace, trusted: bool, count: usize) -> Vec<u128> {
        let mut pauses = Vec::new();
        for _ in 0..count {
            let now = pace.next();
            pace.handle_idle(trusted, now);
            pauses.push((pace.next() - now).as_micros());
        }
        pauses
    }

    #[test]
    fn looks_become_rarer_up_to_the_setting() {
        let mut pace = Pace::new(at(20), at(0));
        pace.handle_traffic(false, at(0));
        assert_eq!(pace.next(), Duration::from_micros(50));
        let expected = [50, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 20_000, 20_000];
        assert_eq!(pauses(&mut pace, false, 11), expected);
    }

    #[test]
    fn where_inotify_is_trusted_looks_are_rare() {
        let mut pace = Pace::new(at(20), at(0));
        pace.handle_traffic(true, at(0));
        let expected = [20_000, 40_000, 80_000, 160_000, 320_000, 500_000, 500_000];
        assert_eq!(pauses(&mut pace, true, 7), expected);
        assert_eq!(pauses(&mut pace, false, 1), [20_000]);
    }

    #[test]
    fn traffic_puts_a_look_off_for_a_while_only() {
        let mut pace = Pace::new(at(20), at(0));
        assert!(pace.is_overdue(false, at(0)));
        pace.handle_look(at(5));
        for millis in 5..25 {
            pace.handle_traffic(false, at(millis));
            assert!(!pace.is_overdue(false, at(millis)));
        }
        assert!(pace.is_overdue(false, at(25)));
        assert!(!pace.is_overdue(true, at(504)));
        assert!(pace.is_overdue(true, at(505)));
    }

    #[test]
    fn a_setting_out_of_bounds_is_brought_into_them() {
        let mut pace = Pace::new(at(9999), at(0));
        assert_eq!(pauses(&mut pace, false, 1), [500_000]);
        let mut pace = Pace::new(at(0), at(0));
        assert_eq!(pauses(&mut pace, false, 1), [50]);
    }

    #[test]
    fn trust_is_earned_by_announcements_in_a_row() {
        let mut evidence = Evidence::default();
        for number in 1..=u64::from(TRUST) {
            assert!(!evidence.is_trusted(at(0)));
            evidence.handle_taken(number, true, at(0));
        }
        assert!(evidence.is_trusted(at(1_000_000)));
    }

    fn trusted() -> Evidence {
        Evidence { streak: TRUST, owed: None }
    }

    #[test]
    fn one_file_that_was_not_announced_ends_it() {
        let mut evidence = trusted();
        evidence.handle_taken(17, false, at(0));
        assert!(evidence.is_trusted(at(10)));
        assert!(!evidence.is_trusted(at(11)));
        evidence.handle_taken(18, true, at(12));
        assert!(!evidence.is_trusted(at(12)));
    }

    #[test]
    fn an_announcement_may_come_a_little_late() {
        let mut evidence = trusted();
        evidence.handle_taken(17, false, at(0));
        evidence.handle_announced(16, at(5));
        evidence.handle_announced(17, at(10));
        assert!(evidence.is_trusted(at(1000)));
        evidence.handle_taken(18, false, at(1000));
        evidence.handle_announced(18, at(1011));
        assert!(!evidence.is_trusted(at(1011)));
    }
}
