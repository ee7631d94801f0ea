//! The own inbox: made, held, and removed.
//!
//! # Theory of operation
//!
//! An inbox belongs to who holds a lock (flock(2)) on the file *alive* in it. A side first makes and locks
//! its own inbox and then looks for others of its label: one that is locked has a living owner, so the
//! label is *claimed* and the new inbox is removed again; one that is not is a leftover and is removed. Of
//! two sides that claim a label at the same time, at least one fails.
//!
//! Between making and locking, somebody else may take an inbox for a leftover; so it is looked for once more
//! in the end.
//!
//! A lock is not seen from another machine. There a label is taken over from a living owner, who notices that
//! its inbox is gone. Where the file system knows no locks, the same holds on one machine.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode};
use rustix::io::{Errno, Result};

use super::fault::OpenError;
use super::folder::Folder;
use super::members;
use super::remains::{self, is_remains};
use crate::spool::name::{ALIVE, FileName};
use crate::spool::side::{RunId, Side};

/// How often an inbox is made until it stays.
const ATTEMPTS: usize = 3;

/// How often an inbox is emptied in which something is published in the meantime, or in which files that
/// were open a moment ago are not quite gone.
const REMOVALS: usize = 8;

/// How many names of a leftover are looked at.
const NAMES: usize = 65_536;

/// An inbox that is ours; it is removed with what is ours in it when this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    folder: Arc<Folder>,
    inbox: Folder,
    /// Holds the lock.
    alive: Option<OwnedFd>,
    alive_inode: u64,
    side: Side,
}

impl Claim {
    /// Makes the inbox of `side`, and removes what earlier runs of its label left behind. `left` gets the
    /// inboxes that are still there because of foreign things in them.
    pub(super) fn new(
        folder: &Arc<Folder>,
        side: Side,
        left: &mut Vec<Side>,
    ) -> std::result::Result<Self, OpenError> {
        for _ in 0..ATTEMPTS {
            let Some(claim) = Self::make(folder, side)? else { continue };
            left.clear();
            claim.take_over(left)?;
            if claim.is_there().map_err(OpenError::unfit("find the inbox"))? {
                return Ok(claim);
            }
        }
        Err(OpenError::Contested(side))
    }

    /// The inbox.
    pub(super) fn inbox(&self) -> &Folder {
        &self.inbox
    }

    /// Whether the inbox can still be found under its name.
    pub(super) fn is_there(&self) -> Result<bool> {
        let inbox = self.folder.folder_to_write(self.side.emit().as_str());
        match inbox.and_then(|inbox| inbox.entry(ALIVE)) {
            Ok(alive) => Ok(alive.inode == self.alive_inode),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `None` if somebody removed the inbox at once.
    fn make(folder: &Arc<Folder>, side: Side) -> std::result::Result<Option<Self>, OpenError> {
        let name = side.emit();
        let mode = inbox_mode(folder).map_err(OpenError::unfit("look at the folder"))?;
        match folder.make_folder(name.as_str(), mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(OpenError::unfit("make an inbox")(error)),
        }
        match Self::lock(folder, side, mode) {
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::EXIST) => Err(OpenError::Claimed { label: side.label, by: side }),
            result => result.map(Some).map_err(OpenError::unfit("lock an inbox")),
        }
    }

    fn lock(folder: &Arc<Folder>, side: Side, mode: Mode) -> Result<Self> {
        let inbox = folder.folder(side.emit().as_str())?;
        // The mask of the process is not meant for what others have to write in.
        let _ = rustix::fs::fchmod(&inbox, mode);
        let alive = inbox.create(ALIVE, Mode::RUSR | Mode::WUSR)?;
        let _ = rustix::fs::flock(&alive, FlockOperation::NonBlockingLockExclusive);
        let alive_inode = inbox.entry(ALIVE)?.inode;
        Ok(Self { folder: Arc::clone(folder), inbox, alive: Some(alive), alive_inode, side })
    }

    /// Removes what earlier runs of the label left behind.
    fn take_over(&self, left: &mut Vec<Side>) -> std::result::Result<(), OpenError> {
        let sides = members::sides(&self.folder).map_err(OpenError::unfit("list the folder"))?;
        let label = self.side.label;
        for side in sides.into_iter().filter(|side| side.label == label && *side != self.side) {
            let Ok(inbox) = self.folder.folder(side.emit().as_str()) else { continue };
            if is_held(&inbox) {
                return Err(OpenError::Claimed { label, by: side });
            }
            if !remove(&self.folder, &inbox, &side) {
                left.push(side);
            }
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if matches!(self.is_there(), Ok(true)) {
            // Some file systems keep a file that is open under another name when it is removed.
            self.alive = None;
            remove(&self.folder, &self.inbox, &self.side);
        }
    }
}

/// Whether a living process on this machine holds the inbox.
fn is_held(inbox: &Folder) -> bool {
    match inbox.entry(ALIVE) {
        Ok(entry) if entry.plain => {}
        _ => return false,
    }
    let Ok((alive, _)) = inbox.file(ALIVE) else { return false };
    let lock = rustix::fs::flock(&alive, FlockOperation::NonBlockingLockExclusive);
    lock == Err(Errno::WOULDBLOCK)
}

/// Removes an inbox with everything in it that is ours; `false` if something is left.
fn remove(folder: &Folder, inbox: &Folder, side: &Side) -> bool {
    (0..REMOVALS).any(|_| {
        empty(inbox, side.run);
        folder.remove_folder(side.emit().as_str()).is_ok()
    })
}

/// Removes what is ours in an inbox.
fn empty(inbox: &Folder, run: RunId) {
    let (mut names, mut hidden) = (Vec::new(), Vec::new());
    let _ = inbox.list(NAMES, |name| {
        names.extend(FileName::parse(name).map(|(file, stage)| file.emit(stage)));
        hidden.extend(is_remains(name).then(|| name.to_vec()));
    });
    for name in &names {
        let _ = inbox.remove_plain(name.as_str());
    }
    let _ = inbox.remove_plain(ALIVE);
    hidden.iter().for_each(|name| remains::remove(inbox, run, name));
}

/// Who may do something in the folder may do it in an inbox; who owns an inbox may remove what others
/// put in it.
fn inbox_mode(folder: &Folder) -> Result<Mode> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(folder)?.st_mode);
    Ok(mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO | Mode::SGID))
}
