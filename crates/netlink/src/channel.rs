//! One netlink socket: datagrams to the kernel and from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind,
    netlink, recvfrom, send, socket_with,
};

use crate::error::Cause;
use crate::sys;

/// How long an answer may take. The kernel answers while the request is being sent, so only a lost
/// answer is ever late.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest datagram accepted. The kernel fills at most 32 KiB in a dump
/// (`netlink_dump` in net/netlink/af_netlink.c), and single answers are smaller.
const DATAGRAM_LIMIT: usize = 64 * 1024;

/// The port of the kernel in a netlink address (netlink(7)).
const KERNEL_PORT: u32 = 0;

/// `NETLINK_ROUTE`, which is protocol 0.
const ROUTE: Option<Protocol> = None;

/// A netlink socket with its receive buffer.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl Channel {
    /// Opens a `NETLINK_ROUTE` socket for requests, which waits for answers.
    pub(crate) fn open_route_requests() -> Result<Self, Cause> {
        Self::open_requests(ROUTE, &[libc::NETLINK_EXT_ACK, libc::NETLINK_GET_STRICT_CHK])
    }

    /// Opens a `NETLINK_NETFILTER` socket for requests, which waits for answers.
    ///
    /// Refusals quote the header of a request only, so that those of a long transaction fit into the
    /// receive buffer.
    pub(crate) fn open_netfilter_requests() -> Result<Self, Cause> {
        Self::open_requests(
            Some(netlink::NETFILTER),
            &[libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK],
        )
    }

    /// Opens a socket that listens to multicast groups (a mask of `RTMGRP_*`) and never waits.
    pub(crate) fn open_groups(groups: u32) -> Result<Self, Cause> {
        let channel = Self::open(ROUTE, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        bind(&channel.socket, &SocketAddrNetlink::new(0, groups))
            .map_err(|errno| Cause::Socket { call: "bind", errno })?;
        Ok(channel)
    }

    fn open_requests(protocol: Option<Protocol>, options: &[libc::c_int]) -> Result<Self, Cause> {
        let channel = Self::open(protocol, SocketFlags::CLOEXEC)?;
        options
            .iter()
            .try_for_each(|option| sys::set_netlink_option(channel.as_fd(), *option))
            .and_then(|()| set_socket_timeout(&channel.socket, Timeout::Recv, Some(ANSWER_TIMEOUT)))
            .map_err(|errno| Cause::Socket { call: "setsockopt", errno })?;
        Ok(channel)
    }

    fn open(protocol: Option<Protocol>, flags: SocketFlags) -> Result<Self, Cause> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)
            .map_err(|errno| Cause::Socket { call: "socket", errno })?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_LIMIT].into_boxed_slice() })
    }

    pub(crate) fn send(&self, datagram: &[u8]) -> Result<(), Cause> {
        match rustix::io::retry_on_intr(|| send(&self.socket, datagram, SendFlags::empty())) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Cause::Socket { call: "send", errno }),
        }
    }

    /// Receives the kernel's next datagram; datagrams of other processes are passed over.
    ///
    /// # Errors
    ///
    /// [`Cause::TimedOut`] when there is none, in time or at all; `ENOBUFS` as [`Cause::Socket`] when
    /// the kernel had to drop some.
    pub(crate) fn receive(&mut self) -> Result<&[u8], Cause> {
        loop {
            let received = rustix::io::retry_on_intr(|| {
                recvfrom(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC)
            });
            let (filled, length, sender) = match received {
                Ok(received) => received,
                Err(Errno::AGAIN) => return Err(Cause::TimedOut),
                Err(errno) => {
                    return Err(Cause::Socket { call: "receive", errno });
                }
            };
            if !is_kernel(sender) {
                continue;
            }
            if length > self.buffer.len() {
                return Err(Cause::Malformed(format!(
                    "a datagram of {length} octets, more than {DATAGRAM_LIMIT}"
                )));
            }
            return Ok(self.buffer.get(..filled).unwrap_or_default());
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_kernel(sender: Option<SocketAddrAny>) -> bool {
    sender
        .and_then(|address| SocketAddrNetlink::try_from(address).ok())
        .is_some_and(|address| address.pid() == KERNEL_PORT)
}
