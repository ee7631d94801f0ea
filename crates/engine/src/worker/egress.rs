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
//! A folder takes a super-packet as it is, and what waits leaves as one file ([`folder`]).
//!
//! Bounds: one read buffer, and one batch a socket. When the socket cannot take more, its thread
//! waits for it, and the device's own queue fills and drops: back-pressure where the kernel can see it.

mod folder;
mod plain;
mod sealed;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use device::{MAX_PACKET, Mode, Queue};
use proto::{DropReason, Path, RemoteAddr, Side};
use rustix::event::PollFlags;
use rustix::io::Errno;
use transport::udp::{Destination, LocalAddr, SendBatch, UdpSocket};
use wire::frame;
use wire::offload::{self, LinkLayer};
use wire::virtio::{Gso, VirtioNetHdr};

use self::folder::FolderOutlet;
use self::plain::Plain;
use self::sealed::Sealed;
use super::glimpse::Glimpse;
use super::lane::{Ended, Peers, Shared, Turn, link_layer};
use super::stop::Wake;

/// A batch with this many octets leaves without looking for more.
///
/// A super-packet of 64 KiB is a little more than one UDP message can carry, so each alone would leave in two. Of
/// three together, segments of one fill the message of the other. Limiting the segments of a super-packet at the device
/// (`gso_max_segs`) is no way out: the kernel then cuts what it forwards from a larger interface one by one.
const ENOUGH_OCTETS: usize = 160 * 1024;

/// After so many reads the batch leaves, and others have their turn.
const PACKETS_A_TURN: usize = 128;

/// Octets before a packet in the read buffer, where a frame's first ones fit.
const HEADROOM: usize = frame::OFFLOAD_HEADER_LEN;

pub(crate) struct Egress {
    queue: Arc<Queue>,
    encapsulation: Encapsulation,
    outlet: Outlet,
    buffer: Box<[u8]>,
    glimpse: Glimpse,
}

/// How packets become datagrams.
enum Encapsulation {
    Plain(Plain),
    Sealed(Sealed),
}

impl Egress {
    /// The lane with this number.
    pub(crate) fn new(shared: Shared, queue: Arc<Queue>, lane: u8) -> Self {
        let encapsulation = match &shared.peers {
            Peers::Plain(peers) => Encapsulation::Plain(Plain::new(peers)),
            Peers::Sealed { directory, .. } => Encapsulation::Sealed(Sealed::new(directory)),
        };
        let batches = shared.sockets.iter().map(|_| SendBatch::new()).collect();
        let folders = shared.folders.iter().filter_map(|folder| FolderOutlet::new(folder, lane));
        let folders = folders.collect();
        Self {
            glimpse: Glimpse::new(link_layer(shared.mode), "out"),
            queue,
            encapsulation,
            outlet: Outlet { shared, batches, folders },
            buffer: vec![0; HEADROOM + MAX_PACKET].into_boxed_slice(),
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
            match self.queue.recv(&mut self.buffer[HEADROOM..]) {
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
        let Some(buffer) = self.buffer.get_mut(..HEADROOM + len) else { return false };
        self.glimpse.pass(&buffer[HEADROOM..]);
        let outlet = &mut self.outlet;
        let carried = match &mut self.encapsulation {
            Encapsulation::Plain(plain) => plain.carry(header, buffer, outlet),
            Encapsulation::Sealed(sealed) => sealed.carry(header, buffer, outlet),
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

/// The way out: a batch for each socket, and a file for each folder.
struct Outlet {
    shared: Shared,
    batches: Vec<SendBatch>,
    folders: Vec<FolderOutlet>,
}

/// Where messages go, made ready for many of them.
pub(super) enum Way {
    Socket(usize, Destination),
    Folder(usize, Side),
}

impl Way {
    pub(super) fn of(path: &Path) -> Self {
        let place = path.transport.0;
        let local = path.local.map(|local| LocalAddr { ip: local.ip, interface: local.interface });
        match path.remote {
            RemoteAddr::Udp(remote) => Self::Socket(place, Destination { remote, local }),
            RemoteAddr::Side(side) => Self::Folder(place, side),
        }
    }
}

impl Outlet {
    /// Refuses a datagram that left by `path` and came back.
    #[inline]
    fn refuse_loop(&self, packet: &[u8], path: &Path) -> Result<(), DropReason> {
        let Some(socket) = self.shared.sockets.get(path.transport.0) else { return Ok(()) };
        let port = socket.local_addr().port();
        let is_own = self.shared.mode == Mode::Tun && path.is_own(packet, port);
        if is_own { Err(DropReason::Loop) } else { Ok(()) }
    }

    /// Writes a message of up to `len` octets by `write`, which says how many it has.
    #[inline]
    fn message(
        &mut self,
        way: &Way,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        match way {
            Way::Socket(place, destination) => {
                let Some(batch) = self.batches.get_mut(*place) else { return false };
                if batch.reserve(len).is_none() {
                    transmit(&self.shared, &self.shared.sockets[*place], batch);
                }
                let Some(written) = batch.reserve(len).and_then(write) else { return false };
                batch.commit(written, destination);
                true
            }
            Way::Folder(place, side) => {
                let Some(folder) = self.folders.get_mut(*place) else { return false };
                folder.record(&self.shared, *side, len, write)
            }
        }
    }

    /// Sends what waits for the way of `path` if that is enough; whether it did.
    #[inline]
    fn leave(&mut self, path: &Path) -> bool {
        let place = path.transport.0;
        if let RemoteAddr::Side(_) = path.remote {
            let folder = self.folders.get_mut(place);
            return folder.is_some_and(|folder| folder.leave(&self.shared));
        }
        let Some(batch) = self.batches.get_mut(place) else { return false };
        let leaves = batch.octets() >= ENOUGH_OCTETS || batch.is_full();
        if leaves {
            transmit(&self.shared, &self.shared.sockets[place], batch);
        }
        leaves
    }

    /// Sends what waits.
    fn flush(&mut self) {
        for (batch, socket) in self.batches.iter_mut().zip(self.shared.sockets.iter()) {
            if !batch.is_empty() {
                transmit(&self.shared, socket, batch);
            }
        }
        for folder in &mut self.folders {
            folder.publish(&self.shared);
        }
    }
}

/// Puts the first octets of a frame before the packet in a read buffer, which follows what the device says of it, if
/// the packet can travel as it is.
fn framed(link: LinkLayer, header: VirtioNetHdr, buffer: &mut [u8]) -> Option<&[u8]> {
    let (head, packet) = buffer.split_first_chunk_mut::<HEADROOM>()?;
    let header = offload::whole(link, header, packet).ok()?;
    *head = frame::emit_offload(&header);
    Some(buffer)
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
