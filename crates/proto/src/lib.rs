//! The tunnel without I/O: whose a packet is, where it goes, and why it is dropped.
//!
//! Everything here is a function of its arguments. There is no clock, no randomness, no socket and
//! no file; the engine brings those. So every decision about a packet can be tested in
//! microseconds, and a failure repeats.
//!
//! The session, from the bottom up:
//!
//! - [`time`], [`random`]: what the engine brings.
//! - [`key`]: keys and their text form; [`tai64n`]: the timestamp of an initiation.
//! - [`noise`]: the handshake; [`cookie`], [`ratelimit`]: what it costs a flooder.
//! - [`keypair`], [`replay`]: sealing and opening messages, each once; [`keypairs`]: finding them.
//! - [`session`], [`directory`]: what the lanes know of one peer, and of all.
//! - [`timer`]: when something is due; [`control`]: control frames that arrive.
//! - [`tunnel`]: the slow path, which decides about all of these.
//! - [`ticket`], [`enrol`]: how a machine becomes a peer with one line of text.
//!
//! Around it:
//!
//! - [`path`]: where peers are; [`peer`]: the peers of a tunnel, as an immutable table that workers read.
//! - [`allowed_ips`]: which peer owns an inner address; the longest prefix wins.
//! - [`routing`]: which peer an inner packet goes to and may come from; [`inner`]: the same in a plain tunnel.
//! - [`mtu`]: how large an inner packet may be, so that no outer datagram is fragmented.
//! - [`drop_reason`]: every reason for which a packet is dropped; each has a counter.

#![forbid(unsafe_code)]

pub mod allowed_ips;
pub mod control;
pub mod cookie;
pub mod directory;
pub mod drop_reason;
pub mod enrol;
pub mod inner;
pub mod key;
pub mod keypair;
pub mod keypairs;
pub mod mtu;
pub mod noise;
pub mod path;
pub mod peer;
pub mod random;
pub mod ratelimit;
pub mod replay;
pub mod routing;
pub mod session;
pub mod tai64n;
pub mod ticket;
pub mod time;
pub mod timer;
pub mod tunnel;

pub use allowed_ips::AllowedIps;
pub use directory::Directory;
pub use drop_reason::DropReason;
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use keypair::{Ciphers, Keypair};
pub use keypairs::KeypairTable;
pub use mtu::{InnerMtu, OuterMtu};
pub use path::{LocalAddr, Path, RemoteAddr, Side, TransportIndex};
pub use peer::{Peer, PeerIndex, PeerTable, Sender};
pub use random::Random;
pub use routing::Routing;
pub use session::{Received, Sent, Session};
pub use tai64n::Tai64n;
pub use ticket::Ticket;
pub use time::Instant;
pub use tunnel::Tunnel;
