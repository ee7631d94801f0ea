//! Packets as they are, one a datagram.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use proto::{DropReason, Path, PeerTable, inner};
use wire::offload;
use wire::virtio::VirtioNetHdr;

use super::{Outlet, destination};
use crate::worker::lane::{content, link_layer};

/// Who the peers are.
pub(super) struct Plain {
    peers: Cache<Arc<ArcSwap<PeerTable>>, Arc<PeerTable>>,
}

impl Plain {
    pub(super) fn new(peers: &Arc<ArcSwap<PeerTable>>) -> Self {
        Self { peers: Cache::new(Arc::clone(peers)) }
    }

    /// Writes the segments of a packet into a batch; the path that they take.
    pub(super) fn carry(
        &mut self,
        header: VirtioNetHdr,
        packet: &mut [u8],
        outlet: &mut Outlet,
    ) -> Result<Option<Path>, DropReason> {
        let mode = outlet.shared.mode;
        let path = *inner::route(self.peers.load(), content(mode), packet)?;
        outlet.refuse_loop(packet, &path)?;
        let destination = destination(&path).ok_or(DropReason::NoEndpoint)?;
        let mut segments = offload::segment(link_layer(mode), header, packet)
            .map_err(|_| DropReason::Malformed)?;
        while let Some(segment) = segments.next() {
            let written = outlet.datagram(&path, &destination, segment.len(), |room| {
                room.copy_from_slice(segment);
                Some(segment.len())
            });
            if !written {
                outlet.shared.counters.dropped(DropReason::TooLong, 1);
            }
        }
        Ok(Some(path))
    }
}
