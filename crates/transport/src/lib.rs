//! What moves outer datagrams between two machines.
//!
//! # Theory of operation
//!
//! A *transport* carries *outer datagrams*, whole and unread, between this machine and an
//! *endpoint* of a peer. It promises nothing more: a datagram may be lost, doubled, late or out of
//! order, and whoever sent it is not known until the session above has opened it. A *path* is one
//! transport to one peer; whether a path is alive is decided above as well, by an answered probe,
//! never by the absence of an error here. A transport therefore has no connection state to lose,
//! and an error of the network is a counted drop with a cause, not the end of the transport.
//!
//! Datagrams move in batches, because a system call for each costs more than the datagram itself:
//!
//! * The ingress worker lends a receive batch to the transport, which fills one arena and says
//!   which ranges of it are datagrams and where each came from. The session opens them in place.
//! * An egress worker writes datagrams one behind the other straight into a send batch, where the
//!   transport lets the kernel read them. No octet is copied in between.
//!
//! Batches are made once for each thread. Nothing here allocates, locks or logs after that, and
//! each batch has a fixed size in octets and in messages: a full batch is sent, never grown.
//!
//! Nothing here waits. Sockets are non-blocking; a caller that finds nothing to receive or no room
//! to send waits for the descriptor by its own means and calls again.
//!
//! Unsafe code stands in `sys.rs` files only.
//!
//! # Transports
//!
//! [`udp`] is the fast one: datagrams of the network itself, in batches of batches (`recvmmsg` and
//! `sendmmsg` of messages that each hold up to [`udp::SEGMENTS`] datagrams by UDP segmentation and
//! coalescing). It loses datagrams when the network does, has a limit of [`udp::DATAGRAM_OCTETS`],
//! and leaves a datagram that is larger than the path MTU to the kernel to fragment.
//!
//! [`spool`] needs nothing but a folder that both machines see. It carries records of up to
//! [`spool::RECORD_MAX`], any number of them in a file, in order and at most once while a side lives; it
//! waits for a slow reader up to a bound, and survives what file systems do to files.

pub mod spool;
pub mod udp;
