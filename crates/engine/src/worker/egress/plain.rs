//! Packets as they are, one a datagram. Into a folder they go as frames, so that a super-packet can be told from a packet.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use device::Mode;
use proto::{DropReason, Path, PeerTable, inner};
use wire::virtio::VirtioNetHdr;
use wire::{frame, offload};

use super::{Gso, HEADROOM, Outlet, Way, framed};
use crate::worker::lane::{content, link_layer};

/// Who the peers are.
pub(super) struct Plain {
    peers: Cache<Arc<ArcSwap<PeerTable>>, Arc<PeerTable>>,
}

impl Plain {
    pub(super) fn new(peers: &Arc<ArcSwap<PeerTable>>) -> Self {
        Self { peers: Cache::new(Arc::clone(peers)) }
    }

    /// Writes the segments of a packet into a batch, or the whole packet into a file; the path that it takes.
    pub(super) fn carry(
        &mut self,
        header: VirtioNetHdr,
        buffer: &mut [u8],
        outlet: &mut Outlet,
    ) -> Result<Option<Path>, DropReason> {
        let mode = outlet.shared.mode;
        let packet = buffer.get_mut(HEADROOM..).ok_or(DropReason::Malformed)?;
        let path = *inner::route(self.peers.load(), content(mode), packet)?;
        outlet.refuse_loop(packet, &path)?;
        let way = Way::of(&path);
        let in_folder = matches!(way, Way::Folder(..));
        if in_folder
            && header.gso != Gso::None
            && let Some(frame) = framed(link_layer(mode), header, buffer)
        {
            write(&way, &[], frame, outlet);
            return Ok(Some(path));
        }
        let packet = buffer.get_mut(HEADROOM..).ok_or(DropReason::Malformed)?;
        let mut segments = offload::segment(link_layer(mode), header, packet)
            .map_err(|_| DropReason::Malformed)?;
        let prefix: &[u8] = if in_folder && mode == Mode::Tap { &[frame::ETHERNET] } else { &[] };
        while let Some(segment) = segments.next() {
            write(&way, prefix, segment, outlet);
        }
        Ok(Some(path))
    }
}

fn write(way: &Way, prefix: &[u8], packet: &[u8], outlet: &mut Outlet) {
    let len = prefix.len() + packet.len();
    let written = outlet.message(way, len, |room| {
        let (head, rest) = room.split_at_mut(prefix.len());
        head.copy_from_slice(prefix);
        rest.copy_from_slice(packet);
        Some(len)
    });
    if !written {
        outlet.shared.counters.dropped(DropReason::TooLong, 1);
    }
}
