//! What comes out of a folder: the records of one file at a time.

use std::sync::Arc;

use device::Queue;
use proto::{Path, TransportIndex};
use transport::spool::RecvBatch;
use wire::offload::Accepts;

use super::Decapsulation;
use super::delivery::Delivery;
use crate::worker::folder;
use crate::worker::lane::{Ended, Shared};
use crate::worker::slow_path::SlowPath;

/// The way in from one folder.
pub(crate) struct FolderIngress {
    shared: Shared,
    folder: TransportIndex,
    decapsulation: Decapsulation,
    batch: RecvBatch,
    delivery: Delivery,
}

impl FolderIngress {
    pub(crate) fn new(
        shared: Shared,
        folder: TransportIndex,
        queue: Arc<Queue>,
        accepts: Accepts,
    ) -> Self {
        let decapsulation = Decapsulation::new(&shared.peers);
        let delivery = Delivery::new(&shared, queue, accepts);
        Self { shared, folder, decapsulation, batch: RecvBatch::new(), delivery }
    }

    /// The way to the first thread.
    pub(crate) fn slow_path(&self) -> &SlowPath {
        &self.shared.slow_path
    }

    /// Where records are received into.
    pub(crate) fn batch(&mut self) -> &mut RecvBatch {
        &mut self.batch
    }

    /// Judges, joins and delivers the records in the batch.
    pub(crate) fn carry(&mut self) -> Result<(), Ended> {
        let Some(remote) = self.batch.from().and_then(folder::remote) else { return Ok(()) };
        let path = Path { transport: self.folder, remote, local: None };
        let (shared, delivery) = (&self.shared, &mut self.delivery);
        let (records, arena) = self.batch.split();
        match &mut self.decapsulation {
            Decapsulation::Plain(plain) => {
                plain.carry_records(shared, &path, records, arena, delivery)?;
            }
            Decapsulation::Sealed(sealed) => {
                sealed.carry_records(shared, &path, records, arena, &mut delivery.coalescer);
            }
        }
        self.delivery.deliver(&self.shared, arena)
    }
}
