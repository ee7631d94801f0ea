//! The UDP socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::group::SEGMENTS;
use super::recv::RecvBatch;
use super::send::{SendBatch, SendOutcome};
use super::sys;

/// Octets that a socket buffer is asked to hold: 3 ms at 10 Gbit/s.
const SOCKET_BUFFER_OCTETS: usize = 4 * 1024 * 1024;

/// A non-blocking UDP socket, for one receiving thread and several sending ones.
pub struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
    /// How many datagrams this socket takes in one message; 1 when segmentation is off.
    segments: AtomicUsize,
    coalescing: bool,
}

/// How a UDP socket is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Octets of the receive buffer, `SO_RCVBUF` of socket(7); the kernel grants less without
    /// privilege.
    pub receive_buffer: usize,
    /// Octets of the send buffer, `SO_SNDBUF` of socket(7); the kernel grants less without
    /// privilege.
    pub send_buffer: usize,
    /// Whether datagrams may share a message when sent (`UDP_SEGMENT`), where the kernel can do it.
    pub segmentation: bool,
    /// Whether datagrams may share a message when received (`UDP_GRO`), where the kernel can do it.
    pub coalescing: bool,
    /// The mark of what is sent, by which rules of the host know it (`SO_MARK` of socket(7)).
    pub mark: Option<u32>,
}

/// Why there is no UDP socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel did not make a socket of this family.
    #[error("create UDP socket for {address}")]
    Create {
        /// The address that it was for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel did not accept an option.
    #[error("set {option} of UDP socket for {address}")]
    Configure {
        /// The name of the option in the manual.
        option: &'static str,
        /// The address that it was for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address is taken, not ours, or needs privilege.
    #[error("bind UDP socket to {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            receive_buffer: SOCKET_BUFFER_OCTETS,
            send_buffer: SOCKET_BUFFER_OCTETS,
            segmentation: true,
            coalescing: true,
            mark: None,
        }
    }
}

impl UdpSocket {
    /// Binds a socket to `address`; port 0 lets the kernel choose one.
    ///
    /// A socket on `[::]` is for IPv6 only, so that one on `0.0.0.0` with the same port can stand
    /// beside it.
    ///
    /// # Errors
    ///
    /// When the address is taken or is not ours, or the kernel lacks the family or an option.
    pub fn bind(address: SocketAddr, options: &Options) -> Result<Self, BindError> {
        let fd = create(address).map_err(|source| BindError::Create { address, source })?;
        configure(fd.as_fd(), address, options)
            .map_err(|(option, source)| BindError::Configure { option, address, source })?;
        let segmentation = options.segmentation && sys::has_segmentation(fd.as_fd());
        let coalescing = options.coalescing && sys::enable_coalescing(fd.as_fd()).is_ok();
        let local =
            bind(fd.as_fd(), address).map_err(|source| BindError::Bind { address, source })?;
        let segments = AtomicUsize::new(if segmentation { SEGMENTS } else { 1 });
        Ok(Self { fd, local, segments, coalescing })
    }

    /// Takes over the descriptor of a socket that another process has bound and handed on.
    ///
    /// What the kernel granted to it, [`Self::segmentation`] and [`Self::coalescing`], must be said, since not every
    /// kernel can be asked.
    ///
    /// # Errors
    ///
    /// When it is no UDP socket, or not bound to an address.
    pub fn from_descriptor(
        descriptor: OwnedFd,
        segmentation: bool,
        coalescing: bool,
    ) -> io::Result<Self> {
        if sockopt::socket_protocol(&descriptor)? != Some(ipproto::UDP) {
            return Err(Errno::PROTOTYPE.into());
        }
        let local = rustix::net::getsockname(&descriptor)?.try_into()?;
        let segments = AtomicUsize::new(if segmentation { SEGMENTS } else { 1 });
        Ok(Self { fd: descriptor, local, segments, coalescing })
    }

    /// Marks what is sent from now on, by every process that has the socket; 0 for no mark.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_ADMIN or, since Linux 5.17, CAP_NET_RAW.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        sys::set_mark(self.fd.as_fd(), mark)
    }

    /// The address and port that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether datagrams share messages when sent. The first message that the kernel refuses for
    /// that reason ends it.
    pub fn segmentation(&self) -> bool {
        self.segments.load(Ordering::Relaxed) > 1
    }

    /// Whether datagrams share messages when received.
    pub fn coalescing(&self) -> bool {
        self.coalescing
    }

    /// Receives what is there into `batch`, whose content is lost, and says how many messages.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when nothing is there. Any other error is of the network; the
    /// next call may well succeed.
    pub fn recv(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.fill(|arena, slots| sys::recvmmsg(self.fd.as_fd(), arena, slots))
    }

    /// Sends everything in `batch`, which is empty afterwards unless the outcome is *blocked*.
    pub fn send(&self, batch: &mut SendBatch) -> SendOutcome {
        let sourced = self.local.ip().is_unspecified();
        batch.drain(&self.segments, sourced, |buffer, messages| {
            sys::sendmmsg(self.fd.as_fd(), buffer, messages)
        })
    }
}

