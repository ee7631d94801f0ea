//! Writing: records for one side at a time, published as one file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::{Errno, Result};

use super::fault::Fault;
use super::folder::Folder;
use super::probe::Character;
use super::spool::Shared;
use super::status::Line;
use crate::spool::file::Composition;
use crate::spool::health::Health;
use crate::spool::name::{FileName, Name, Stage};
use crate::spool::outbox::Outbox;
use crate::spool::side::Side;

/// How many sides one stream writes to.
const DESTINATIONS: usize = 128;

/// One stream of files, for one thread.
pub struct Writer {
    shared: Arc<Shared>,
    stream: u8,
    composition: Composition,
    /// For whom the records are.
    to: Option<Side>,
    destinations: Vec<Destination>,
    health: Health,
}

/// What became of the records.
#[derive(Debug, Default)]
#[must_use]
pub struct Outcome {
    /// Records that were published.
    pub sent: usize,
    /// The sum of their lengths.
    pub octets: usize,
    /// Records that could not be published. They are gone.
    pub dropped: usize,
    /// The side has taken too little, and the records are still there: wait a moment and publish them
    /// again, or throw them away ([`Writer::clear`]).
    pub full: Option<Full>,
    /// The inbox of the side is not there: the side has ended.
    pub gone: bool,
    /// The folder did not work a moment ago and was not tried again.
    pub down: bool,
    /// Why the records were dropped, if the folder is the reason.
    pub error: Option<Fault>,
}

/// Nothing more may be outstanding to a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// When the side was last seen to take something, or had nothing to take.
    pub progress: Duration,
}

/// A side that is written to.
struct Destination {
    side: Side,
    inbox: Folder,
    inode: u64,
    outbox: Outbox,
    line: Arc<Line>,
}

/// Why nothing was published.
enum Refusal {
    Full(Full),
    Gone,
    Fault(Fault),
}

