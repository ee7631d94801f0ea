//! The clocks of sessions.

use std::time::{Duration, SystemTime};

use proto::time::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now, on the clock that counts the sleep of the machine, too: keys grow old in it.
pub(crate) fn now() -> Instant {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// Now, since the Unix epoch.
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
