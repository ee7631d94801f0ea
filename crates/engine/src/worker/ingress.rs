//! The ingress lane: from a socket to the device.
//!
//! # Theory of operation
//!
//! One lane a socket, run to completion. One system call yields many datagrams, which lie in the
//! batch's arena; each is judged where it lies, as it is ([`plain`]) or opened in place ([`sealed`]), joined with its
//! neighbours of the same flow, and written to the device as header and slices, without a copy.
//!
//! Who sends is decided once a message, not once a datagram: the datagrams that the kernel has joined
//! come from one sender.

mod delivery;
pub(crate) mod folder;
mod outlet;
mod plain;
mod sealed;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use device::Queue;
use proto::{DropReason, LocalAddr, Path, TransportIndex};
use transport::udp::{Origin, RecvBatch, SLOTS};
use wire::offload::Accepts;

use self::delivery::Delivery;
use self::plain::Plain;
use self::sealed::Sealed;
use super::lane::{Ended, Peers, Shared, Turn};

pub(crate) struct Ingress {
    shared: Shared,
    socket: TransportIndex,
    decapsulation: Decapsulation,
    batch: RecvBatch,
    delivery: Delivery,
}

/// How datagrams become packets.
enum Decapsulation {
    Plain(Plain),
    Sealed(Sealed),
}

impl Ingress {
    pub(crate) fn new(
        shared: Shared,
        socket: TransportIndex,
        queue: Arc<Queue>,
        accepts: Accepts,
    ) -> Self {
        let decapsulation = Decapsulation::new(&shared.peers);
        let delivery = Delivery::new(&shared, queue, accepts);
        Self { shared, socket, decapsulation, batch: RecvBatch::new(), delivery }
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
        let (shared, coalescer) = (&self.shared, &mut self.delivery.coalescer);
        match &mut self.decapsulation {
            Decapsulation::Plain(plain) => {
                plain.carry(shared, self.socket, &self.batch, coalescer);
            }
            Decapsulation::Sealed(sealed) => {
                sealed.carry(shared, self.socket, &mut self.batch, coalescer);
            }
        }
        self.delivery.deliver(&self.shared, self.batch.arena_mut())
    }
}

impl Decapsulation {
    fn new(peers: &Peers) -> Self {
        match peers {
            Peers::Plain(peers) => Self::Plain(Plain::new(peers)),
            Peers::Sealed { directory, extensions } => {
                Self::Sealed(Sealed::new(directory, *extensions))
            }
        }
    }
}

/// The way back to where a message came from.
fn path(socket: TransportIndex, origin: &Origin) -> Path {
    let local = origin.local.map(|local| LocalAddr { ip: local.ip, interface: local.interface });
    Path { transport: socket, remote: origin.remote.into(), local }
}

/// Whether a message was cut off, which is counted.
fn is_truncated(shared: &Shared, message: &transport::udp::Message) -> bool {
    if message.truncated {
        shared.counters.dropped(DropReason::Truncated, 1);
    }
    message.truncated
}
