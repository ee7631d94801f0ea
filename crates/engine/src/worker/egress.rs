//! The egress lane: from a device queue to the wire.
//!
//! # Theory of operation
//!
//! One lane a queue, run to completion. One read yields one packet or super-packet; its segments
//! are written straight into the send batch of the socket that the peer's path names, as they are ([`plain`]) or sealed
//! ([`sealed`]), and the batch leaves in one system call. A batch leaves when it holds some super-packets'
//! worth of octets, when it is full, or when the device has nothing more to read. So a lone packet leaves
//! at once, and a flood of small ones leaves in trains.
//!
//! Bounds: one read buffer, and one batch a socket. When the socket cannot take more, its thread
//! waits for it, and the device's own queue fills and drops: back-pressure where the kernel can see it.

mod plain;
mod sealed;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use device::{MAX_PACKET, Mode, Queue};
use proto::{DropReason, Path};
use rustix::event::PollFlags;
use rustix::io::Errno;
use transport::udp::{Destination, LocalAddr, SendBatch, UdpSocket};
use wire::virtio::VirtioNetHdr;

use self::plain::Plain;
use self::sealed::Sealed;
use super::lane::{Ended, Peers, Shared, Turn};
use super::stop::Wake;

/// A batch with this many octets leaves without looking for more.
///
/// A super-packet of 64 KiB is a little more than one UDP message can carry, so each alone would leave in two. Of
/// three together, segments of one fill the message of the other. Limiting the segments of a super-packet at the device
/// (`gso_max_segs`) is no way out: the kernel then cuts what it forwards from a larger interface one by one.
const ENOUGH_OCTETS: usize = 160 * 1024;

/// After so many reads the batch leaves, and others have their turn.
const PACKETS_A_TURN: usize = 128;

pub(crate) struct Egress {
    queue: Arc<Queue>,
    encapsulation: Encapsulation,
    outlet: Outlet,
    buffer: Box<[u8]>,
}

/// How packets become datagrams.
enum Encapsulation {
    Plain(Plain),
    Sealed(Sealed),
}

impl Egress {
    pub(crate) fn new(shared: Shared, queue: Arc<Queue>) -> Self {
        let encapsulation = match &shared.peers {
            Peers::Plain(peers) => Encapsulation::Plain(Plain::new(peers)),
            Peers::Sealed { directory, .. } => Encapsulation::Sealed(Sealed::new(directory)),
        };
        let batches = shared.sockets.iter().map(|_| SendBatch::new()).collect();
        Self {
            queue,
            encapsulation,
            outlet: Outlet { shared, batches },
            buffer: vec![0; MAX_PACKET].into_boxed_slice(),
        }
    }

    /// What becomes readable when there is something to carry.
    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    /// Carries what the device has, up to one batch.
    pub(crate) fn turn(&mut self) -> Result<Turn, Ended> {
        if let Encapsulation::Sealed(sealed) = &mut self.encapsulation {
            sealed.tell_time();
        }
        for read in 0..PACKETS_A_TURN {
            match self.queue.recv(&mut self.buffer) {
                Ok(received) => {
                    if self.carry(received.header, received.len) {
                        return Ok(Turn::More);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.outlet.flush();
                    return Ok(if read == 0 { Turn::Idle } else { Turn::Drained });
                }
                // A header that the kernel should not have written; the packet is consumed.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.outlet.shared.counters.dropped(DropReason::Malformed, 1);
                }
                Err(error) if Errno::from_io_error(&error) == Some(Errno::BADFD) => {
                    return Err(Ended::DeviceGone);
                }
                Err(error) => return Err(Ended::Failed(error)),
            }
        }
        self.outlet.flush();
        Ok(Turn::More)
    }

    /// Writes the segments of the packet in the buffer into a batch; whether the batch has left.
    fn carry(&mut self, header: VirtioNetHdr, len: usize) -> bool {
        let Some(packet) = self.buffer.get_mut(..len) else { return false };
        let outlet = &mut self.outlet;
        let carried = match &mut self.encapsulation {
            Encapsulation::Plain(plain) => plain.carry(header, packet, outlet),
            Encapsulation::Sealed(sealed) => sealed.carry(header, packet, outlet),
        };
        match carried {
            Ok(path) => path.is_some_and(|path| outlet.leave(&path)),
            Err(reason) => {
                outlet.shared.counters.dropped(reason, 1);
                false
            }
        }
    }
}

/// The way onto the wire: a batch for each socket.
struct Outlet {
    shared: Shared,
    batches: Vec<SendBatch>,
}

impl Outlet {
    /// Refuses a datagram that left by `path` and came back.
    #[inline]
    fn refuse_loop(&self, packet: &[u8], path: &Path) -> Result<(), DropReason> {
        let port = self.shared.sockets[path.transport.0].local_addr().port();
        let is_own = self.shared.mode == Mode::Tun && path.is_own(packet, port);
        if is_own { Err(DropReason::Loop) } else { Ok(()) }
    }

    /// Writes a datagram of up to `len` octets by `write`, which says how many it has; `path` leads to where it goes.
    #[inline]
    fn datagram(
        &mut self,
        path: &Path,
        destination: &Destination,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let batch = &mut self.batches[path.transport.0];
        if batch.reserve(len).is_none() {
            transmit(&self.shared, &self.shared.sockets[path.transport.0], batch);
        }
        let Some(written) = batch.reserve(len).and_then(write) else { return false };
        batch.commit(written, destination);
        true
    }

    /// Sends the batch of `path` if it holds enough; whether it did.
    #[inline]
    fn leave(&mut self, path: &Path) -> bool {
        let batch = &mut self.batches[path.transport.0];
        let leaves = batch.octets() >= ENOUGH_OCTETS || batch.is_full();
        if leaves {
            transmit(&self.shared, &self.shared.sockets[path.transport.0], batch);
        }
        leaves
    }

    /// Sends what waits in the batches.
    fn flush(&mut self) {
        for (batch, socket) in self.batches.iter_mut().zip(self.shared.sockets.iter()) {
            if !batch.is_empty() {
                transmit(&self.shared, socket, batch);
            }
        }
    }
}

/// Where a path leads, for the transport.
pub(super) fn destination(path: &Path) -> Option<Destination> {
    let local = path.local.map(|local| LocalAddr { ip: local.ip, interface: local.interface });
    Some(Destination { remote: path.remote.socket_addr()?, local })
}

/// Sends a batch, waiting while the socket cannot take more.
fn transmit(shared: &Shared, socket: &UdpSocket, batch: &mut SendBatch) {
    loop {
        let outcome = socket.send(batch);
        shared.counters.carried(outcome.sent, outcome.octets);
        shared.counters.dropped(DropReason::SendFailed, outcome.dropped);
        if let Some(error) = outcome.error {
            tracing::trace!("send {} datagrams: {error}", outcome.dropped);
        }
        if !outcome.blocked {
            return;
        }
        if !matches!(shared.stop.wait(socket.as_fd(), PollFlags::OUT), Ok(Wake::Ready)) {
            shared.counters.dropped(DropReason::SendFailed, batch.datagrams());
            return batch.clear();
        }
    }
}
