//! When something is due, and for whom.
//!
//! # Theory of operation
//!
//! Each peer has one timer of each kind. All that are armed lie in one tree in the order of their deadlines, so
//! that the next one of thousands of peers is found at once; a table by peer says where in the tree a timer
//! is. Of equal deadlines the peer with the lower index comes first, so a run can be repeated.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::peer::PeerIndex;
use crate::time::Instant;

/// What repeats or answers is delayed by up to this much at random, so that two peers do not go on
/// colliding (`REKEY_TIMEOUT_JITTER_MAX_JIFFIES` in Linux `messages.h`).
pub const JITTER_MAX: Duration = Duration::from_millis(333);

/// Keys are erased when none were made for so many times `reject_after` (whitepaper, section 6.3).
pub const ERASE_KEYS_AFTER: u32 = 3;

/// The timers of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The initiation was not answered, or must wait until the last one is long enough ago.
    Initiation,
    /// Data that was sent was not answered: new keys.
    Unanswered,
    /// Data that was received is to be acknowledged by a keepalive.
    Acknowledgment,
    /// Nothing passed for the time that was configured.
    PersistentKeepalive,
    /// No new keys for long: erase those that are there.
    EraseKeys,
    /// A control frame was not acknowledged.
    Control,
    /// The peer did not say hello, and data waits for that.
    Hello,
}

impl Timer {
    /// All timers, in the order of their places in a table.
    pub const ALL: [Self; 7] = [
        Self::Initiation,
        Self::Unanswered,
        Self::Acknowledgment,
        Self::PersistentKeepalive,
        Self::EraseKeys,
        Self::Control,
        Self::Hello,
    ];

    fn place(self) -> usize {
        self as usize
    }
}

/// The timers of all peers.
#[derive(Debug, Default)]
pub struct Timers {
    due: BTreeSet<(Instant, PeerIndex, Timer)>,
    armed: Vec<[Option<Instant>; Timer::ALL.len()]>,
}

impl Timers {
    /// Lets a timer be due at `at`, and not when it was before.
    pub fn arm(&mut self, peer: PeerIndex, timer: Timer, at: Instant) {
        self.disarm(peer, timer);
        let place = usize::from(peer.0);
        if self.armed.len() <= place {
            self.armed.resize(place + 1, [None; Timer::ALL.len()]);
        }
        self.armed[place][timer.place()] = Some(at);
        self.due.insert((at, peer, timer));
    }

    /// Lets a timer not be due.
    pub fn disarm(&mut self, peer: PeerIndex, timer: Timer) {
        let armed = self.armed.get_mut(usize::from(peer.0));
        if let Some(at) = armed.and_then(|timers| timers[timer.place()].take()) {
            self.due.remove(&(at, peer, timer));
        }
    }

    /// Lets no timer of a peer be due.
    pub fn disarm_all(&mut self, peer: PeerIndex) {
        for timer in Timer::ALL {
            self.disarm(peer, timer);
        }
    }

    /// When a timer is due, if it is armed.
    pub fn armed(&self, peer: PeerIndex, timer: Timer) -> Option<Instant> {
        self.armed.get(usize::from(peer.0))?[timer.place()]
    }

    /// When the next timer is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|&(at, ..)| at)
    }

    /// Takes a timer that is due, the one that was due first.
    pub fn pop_due(&mut self, now: Instant) -> Option<(PeerIndex, Timer)> {
        let &(_, peer, timer) = self.due.first().filter(|&&(at, ..)| at <= now)?;
        self.disarm(peer, timer);
        Some((peer, timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn every_timer_has_a_place_of_its_own() {
        for (place, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer.place(), place);
        }
    }

    #[test]
    fn a_timer_that_is_armed_again_is_due_once() {
        let mut timers = Timers::default();
        timers.arm(PeerIndex(3), Timer::Control, at(10));
        timers.arm(PeerIndex(3), Timer::Control, at(20));
        assert_eq!(timers.pop_due(at(19)), None);
        assert_eq!(timers.pop_due(at(20)), Some((PeerIndex(3), Timer::Control)));
        assert_eq!(timers.pop_due(at(20)), None);
        assert_eq!(timers.next(), None);
    }

    proptest! {
        /// Against a list of all timers, searched from end to end.
        #[test]
        fn timers_are_due_in_order(
            steps in prop::collection::vec((0_u16..5, 0_usize..7, prop::option::of(0_u64..50)), 0..60),
        ) {
            let mut timers = Timers::default();
            let mut model = std::collections::BTreeMap::new();
            for (peer, timer, time) in steps {
                let (peer, timer) = (PeerIndex(peer), Timer::ALL[timer]);
                match time {
                    Some(time) => {
                        timers.arm(peer, timer, at(time));
                        model.insert((peer, timer), at(time));
                    }
                    None => {
                        timers.disarm(peer, timer);
                        model.remove(&(peer, timer));
                    }
                }
                prop_assert_eq!(timers.next(), model.values().min().copied());
            }
            while let Some(next) = timers.next() {
                let (peer, timer) = timers.pop_due(next).unwrap();
                prop_assert_eq!(model.remove(&(peer, timer)), Some(next));
            }
            prop_assert!(model.is_empty());
        }
    }
}
