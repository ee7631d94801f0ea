//! The system calls that need `unsafe`: socket options of netlink, and leaving a namespace.

use std::mem::size_of_val;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Turns on a boolean option of level `SOL_NETLINK`, such as `NETLINK_EXT_ACK` (netlink(7)).
pub(crate) fn set_netlink_option(socket: BorrowedFd<'_>, option: libc::c_int) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is borrowed and therefore open for the whole call; `on` is a live
    // `c_int` on this stack frame and `length` is its size, so the kernel reads only those octets.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Moves the calling thread into a new network namespace of its own (unshare(2)).
pub(crate) fn unshare_network() -> Result<(), Errno> {
    // SAFETY: the call is unsafe because of `CLONE_FILES`, which would part descriptor tables that
    // other threads rely on; `CLONE_NEWNET` alone changes which network this thread sees.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
