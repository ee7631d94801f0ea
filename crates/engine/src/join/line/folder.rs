//! A shared folder, as a machine that enrols has it.

use std::path::PathBuf;
use std::time::Duration;

use proto::{Path, RemoteAddr, Side, TransportIndex};
use rustix::fs::{Mode, OFlags};
use transport::spool::{OpenError, Reader, RecvBatch, Writer};

use super::LineError;
use crate::channel::message::FolderSetup;
use crate::config::POLL_MAX;
use crate::worker::folder::{self, Folder};

/// A folder, for messages that come and go one by one.
pub(super) struct FolderLine {
    folder: Folder,
    writer: Writer,
    reader: Reader,
    batch: RecvBatch,
    /// Which record of the batch was found last.
    next: usize,
}

impl FolderLine {
    /// Becomes the side `own` of the folder.
    pub(super) fn open(path: &PathBuf, own: Side) -> Result<Self, LineError> {
        let failed = |cause| LineError::Folder { folder: path.clone(), cause: Box::new(cause) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let unfit = |operation| {
            move |error: rustix::io::Errno| OpenError::Unfit { operation, source: error.into() }
        };
        let directory = rustix::fs::open(path, flags, Mode::empty());
        let directory = directory.map_err(unfit("open it")).map_err(failed)?;
        let (name, label) = (path.display().to_string(), own.label);
        let setup = FolderSetup { name, label, poll_max: POLL_MAX };
        let folder = Folder::open(&setup, directory).map_err(failed)?;
        let reader = folder.spool.reader(folder::now()).map_err(failed)?;
        let writer = folder.spool.writer(0);
        let writer = writer.ok_or_else(|| failed(unfit("write")(rustix::io::Errno::BUSY)))?;
        Ok(Self { folder, writer, reader, batch: RecvBatch::new(), next: 0 })
    }

    /// Leaves a message for `to`.
    pub(super) fn send(&mut self, to: Side, message: &[u8]) {
        for side in self.folder.find(to) {
            let Some(room) = self.writer.reserve(&side, message.len()) else { continue };
            room.copy_from_slice(message);
            self.writer.commit(message.len());
            if let Some(error) = self.writer.publish(folder::now()).error {
                tracing::debug!("folder {}: {error}", self.folder.name);
            }
            self.writer.clear();
        }
    }

    /// Looks for the next message; whether there is one.
    pub(super) fn take(&mut self) -> bool {
        self.next += 1;
        if self.next < self.batch.records().len() {
            return true;
        }
        self.next = 0;
        let received = self.reader.recv(&mut self.batch, folder::now());
        let tell = |error: &_| tracing::debug!("folder {}: {error}", self.folder.name);
        received.inspect_err(tell).is_ok_and(|count| count > 0)
    }

    /// The message that was found last, and who says to have written it.
    pub(super) fn taken(&mut self) -> Option<(Side, &mut [u8])> {
        let RemoteAddr::Side(from) = self.batch.from().and_then(folder::remote)? else {
            return None;
        };
        let (mut records, arena) = self.batch.split();
        let record = records.nth(self.next)?;
        drop(records);
        Some((from, arena.get_mut(record)?))
    }

    /// What becomes readable when this machine has left something, and how long not to look by oneself.
    pub(super) fn waits(&self) -> (&Reader, Duration) {
        (&self.reader, self.reader.next_look().saturating_sub(folder::now()))
    }
}

/// The way to a side of the folder at `place`.
pub(super) fn way(place: usize, side: Side) -> Path {
    Path { transport: TransportIndex(place), remote: RemoteAddr::Side(side), local: None }
}