/// What a failure means for the number of the file.
#[derive(Clone, Copy)]
enum Failure {
    /// There is no file of this number.
    Unused(&'static str, Errno),
    /// There is one, or nobody knows.
    Lost(&'static str, Errno),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, stream: u8) -> Self {
        Self {
            shared,
            stream,
            composition: Composition::new(),
            to: None,
            destinations: Vec::new(),
            health: Health::new(),
        }
    }

    /// Room for one record of up to `len` octets for `to`, with whatever was there before.
    ///
    /// `None` if it does not fit: then the records have to be published first, because there are too many
    /// or they are for another side; or `len` is more than [`RECORD_MAX`](crate::spool::RECORD_MAX).
    pub fn reserve(&mut self, to: &Side, len: usize) -> Option<&mut [u8]> {
        if self.composition.is_empty() {
            self.to = Some(*to);
        } else if self.to.is_none_or(|side| side.run != to.run) {
            return None;
        }
        self.composition.reserve(len)
    }

    /// Adds the first `len` octets of the room reserved last as one record; none if `len` is 0.
    ///
    /// # Panics
    ///
    /// If `len` is more than was reserved.
    pub fn commit(&mut self, len: usize) {
        self.composition.commit(len);
    }

    /// How many records are to be published.
    pub fn records(&self) -> usize {
        self.composition.records()
    }

    /// The sum of their lengths.
    pub fn octets(&self) -> usize {
        self.composition.octets()
    }

    /// Whether there is no record to be published.
    pub fn is_empty(&self) -> bool {
        self.composition.is_empty()
    }

    /// Whether there is no room for another record of the largest size.
    pub fn is_full(&self) -> bool {
        self.composition.is_full()
    }

    /// Throws the records away that are to be published.
    pub fn clear(&mut self) {
        self.composition.clear();
        self.to = None;
    }

    /// Publishes the records as one file. Afterwards there are none, unless the outcome is *full*.
    pub fn publish(&mut self, now: Duration) -> Outcome {
        let Some(to) = self.to.filter(|_| !self.composition.is_empty()) else {
            return Outcome::default();
        };
        if !self.health.is_due(now) {
            return self.drop_records(Outcome { down: true, ..Outcome::default() });
        }
        match self.try_publish(&to, now) {
            Ok(()) => self.handle_published(),
            Err(Refusal::Full(full)) => {
                self.shared.tally.full.fetch_add(1, Ordering::Relaxed);
                Outcome { full: Some(full), ..Outcome::default() }
            }
            Err(Refusal::Gone) => {
                self.forget(&to);
                self.drop_records(Outcome { gone: true, ..Outcome::default() })
            }
            Err(Refusal::Fault(fault)) => {
                self.shared.tally.faults.fetch_add(1, Ordering::Relaxed);
                if self.health.handle_fault(now) {
                    self.shared.tally.handle_down();
                }
                self.drop_records(Outcome { error: Some(fault), ..Outcome::default() })
            }
        }
    }

    /// Finds out what was taken, so that the status says so while nothing is published. Touches the folder
    /// for each side that has something outstanding, ten times a second at most.
    pub fn review(&mut self, now: Duration) {
        if self.health.is_due(now) {
            self.destinations.iter_mut().for_each(|destination| {
                destination.review(&self.shared.side, self.stream, 0, now);
            });
        }
    }

    fn try_publish(&mut self, to: &Side, now: Duration) -> std::result::Result<(), Refusal> {
        let index = self.destination(to, now)?;
        let destination = &mut self.destinations[index];
        let octets = self.composition.len() as u64;
        let Shared { side, character, folder, .. } = &*self.shared;
        destination.review(side, self.stream, octets, now);
        if !destination.outbox.admits(octets) {
            return Err(Refusal::Full(Full { progress: destination.outbox.progress() }));
        }
        let file =
            FileName { from: side.run, stream: self.stream, number: destination.outbox.number() };
        let content = self.composition.emit(side.label, to.run, &file);
        match destination.publish(&file, content, character) {
            Ok(()) => {
                destination.outbox.handle_published(octets, now);
                destination.line.update(&destination.outbox);
                Ok(())
            }
            Err(failure) => Err(destination.handle_failure(folder, failure)),
        }
    }

    /// Where the side is in the list, to which it is added if it is new.
    fn destination(&mut self, to: &Side, now: Duration) -> std::result::Result<usize, Refusal> {
        let known = self.destinations.iter().position(|known| known.side == *to);
        if let Some(index) = known {
            return Ok(index);
        }
        if self.destinations.len() >= DESTINATIONS {
            self.forget_gone();
        }
        if self.destinations.len() >= DESTINATIONS {
            return Err(Refusal::Fault(Fault::Crowded(*to)));
        }
        let Shared { folder, limits, tally, .. } = &*self.shared;
        let (inbox, inode) = match open_inbox(folder, to) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(Refusal::Gone),
            Err(error) => return Err(Refusal::Fault(Fault::of("open an inbox", error))),
        };
        let outbox = Outbox::new(limits.outstanding, now);
        let line = tally.add_line(*to);
        self.destinations.push(Destination { side: *to, inbox, inode, outbox, line });
        Ok(self.destinations.len() - 1)
    }

    fn handle_published(&mut self) -> Outcome {
        let (records, octets) = (self.composition.records(), self.composition.octets());
        let tally = &self.shared.tally;
        tally.batches_out.fetch_add(1, Ordering::Relaxed);
        tally.records_out.fetch_add(records as u64, Ordering::Relaxed);
        tally.octets_out.fetch_add(octets as u64, Ordering::Relaxed);
        if self.health.handle_success() {
            tally.handle_up();
        }
        self.clear();
        Outcome { sent: records, octets, ..Outcome::default() }
    }

    fn drop_records(&mut self, outcome: Outcome) -> Outcome {
        let dropped = self.composition.records();
        self.shared.tally.records_dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        self.clear();
        Outcome { dropped, ..outcome }
    }

