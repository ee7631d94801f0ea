//! What people get to know: counters, and what is outstanding.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::probe::Character;
use crate::spool::outbox::Outbox;
use crate::spool::side::Side;
use crate::spool::skip::{Skip, Skipped};

/// How a spool is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// The own side.
    pub side: Side,
    /// What the folder can do.
    pub character: Character,
    /// Whether the last thing that the reader and each writer tried worked.
    pub up: bool,
    /// What has happened.
    pub counters: Counters,
    /// What was published and not taken, for each side that has something.
    pub outstanding: Vec<Outstanding>,
}

/// What has happened since the spool was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Files published.
    pub batches_out: u64,
    /// Records in them.
    pub records_out: u64,
    /// Octets of these records.
    pub octets_out: u64,
    /// Records that were dropped because publishing failed or the side is gone.
    pub records_dropped: u64,
    /// Files taken.
    pub batches_in: u64,
    /// Records in them.
    pub records_in: u64,
    /// Octets of these records.
    pub octets_in: u64,
    /// How often publishing had to wait for the side.
    pub full: u64,
    /// How often an operation failed.
    pub faults: u64,
    /// What was not handed over.
    pub skipped: Skipped,
}

/// What was published for a side and is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// For whom.
    pub to: Side,
    /// How many files.
    pub files: usize,
    /// Octets of them.
    pub octets: u64,
    /// How long ago the oldest was published.
    pub age: Duration,
}

/// Counters that several threads add to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) batches_out: AtomicU64,
    pub(super) records_out: AtomicU64,
    pub(super) octets_out: AtomicU64,
    pub(super) records_dropped: AtomicU64,
    pub(super) batches_in: AtomicU64,
    pub(super) records_in: AtomicU64,
    pub(super) octets_in: AtomicU64,
    pub(super) full: AtomicU64,
    pub(super) faults: AtomicU64,
    skipped: [AtomicU64; Skip::ALL.len()],
    /// How many of the reader and the writers are down.
    down: AtomicUsize,
    lines: Mutex<Vec<Arc<Line>>>,
}

/// What one stream has outstanding to one side.
#[derive(Debug)]
pub(super) struct Line {
    to: Side,
    files: AtomicUsize,
    octets: AtomicU64,
    /// When the oldest was published, in nanoseconds.
    oldest: AtomicU64,
}

impl Tally {
    pub(super) fn counters(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut skipped = Skipped::default();
        for skip in Skip::ALL {
            skipped.count(skip, load(&self.skipped[skip as usize]));
        }
        Counters {
            batches_out: load(&self.batches_out),
            records_out: load(&self.records_out),
            octets_out: load(&self.octets_out),
            records_dropped: load(&self.records_dropped),
            batches_in: load(&self.batches_in),
            records_in: load(&self.records_in),
            octets_in: load(&self.octets_in),
            full: load(&self.full),
            faults: load(&self.faults),
            skipped,
        }
    }

    pub(super) fn count_skipped(&self, skipped: &Skipped) {
        for (skip, times) in skipped.iter().filter(|&(_, times)| times > 0) {
            self.skipped[skip as usize].fetch_add(times, Ordering::Relaxed);
        }
    }

    pub(super) fn handle_down(&self) {
        self.down.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn handle_up(&self) {
        self.down.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_up(&self) -> bool {
        self.down.load(Ordering::Relaxed) == 0
    }

    /// A new line of a stream to a side.
    pub(super) fn add_line(&self, to: Side) -> Arc<Line> {
        let line = Arc::new(Line {
            to,
            files: AtomicUsize::new(0),
            octets: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
        });
        self.lines().push(Arc::clone(&line));
        line
    }

    pub(super) fn remove_line(&self, line: &Arc<Line>) {
        self.lines().retain(|other| !Arc::ptr_eq(other, line));
    }

    /// What is outstanding, all streams together.
    pub(super) fn outstanding(&self, now: Duration) -> Vec<Outstanding> {
        let mut sides: Vec<Outstanding> = Vec::new();
        for line in self.lines().iter().filter_map(|line| line.outstanding(now)) {
            match sides.iter_mut().find(|side| side.to == line.to) {
                Some(side) => {
                    side.files += line.files;
                    side.octets += line.octets;
                    side.age = side.age.max(line.age);
                }
                None => sides.push(line),
            }
        }
        sides
    }

    /// Notes which sides have nothing any more; `has` says of each whether something is there. Whether one has.
    pub(super) fn review(&self, has: impl Fn(&Side) -> bool) -> bool {
        let lines: Vec<_> =
            self.lines().iter().filter(|line| line.is_outstanding()).cloned().collect();
        for line in lines.iter().filter(|line| !has(&line.to)) {
            line.files.store(0, Ordering::Relaxed);
            line.octets.store(0, Ordering::Relaxed);
        }
        lines.iter().any(|line| line.is_outstanding())
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Says what is outstanding in `outbox`.
    pub(super) fn update(&self, outbox: &Outbox) {
        let oldest = outbox.oldest().unwrap_or_default().as_nanos();
        self.files.store(outbox.files(), Ordering::Relaxed);
        self.octets.store(outbox.octets(), Ordering::Relaxed);
        self.oldest.store(u64::try_from(oldest).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn is_outstanding(&self) -> bool {
        self.files.load(Ordering::Relaxed) > 0
    }

    fn outstanding(&self, now: Duration) -> Option<Outstanding> {
        let files = self.files.load(Ordering::Relaxed);
        let oldest = Duration::from_nanos(self.oldest.load(Ordering::Relaxed));
        (files > 0).then(|| Outstanding {
            to: self.to,
            files,
            octets: self.octets.load(Ordering::Relaxed),
            age: now.saturating_sub(oldest),
        })
    }
}