fn create(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?)
}

/// Sets what the socket cannot do without; an error names the option.
fn configure(
    fd: BorrowedFd<'_>,
    address: SocketAddr,
    options: &Options,
) -> Result<(), (&'static str, io::Error)> {
    let named = |option| move |error: Errno| (option, error.into());
    sockopt::set_socket_recv_buffer_size_force(fd, options.receive_buffer)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(fd, options.receive_buffer))
        .map_err(named("SO_RCVBUF"))?;
    sockopt::set_socket_send_buffer_size_force(fd, options.send_buffer)
        .or_else(|_| sockopt::set_socket_send_buffer_size(fd, options.send_buffer))
        .map_err(named("SO_SNDBUF"))?;
    if let Some(mark) = options.mark {
        sys::set_mark(fd, mark).map_err(|error| ("SO_MARK", error))?;
    }
    match address {
        SocketAddr::V4(_) => {
            sys::enable_ipv4_packet_information(fd).map_err(|error| ("IP_PKTINFO", error))
        }
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_v6only(fd, true).map_err(named("IPV6_V6ONLY"))?;
            sys::enable_ipv6_packet_information(fd).map_err(|error| ("IPV6_RECVPKTINFO", error))
        }
    }
}

/// Binds the socket and says to what, which differs from `address` by the port when that is 0.
fn bind(fd: BorrowedFd<'_>, address: SocketAddr) -> io::Result<SocketAddr> {
    rustix::net::bind(fd, &address)?;
    Ok(rustix::net::getsockname(fd)?.try_into()?)
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Destination;
    use super::*;

    fn loopback() -> UdpSocket {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        UdpSocket::bind(any_port, &Options::default()).unwrap()
    }

    /// Sends datagrams of these sizes from one socket to the other.
    fn send(sender: &UdpSocket, receiver: &UdpSocket, sizes: &[usize]) -> SendOutcome {
        let destination = Destination { remote: receiver.local_addr(), local: None };
        let mut batch = SendBatch::new();
        for &size in sizes {
            batch.reserve(size).unwrap();
            batch.commit(size, &destination);
        }
        sender.send(&mut batch)
    }

    /// The sizes of the datagrams that wait, which on loopback is at once.
    fn receive(receiver: &UdpSocket) -> Vec<usize> {
        let mut batch = RecvBatch::new();
        let mut sizes = Vec::new();
        while receiver.recv(&mut batch).is_ok() {
            let datagrams = batch.messages().flat_map(|message| message.datagrams());
            sizes.extend(datagrams.map(|datagram| datagram.len()));
        }
        sizes
    }

    #[test]
    fn a_datagram_that_the_kernel_calls_too_large_is_a_counted_drop() {
        let (sender, receiver) = (loopback(), loopback());
        // Four octets of IP options (NOP) leave room for 65,503 octets.
        let four_nops = 0x0101_0101;
        sys::set_option(sender.as_fd(), libc::IPPROTO_IP, libc::IP_OPTIONS, four_nops).unwrap();
        let outcome = send(&sender, &receiver, &[100, 65_507, 65_503]);
        assert_eq!((outcome.sent, outcome.dropped), (2, 1));
        let errno = outcome.error.and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::EMSGSIZE));
        assert_eq!(receive(&receiver), [100, 65_503]);
    }

    #[test]
    fn datagrams_that_the_kernel_refuses_together_go_singly() {
        let (sender, receiver) = (loopback(), loopback());
        // A socket without checksums does not segment: EINVAL.
        sys::set_option(sender.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        let outcome = send(&sender, &receiver, &[100; 70]);
        assert_eq!((outcome.sent, outcome.dropped), (70, 0));
        assert_eq!(receive(&receiver), [100; 70]);
        let outcome = send(&sender, &receiver, &[200, 200, 30]);
        assert_eq!((outcome.sent, outcome.dropped), (3, 0));
        assert_eq!(receive(&receiver), [200, 200, 30]);
    }

    #[test]
    fn a_socket_that_was_handed_on_serves_as_before() {
        let (sender, receiver) = (loopback(), loopback());
        let handed_on = receiver.as_fd().try_clone_to_owned().unwrap();
        let receiver = UdpSocket::from_descriptor(handed_on, true, receiver.coalescing()).unwrap();
        assert_eq!(send(&sender, &receiver, &[300, 300, 200]).sent, 3);
        assert_eq!(receive(&receiver), [300, 300, 200]);
        assert!(receiver.segmentation());
    }

    #[test]
    fn what_is_no_udp_socket_is_not_taken_over() {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let refused = UdpSocket::from_descriptor(tcp.into(), true, true).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPROTOTYPE));
        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = UdpSocket::from_descriptor(file.into(), true, true).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTSOCK));
    }

    #[test]
    fn a_socket_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        fn moved<T: Send>() {}
        shared::<UdpSocket>();
        moved::<(SendBatch, RecvBatch)>();
    }
}