    fn forget(&mut self, side: &Side) {
        let tally = &self.shared.tally;
        self.destinations.retain(|known| {
            let keep = known.side != *side;
            if !keep {
                tally.remove_line(&known.line);
            }
            keep
        });
    }

    fn forget_gone(&mut self) {
        let Shared { folder, tally, .. } = &*self.shared;
        self.destinations.retain(|known| {
            let gone = open_inbox(folder, &known.side).err() == Some(Errno::NOENT);
            if gone {
                tally.remove_line(&known.line);
            }
            !gone
        });
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.destinations.iter().for_each(|known| self.shared.tally.remove_line(&known.line));
        if self.health.handle_success() {
            self.shared.tally.handle_up();
        }
    }
}

impl Destination {
    fn review(&mut self, own: &Side, stream: u8, octets: u64, now: Duration) {
        let Self { inbox, outbox, line, .. } = self;
        outbox.review(octets, now, |number| {
            let file = FileName { from: own.run, stream, number };
            inbox.has(file.emit(Stage::Batch).as_str())
        });
        line.update(outbox);
    }

    /// Writes the file and gives it its name.
    fn publish(
        &self,
        file: &FileName,
        content: &[u8],
        character: &Character,
    ) -> std::result::Result<(), Failure> {
        let (part, batch) = (file.emit(Stage::Part), file.emit(Stage::Batch));
        match self.write(&part, content, character) {
            Ok(()) => self.rename(&part, &batch, character),
            Err(Errno::EXIST) => Err(Failure::Lost("make a file", Errno::EXIST)),
            Err(error) => {
                let _ = self.inbox.remove(part.as_str());
                Err(Failure::Unused("write a file", error))
            }
        }
    }

    fn write(&self, part: &Name, content: &[u8], character: &Character) -> Result<()> {
        let fd = self.inbox.create(part.as_str(), character.mode)?;
        if character.sets_mode {
            let _ = rustix::fs::fchmod(&fd, character.mode);
        }
        let mut written = 0;
        while written < content.len() {
            match rustix::io::pwrite(&fd, &content[written..], written as u64) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(octets) => written += octets,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rename(
        &self,
        part: &Name,
        batch: &Name,
        character: &Character,
    ) -> std::result::Result<(), Failure> {
        let (part, batch) = (part.as_str(), batch.as_str());
        let Err(error) = self.inbox.rename(part, batch, character.exclusive_rename) else {
            return Ok(());
        };
        // A server may have done it and its answer may be lost: only a part that is still there tells.
        let unused = self.inbox.remove(part).is_ok() && error != Errno::EXIST;
        let failure = if unused { Failure::Unused } else { Failure::Lost };
        Err(failure("rename a file", error))
    }

    /// What it means that a file could not be published.
    ///
    /// Numbers may only begin anew in an inbox that was made anew, or the reader would take all that
    /// follows for repetitions; so it is the inbox that tells whether it is gone, not the error.
    fn handle_failure(&mut self, folder: &Folder, failure: Failure) -> Refusal {
        let (Failure::Unused(operation, error) | Failure::Lost(operation, error)) = failure;
        if matches!(failure, Failure::Lost(..)) {
            self.outbox.handle_lost_number();
        }
        if matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::STALE) {
            match open_inbox(folder, &self.side) {
                Ok((inbox, inode)) if inode == self.inode => self.inbox = inbox,
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Refusal::Gone,
                Err(_) => {}
            }
        }
        Refusal::Fault(Fault::of(operation, error))
    }
}

/// The inbox of a side, and its inode.
fn open_inbox(folder: &Folder, side: &Side) -> Result<(Folder, u64)> {
    let inbox = folder.folder_to_write(side.emit().as_str())?;
    let inode = rustix::fs::fstat(&inbox)?.st_ino;
    Ok((inbox, inode))
}
