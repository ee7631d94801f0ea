//! A file of either format before the rules that tie its values together: every value is right on its own,
//! and knows where it stands.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::time::Duration;

use device::{DeviceName, Mode};
use ipnet::IpNet;
use proto::key::{PresharedKey, PrivateKey, PublicKey};

use super::endpoint::Endpoint;
use super::error::Quoted;
use super::{CipherPolicy, InterfaceAddress, KeySource, Security, conf, schema};

/// A value and the offset at which it stands in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) offset: usize,
    pub(super) value: T,
}

/// The values of a list.
#[derive(Clone, Debug)]
pub(super) struct List<T> {
    /// Where the list begins, or its table if it is missing.
    pub(super) offset: usize,
    /// How many values were written, wrong ones included; `None` if the key is missing.
    pub(super) written: Option<usize>,
    /// The values that are right.
    pub(super) items: Vec<At<T>>,
}

impl<T> List<T> {
    /// A list that is missing from a table at `offset`.
    pub(super) fn missing(offset: usize) -> Self {
        Self { offset, written: None, items: Vec::new() }
    }

    /// Adds a value that was written, and is `None` if it is wrong.
    pub(super) fn push(&mut self, offset: usize, value: Option<T>) {
        if self.is_empty() {
            self.offset = offset;
        }
        self.written = Some(self.written.unwrap_or_default() + 1);
        self.items.extend(value.map(|value| At { offset, value }));
    }

    /// Whether nothing was written at all.
    pub(super) fn is_empty(&self) -> bool {
        self.written.unwrap_or_default() == 0
    }

    /// Whether every value that was written is right.
    pub(super) fn is_complete(&self) -> bool {
        self.written.unwrap_or_default() == self.items.len()
    }

    pub(super) fn into_values(self) -> Vec<T> {
        self.items.into_iter().map(|item| item.value).collect()
    }
}

/// What a message says first: the table that it speaks of.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Document,
    Table(&'static str),
    /// A peer by its name, and by its number where it has none.
    Peer(String),
    PeerNumber(usize),
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document => Ok(()),
            Self::Table(name) => write!(f, "[{name}]: "),
            Self::Peer(name) => write!(f, "peer {}: ", Quoted(name)),
            Self::PeerNumber(number) => write!(f, "peer {number}: "),
        }
    }
}

/// In which format a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    /// That of wg-quick.
    Conf,
}

/// The keys of which messages speak, as a format names them.
pub(super) struct Words {
    pub(super) addresses: &'static str,
    pub(super) mtu: &'static str,
    pub(super) dns: &'static str,
    pub(super) dns_search: &'static str,
    pub(super) public_key: &'static str,
    pub(super) endpoints: &'static str,
    pub(super) allowed_ips: &'static str,
}

impl Format {
    pub(super) fn words(self) -> &'static Words {
        match self {
            Self::Toml => &schema::WORDS,
            Self::Conf => &conf::WORDS,
        }
    }
}

/// The values of a file that are right each on its own.
pub(super) struct Draft {
    pub(super) format: Format,
    pub(super) device: DeviceDraft,
    pub(super) local: LocalDraft,
    pub(super) network: NetworkDraft,
    pub(super) peers: Vec<PeerDraft>,
}

pub(super) struct DeviceDraft {
    pub(super) place: Place,
    pub(super) name: Option<DeviceName>,
    pub(super) mode: Option<Mode>,
    pub(super) addresses: List<InterfaceAddress>,
    pub(super) mtu: Option<At<u32>>,
    pub(super) queues: u16,
    pub(super) offload: bool,
}

pub(super) struct LocalDraft {
    pub(super) place: Place,
    pub(super) listen: List<Endpoint>,
    pub(super) security: Security,
    pub(super) private_key: Option<KeySource<PrivateKey>>,
    pub(super) ciphers: At<CipherPolicy>,
    pub(super) extensions: bool,
    pub(super) rekey_after: Duration,
    pub(super) fwmark: Option<u32>,
    pub(super) busy_poll: Option<Duration>,
    pub(super) poll_max: Duration,
}

pub(super) struct NetworkDraft {
    pub(super) place: Place,
    pub(super) routes: List<IpNet>,
    pub(super) allowed_ips_routed: bool,
    pub(super) default_route: Option<At<bool>>,
    pub(super) exclude: List<IpNet>,
    pub(super) ipv6_beside: Option<At<bool>>,
    pub(super) forward: Option<At<bool>>,
    pub(super) masquerade: Option<At<bool>>,
    pub(super) source_nat: List<IpAddr>,
    pub(super) bridge: Option<At<DeviceName>>,
    pub(super) dns: List<IpAddr>,
    pub(super) dns_search: List<String>,
}

pub(super) struct PeerDraft {
    pub(super) place: Place,
    pub(super) offset: usize,
    pub(super) name: Option<At<String>>,
    pub(super) public_key: Option<At<PublicKey>>,
    pub(super) preshared_key: Option<KeySource<PresharedKey>>,
    pub(super) endpoints: List<Endpoint>,
    pub(super) allowed_ips: List<IpNet>,
    pub(super) keepalive: Option<Duration>,
}
