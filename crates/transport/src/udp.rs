//! UDP: batches of datagrams through one socket.
//!
//! # Theory of operation
//!
//! The kernel's cost of a UDP datagram is mostly the cost of one walk through its network stack. A
//! *message* is what makes this walk: one `msghdr`, with one remote address, one local address and
//! up to 64 KiB. It holds one datagram, or several as *segments*:
//!
//! * Sending, `UDP_SEGMENT` makes the kernel cut a message into datagrams of the *segment size*, of
//!   which only the last may be shorter; at the latest the driver does it, at best the network
//!   card.
//! * Receiving, `UDP_GRO` makes the kernel hand over consecutive datagrams of one sender and one
//!   size as one message, again with a last one that may be shorter. On loopback and virtual
//!   Ethernet a message that was sent in segments arrives as one, never having been cut.
//!
//! A *batch* is what one system call moves: some messages by `recvmmsg` or `sendmmsg`.
//!
//! [`SendBatch`] joins datagrams into *groups* while they are written: one destination, one size,
//! the last may be shorter. Only when a batch meets a socket is it decided how many datagrams of a
//! group make a message, because that is a property of the socket and of the way to the
//! destination:
//!
//! ```text
//!              EINVAL            EINVAL, EMSGSIZE (this group)
//!  128 a message ──────▶ 64 a message ─────────────────────────▶ 1 a message
//!                          (socket)     EIO, ENOPROTOOPT (socket)
//! ```
//!
//! No step loses or repeats a datagram: the kernel reports an error for the first message of a call
//! only, and nothing of that message has left. `EINVAL` has a third cause, a source address that is
//! gone; a socket may then step down to 64 for nothing, which costs little.
//!
//! *Addresses.* A socket bound to the unspecified address learns of every message which of the
//! machine's addresses it was sent to (`IP_PKTINFO`), and a reply leaves from that one. When that
//! address is gone, the kernel chooses. IPv6 sockets are IPv6 only; who wants both families binds
//! two sockets.
//!
//! *Errors.* What the network refuses (unreachable, forbidden, too large) is dropped and counted,
//! with the last cause in [`SendOutcome`]. Only a full send buffer stops a batch; the rest stays in
//! it.
//!
//! References: udp(7), ip(7), ipv6(7), recvmmsg(2), sendmmsg(2), cmsg(3); Linux `net/ipv4/udp.c`
//! (`udp_send_skb`), `net/ipv4/udp_offload.c`, `net/socket.c` (`__sys_sendmmsg`).

mod address;
mod control;
mod group;
mod recv;
mod send;
mod socket;
#[expect(unsafe_code, reason = "system calls that rustix lacks")]
mod sys;

pub use address::{Destination, LocalAddr, Origin};
pub use group::SEGMENTS;
pub use recv::{Message, RecvBatch, SLOTS};
pub use send::{SendBatch, SendOutcome};
pub use socket::{BindError, Options, UdpSocket};

/// The largest datagram: what an IPv4 packet of 65,535 octets leaves beside its own header (20) and
/// UDP's (8).
pub const DATAGRAM_OCTETS: usize = 65_507;
