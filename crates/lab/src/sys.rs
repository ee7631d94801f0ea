//! System calls that rustix lacks: one function each, safe to call with any arguments.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

/// `SO_TIMESTAMPNS_NEW` of include/uapi/asm-generic/socket.h: a `struct __kernel_timespec` of two
/// 64-bit numbers on every architecture.
const SO_TIMESTAMPNS_NEW: libc::c_int = 64;

/// Room for one control message with a time, and a little more.
const CONTROL_LEN: usize = 64;

/// Where a packet socket took a packet, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Octets of the packet, which may be more than the buffer held.
    pub(crate) length: usize,
    /// The packet was on its way out of the device (`PACKET_OUTGOING`).
    pub(crate) outgoing: bool,
    /// Nanoseconds of `CLOCK_REALTIME`; 0 if the kernel gave no time.
    pub(crate) nanoseconds: u64,
}

/// Lets the program that `command` starts be killed when the thread that starts it ends, in
/// whatever way (prctl(2), `PR_SET_PDEATHSIG`).
pub(crate) fn kill_with_parent_thread(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs between fork and exec in a copy of a process with several threads,
    // so only async-signal-safe code may run: it makes two system calls and touches no memory but
    // its own copy of `parent`; an error is built from a number without allocating.
    unsafe { command.pre_exec(move || die_with(parent)) };
}

fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that died before the call above sends no signal any more.
    if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
}

/// Moves the calling thread, which must be the only one, to a new user and network namespace.
pub(crate) fn unshare_user_and_network() -> io::Result<()> {
    let namespaces = UnshareFlags::NEWUSER | UnshareFlags::NEWNET;
    // SAFETY: the call is dangerous only with `UnshareFlags::FILES`, which takes descriptors away
    // from other threads; it is not among the flags here.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }?;
    Ok(())
}

/// Attaches a classic BPF program to a socket: what it rejects is never queued.
pub(crate) fn attach_filter(
    socket: BorrowedFd<'_>,
    program: &mut [libc::sock_filter],
) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Lets a socket report the time of every packet it receives.
pub(crate) fn stamp_arrivals(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, SO_TIMESTAMPNS_NEW, &1_i32)
}

/// `value` must be what the kernel reads for the option: callers here pass `i32` and `sock_fprog`.
fn set_option<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = length_of::<T>();
    // SAFETY: `value` is a live reference to `length` octets that the kernel only reads; the
    // program that a `sock_fprog` points to is borrowed by the caller for the whole call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    check(result)
}

/// Binds a packet socket to the device with `index`; from here on it receives every protocol.
pub(crate) fn bind_to_device(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    const EVERY_PROTOCOL: u16 = 0x0003; // ETH_P_ALL of include/uapi/linux/if_ether.h
    let mut address = empty_address();
    address.sll_protocol = EVERY_PROTOCOL.to_be();
    address.sll_ifindex =
        i32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let length = length_of::<libc::sockaddr_ll>();
    // SAFETY: `address` is a whole `sockaddr_ll`, as long as the length says, and outlives the call.
    let result =
        unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
    check(result)
}

/// The length of a `T` as socket calls take it.
#[expect(clippy::cast_possible_truncation, reason = "no type here has more than 200 octets")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

#[expect(clippy::cast_possible_truncation, reason = "AF_PACKET is 17")]
fn empty_address() -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: 0,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

/// Takes the next packet of a packet socket, without waiting: `None` if there is none.
pub(crate) fn receive_packet(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<Option<Arrival>> {
    let mut address = empty_address();
    let mut control = [0_u64; CONTROL_LEN / 8];
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a `msghdr` is numbers and pointers, for which all zeros is a value (null, 0).
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_name = std::ptr::from_mut(&mut address).cast();
    message.msg_namelen = length_of::<libc::sockaddr_ll>();
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: the message points to `address`, `slice` and `control`, all alive and as long as the
    // lengths beside them say; `slice` covers `buffer`, which is borrowed mutably for the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let Ok(length) = usize::try_from(received) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    };
    Ok(Some(Arrival {
        length,
        outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
        nanoseconds: time_of(&control).unwrap_or(0),
    }))
}

/// The time in the first control message, in nanoseconds.
///
/// The layout is that of `struct cmsghdr` (length as `size_t`, level, type), then the seconds and
/// nanoseconds of `struct __kernel_timespec`, each of eight octets.
fn time_of(control: &[u64]) -> Option<u64> {
    const HEADER_WORDS: usize = size_of::<libc::cmsghdr>().div_ceil(8);
    let header = control.get(..HEADER_WORDS)?;
    if header.iter().all(|&word| word == 0) {
        return None;
    }
    let [seconds, nanoseconds] = *control.get(HEADER_WORDS..HEADER_WORDS + 2)? else { return None };
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Packets that a packet socket's filter let pass since the last call, and how many of those were
/// lost because its queue was full (packet(7), `PACKET_STATISTICS`). Reading clears both.
pub(crate) fn take_statistics(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = length_of::<libc::tpacket_stats>();
    // SAFETY: `statistics` is a `tpacket_stats` of `length` octets, borrowed mutably for the call,
    // and any octets the kernel writes there are two valid numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut statistics).cast(),
            &raw mut length,
        )
    };
    check(result)?;
    Ok((statistics.tp_packets, statistics.tp_drops))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
