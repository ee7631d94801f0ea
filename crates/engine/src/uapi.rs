//! WireGuard's configuration protocol for user space, so that `wg` and what is built on it work with adit.
//!
//! # Theory of operation
//!
//! The protocol (wireguard.com/xplatform, "Configuration Protocol") is lines of `KEY=VALUE` over a UNIX stream
//! socket; an empty line ends a request and an answer:
//!
//! ```text
//! client                                   this side
//!   get=1                          ------->
//!                                  <-------  private_key=.. listen_port=.. fwmark=..
//!                                            public_key=.. preshared_key=.. endpoint=.. allowed_ip=.. and so on
//!                                            errno=0
//!   set=1 listen_port=..           ------->
//!   public_key=.. allowed_ip=..    <-------  errno=0
//! ```
//!
//! Keys before the first `public_key` concern the device, those after it the peer that was named last. Key material
//! is in lowercase hexadecimal digits.
//!
//! Here is the protocol without socket and tunnel: [`Reader`] makes requests of lines, [`Roster::apply`] makes the
//! changes of a request, [`emit_get`] writes an answer. What wireguard-go, the reference, leaves open or does otherwise:
//!
//! - A request is applied as a whole or not at all. A line that is refused refuses the request, and the rest of the
//!   request is read and forgotten.
//! - A refusal is told as a negative number, as wireguard-go does: `wg` negates it before it says what it means.
//!
//! Limits: a line has at most [`MAX_LINE`] octets, a request [`MAX_REQUEST`], a roster [`MAX_PEERS`] peers.

mod get;
mod hex;
mod reader;
mod roster;

use std::net::SocketAddr;

use ipnet::IpNet;
use proto::{PresharedKey, PrivateKey, PublicKey};
use rustix::io::Errno;
use thiserror::Error;

pub use self::get::emit_get;
pub use self::reader::{Reader, Step};
pub use self::roster::{MAX_PEERS, Roster, RosterPeer};

/// The longest line in octets, without its end. The longest that means something is a key with its name.
pub const MAX_LINE: usize = 4 << 10;

/// The most octets of a request; 10,000 peers with all that they can have fit twice.
pub const MAX_REQUEST: usize = 4 << 20;

/// What a client asks for.
#[derive(Debug)]
pub enum Request {
    /// All there is to tell, with the secrets.
    Get,
    /// These changes, in this order.
    Set(Vec<Change>),
}

/// A change of the tunnel.
#[derive(Clone, Debug)]
pub enum Change {
    /// The private key of this side; `None` for none.
    PrivateKey(Option<PrivateKey>),
    /// The UDP port to listen on; 0 for any.
    ListenPort(u16),
    /// The mark of the datagrams that are sent; 0 for none.
    Fwmark(u32),
    /// All peers go.
    ReplacePeers,
    /// One peer comes, changes or goes.
    Peer(PeerChange),
}

/// A change of one peer. What is `None` stays as it is.
#[derive(Clone, Debug)]
pub struct PeerChange {
    /// Which peer.
    pub public_key: PublicKey,
    /// It goes.
    pub remove: bool,
    /// It changes if it is there; otherwise nothing happens.
    pub update_only: bool,
    /// The preshared key; zero for none.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// How often something is sent to it at least, in seconds; 0 for never.
    pub keepalive: Option<u16>,
    /// It owns only what `allowed_ips` says.
    pub replace_allowed_ips: bool,
    /// What it owns besides, or does not own any more, in this order.
    pub allowed_ips: Vec<AllowedIp>,
}

impl PeerChange {
    /// A change that leaves all as it is, but for the peer's presence.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// A change of what a peer owns; prefixes have no host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedIp {
    /// The peer owns the prefix, and nobody else does.
    Add(IpNet),
    /// The peer does not own the prefix any more.
    Remove(IpNet),
}

/// A request is refused, and nothing is changed. No value is told: it might be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A line is not `KEY=VALUE` in UTF-8.
    #[error("read a line of a WireGuard request: no key and value")]
    Line,
    /// A key is not known where it stands.
    #[error("read a line of a WireGuard request: unknown key")]
    UnknownKey,
    /// A value is not one of its key.
    #[error("read a line of a WireGuard request: wrong value of {key}")]
    Value {
        /// The key.
        key: &'static str,
    },
    /// The request is too long.
    #[error("read a WireGuard request: more than {MAX_REQUEST} octets")]
    TooLong,
    /// There would be too many peers.
    #[error("change peers: more than {MAX_PEERS}")]
    TooManyPeers,
    /// The port to listen on is taken.
    #[error("change the port: in use")]
    PortInUse,
    /// The tunnel cannot change that while it is up.
    #[error("change {what} of a running tunnel: not supported")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// The tunnel tried and failed.
    #[error("change the tunnel: failed")]
    Failed,
}

impl Refusal {
    /// The number of errno(3) that tells it.
    pub fn errno(self) -> i32 {
        let errno = match self {
            Self::Line => Errno::PROTO,
            Self::UnknownKey | Self::Value { .. } => Errno::INVAL,
            Self::TooLong => Errno::TOOBIG,
            Self::TooManyPeers => Errno::NOSPC,
            Self::PortInUse => Errno::ADDRINUSE,
            Self::Unsupported { .. } => Errno::OPNOTSUPP,
            Self::Failed => Errno::IO,
        };
        errno.raw_os_error()
    }
}

/// The end of an answer.
pub(crate) fn emit_end(outcome: Result<(), Refusal>) -> String {
    let errno = outcome.map_or_else(|refusal| -refusal.errno(), |()| 0);
    format!("errno={errno}\n\n")
}
