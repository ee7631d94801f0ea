//! A side of a folder: what its readers and writers share.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::claim::Claim;
use super::fault::{Fault, OpenError};
use super::folder::Folder;
use super::members;
use super::probe::Character;
use super::reader::Reader;
use super::status::{Status, Tally};
use super::writer::Writer;
use crate::spool::name::{FileName, Stage};
use crate::spool::outbox::Bound;
use crate::spool::side::{Label, RunId, Side};

/// How many names of an inbox a review looks at.
const NAMES: usize = 4096;

/// What a spool is allowed, and how patient it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What each stream may have outstanding to each side.
    pub outstanding: Bound,
    /// The longest pause between two looks into the inbox while inotify is not trusted, from 50 µs to
    /// 500 ms.
    pub poll: Duration,
}

/// A side of a folder, alive from [`Spool::open`] until this and all its readers and writers are dropped,
/// which removes the inbox.
///
/// Cheap to clone; all clones are the same side.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

/// What a side, its reader and its writers share.
pub(super) struct Shared {
    pub(super) folder: Arc<Folder>,
    pub(super) side: Side,
    pub(super) limits: Limits,
    pub(super) character: Character,
    pub(super) tally: Tally,
    claim: Mutex<Arc<Claim>>,
    /// Bit by bit, the streams that have a writer or had one.
    streams: [AtomicU64; 4],
    /// Whether there is a reader.
    pub(super) read: AtomicBool,
    leftovers: Vec<Side>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { outstanding: Bound::default(), poll: Duration::from_millis(20) }
    }
}

impl Spool {
    /// Becomes a side of the folder: claims the label, makes an inbox, removes what earlier runs of the
    /// label left behind, and tries out what the folder can do.
    ///
    /// `run` must be random: a run that has been there before is not a new one.
    ///
    /// # Errors
    ///
    /// When somebody alive has the label, or the folder cannot do what is needed.
    pub fn open(
        folder: OwnedFd,
        label: Label,
        run: RunId,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let folder = Arc::new(Folder::new(folder));
        let side = Side { label, run };
        let mut leftovers = Vec::new();
        let claim = Claim::new(&folder, side, &mut leftovers)?;
        let character = Character::probe(&folder, claim.inbox(), run)?;
        let shared = Shared {
            folder,
            side,
            limits,
            character,
            tally: Tally::default(),
            claim: Mutex::new(Arc::new(claim)),
            streams: Default::default(),
            read: AtomicBool::new(false),
            leftovers,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// This side.
    pub fn side(&self) -> Side {
        self.shared.side
    }

    /// What the folder can do.
    pub fn character(&self) -> Character {
        self.shared.character
    }

    /// Inboxes of earlier runs of the label that are still there, because something foreign is in them.
    pub fn leftovers(&self) -> &[Side] {
        &self.shared.leftovers
    }

    /// The writer of a stream; `None` if there has been one: its numbers cannot be used again.
    pub fn writer(&self, stream: u8) -> Option<Writer> {
        let (word, bit) = (usize::from(stream / 64), 1 << (stream % 64));
        let before = self.shared.streams[word].fetch_or(bit, Ordering::Relaxed);
        (before & bit == 0).then(|| Writer::new(Arc::clone(&self.shared), stream))
    }

    /// The reader of the inbox, of which there is one at a time.
    ///
    /// # Errors
    ///
    /// When there is one, or no inotify descriptor can be had.
    pub fn reader(&self, now: Duration) -> Result<Reader, OpenError> {
        Reader::new(Arc::clone(&self.shared), now)
    }

    /// The other sides of the folder, at most 1024, in order.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed.
    pub fn sides(&self) -> Result<Vec<Side>, Fault> {
        let mut sides = members::sides(&self.shared.folder)
            .map_err(|error| Fault::of("list the sides", error))?;
        sides.remove(&self.shared.side);
        Ok(sides.into_iter().collect())
    }

    /// Finds out which sides have taken everything, so that the status says so while nothing is published; whether
    /// something is outstanding. Touches the folder only if so.
    pub fn review(&self) -> bool {
        let Shared { folder, side, tally, .. } = &*self.shared;
        tally.review(|to| {
            let is_ours = |name: &[u8]| {
                FileName::parse(name)
                    .is_some_and(|(file, stage)| file.from == side.run && stage == Stage::Batch)
            };
            let mut is_there = false;
            let inbox = folder.folder(to.emit().as_str());
            let listed =
                inbox.and_then(|inbox| inbox.list(NAMES, |name| is_there |= is_ours(name)));
            is_there || !matches!(listed, Ok(()) | Err(Errno::NOENT | Errno::NOTDIR))
        })
    }

    /// How it is doing.
    pub fn status(&self, now: Duration) -> Status {
        let Shared { side, character, tally, .. } = &*self.shared;
        Status {
            side: *side,
            character: *character,
            up: tally.is_up(),
            counters: tally.counters(),
            outstanding: tally.outstanding(now),
        }
    }
}

impl Shared {
    /// The inbox as it was claimed last.
    pub(super) fn claim(&self) -> Arc<Claim> {
        Arc::clone(&self.locked_claim())
    }

    /// Makes the inbox again.
    pub(super) fn renew_claim(&self) -> Result<Arc<Claim>, OpenError> {
        let mut leftovers = Vec::new();
        let claim = Arc::new(Claim::new(&self.folder, self.side, &mut leftovers)?);
        *self.locked_claim() = Arc::clone(&claim);
        Ok(claim)
    }

    fn locked_claim(&self) -> MutexGuard<'_, Arc<Claim>> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("side", &self.shared.side).finish_non_exhaustive()
    }
}
