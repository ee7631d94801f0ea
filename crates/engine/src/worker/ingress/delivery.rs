//! What was judged is joined with its neighbours of the same flow, and written to the device.

use std::sync::Arc;

use device::Queue;
use wire::offload::{Accepts, Coalescer};

use super::outlet::{Outlet, Refusal};
use crate::worker::lane::{Ended, Shared, link_layer};

/// The last part of the way in.
pub(super) struct Delivery {
    pub(super) coalescer: Coalescer,
    outlet: Outlet,
}

impl Delivery {
    pub(super) fn new(shared: &Shared, queue: Arc<Queue>, accepts: Accepts) -> Self {
        let coalescer = Coalescer::new(link_layer(shared.mode), accepts);
        Self { coalescer, outlet: Outlet::new(queue) }
    }

    /// Writes what was joined in `arena` to the device.
    pub(super) fn deliver(&mut self, shared: &Shared, arena: &mut [u8]) -> Result<(), Ended> {
        let mut result = Ok(());
        let (outlet, counters) = (&mut self.outlet, &shared.counters);
        self.coalescer.drain(arena, |header, slices| match outlet.deliver(header, slices) {
            Ok(()) => {
                counters.carried(slices.len(), slices.iter().map(|slice| slice.len()).sum());
            }
            Err(Refusal::Dropped(reason)) => counters.dropped(reason, slices.len()),
            Err(Refusal::DeviceGone) => result = Err(Ended::DeviceGone),
        });
        if self.outlet.gives_up() {
            tracing::warn!("the kernel refuses super-packets on the device; packets go singly");
            self.coalescer = Coalescer::new(link_layer(shared.mode), Accepts::default());
        }
        result
    }
}
