//! Seeing the packets of a device, and swearing that there were none.
//!
//! Both are `AF_PACKET` sockets inside a host, bound to one device, with a [`Filter`] in the kernel
//! (packet(7)). The queue of a [`Capture`] is the socket's receive buffer: bounded, filled by the
//! kernel with its own time stamps, emptied when somebody looks. A [`Witness`] only counts: the
//! kernel's statistics count what passed the filter, lost from the queue or not, so "none seen"
//! holds even if nobody ever looked.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, netdevice, sockopt};

use crate::deadline::{Deadline, WaitError};
use crate::filter::Filter;
use crate::host::Host;
use crate::sys;

/// Octets of packets that may wait in a capture, as the kernel accounts for them.
const QUEUE_OCTETS: usize = 8 << 20;

/// The most that is kept of one packet: the largest IP packet and an Ethernet header.
const MAX_KEPT: usize = 65_535 + 14;

/// Packets of one device from its start on.
#[derive(Debug)]
pub struct Capture {
    /// The device and its host, for messages.
    place: String,
    socket: OwnedFd,
    buffer: Box<[u8]>,
    seen: u64,
    lost: u64,
}

/// A packet that a device sent or received.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When the kernel handed it to the capture: time since 1970.
    pub at: Duration,
    /// Whether it was going out of the device, towards the wire or the TUN device's reader.
    pub outgoing: bool,
    /// The IP packet of a TUN device, the frame of an Ethernet device.
    pub octets: Vec<u8>,
}

/// What a capture or a witness saw in its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Packets that passed the filter.
    pub seen: u64,
    /// How many of them were lost before anybody could look at them.
    pub lost: u64,
}

/// Why a device could not be watched.
#[derive(Debug, thiserror::Error)]
#[error("{operation} on {device} of host {host}")]
pub struct CaptureError {
    operation: &'static str,
    device: String,
    host: &'static str,
    source: io::Error,
}

/// Why no packet came out of a capture.
#[derive(Debug, thiserror::Error)]
pub enum NextError {
    /// None came in time.
    #[error("wait for a packet on {place}")]
    Wait {
        /// The device and its host.
        place: String,
        /// The cause.
        source: WaitError,
    },
    /// The capture does not work any more, for example because the device is down or gone.
    #[error("receive a packet on {place}")]
    Receive {
        /// The device and its host.
        place: String,
        /// The cause.
        source: io::Error,
    },
}

impl Capture {
    /// Sees from here on every packet of `device` in `host` that passes `filter`.
    pub fn start(host: &Host, device: &str, filter: &Filter) -> Result<Self, CaptureError> {
        let (name, filter) = (device.to_owned(), filter.clone());
        let socket = host.run(move || open(&name, &filter)).map_err(|(operation, source)| {
            CaptureError { operation, device: device.to_owned(), host: host.name(), source }
        })?;
        let buffer = vec![0; MAX_KEPT].into_boxed_slice();
        let place = format!("{device} of host {}", host.name());
        Ok(Self { place, socket, buffer, seen: 0, lost: 0 })
    }

    /// The next packet, if one is there.
    pub fn take(&mut self) -> Result<Option<Packet>, NextError> {
        let arrival = sys::receive_packet(self.socket.as_fd(), &mut self.buffer)
            .map_err(|source| NextError::Receive { place: self.place.clone(), source })?;
        Ok(arrival.map(|arrival| {
            let kept = arrival.length.min(MAX_KEPT);
            let octets = self.buffer.get(..kept).unwrap_or_default().to_vec();
            let at = Duration::from_nanos(arrival.nanoseconds);
            Packet { at, outgoing: arrival.outgoing, octets }
        }))
    }

    /// The next packet, waiting for it.
    pub fn next(&mut self, deadline: Deadline<'_>) -> Result<Packet, NextError> {
        loop {
            if let Some(packet) = self.take()? {
                return Ok(packet);
            }
            deadline
                .wait_readable(&[self.socket.as_fd()])
                .map_err(|source| NextError::Wait { place: self.place.clone(), source })?;
        }
    }

    /// The next packet that `wanted` turns into something, waiting for it.
    pub fn find<T>(
        &mut self,
        deadline: Deadline<'_>,
        mut wanted: impl FnMut(Packet) -> Option<T>,
    ) -> Result<T, NextError> {
        loop {
            if let Some(found) = wanted(self.next(deadline)?) {
                return Ok(found);
            }
        }
    }

    /// What passed the filter so far.
    pub fn tally(&mut self) -> io::Result<Tally> {
        let (seen, lost) = sys::take_statistics(self.socket.as_fd())?;
        self.seen += u64::from(seen);
        self.lost += u64::from(lost);
        Ok(Tally { seen: self.seen, lost: self.lost })
    }
}

/// Counts packets of a kind that should not exist; keeps the first ones as evidence.
#[derive(Debug)]
pub struct Witness(Capture);

/// What a [`Witness`] says in the end.
#[derive(Clone, Debug)]
pub struct Testimony {
    /// How many packets there were. This number is exact even if some were lost.
    pub seen: u64,
    /// The first of them.
    pub first: Option<Packet>,
}

impl Witness {
    /// Counts from here on the packets of `device` in `host` that pass `filter`.
    pub fn start(host: &Host, device: &str, filter: &Filter) -> Result<Self, CaptureError> {
        Capture::start(host, device, filter).map(Self)
    }

    /// What was seen from the start until here.
    pub fn testify(mut self) -> Result<Testimony, NextError> {
        let tally = self.0.tally();
        let tally =
            tally.map_err(|source| NextError::Receive { place: self.0.place.clone(), source })?;
        Ok(Testimony { seen: tally.seen, first: self.0.take()? })
    }
}

/// Opens a packet socket; the error says which step failed.
fn open(device: &str, filter: &Filter) -> Result<OwnedFd, (&'static str, io::Error)> {
    let step = |operation| move |error: rustix::io::Errno| (operation, io::Error::from(error));
    // Without a protocol the socket receives nothing until it is bound, so no packet of another
    // device and none that the filter rejects gets into the queue.
    let no_protocol: Option<Protocol> = None;
    let socket = rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        no_protocol,
    )
    .map_err(step("open a packet socket"))?;
    // Beyond the system's limit only for root of the machine; the limit does otherwise.
    let forced = sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_OCTETS);
    forced
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, QUEUE_OCTETS))
        .map_err(step("size the queue of a capture"))?;
    sys::stamp_arrivals(socket.as_fd()).map_err(|error| ("ask for time stamps", error))?;
    sys::attach_filter(socket.as_fd(), &mut filter.program())
        .map_err(|error| ("attach the filter of a capture", error))?;
    let index = netdevice::name_to_index(&socket, device).map_err(step("find the device"))?;
    sys::bind_to_device(socket.as_fd(), index).map_err(|error| ("bind a capture", error))?;
    Ok(socket)
}
