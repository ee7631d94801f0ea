//! `recvmmsg`, `sendmmsg` and the socket options that only libc knows.
//!
//! Message headers live on the stack of one call and point into memory that the call borrows, so no
//! pointer outlives a call and no type that is kept holds one. Socket addresses and control
//! messages are octets here; their meaning is the business of safe code.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::recv::{SLOT_OCTETS, SLOTS, Slot};
use super::send::{MESSAGES, OutgoingMessage};

/// Receives up to [`SLOTS`] messages, each into its part of `arena` and its slot, and says how
/// many.
pub(super) fn recvmmsg(
    socket: BorrowedFd<'_>,
    arena: &mut [u8],
    slots: &mut [Slot],
) -> io::Result<usize> {
    let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; SLOTS];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; SLOTS];
    let mut count = 0;
    let parts = arena.chunks_exact_mut(SLOT_OCTETS).zip(slots.iter_mut());
    for ((octets, slot), (iovec, header)) in parts.zip(iovecs.iter_mut().zip(&mut headers)) {
        let remote = writable(slot.remote.room());
        let control = writable(slot.control.room());
        header.write(message_header(remote, control, iovec.write(writable(octets))));
        count += 1;
    }
    // SAFETY: the first `count` headers are initialised, and each points to an address, a control
    // buffer and a part of the arena that are distinct, of the lengths said, and mutably borrowed
    // until this function ends.
    let received = retry(|| unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    })?;
    for (slot, header) in slots.iter_mut().zip(&headers).take(received) {
        // SAFETY: the kernel filled `received` headers, which are at most the `count` that were
        // initialised in the same order as the slots.
        let header = unsafe { header.assume_init_ref() };
        slot.len = header.msg_len as usize;
        slot.flags = header.msg_hdr.msg_flags;
        slot.remote.set_len(header.msg_hdr.msg_namelen as usize);
        slot.control.set_len(header.msg_hdr.msg_controllen as _);
    }
    Ok(received)
}

/// Sends up to [`MESSAGES`] of `messages`, whose ranges refer to `buffer`, and says how many the
/// kernel took.
///
/// An error is that of the first message, of which nothing was sent.
pub(super) fn sendmmsg(
    socket: BorrowedFd<'_>,
    buffer: &[u8],
    messages: &[OutgoingMessage],
) -> io::Result<usize> {
    let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; MESSAGES];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES];
    let mut count = 0;
    for (message, (iovec, header)) in messages.iter().zip(iovecs.iter_mut().zip(&mut headers)) {
        let remote = readable(message.remote.octets());
        let control = readable(message.control.octets());
        let octets = readable(&buffer[message.range.clone()]);
        header.write(message_header(remote, control, iovec.write(octets)));
        count += 1;
    }
    // SAFETY: the first `count` headers are initialised, and each points to an address, control
    // messages and octets of the lengths said that are borrowed until this function ends. The
    // kernel only reads them; of the headers it writes `msg_len`.
    retry(|| unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    })
}

/// Makes the socket say of every message which of our addresses it was sent to, ip(7).
pub(super) fn enable_ipv4_packet_information(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
}

/// As [`enable_ipv4_packet_information`], ipv6(7).
pub(super) fn enable_ipv6_packet_information(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
}

/// Makes the socket coalesce what it receives, udp(7); an error before Linux 5.0.
pub(super) fn enable_coalescing(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Whether the kernel knows segments, udp(7); it does not before Linux 4.18. Setting them off,
/// which they are, changes nothing.
pub(super) fn has_segmentation(socket: BorrowedFd<'_>) -> bool {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Marks what is sent, socket(7).
pub(super) fn set_mark(socket: BorrowedFd<'_>, mark: u32) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())
}

/// Sets an option that is a number.
pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: i32,
) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `value`, which lives until the call returns.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            length(size_of_val(&value)),
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls `call` until no signal interrupts it; it returns a number of messages, or -1 with `errno`
/// set.
fn retry(mut call: impl FnMut() -> i32) -> io::Result<usize> {
    loop {
        if let Ok(messages) = usize::try_from(call()) {
            return Ok(messages);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The header of a message with its address, its control messages and its octets.
fn message_header(
    address: libc::iovec,
    control: libc::iovec,
    octets: &mut libc::iovec,
) -> libc::mmsghdr {
    // SAFETY: all fields are numbers and raw pointers, of which zero is a value.
    let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
    let header = &mut message.msg_hdr;
    header.msg_name = address.iov_base;
    header.msg_namelen = length(address.iov_len);
    header.msg_control = control.iov_base;
    header.msg_controllen = control.iov_len as _;
    header.msg_iov = octets;
    header.msg_iovlen = 1;
    message
}

/// An area that the kernel only reads.
fn readable(octets: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() }
}

/// An area that the kernel fills.
fn writable(octets: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: octets.len() }
}

fn length(len: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(len).expect("an address or option is some octets long")
}
