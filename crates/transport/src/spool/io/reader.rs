//! Reading: the inbox is looked into, and its files are taken one by one.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;

use super::claim::Claim;
use super::fault::{Fault, OpenError};
use super::folder::{Entry, Folder, Listing, ListingBuffer};
use super::members;
use super::remains::{self, is_remains};
use super::spool::Shared;
use super::watch::Watch;
use crate::spool::file::{FILE_MAX, Header};
use crate::spool::health::Health;
use crate::spool::inbox::{Inbox, Source, Step, Verdict};
use crate::spool::name::{ALIVE, FileName, Stage};
use crate::spool::pace::Pace;
use crate::spool::recv::RecvBatch;
use crate::spool::side::RunId;

/// How often an inbox is listed in which names are asked for.
const LISTING: Duration = Duration::from_millis(500);

/// How many names one look asks for.
const NAMES: usize = 16;

/// How many files one call reads until one has records.
const ATTEMPTS: usize = 32;

/// How often it is looked who is still in the folder.
const ROLL_CALL: Duration = Duration::from_secs(10);

/// The same while there are more streams than can be known.
const ROLL_CALL_CROWDED: Duration = Duration::from_secs(1);

/// How many names of half-written files one roll call looks at.
const PARTS: usize = 4096;

/// What reads the inbox, for one thread.
///
/// Its descriptor is readable when inotify announces something; it must be called at
/// [`next_look`](Self::next_look) as well.
pub struct Reader {
    shared: Arc<Shared>,
    claim: Arc<Claim>,
    inbox: Inbox,
    watch: Watch,
    pace: Pace,
    health: Health,
    /// When the last pass began.
    listed: Option<Duration>,
    /// The pass that is under way.
    listing: Option<Listing>,
    buffer: ListingBuffer,
    /// Whether announcements were lost.
    missed: bool,
    /// The file whose records were handed over.
    taken: Option<FileName>,
    roll_call: Duration,
}

