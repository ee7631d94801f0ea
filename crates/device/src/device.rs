//! An open device.

use std::io;

use crate::{Attempt, DeviceName, Mode, Offload, OpenError, Queue};

/// A device with the queues that were asked for.
///
/// Dropping it, with its queues, deletes the device unless it is persistent.
#[derive(Debug)]
pub struct Device {
    pub(crate) name: DeviceName,
    pub(crate) mode: Mode,
    pub(crate) created: bool,
    pub(crate) vnet_hdr: bool,
    pub(crate) offload: Offload,
    pub(crate) queues: Vec<Queue>,
}

impl Device {
    /// The name as the kernel has it, with a number where a pattern was asked for.
    pub fn name(&self) -> &DeviceName {
        &self.name
    }

    /// Whether the device carries packets or frames.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the device did not exist before.
    pub fn created(&self) -> bool {
        self.created
    }

    /// What the kernel accepted to leave undone; it may be less than what was asked for.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Whether a virtio-net header comes with every packet.
    pub fn vnet_hdr(&self) -> bool {
        self.vnet_hdr
    }

    /// The queues, at least one.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// Gives the queues away, each for a thread of its own; the device lives as long as they do.
    pub fn into_queues(self) -> Vec<Queue> {
        self.queues
    }

    /// Says whether the device stays when its last queue is closed.
    pub fn set_persistent(&self, persistent: bool) -> io::Result<()> {
        self.queues.iter().take(1).try_for_each(|queue| queue.file().set_persistent(persistent))
    }

    /// Closes the device and lets it vanish, if this was its last user.
    pub(crate) fn release(self) -> Result<(), OpenError> {
        let (mode, name) = (self.mode, self.name.clone());
        self.set_persistent(false).map_err(|source| OpenError::Setting {
            attempt: Attempt { create: false, mode, name },
            setting: "persistence",
            source,
        })
    }
}
