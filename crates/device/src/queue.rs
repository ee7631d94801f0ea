//! One queue of a device: packets in and out, without a copy and without an allocation.
//!
//! The kernel puts up to two headers before a packet, in this order, and expects them there when
//! it is written to:
//!
//! ```text
//! | packet information (4) | virtio-net header (10) | IP packet or Ethernet frame |
//!   only without IFF_NO_PI   only with IFF_VNET_HDR
//! ```
//!
//! They are read into and written from arrays on the stack with `readv` and `writev`, so the
//! caller's memory holds nothing but the packet. The tun driver cuts a packet that is longer than
//! the memory it is given and does not say so; one spare octet after the caller's buffer tells.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, readv, writev};
use wire::virtio::VirtioNetHdr;

use crate::Mode;
use crate::sys::{self, TunFile};

/// The octets that a read buffer must have to hold every packet: the longest IPv6 packet without
/// jumbogram (its header does not count to its 16-bit length), in a frame with two VLAN tags.
pub const MAX_PACKET: usize = 65_535 + 40 + 14 + 2 * 4;

/// The most slices that [`Queue::send`] takes: `UIO_MAXIOV` less one for each header.
pub const MAX_SLICES: usize = 1024 - HEADERS;

/// Packet information and the virtio-net header.
const HEADERS: usize = 2;

/// How most packets are written: the array of few slices is cheap to clear.
const FEW_SLICES: usize = 64 - HEADERS;

/// Octets of `struct tun_pi`: flags in the machine's order, EtherType in the network's.
const INFORMATION_LEN: usize = 4;

/// What comes before a packet on a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    pub(crate) mode: Mode,
    pub(crate) packet_info: bool,
    pub(crate) vnet_hdr: bool,
}

impl Framing {
    /// The flags of `TUNSETIFF` that ask for this framing.
    pub(crate) fn flags(self) -> u16 {
        let mode = match self.mode {
            Mode::Tun => sys::IFF_TUN,
            Mode::Tap => sys::IFF_TAP,
        };
        let information = if self.packet_info { 0 } else { sys::IFF_NO_PI };
        let header = if self.vnet_hdr { sys::IFF_VNET_HDR } else { 0 };
        mode | information | header
    }
}

/// A nonblocking descriptor of a device, to which the kernel sends some of the flows.
///
/// [`AsFd`] gives the descriptor to wait on: readable when a packet waits.
#[derive(Debug)]
pub struct Queue {
    file: TunFile,
    framing: Framing,
}

/// A packet that [`Queue::recv`] has put into the buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Received {
    /// What the kernel left undone; empty on a device without virtio-net headers.
    pub header: VirtioNetHdr,
    /// The octets of the packet, from the start of the buffer.
    pub len: usize,
}

impl Queue {
    pub(crate) fn new(file: TunFile, framing: Framing) -> Self {
        Self { file, framing }
    }

    pub(crate) fn file(&self) -> &TunFile {
        &self.file
    }

    /// Takes over the descriptor of a queue that another process opened and handed on.
    ///
    /// Whether it was opened with [`packet_info`](crate::Builder::packet_info) must be said: the
    /// answer of `TUNGETIFF` has another meaning in that bit. Mode and header are asked of the
    /// kernel. Fails with `ENOTTY` if it is no descriptor of the tun driver, and with `EBADFD` if it
    /// is not attached to a device.
    pub fn from_descriptor(descriptor: OwnedFd, packet_info: bool) -> io::Result<Self> {
        let file = TunFile::adopt(descriptor)?.ok_or(Errno::NOTTY)?;
        let flags = file.interface()?.flags;
        let mode = if flags & sys::IFF_TAP == 0 { Mode::Tun } else { Mode::Tap };
        let vnet_hdr = flags & sys::IFF_VNET_HDR != 0;
        if vnet_hdr {
            file.use_plain_headers()?;
        }
        Ok(Self { file, framing: Framing { mode, packet_info, vnet_hdr } })
    }

