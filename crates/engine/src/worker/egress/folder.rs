//! The way into a folder: records for one side at a time, published as files.
//!
//! A folder has no descriptor that becomes writable. When the side has too much outstanding, the lane looks again every
//! [`PAUSE`]; that is back-pressure, as a full socket's is. A side that takes nothing for [`PATIENCE`] does not live, or
//! cannot be helped: then records are dropped, so that an absent peer keeps no other one waiting for long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::{DropReason, Side};
use rustix::event::{PollFd, PollFlags};
use transport::spool::{Outcome, Writer};

use crate::poll::poll_until;
use crate::worker::folder::{self, Folder};
use crate::worker::lane::Shared;

/// Records with this many octets leave without looking for more, so that the other side begins early.
const ENOUGH_OCTETS: usize = 256 * 1024;

/// When it is looked again whether the side has taken something.
const PAUSE: Duration = Duration::from_micros(50);

/// For so long a side may take nothing before it is given up for the moment.
const PATIENCE: Duration = Duration::from_millis(50);

/// The way into one folder.
pub(super) struct FolderOutlet {
    folder: Arc<Folder>,
    writer: Writer,
}

impl FolderOutlet {
    /// The way of the lane with this number; none if there was one.
    pub(super) fn new(folder: &Arc<Folder>, lane: u8) -> Option<Self> {
        Some(Self { folder: Arc::clone(folder), writer: folder.spool.writer(lane)? })
    }

    /// Writes a record of up to `len` octets by `write`, which says how many it has; whether it did.
    #[inline]
    pub(super) fn record(
        &mut self,
        shared: &Shared,
        to: Side,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let Some(to) = self.resolve(to) else { return false };
        if self.writer.reserve(&to, len).is_none() {
            self.publish(shared);
        }
        let Some(written) = self.writer.reserve(&to, len).and_then(write) else { return false };
        self.writer.commit(written);
        true
    }

    /// Publishes the records if there are enough; whether it did.
    pub(super) fn leave(&mut self, shared: &Shared) -> bool {
        let leaves = self.writer.octets() >= ENOUGH_OCTETS || self.writer.is_full();
        if leaves {
            self.publish(shared);
        }
        leaves
    }

    /// Publishes what waits.
    pub(super) fn publish(&mut self, shared: &Shared) {
        while !self.writer.is_empty() {
            let now = folder::now();
            let outcome = self.writer.publish(now);
            count(shared, &outcome);
            let Some(full) = outcome.full else { return };
            if shared.stop.is_set() || now.saturating_sub(full.progress) > PATIENCE {
                shared.counters.dropped(DropReason::SendFailed, self.writer.records());
                return self.writer.clear();
            }
            let mut fds = [PollFd::new(&*shared.stop, PollFlags::IN)];
            let _ = poll_until(&mut fds, Some(Instant::now() + PAUSE));
        }
    }

    /// The side to write to; data is never sent to a run that nobody has heard of but one.
    fn resolve(&self, to: Side) -> Option<transport::spool::Side> {
        match to.run {
            0 => self.folder.find(to).first().copied(),
            _ => Some(folder::side(to)),
        }
    }
}

fn count(shared: &Shared, outcome: &Outcome) {
    shared.counters.carried(outcome.sent, outcome.octets);
    shared.counters.dropped(DropReason::SendFailed, outcome.dropped);
    if let Some(error) = &outcome.error {
        tracing::trace!("publish {} records: {error}", outcome.dropped);
    }
}
