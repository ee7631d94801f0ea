//! Whether the folder works, and when to try again if it does not.

use std::time::Duration;

/// Until the first new attempt.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Between attempts while nothing works.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// *Up* while operations succeed, *down* from one that failed until one that succeeds.
#[derive(Debug)]
pub(super) struct Health {
    /// When it is tried again; `None` while up.
    retry: Option<Duration>,
    pause: Duration,
}

impl Health {
    /// Up.
    pub(super) fn new() -> Self {
        Self { retry: None, pause: PAUSE_MIN }
    }

    /// Whether an operation is to be tried.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.retry.is_none_or(|retry| retry <= now)
    }

    /// When an operation is tried again; `None` while up.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// An operation failed. Says whether that is a change.
    pub(super) fn handle_fault(&mut self, now: Duration) -> bool {
        let changed = self.retry.is_none();
        self.retry = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        changed
    }

    /// An operation succeeded. Says whether that is a change.
    pub(super) fn handle_success(&mut self) -> bool {
        self.pause = PAUSE_MIN;
        self.retry.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_less_and_less_often_and_soon_again_after_a_success() {
        let mut health = Health::new();
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for attempt in 0..10 {
            assert!(health.is_due(now));
            assert_eq!(health.handle_fault(now), attempt == 0);
            assert!(!health.is_due(now));
            let retry = health.retry().unwrap();
            pauses.push((retry - now).as_millis());
            now = retry;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1280, 2000, 2000]);
        assert!(health.handle_success() && !health.handle_success());
        assert!(health.is_due(Duration::ZERO) && health.handle_fault(now));
        assert_eq!(health.retry(), Some(now + PAUSE_MIN));
    }
}
