//! Datagrams that are packets as they are.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use proto::{DropReason, Path, PeerIndex, PeerTable, Sender, TransportIndex, inner};
use transport::udp::{Message, RecvBatch};
use wire::offload::Coalescer;

use super::{is_truncated, path};
use crate::worker::lane::{Shared, content};

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
        let datagrams = || message.datagrams().count();
        let path = path(socket, &message.origin);
        let peer = match self.peers.load().sender(&path.remote) {
            Sender::Peer(peer) if self.peers.load().path(peer) == Some(&path) => peer,
            Sender::Peer(peer) | Sender::First(peer) => {
                if !self.follow(shared, peer, path) {
                    shared.counters.dropped(DropReason::Stranger, datagrams());
                    return None;
                }
                peer
            }
            Sender::Stranger => {
                shared.counters.dropped(DropReason::Stranger, datagrams());
                return None;
            }
        };
        Some((peer, self.peers.load()))
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
