//! System calls of tests that have no safe wrapper.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `UDP_SEGMENT`: cuts what is sent into datagrams of `octets` each (udp(7)).
pub(crate) fn set_udp_segment(socket: impl AsFd, octets: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads one `int`, which
    // is the length given.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const octets).cast(),
            libc::socklen_t::try_from(size_of::<c_int>()).unwrap_or_default(),
        )
    };
    check(returned)
}

/// `TUNSETVNETHDRSZ` on a queue: what a careless previous user of a device leaves behind.
pub(crate) fn set_vnet_header_size(queue: &device::Queue, octets: c_int) -> io::Result<()> {
    // SAFETY: a queue is a descriptor of the tun driver, which reads one `int` for this request.
    let returned = unsafe {
        libc::ioctl(
            queue.as_fd().as_raw_fd(),
            libc::TUNSETVNETHDRSZ as libc::Ioctl,
            &raw const octets,
        )
    };
    check(returned)
}

fn check(returned: c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
