//! The tunnel without I/O: whose a packet is, where it goes, and why it is dropped.
//!
//! Everything here is a function of its arguments. There is no clock, no randomness, no socket and
//! no file; the engine brings those. So every decision about a packet can be tested in
//! microseconds, and a failure repeats.
//!
//! - [`peer`]: the peers of a tunnel and the paths to them, as an immutable table that workers read.
//! - [`allowed_ips`]: which peer owns an inner address; the longest prefix wins.
//! - [`inner`]: what an inner packet must look like to be delivered.
//! - [`mtu`]: how large an inner packet may be, so that no outer datagram is fragmented.
//! - [`drop_reason`]: every reason for which a packet is dropped; each has a counter.

#![forbid(unsafe_code)]

pub mod allowed_ips;
pub mod drop_reason;
pub mod inner;
pub mod mtu;
pub mod peer;

pub use allowed_ips::AllowedIps;
pub use drop_reason::DropReason;
pub use mtu::{InnerMtu, OuterMtu};
pub use peer::{LocalAddr, Path, Peer, PeerIndex, PeerTable, Sender, SocketIndex};
