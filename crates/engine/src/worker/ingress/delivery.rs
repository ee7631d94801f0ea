//! What was judged is joined with its neighbours of the same flow, and written to the device.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use device::Queue;
use proto::DropReason;
use wire::offload::{Accepts, Coalescer, segment};
use wire::virtio::VirtioNetHdr;

use super::outlet::{Outlet, Refusal};
use crate::metrics::Counters;
use crate::worker::glimpse::Glimpse;
use crate::worker::lane::{Ended, Shared, link_layer};

/// The last part of the way in.
pub(super) struct Delivery {
    pub(super) coalescer: Coalescer,
    outlet: Outlet,
    glimpse: Glimpse,
}

impl Delivery {
    pub(super) fn new(shared: &Shared, queue: Arc<Queue>, accepts: Accepts) -> Self {
        let coalescer = Coalescer::new(link_layer(shared.mode), accepts);
        let glimpse = Glimpse::new(link_layer(shared.mode), "in");
        Self { coalescer, outlet: Outlet::new(queue), glimpse }
    }

    /// Writes what was joined in `arena` to the device.
    pub(super) fn deliver(&mut self, shared: &Shared, arena: &mut [u8]) -> Result<(), Ended> {
        let mut result = Ok(());
        let (outlet, counters) = (&mut self.outlet, &shared.counters);
        let glimpse = &mut self.glimpse;
        self.coalescer.drain(arena, |header, slices| {
            slices.first().into_iter().for_each(|first| glimpse.pass(first));
            if let Err(ended) = write(outlet, counters, header, slices) {
                result = Err(ended);
            }
        });
        if self.outlet.gives_up() {
            tracing::warn!("the kernel refuses super-packets on the device; packets go singly");
            self.coalescer = Coalescer::new(link_layer(shared.mode), Accepts::default());
        }
        result
    }

    /// Writes a super-packet that the device does not take as packets, behind what was joined before it.
    pub(super) fn deliver_cut(
        &mut self,
        shared: &Shared,
        arena: &mut [u8],
        packet: Range<usize>,
        header: VirtioNetHdr,
    ) -> Result<(), Ended> {
        self.deliver(shared, arena)?;
        let octets = arena.get_mut(packet).unwrap_or_default();
        let Ok(mut segments) = segment(link_layer(shared.mode), header, octets) else {
            shared.counters.dropped(DropReason::FrameMalformed, 1);
            return Ok(());
        };
        while let Some(segment) = segments.next() {
            let slices = [IoSlice::new(segment)];
            write(&mut self.outlet, &shared.counters, &VirtioNetHdr::default(), &slices)?;
        }
        Ok(())
    }
}

fn write(
    outlet: &mut Outlet,
    counters: &Counters,
    header: &VirtioNetHdr,
    slices: &[IoSlice<'_>],
) -> Result<(), Ended> {
    match outlet.deliver(header, slices) {
        Ok(()) => counters.carried(slices.len(), slices.iter().map(|slice| slice.len()).sum()),
        Err(Refusal::Dropped(reason)) => counters.dropped(reason, slices.len()),
        Err(Refusal::DeviceGone) => return Err(Ended::DeviceGone),
    }
    Ok(())
}
