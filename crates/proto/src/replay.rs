//! Which messages of a keypair have come already.
//!
//! # Theory of operation
//!
//! Messages may be reordered, so a receiver remembers the last counters, each with one flag, in a
//! ring (RFC 6479; the size is that of Linux, `COUNTER_BITS_TOTAL`). Several threads open messages
//! of one keypair, and none may wait for another, so each word of the ring is one atomic:
//!
//! ```text
//! counter   |    generation (32)    | word (8) | flag (5) |
//! word      | generation (32) | flags of this generation (32) |
//! ```
//!
//! A word says itself which lap around the ring its flags belong to, its *generation*. Who claims a
//! counter swaps the word for one with the flag set. If the word is of an earlier generation, its flags
//! are forgotten in the same swap; if it is of a later one, the counter is too old. Words only ever gain
//! flags or move to a later generation. So **a counter is accepted at most once**, whatever the
//! threads do. `expected` adds the lower edge of the window, the same for all words, to what a
//! single thread sees: accepted is what is new and less than [`WINDOW`] behind the greatest.
//!
//! The greatest word is in use in part, so the window is one word shorter than the ring.
//!
//! Limit: counters from [`COUNTER_LIMIT`] on are refused, because their generation has more than 32 bits. A
//! peer counts its messages from 0, and a keypair lives for 180 seconds; it would have to send 195
//! thousand million messages a second.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// How far a counter may be behind the greatest and still be accepted, if it is new.
pub const WINDOW: u64 = (WORDS as u64 - 1) * FLAGS;

/// The first counter that is refused for being too great.
pub const COUNTER_LIMIT: u64 = 1 << (32 + 8 + 5);

/// Counters remembered by one word.
const FLAGS: u64 = 32;

/// Words in the ring: 8192 counters.
const WORDS: usize = 256;

