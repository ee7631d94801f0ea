//! What a tunnel is told: who it is, who its peers are, and at what time.

use std::time::Duration;

use ipnet::IpNet;

use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::keypair::{Ciphers, REKEY_AFTER_TIME};
use crate::mtu::{Content, InnerMtu};
use crate::path::Path;
use crate::random::Random;
use crate::time::Instant;

/// What the tunnel must not find out by itself.
pub struct Context<'a> {
    /// The time, for timers.
    pub now: Instant,
    /// The time since the Unix epoch, for the timestamps of initiations and for people; it may jump.
    pub wall: Duration,
    /// For ephemeral keys, indices, cookies and jitter.
    pub random: &'a mut dyn Random,
}

/// What a tunnel is.
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// Who this side is.
    pub private_key: PrivateKey,
    /// The ciphers that data may be sealed with.
    pub ciphers: Ciphers,
    /// What the device carries.
    pub content: Content,
    /// The MTU of the device.
    pub mtu: InnerMtu,
    /// Whether the device takes super-packets of every kind.
    pub offload: bool,
    /// What differs from the protocol's times.
    pub timing: Timing,
    /// Whether this side says that it is adit, and speaks frames with its like. Without, it is a stock
    /// WireGuard peer.
    pub extensions: bool,
}

/// The time of the protocol that users may shorten; all others are those of the whitepaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// An initiator makes new keys when it sends with older ones, at most [`REKEY_AFTER_TIME`].
    pub rekey_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { rekey_after: REKEY_AFTER_TIME }
    }
}

/// What a tunnel is told of one peer.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// By what it is known.
    pub public_key: PublicKey,
    /// What both sides share beside their keys; zero for nothing.
    pub preshared_key: PresharedKey,
    /// Where it is from now on, if that is known. Nothing leaves a peer that is known where it is.
    pub path: Option<Path>,
    /// It hears from this side at least so often; never without data if this is none.
    pub keepalive: Option<Duration>,
    /// The inner addresses that belong to it.
    pub allowed_ips: Vec<IpNet>,
    /// Whether it is known by a ticket alone ([`enrol`](crate::enrol)): it may enrol and carries no data, whatever inner addresses
    /// are said to belong to it.
    pub invitation: bool,
}
