//! Datagrams that are packets as they are.

use std::ops::Range;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use proto::mtu::Content;
use proto::{DropReason, Path, PeerIndex, PeerTable, Sender, TransportIndex, inner};
use transport::udp::{Message, RecvBatch};
use wire::frame;
use wire::offload::Coalescer;
use wire::virtio::VirtioNetHdr;

use super::delivery::Delivery;
use super::{is_truncated, path};
use crate::worker::lane::{Ended, Shared, content};

/// Who the peers are.
pub(super) struct Plain {
    peers: Cache<Arc<ArcSwap<PeerTable>>, Arc<PeerTable>>,
}

impl Plain {
    pub(super) fn new(peers: &Arc<ArcSwap<PeerTable>>) -> Self {
        Self { peers: Cache::new(Arc::clone(peers)) }
    }

    /// Hands what is in the batch and may be delivered to the coalescer.
    pub(super) fn carry(
        &mut self,
        shared: &Shared,
        socket: TransportIndex,
        batch: &RecvBatch,
        coalescer: &mut Coalescer,
    ) {
        for message in batch.messages() {
            let Some((peer, table)) = self.sender(shared, socket, &message) else { continue };
            for datagram in message.datagrams() {
                let packet = &batch.arena()[datagram.clone()];
                match inner::admit(table, content(shared.mode), peer, packet) {
                    Ok(()) => coalescer.push(batch.arena(), datagram),
                    Err(reason) => shared.counters.dropped(reason, 1),
                }
            }
        }
    }

    /// The same with the records of a file, all from one side of a folder. There each is a frame, so that a super-packet
    /// can be told from a packet. Without a session nobody says what a device takes, so what this one does not take is cut
    /// here.
    pub(super) fn carry_records(
        &mut self,
        shared: &Shared,
        path: &Path,
        records: impl ExactSizeIterator<Item = Range<usize>>,
        arena: &mut [u8],
        delivery: &mut Delivery,
    ) -> Result<(), Ended> {
        let Some(peer) = self.sender_at(shared, path, records.len()) else { return Ok(()) };
        let table = self.peers.load();
        for record in records {
            match pass(shared, table, peer, arena, record, &mut delivery.coalescer) {
                Ok(None) => {}
                Ok(Some((packet, header))) => {
                    delivery.deliver_cut(shared, arena, packet, header)?;
                }
                Err(reason) => shared.counters.dropped(reason, 1),
            }
        }
        Ok(())
    }

    /// Which peer sent `message`, and the table that says so; counts it as dropped if none did.
    fn sender(
        &mut self,
        shared: &Shared,
        socket: TransportIndex,
        message: &Message,
    ) -> Option<(PeerIndex, &PeerTable)> {
        if is_truncated(shared, message) {
            return None;
        }
        let path = path(socket, &message.origin);
        let peer = self.sender_at(shared, &path, message.datagrams().count())?;
        Some((peer, self.peers.load()))
    }

    /// Which peer is at `path`; counts what it sent as dropped if none is.
    fn sender_at(&mut self, shared: &Shared, path: &Path, count: usize) -> Option<PeerIndex> {
        let table = self.peers.load();
        let sender = match table.sender(&path.remote) {
            Sender::Peer(peer) if table.path(peer) == Some(path) => return Some(peer),
            Sender::Peer(peer) | Sender::First(peer) => Some(peer),
            Sender::Stranger => None,
        };
        let peer = sender.filter(|&peer| self.follow(shared, peer, *path));
        if peer.is_none() {
            shared.counters.dropped(DropReason::Stranger, count);
        }
        peer
    }

    /// Publishes `path` as the way to `peer`; false if another sender was first.
    ///
    /// Off the fast path: a peer's path changes when it speaks for the first time, and when it begins to
    /// talk to another of our addresses.
    fn follow(&self, shared: &Shared, peer: PeerIndex, path: Path) -> bool {
        let published: &ArcSwap<PeerTable> = self.peers.arc_swap();
        let before = published.rcu(|table| table.with_path(peer, path));
        let after = published.load();
        if after.path(peer) != Some(&path) {
            return false;
        }
        if before.path(peer).is_none() {
            let name = after.peer(peer).map_or("", |peer| &peer.name);
            tracing::info!("peer {name:?} is at {}: it sent first", path.remote);
            shared.slow_path.path_learned();
        }
        true
    }
}

/// A super-packet in an arena.
type Whole = (Range<usize>, VirtioNetHdr);

/// Passes on what is in a record; the super-packet, if the device takes none like it.
fn pass(
    shared: &Shared,
    table: &PeerTable,
    peer: PeerIndex,
    arena: &[u8],
    record: Range<usize>,
    coalescer: &mut Coalescer,
) -> Result<Option<Whole>, DropReason> {
    let octets = arena.get(record.clone()).ok_or(DropReason::Malformed)?;
    let content = content(shared.mode);
    let admit = |packet: &Range<usize>| {
        let octets = arena.get(packet.clone()).ok_or(DropReason::Malformed)?;
        inner::admit(table, content, peer, octets)
    };
    match (frame::kind(octets), content) {
        (frame::Kind::Packet, Content::Packet) => {
            admit(&record)?;
            coalescer.push(arena, record);
            Ok(None)
        }
        (frame::Kind::Ethernet, Content::Frame) => {
            let frame = record.start + 1..record.end;
            admit(&frame)?;
            coalescer.push(arena, frame);
            Ok(None)
        }
        (frame::Kind::Offload, _) => {
            let header = frame::parse_offload(octets).ok_or(DropReason::FrameMalformed)?;
            let packet = record.start + frame::OFFLOAD_HEADER_LEN..record.end;
            admit(&packet)?;
            let pushed = coalescer.push_whole(arena, packet.clone(), header);
            Ok(pushed.is_err().then_some((packet, header)))
        }
        _ => Err(DropReason::UnknownFrame),
    }
}
