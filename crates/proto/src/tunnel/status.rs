//! What a tunnel tells: what to send, what happened, how its peers are.

use std::time::Duration;

use ipnet::IpNet;
use wire::message::Cipher;

use crate::enrol::Message;
use crate::key::PublicKey;
use crate::path::Path;
use crate::peer::PeerIndex;
use crate::session::Traffic;

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub path: Path,
    /// The whole datagram.
    pub datagram: Vec<u8>,
}

/// What happened to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There are new keys, and both sides have them.
    Established {
        /// The peer.
        peer: PeerIndex,
    },
    /// An authentic message came from elsewhere, and the peer is there from now on.
    PathChanged {
        /// The peer.
        peer: PeerIndex,
    },
    /// An initiation had no answer; another one leaves.
    HandshakeFailed {
        /// The peer.
        peer: PeerIndex,
    },
    /// No initiation had an answer for `rekey_attempt`; the next packet for the peer tries again.
    GaveUp {
        /// The peer.
        peer: PeerIndex,
    },
    /// The peer of an invitation has said hello, and messages can be said to it with this keypair.
    Greeted {
        /// The peer.
        peer: PeerIndex,
        /// The receiver index of the keypair.
        index: u32,
    },
    /// The peer of an invitation has said something.
    Said {
        /// The peer.
        peer: PeerIndex,
        /// The receiver index of the keypair, with which the answer is to be said.
        index: u32,
        /// What it has said.
        message: Message,
    },
    /// Nobody knows whether the peer of an invitation got what was said to it: no acknowledgment came, however often
    /// it was repeated, or the keys ended before.
    Unsaid {
        /// The peer.
        peer: PeerIndex,
        /// The receiver index of the keypair.
        index: u32,
    },
}

impl Event {
    /// Whom it happened to.
    pub fn peer(&self) -> PeerIndex {
        match *self {
            Self::Established { peer }
            | Self::PathChanged { peer }
            | Self::HandshakeFailed { peer }
            | Self::GaveUp { peer }
            | Self::Greeted { peer, .. }
            | Self::Said { peer, .. }
            | Self::Unsaid { peer, .. } => peer,
        }
    }
}

/// How a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its place in the tunnel.
    pub peer: PeerIndex,
    /// By what it is known.
    pub public_key: PublicKey,
    /// Whether a secret is shared with it beside the keys.
    pub has_preshared_key: bool,
    /// Where it is, if that is known.
    pub path: Option<Path>,
    /// When keys were last made with it, since the Unix epoch.
    pub last_handshake: Option<Duration>,
    /// The cipher that data is sealed with, if there are usable keys.
    pub cipher: Option<Cipher>,
    /// Whether it has said hello with the present keys.
    pub is_adit: bool,
    /// The MTU of its device, if it has said hello.
    pub mtu: Option<u32>,
    /// What has passed.
    pub traffic: Traffic,
    /// How often it hears from this side at least.
    pub keepalive: Option<Duration>,
    /// The inner addresses that were configured for it.
    pub allowed_ips: Vec<IpNet>,
}

/// Handshake messages that passed, and those that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeCounters {
    /// Initiations sent.
    pub initiations_sent: u64,
    /// Initiations received, whatever became of them.
    pub initiations_received: u64,
    /// Responses sent.
    pub responses_sent: u64,
    /// Responses received, whatever became of them.
    pub responses_received: u64,
    /// Cookie replies sent: this side was under load.
    pub cookie_replies_sent: u64,
    /// Cookie replies received: a peer was under load.
    pub cookie_replies_received: u64,
    /// Messages with a wrong mac1.
    pub bad_mac1: u64,
    /// Messages of sources or peers that sent too many of them.
    pub rate_limited: u64,
    /// Initiations with a timestamp that is not newer than the peer's last.
    pub replayed_initiations: u64,
    /// Initiations of those who are no peers.
    pub unknown_peer: u64,
    /// Handshakes that led to keys which both sides have.
    pub established: u64,
    /// Control frames that were given up, having been sent as often as may be.
    pub control_given_up: u64,
}
