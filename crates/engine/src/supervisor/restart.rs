//! When the next worker starts.
//!
//! The first one to die is replaced at once, so that nobody notices. One that dies as soon as it has started will do so
//! again, so the next ones wait longer and longer.

use std::time::Duration;

/// A worker that has lived this long was well.
const WELL: Duration = Duration::from_secs(1);

/// How long to wait after the second death in a row, and at most.
const DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The deaths of workers in a row.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    next: Duration,
}

impl Restarts {
    /// How long to wait after the death of a worker that has lived for `life`.
    pub(crate) fn delay_after(&mut self, life: Duration) -> Duration {
        let delay = if life < WELL { self.next } else { Duration::ZERO };
        self.next = (delay * 2).clamp(DELAY.0, DELAY.1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_is_mended_at_once_and_the_next_ones_later_and_later() {
        let mut restarts = Restarts::default();
        let delays = [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000];
        for delay in delays.map(Duration::from_millis) {
            assert_eq!(restarts.delay_after(Duration::from_millis(999)), delay);
        }
    }

    #[test]
    fn a_worker_that_was_well_is_replaced_at_once() {
        let mut restarts = Restarts::default();
        for _ in 0..5 {
            restarts.delay_after(Duration::ZERO);
        }
        assert_eq!(restarts.delay_after(WELL), Duration::ZERO);
        assert_eq!(restarts.delay_after(Duration::ZERO), DELAY.0);
    }
}
