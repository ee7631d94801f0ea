//! System calls that have no safe wrapper.

use std::io;
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lets every send of `socket` leave as datagrams of so many octets (udp(7), `UDP_SEGMENT`).
pub(crate) fn set_segment_size(socket: &UdpSocket, octets: i32) -> io::Result<()> {
    // SAFETY: the value is a live `int` of the length given, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            std::ptr::from_ref(&octets).cast(),
            length_of::<i32>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends `frame` as it is out of the device with the number `device`, by a packet socket.
pub(crate) fn send_frame(socket: BorrowedFd<'_>, device: u32, frame: &[u8]) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("it is 17"),
        sll_protocol: 0,
        sll_ifindex: device.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `frame` and `address` are alive, as long as said, and only read by the kernel.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(&address).cast(),
            length_of::<libc::sockaddr_ll>(),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("it is a few octets")
}