/// The counters accepted lately.
pub struct Window {
    /// One more than the greatest counter accepted; 0 is none.
    expected: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// Where a counter's flag is.
struct Place {
    word: usize,
    generation: u64,
    flag: u64,
}

impl Window {
    /// A window that has accepted nothing.
    pub fn new() -> Self {
        Self { expected: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// Whether [`Self::accept`] might take `counter`. Cheap, and changes nothing: for before a message is
    /// known to be authentic.
    #[inline]
    pub fn check(&self, counter: u64) -> bool {
        let place = Place::of(counter);
        self.contains(counter) && place.claim(self.words[place.word].load(Relaxed)).is_some()
    }

    /// Claims `counter`; true once at most. Only for authentic messages: a forged one with a great counter
    /// would move the window past all that the peer sends next (RFC 4303, section 3.4.3).
    #[inline]
    pub fn accept(&self, counter: u64) -> bool {
        if !self.contains(counter) {
            return false;
        }
        let place = Place::of(counter);
        let claim = |word| place.claim(word);
        let new = self.words[place.word].fetch_update(Relaxed, Relaxed, claim).is_ok();
        if new && self.expected.load(Relaxed) <= counter {
            self.expected.fetch_max(counter + 1, Relaxed);
        }
        new
    }

    /// The greatest counter accepted, if any was.
    pub fn greatest(&self) -> Option<u64> {
        self.expected.load(Acquire).checked_sub(1)
    }

    /// Whether `counter` is above the lower edge of the window, and not too great.
    fn contains(&self, counter: u64) -> bool {
        counter < COUNTER_LIMIT && self.expected.load(Relaxed) <= counter + WINDOW
    }
}

impl Place {
    fn of(counter: u64) -> Self {
        let block = counter / FLAGS;
        Self {
            word: (block % WORDS as u64) as usize,
            generation: block / WORDS as u64,
            flag: 1 << (counter % FLAGS),
        }
    }

    /// The word with the flag set, or none if it was set before or the word has moved on.
    fn claim(&self, word: u64) -> Option<u64> {
        let flags = match (word >> 32).cmp(&self.generation) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => word & u64::from(u32::MAX),
            std::cmp::Ordering::Greater => return None,
        };
        (flags & self.flag == 0).then_some(self.generation << 32 | flags | self.flag)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Window").field("greatest", &self.greatest()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    /// What a window should be: every counter ever accepted, and the greatest.
    #[derive(Default)]
    struct Naive {
        accepted: HashSet<u64>,
        greatest: Option<u64>,
    }

    impl Naive {
        fn accept(&mut self, counter: u64) -> bool {
            let old = self.greatest.is_some_and(|greatest| counter + WINDOW <= greatest);
            if old || counter >= COUNTER_LIMIT || !self.accepted.insert(counter) {
                return false;
            }
            self.greatest = self.greatest.max(Some(counter));
            true
        }
    }

    #[test]
    fn each_counter_is_accepted_once() {
        let window = Window::new();
        assert_eq!(window.greatest(), None);
        for counter in [0, 1, 9, 5, 8191, 8192, 100_000] {
            assert!(window.check(counter) && window.accept(counter), "{counter}");
            assert!(!window.check(counter) && !window.accept(counter), "{counter}");
        }
        assert_eq!(window.greatest(), Some(100_000));
    }

    #[test]
    fn the_window_has_8160_counters() {
        let window = Window::new();
        assert!(window.accept(10_000));
        assert!(!window.accept(10_000 - 8160));
        assert!(window.accept(10_000 - 8159));
        assert!(!window.accept(10_000 - 8159));
    }

    #[test]
    fn a_check_changes_nothing() {
        let window = Window::new();
        assert!(window.check(77) && window.check(COUNTER_LIMIT - 1));
        assert_eq!(window.greatest(), None);
        assert!(window.accept(0) && window.accept(77));
    }

    #[test]
    fn counters_that_no_peer_can_reach_are_refused() {
        let window = Window::new();
        for counter in [COUNTER_LIMIT, u64::MAX - 1, u64::MAX] {
            assert!(!window.check(counter) && !window.accept(counter));
        }
        assert!(window.accept(COUNTER_LIMIT - 1));
        assert!(!window.accept(COUNTER_LIMIT - 1 - WINDOW));
        assert!(window.accept(COUNTER_LIMIT - WINDOW));
    }

    /// Steps forth and back of many sizes, those of the ring and of its words among them.
    fn counters() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![
            8 => -40..40_i64,
            4 => -8300..8300_i64,
            2 => prop::sample::select(vec![-8192, -8161, -8160, -8159, 31, 32, 33, 8160, 8192, 8193]),
            1 => -(1_i64 << 20)..(1 << 45),
        ];
        prop::collection::vec(step, 1..400).prop_map(|steps| {
            let mut counter = 0_u64;
            steps
                .into_iter()
                .map(|step| {
                    counter = counter.saturating_add_signed(step);
                    counter
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_window_is_what_it_should_be(counters in counters()) {
            let (window, mut naive) = (Window::new(), Naive::default());
            for counter in counters {
                let expected = naive.accept(counter);
                prop_assert_eq!(window.check(counter), expected, "{}", counter);
                prop_assert_eq!(window.accept(counter), expected, "{}", counter);
                prop_assert_eq!(window.greatest(), naive.greatest);
            }
        }
    }

    #[test]
    fn threads_accept_each_counter_exactly_once() {
        const STEPS: [u64; 4] = [1, 7, 999, 333];
        const ROUNDS: u64 = 400;
        const ROUND: u64 = 1000;
        let window = Window::new();
        let accepted = AtomicUsize::new(0);
        let barrier = std::sync::Barrier::new(STEPS.len());
        std::thread::scope(|scope| {
            for step in STEPS {
                let (window, accepted, barrier) = (&window, &accepted, &barrier);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        barrier.wait();
                        // Each thread offers all counters of the round, in another order.
                        for place in (0..ROUND).map(|number| number * step % ROUND) {
                            if window.accept(round * ROUND + place) {
                                accepted.fetch_add(1, Relaxed);
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(accepted.into_inner() as u64, ROUNDS * ROUND);
        assert_eq!(window.greatest(), Some(ROUNDS * ROUND - 1));
    }

    #[test]
    fn threads_that_race_far_ahead_accept_nothing_twice() {
        // Laps of the ring, so that words move on while others still claim in them.
        let window = Window::new();
        let counts: Vec<_> = (0..20 * 8192).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for stride in [1, 3, 5, 7_usize] {
                let (window, counts) = (&window, &counts);
                scope.spawn(move || {
                    for place in 0..counts.len() {
                        let place = place * stride % counts.len();
                        if window.accept(place as u64) {
                            counts[place].fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert!(counts.iter().all(|count| count.load(Relaxed) <= 1));
    }
}