    /// Reads one packet or frame into `buffer`.
    ///
    /// Fails with
    /// - `EAGAIN` when none waits,
    /// - `EMSGSIZE` when the packet was longer than `buffer`; it is lost,
    /// - `EBADFD` when the device was deleted,
    /// - [`io::ErrorKind::InvalidData`] when the kernel sends a header that is not to be
    ///   understood; the packet is lost.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut information = [0; INFORMATION_LEN];
        let mut header = [0; VirtioNetHdr::LEN];
        let mut spare = [0; 1];
        let information_len = if self.framing.packet_info { INFORMATION_LEN } else { 0 };
        let header_len = if self.framing.vnet_hdr { VirtioNetHdr::LEN } else { 0 };
        let room = buffer.len();
        let read = readv(
            &self.file,
            &mut [
                IoSliceMut::new(&mut information[..information_len]),
                IoSliceMut::new(&mut header[..header_len]),
                IoSliceMut::new(buffer),
                IoSliceMut::new(&mut spare),
            ],
        )?;
        let len = read.saturating_sub(information_len + header_len);
        if len > room {
            return Err(Errno::MSGSIZE.into());
        }
        let header = VirtioNetHdr::parse(&header)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Received { header, len })
    }

    /// Writes one packet or frame, the concatenation of `slices`.
    ///
    /// `header` says what the kernel has to finish; a device without virtio-net headers ignores it.
    /// Fails with
    /// - `EIO` when the device is down,
    /// - `EINVAL` when the packet is none: it is shorter than its link header, its first nibble is
    ///   neither 4 nor 6 on a TUN device, or `header` does not fit it,
    /// - `EMSGSIZE` when there are more than [`MAX_SLICES`],
    /// - `EBADFD` when the device was deleted.
    pub fn send(&self, header: &VirtioNetHdr, slices: &[IoSlice<'_>]) -> io::Result<()> {
        if slices.len() <= FEW_SLICES {
            self.send_with::<{ FEW_SLICES + HEADERS }>(header, slices)
        } else if slices.len() <= MAX_SLICES {
            self.send_with::<{ MAX_SLICES + HEADERS }>(header, slices)
        } else {
            Err(Errno::MSGSIZE.into())
        }
    }

    /// Writes with an array of `N` slices, which must have room for `slices` and two headers.
    fn send_with<const N: usize>(
        &self,
        header: &VirtioNetHdr,
        slices: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let information;
        let octets;
        let mut vectors = [IoSlice::new(&[]); N];
        let mut used = 0;
        if self.framing.packet_info {
            information = self.information(slices)?;
            vectors[used] = IoSlice::new(&information);
            used += 1;
        }
        if self.framing.vnet_hdr {
            octets = header.emit();
            vectors[used] = IoSlice::new(&octets);
            used += 1;
        }
        vectors[used..used + slices.len()].copy_from_slice(slices);
        // Nothing to write never gets to the driver.
        match writev(&self.file, &vectors[..used + slices.len()])? {
            0 => Err(Errno::INVAL.into()),
            _ => Ok(()),
        }
    }

    /// The packet information for a packet: on a TUN device, the EtherType that its version has.
    fn information(&self, slices: &[IoSlice<'_>]) -> io::Result<[u8; INFORMATION_LEN]> {
        if self.framing.mode == Mode::Tap {
            return Ok([0; INFORMATION_LEN]);
        }
        match slices.iter().find_map(|slice| slice.first()).map(|octet| octet >> 4) {
            Some(4) => Ok([0, 0, 0x08, 0x00]),
            Some(6) => Ok([0, 0, 0x86, 0xdd]),
            _ => Err(Errno::INVAL.into()),
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Queue> for OwnedFd {
    fn from(queue: Queue) -> Self {
        queue.file.into()
    }
}
