//! What one stream has published to one side and the side has not taken: numbers and bounds.
//!
//! The reader removes what it took, in order. So the oldest file tells most: while it is there, all are
//! taken to be there. Only at the bound everything is looked at, in case the reader left the oldest one
//! lying and took what follows.

use std::collections::VecDeque;
use std::time::Duration;

/// How long an answer about the oldest file is good while there is plenty of room.
const REVIEW: Duration = Duration::from_millis(100);

/// How often all files are looked at while there is no room.
const SWEEP: Duration = Duration::from_millis(100);

/// What may be outstanding from one stream to one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Files.
    pub files: usize,
    /// Octets of them. One file is always admitted.
    pub octets: u64,
}

/// One stream's files for one side.
#[derive(Debug)]
pub struct Outbox {
    bound: Bound,
    /// The number of the next file.
    next: u64,
    /// Oldest first.
    outstanding: VecDeque<Published>,
    octets: u64,
    /// When the side last took something, or nothing was outstanding.
    progress: Duration,
    reviewed: Duration,
    swept: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Published {
    number: u64,
    octets: u64,
    at: Duration,
}

impl Default for Bound {
    fn default() -> Self {
        Self { files: 64, octets: 16 * 1024 * 1024 }
    }
}

impl Outbox {
    /// An outbox from which nothing was published.
    pub fn new(bound: Bound, now: Duration) -> Self {
        Self {
            bound,
            next: 1,
            outstanding: VecDeque::new(),
            octets: 0,
            progress: now,
            reviewed: now,
            swept: now,
        }
    }

    /// The number of the next file.
    pub fn number(&self) -> u64 {
        self.next
    }

    /// Whether a file of so many octets may be published.
    pub fn admits(&self, octets: u64) -> bool {
        self.outstanding.is_empty()
            || self.outstanding.len() < self.bound.files
                && self.octets.saturating_add(octets) <= self.bound.octets
    }

    /// The file with the next number was published.
    pub fn handle_published(&mut self, octets: u64, now: Duration) {
        if self.outstanding.is_empty() {
            self.progress = now;
        }
        self.outstanding.push_back(Published { number: self.next, octets, at: now });
        self.octets += octets;
        self.next += 1;
    }

    /// The next number is lost: it is not known whether a file has it.
    pub fn handle_lost_number(&mut self) {
        self.next += 1;
    }

    /// Finds out what the side took, if that is worth asking: `is_there` says whether the file of a number
    /// is still there. `octets` are those of the file that is to be published.
    pub fn review(&mut self, octets: u64, now: Duration, mut is_there: impl FnMut(u64) -> bool) {
        if !self.is_crowded() && now < self.reviewed + REVIEW {
            return;
        }
        self.reviewed = now;
        while let Some(oldest) = self.outstanding.front().copied() {
            if is_there(oldest.number) {
                break;
            }
            self.outstanding.pop_front();
            self.forget(oldest.octets, now);
        }
        if !self.admits(octets) && now >= self.swept + SWEEP {
            self.sweep(now, is_there);
        }
    }

    /// How many files are outstanding.
    pub fn files(&self) -> usize {
        self.outstanding.len()
    }

    /// The sum of their octets.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// When the oldest of them was published.
    pub fn oldest(&self) -> Option<Duration> {
        self.outstanding.front().map(|published| published.at)
    }

    /// When the side last took something, or something was published while nothing was outstanding.
    pub fn progress(&self) -> Duration {
        self.progress
    }

    /// Whether half of the bound is used up.
    fn is_crowded(&self) -> bool {
        self.outstanding.len() * 2 >= self.bound.files || self.octets * 2 >= self.bound.octets
    }

    fn sweep(&mut self, now: Duration, mut is_there: impl FnMut(u64) -> bool) {
        self.swept = now;
        for _ in 0..self.outstanding.len() {
            let Some(published) = self.outstanding.pop_front() else { return };
            if is_there(published.number) {
                self.outstanding.push_back(published);
            } else {
                self.forget(published.octets, now);
            }
        }
    }

    fn forget(&mut self, octets: u64, now: Duration) {
        self.octets -= octets;
        self.progress = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { files: 4, octets: 1000 };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn published(files: &[u64]) -> Outbox {
        let mut outbox = Outbox::new(BOUND, at(0));
        files.iter().for_each(|&octets| outbox.handle_published(octets, at(1)));
        outbox
    }

    #[test]
    fn files_are_numbered_from_one() {
        let mut outbox = published(&[]);
        assert_eq!(outbox.number(), 1);
        outbox.handle_published(10, at(0));
        outbox.handle_lost_number();
        assert_eq!((outbox.number(), outbox.files(), outbox.octets()), (3, 1, 10));
    }

    #[test]
    fn files_and_octets_are_bounded_but_one_file_is_always_admitted() {
        assert!(published(&[]).admits(5000));
        assert!(published(&[400]).admits(600));
        assert!(!published(&[400]).admits(601));
        assert!(published(&[1; 3]).admits(1));
        assert!(!published(&[1; 4]).admits(1));
    }

    #[test]
    fn what_the_side_took_makes_room() {
        let mut outbox = published(&[100; 4]);
        let mut asked = Vec::new();
        outbox.review(100, at(2), |number| {
            asked.push(number);
            number > 2
        });
        assert_eq!(asked, [1, 2, 3]);
        assert_eq!((outbox.files(), outbox.octets(), outbox.progress()), (2, 200, at(2)));
        assert!(outbox.admits(100));
    }

    #[test]
    fn with_plenty_of_room_nobody_asks_often() {
        let mut outbox = published(&[1]);
        outbox.review(1, at(99), |_| panic!("asked too early"));
        outbox.review(1, at(100), |_| false);
        assert_eq!((outbox.files(), outbox.oldest()), (0, None));
    }

    #[test]
    fn a_file_that_is_left_lying_does_not_hide_that_others_were_taken() {
        let mut outbox = published(&[100; 4]);
        outbox.review(100, at(50), |number| number == 1);
        assert_eq!(outbox.files(), 4);
        outbox.review(100, at(100), |number| number == 1);
        assert_eq!((outbox.files(), outbox.octets(), outbox.progress()), (1, 100, at(100)));
        assert_eq!(outbox.oldest(), Some(at(1)));
    }

    #[test]
    fn without_progress_the_time_of_the_last_stays() {
        let mut outbox = published(&[100; 4]);
        outbox.review(100, at(900), |_| true);
        assert_eq!(outbox.progress(), at(1));
        assert!(!outbox.admits(1));
    }
}
