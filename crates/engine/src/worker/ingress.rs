//! The ingress lane: from a socket to the device.
//!
//! # Theory of operation
//!
//! One lane a socket, run to completion. One system call yields many datagrams, which lie in the
//! batch's arena; each is judged where it lies, joined with its neighbours of the same flow, and
//! written to the device as header and slices, without a copy.
//!
//! Who sends is decided once a message, not once a datagram: the datagrams that the kernel has joined
//! come from one sender.
//!
//! The device takes super-packets only if the kernel can: some kernels answer EINVAL to writes that
//! others accept. When the first super-packets are all refused, the lane stops joining.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use device::Queue;
use proto::{DropReason, LocalAddr, Path, PeerIndex, PeerTable, Sender, SocketIndex, inner};
use rustix::io::Errno;
use transport::udp::{Message, Origin, RecvBatch, SLOTS};
use wire::offload::{Accepts, Coalescer};
use wire::virtio::VirtioNetHdr;

use super::lane::{Ended, Shared, Turn, content, link_layer};
use super::notice::Notice;

/// After so many super-packets refused, and none taken, the device gets packets singly.
const REFUSED_SUPER_PACKETS: u32 = 8;

pub(crate) struct Ingress {
    shared: Shared,
    peers: arc_swap::Cache<Arc<arc_swap::ArcSwap<PeerTable>>, Arc<PeerTable>>,
    socket: SocketIndex,
    batch: RecvBatch,
    coalescer: Coalescer,
    outlet: Outlet,
}

impl Ingress {
    pub(crate) fn new(
        shared: Shared,
        socket: SocketIndex,
        queue: Arc<Queue>,
        accepts: Accepts,
    ) -> Self {
        Self {
            peers: arc_swap::Cache::new(Arc::clone(&shared.peers)),
            socket,
            batch: RecvBatch::new(),
            coalescer: Coalescer::new(link_layer(shared.mode), accepts),
            outlet: Outlet { queue, super_packets: SuperPackets::Untried { refused: 0 } },
            shared,
        }
    }

    /// What becomes readable when there is something to carry.
    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        self.shared.sockets[self.socket.0].as_fd()
    }

    /// Carries what the socket has, up to one batch.
    pub(crate) fn turn(&mut self) -> Result<Turn, Ended> {
        let socket = &self.shared.sockets[self.socket.0];
        match socket.recv(&mut self.batch) {
            Ok(messages) => {
                self.carry()?;
                Ok(if messages == SLOTS { Turn::More } else { Turn::Drained })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Turn::Idle),
            // An error that the network reported for an earlier datagram; reading it clears it.
            Err(error) => {
                tracing::debug!("receive on {}: {error}", socket.local_addr());
                Ok(Turn::Idle)
            }
        }
    }

    /// Judges, joins and delivers what lies in the batch.
    fn carry(&mut self) -> Result<(), Ended> {
        for message in self.batch.messages() {
            let Some((peer, table)) = sender(&self.shared, &mut self.peers, self.socket, &message)
            else {
                continue;
            };
            for datagram in message.datagrams() {
                let packet = &self.batch.arena()[datagram.clone()];
                match inner::admit(table, content(self.shared.mode), peer, packet) {
                    Ok(()) => self.coalescer.push(self.batch.arena(), datagram),
                    Err(reason) => self.shared.counters.dropped(reason, 1),
                }
            }
        }
        let mut result = Ok(());
        let (outlet, counters) = (&mut self.outlet, &self.shared.counters);
        self.coalescer.drain(self.batch.arena_mut(), |header, slices| {
            match outlet.deliver(header, slices) {
                Ok(()) => {
                    counters.carried(slices.len(), slices.iter().map(|slice| slice.len()).sum());
                }
                Err(Refusal::Dropped(reason)) => counters.dropped(reason, slices.len()),
                Err(Refusal::DeviceGone) => result = Err(Ended::DeviceGone),
            }
        });
        if self.outlet.super_packets == SuperPackets::Refused {
            tracing::warn!("the kernel refuses super-packets on the device; packets go singly");
            self.outlet.super_packets = SuperPackets::GivenUp;
            self.coalescer = Coalescer::new(link_layer(self.shared.mode), Accepts::default());
        }
        result
    }
}

/// Which peer sent `message`, and the table that says so; counts it as dropped if none did.
fn sender<'a>(
    shared: &Shared,
    peers: &'a mut arc_swap::Cache<Arc<arc_swap::ArcSwap<PeerTable>>, Arc<PeerTable>>,
    socket: SocketIndex,
    message: &Message,
) -> Option<(PeerIndex, &'a PeerTable)> {
    let datagrams = || message.datagrams().count();
    if message.truncated {
        shared.counters.dropped(DropReason::Truncated, 1);
        return None;
    }
    let path = path(socket, &message.origin);
    let peer = match peers.load().sender(path.remote) {
        Sender::Peer(peer) if peers.load().path(peer) == Some(&path) => peer,
        Sender::Peer(peer) | Sender::First(peer) => {
            if !follow(shared, peer, path) {
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
    Some((peer, peers.load()))
}

fn path(socket: SocketIndex, origin: &Origin) -> Path {
    let local = origin.local.map(|local| LocalAddr { ip: local.ip, interface: local.interface });
    Path { socket, remote: origin.remote, local }
}

/// Publishes `path` as the way to `peer`; false if another sender was first.
///
/// Off the fast path: a peer's path changes when it speaks for the first time, and when it begins to
/// talk to another of our addresses.
fn follow(shared: &Shared, peer: PeerIndex, path: Path) -> bool {
    let before = shared.peers.rcu(|table| table.with_path(peer, path));
    let after = shared.peers.load();
    if after.path(peer) != Some(&path) {
        return false;
    }
    if before.path(peer).is_none() {
        let name = after.peer(peer).map_or("", |peer| &peer.name);
        tracing::info!("peer {name:?} is at {}: it sent first", path.remote);
        shared.notify(Notice::PathLearned);
    }
    true
}

/// Whether the device takes super-packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SuperPackets {
    Untried { refused: u32 },
    Taken,
    Refused,
    GivenUp,
}

/// Why the device did not take a packet.
enum Refusal {
    Dropped(DropReason),
    DeviceGone,
}

/// The way into the device.
struct Outlet {
    queue: Arc<Queue>,
    super_packets: SuperPackets,
}

impl Outlet {
    fn deliver(&mut self, header: &VirtioNetHdr, slices: &[IoSlice<'_>]) -> Result<(), Refusal> {
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
