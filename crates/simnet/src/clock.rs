//! What people call the time.

use std::time::Duration;

/// A clock that runs as fast as virtual time, but says what it was set to.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// What it says, and when it was set.
    set: (Duration, Duration),
}

impl WallClock {
    /// A clock that says `wall` at the beginning of the run.
    pub fn new(wall: Duration) -> Self {
        Self { set: (wall, Duration::ZERO) }
    }

    /// What the clock says at `now`.
    pub fn at(&self, now: Duration) -> Duration {
        let (wall, when) = self.set;
        wall + now.saturating_sub(when)
    }

    /// Sets the clock at `now` to `wall`, which may be long ago or far away.
    pub fn jump(&mut self, now: Duration, wall: Duration) {
        self.set = (wall, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_runs_on_from_what_it_was_set_to() {
        let seconds = Duration::from_secs;
        let mut clock = WallClock::new(seconds(1000));
        assert_eq!(clock.at(seconds(5)), seconds(1005));
        clock.jump(seconds(5), seconds(10));
        assert_eq!(clock.at(seconds(7)), seconds(12));
    }
}
