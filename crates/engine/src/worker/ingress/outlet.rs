//! The way into the device.
//!
//! The device takes super-packets only if the kernel can: some kernels answer EINVAL to writes that
//! others accept. When the first super-packets are all refused, none is made any more.

use std::io::{self, IoSlice};
use std::sync::Arc;

use device::Queue;
use proto::DropReason;
use rustix::io::Errno;
use wire::virtio::VirtioNetHdr;

/// After so many super-packets refused, and none taken, the device gets packets singly.
const REFUSED_SUPER_PACKETS: u32 = 8;

/// Whether the device takes super-packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SuperPackets {
    Untried { refused: u32 },
    Taken,
    Refused,
    GivenUp,
}

/// Why the device did not take a packet.
pub(super) enum Refusal {
    Dropped(DropReason),
    DeviceGone,
}

/// The way into the device.
pub(super) struct Outlet {
    queue: Arc<Queue>,
    super_packets: SuperPackets,
}

impl Outlet {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, super_packets: SuperPackets::Untried { refused: 0 } }
    }

    /// Whether super-packets have turned out to be refused; true only once.
    pub(super) fn gives_up(&mut self) -> bool {
        let refused = self.super_packets == SuperPackets::Refused;
        if refused {
            self.super_packets = SuperPackets::GivenUp;
        }
        refused
    }

    pub(super) fn deliver(
        &mut self,
        header: &VirtioNetHdr,
        slices: &[IoSlice<'_>],
    ) -> Result<(), Refusal> {
        let result = self.queue.send(header, slices);
        if slices.len() > 1 {
            self.super_packets = match (self.super_packets, &result) {
                (SuperPackets::Untried { .. }, Ok(())) => SuperPackets::Taken,
                (SuperPackets::Untried { refused }, Err(error)) if is(error, Errno::INVAL) => {
                    if refused + 1 < REFUSED_SUPER_PACKETS {
                        SuperPackets::Untried { refused: refused + 1 }
                    } else {
                        SuperPackets::Refused
                    }
                }
                (state, _) => state,
            };
        }
        result.map_err(|error| {
            if is(&error, Errno::BADFD) {
                Refusal::DeviceGone
            } else if is(&error, Errno::IO) {
                Refusal::Dropped(DropReason::DeviceDown)
            } else {
                Refusal::Dropped(DropReason::DeviceRefused)
            }
        })
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