/// What there is under the name of a file.
enum Sight {
    Missing,
    Foreign,
    Linked,
    Oversized(usize),
    Octets(usize),
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, now: Duration) -> Result<Self, OpenError> {
        let no_descriptor = OpenError::unfit("make an inotify descriptor");
        if shared.read.swap(true, Ordering::AcqRel) {
            return Err(OpenError::unfit("read an inbox that is being read")(Errno::BUSY));
        }
        let claim = shared.claim();
        let watch = Watch::new(claim.inbox()).map_err(|error| {
            shared.read.store(false, Ordering::Release);
            no_descriptor(error)
        })?;
        Ok(Self {
            inbox: Inbox::new(shared.side.run),
            pace: Pace::new(shared.limits.poll, now),
            shared,
            claim,
            watch,
            health: Health::new(),
            listed: None,
            listing: None,
            buffer: ListingBuffer::new(),
            missed: false,
            taken: None,
            roll_call: now + ROLL_CALL,
        })
    }

    /// Takes the next file, puts its records into `batch`, whose content is lost, and says how many. The
    /// file is removed at the next call.
    ///
    /// 0 when there is nothing to take: wait until the descriptor is readable or the time is
    /// [`next_look`](Self::next_look), whichever is first.
    ///
    /// # Errors
    ///
    /// When the folder does not work, each time that it is tried.
    pub fn recv(&mut self, batch: &mut RecvBatch, now: Duration) -> Result<usize, Fault> {
        batch.clear();
        self.remove_taken();
        if !self.health.is_due(now) {
            return Ok(0);
        }
        let result = self.look(batch, now);
        let tally = &self.shared.tally;
        tally.count_skipped(&self.inbox.take_skipped());
        match result {
            Ok(()) => {
                if self.health.handle_success() {
                    tally.handle_up();
                }
                Ok(batch.records().len())
            }
            Err(fault) => {
                tally.faults.fetch_add(1, Ordering::Relaxed);
                if self.health.handle_fault(now) {
                    tally.handle_down();
                }
                self.listing = None;
                Err(fault)
            }
        }
    }

    /// When [`recv`](Self::recv) is to be called next if the descriptor does not become readable before;
    /// a time that has passed means at once.
    pub fn next_look(&self) -> Duration {
        if let Some(retry) = self.health.retry() {
            return retry;
        }
        if self.listing.is_some() || self.missed || self.taken.is_some() {
            return Duration::ZERO;
        }
        let next = self.pace.next().min(self.roll_call);
        self.inbox.poll_timeout().map_or(next, |timeout| next.min(timeout))
    }

    /// Makes the inbox again that is [gone](Fault::InboxGone). What was in it is lost; senders notice and
    /// begin anew.
    ///
    /// # Errors
    ///
    /// As [`Spool::open`](super::Spool::open).
    pub fn renew(&mut self, now: Duration) -> Result<(), OpenError> {
        let claim = self.shared.renew_claim()?;
        let watch = Watch::new(claim.inbox());
        self.watch = watch.map_err(OpenError::unfit("make an inotify descriptor"))?;
        self.claim = claim;
        self.inbox = Inbox::new(self.shared.side.run);
        self.pace = Pace::new(self.shared.limits.poll, now);
        (self.listing, self.taken, self.roll_call) = (None, None, now + ROLL_CALL);
        if self.health.handle_success() {
            self.shared.tally.handle_up();
        }
        Ok(())
    }

    fn look(&mut self, batch: &mut RecvBatch, now: Duration) -> Result<(), Fault> {
        // First what can fail, as nothing may fail once records have been taken.
        if now >= self.roll_call {
            self.call_roll(now)?;
        }
        self.hear(now);
        let listed = self.must_list(now);
        if listed {
            self.step_listing(now)?;
        }
        let mut found = self.take(batch, now)?;
        if !found && !listed && now >= self.pace.next() {
            if self.shared.character.local {
                self.step_listing(now)?;
            } else {
                self.ask(now)?;
            }
            found = self.take(batch, now)?;
        }
        if found {
            self.pace.handle_traffic(self.inbox.is_trusted(now), now);
            self.count_taken(batch);
        } else if self.listing.is_none() && now >= self.pace.next() {
            self.pace.handle_idle(self.inbox.is_trusted(now), now);
        }
        Ok(())
    }

    /// Hears what inotify announces.
    fn hear(&mut self, now: Duration) {
        let Self { watch, inbox, missed, .. } = self;
        let complete = watch.drain(|name| {
            if let Some((file, Stage::Batch)) = FileName::parse(name) {
                inbox.handle_name(&file, Source::Announced, now);
            }
        });
        *missed |= !complete;
    }

    /// Whether the inbox must be listed even while there is something to take.
    fn must_list(&self, now: Duration) -> bool {
        self.listing.is_some()
            || self.missed
            || self.inbox.wants_pass(now)
            || self.pace.is_overdue(self.inbox.is_trusted(now), now)
                && (self.shared.character.local
                    || self.listed.is_none_or(|listed| now >= listed + LISTING))
    }

    /// Asks for the files that streams go on with, which is cheaper than a listing, and true where a listing
    /// may be old.
    fn ask(&mut self, now: Duration) -> Result<(), Fault> {
        let Self { claim, inbox, .. } = self;
        for file in inbox.poll_expected(NAMES) {
            match claim.inbox().entry(file.emit(Stage::Batch).as_str()) {
                Ok(_) => {
                    inbox.handle_name(&file, Source::Listed, now);
                }
                Err(Errno::NOENT | Errno::STALE) => {}
                Err(error) => return Err(Fault::of("look for a file", error)),
            }
        }
        Ok(())
    }

    /// Goes on with the pass through the inbox, or begins one.
    fn step_listing(&mut self, now: Duration) -> Result<(), Fault> {
        match self.try_step_listing(now) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(Fault::InboxGone(self.shared.side)),
            Err(Errno::STALE) if matches!(self.claim.is_there(), Ok(false)) => {
                Err(Fault::InboxGone(self.shared.side))
            }
            Err(error) => Err(Fault::of("list the inbox", error)),
        }
    }

    fn try_step_listing(&mut self, now: Duration) -> rustix::io::Result<()> {
        let own = self.shared.side.run;
        let Self { claim, inbox, listing, buffer, .. } = self;
        let pass = match listing {
            Some(pass) => pass,
            None => {
                (self.missed, self.listed) = (false, Some(now));
                inbox.begin_pass(now);
                listing.insert(claim.inbox().listing()?)
            }
        };
        let more = pass.step(buffer, |name| match FileName::parse(name) {
            Some((file, Stage::Batch)) => {
                if inbox.handle_name(&file, Source::Listed, now) == Verdict::Passed {
                    remove_passed(claim.inbox(), inbox, &file);
                }
            }
            Some((_, Stage::Part)) => {}
            None if name == ALIVE.as_bytes() => {}
            None if is_remains(name) => remains::remove(claim.inbox(), own, name),
            None => inbox.handle_foreign_name(name),
        })?;
        if !more {
            self.listing = None;
            self.inbox.end_pass();
            self.pace.handle_look(now);
        }
        Ok(())
    }

    /// Takes the next file that has records; `false` if there is none at the moment.
    fn take(&mut self, batch: &mut RecvBatch, now: Duration) -> Result<bool, Fault> {
        for _ in 0..ATTEMPTS {
            let Some(file) = self.inbox.poll_file(now) else { return Ok(false) };
            match self.read(&file, batch, now)? {
                Step::Take(from) => {
                    batch.set_from(from);
                    self.taken = Some(file);
                    return Ok(true);
                }
                Step::Remove => {
                    let _ = self.claim.inbox().remove(file.emit(Stage::Batch).as_str());
                }
                Step::Leave | Step::Later => {}
            }
        }
        Ok(false)
    }

    fn read(
        &mut self,
        file: &FileName,
        batch: &mut RecvBatch,
        now: Duration,
    ) -> Result<Step, Fault> {
        let (arena, records) = batch.parts();
        let inbox = &mut self.inbox;
        Ok(match sight(self.claim.inbox(), file, arena) {
            Ok(Sight::Octets(len)) => inbox.handle_octets(file, &arena[..len], records, now),
            Ok(Sight::Oversized(len)) => inbox.handle_oversized(file, &arena[..len], now),
            Ok(Sight::Foreign) => inbox.handle_foreign(file, now),
            Ok(Sight::Linked) => inbox.handle_linked(file, now),
            Ok(Sight::Missing) => {
                inbox.handle_missing(file, now);
                Step::Leave
            }
            Err(Errno::ACCESS | Errno::PERM) => inbox.handle_unreadable(file, now),
            Err(error) => {
                // One file that never can be read must not hold up all others for ever.
                inbox.handle_unreadable(file, now);
                return Err(Fault::of("read a file", error));
            }
        })
    }

    fn remove_taken(&mut self) {
        if let Some(file) = self.taken.take() {
            // What cannot be removed is passed; the next pass tries again.
            let _ = self.claim.inbox().remove(file.emit(Stage::Batch).as_str());
        }
    }

    fn count_taken(&self, batch: &RecvBatch) {
        let tally = &self.shared.tally;
        let octets: usize = batch.records().map(|record| record.len()).sum();
        tally.batches_in.fetch_add(1, Ordering::Relaxed);
        tally.records_in.fetch_add(batch.records().len() as u64, Ordering::Relaxed);
        tally.octets_in.fetch_add(octets as u64, Ordering::Relaxed);
    }

    /// Finds out whose inbox is not there any more, the own one included, and forgets those sides and what
    /// they were about to write.
    fn call_roll(&mut self, now: Duration) -> Result<(), Fault> {
        self.roll_call = now + if self.inbox.is_crowded() { ROLL_CALL_CROWDED } else { ROLL_CALL };
        let failed = |error| Fault::of("look for the sides", error);
        // Parts first: who is not among the sides later had ended before, or never was there.
        let parts = self.parts().map_err(failed)?;
        let sides = members::sides(&self.shared.folder).map_err(failed)?;
        let mut alive: BTreeSet<RunId> = sides.iter().map(|side| side.run).collect();
        if !alive.contains(&self.shared.side.run) && !self.claim.is_there().map_err(failed)? {
            return Err(Fault::InboxGone(self.shared.side));
        }
        alive.insert(self.shared.side.run);
        if sides.len() < members::SIDES {
            for part in parts.into_iter().filter(|part| !alive.contains(&part.from)) {
                let _ = self.claim.inbox().remove_plain(part.emit(Stage::Part).as_str());
            }
            self.inbox.retain_runs(&alive, now);
        }
        Ok(())
    }

    /// Files in the inbox that are being written, or were when their writer ended.
    fn parts(&self) -> rustix::io::Result<BTreeSet<FileName>> {
        let mut parts = BTreeSet::new();
        self.claim.inbox().list(PARTS, |name| {
            if let Some((file, Stage::Part)) = FileName::parse(name) {
                parts.insert(file);
            }
        })?;
        Ok(parts)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.remove_taken();
        if self.health.handle_success() {
            self.shared.tally.handle_up();
        }
        self.shared.read.store(false, Ordering::Release);
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

/// Removes a file whose number was passed, unless it is none of ours.
fn remove_passed(folder: &Folder, inbox: &mut Inbox, file: &FileName) {
    let name = file.emit(Stage::Batch);
    match folder.entry(name.as_str()) {
        Ok(Entry { plain: false, .. }) => inbox.handle_foreign_name(name.as_str().as_bytes()),
        // It was looked at when it was passed, and left.
        Ok(Entry { octets, .. }) if octets > FILE_MAX as u64 => {}
        Ok(_) if folder.remove(name.as_str()).is_ok() => inbox.handle_passed(),
        _ => {}
    }
}

/// Looks at what has the name of `file`, and reads it into `arena` if it may be one of ours.
fn sight(folder: &Folder, file: &FileName, arena: &mut [u8]) -> rustix::io::Result<Sight> {
    let name = file.emit(Stage::Batch);
    let opened = match folder.entry(name.as_str()) {
        Ok(Entry { linked: true, .. }) => return Ok(Sight::Linked),
        Ok(Entry { plain: false, .. }) => return Ok(Sight::Foreign),
        Ok(_) => folder.file(name.as_str()),
        Err(error) => Err(error),
    };
    match opened {
        Ok((_, Entry { linked: true, .. })) => Ok(Sight::Linked),
        Ok((_, Entry { plain: false, .. })) => Ok(Sight::Foreign),
        Ok((fd, entry)) if entry.octets > FILE_MAX as u64 => {
            read(&fd, &mut arena[..Header::LEN], Header::LEN).map(Sight::Oversized)
        }
        Ok((fd, entry)) => {
            let octets = usize::try_from(entry.octets).unwrap_or(FILE_MAX);
            read(&fd, arena, octets).map(Sight::Octets)
        }
        Err(Errno::NOENT | Errno::STALE) => Ok(Sight::Missing),
        Err(Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::ISDIR) => Ok(Sight::Foreign),
        Err(error) => Err(error),
    }
}

/// Reads until there are `expected` octets, or no more.
fn read(fd: &OwnedFd, arena: &mut [u8], expected: usize) -> rustix::io::Result<usize> {
    let mut len = 0;
    while len < expected.min(arena.len()) {
        match rustix::io::pread(fd, &mut arena[len..], len as u64) {
            Ok(0) => break,
            Ok(octets) => len += octets,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
