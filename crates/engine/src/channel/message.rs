//! What the supervisor and its worker tell each other.
//!
//! ```text
//! supervisor                           worker
//!   Setup, with descriptors  ------->
//!                            <-------    Confined, Started
//!                            <-------    PathLearned, Roamed, Unanswered, Enrols, FolderGone, whenever that happens
//!   Peers, Path, Mtu, Report ------->
//!   Answer, for each of Enrols ----->
//!                            <-------    Handshakes, Sessions as many as it takes, Folders, Traffic, for each Report
//!   Stop                     ------->
//!                            <-------    Traffic; Ended, if nobody asked it to; then the end of the stream
//! ```
//!
//! Peers are told apart by their place in the table without security, and by their public key with it: their
//! table changes while messages are on their way. Keys travel as [`Secret`]s, whose memory is overwritten.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use device::Mode;
use ipnet::IpNet;
use proto::enrol::Answer;
use proto::{LocalAddr, Path, Peer, PeerTable, RemoteAddr, Side, TransportIndex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use transport::udp::UdpSocket;
use wire::message::Cipher;
use wire::offload::Accepts;

use super::key::{Key, Secret};
use crate::metrics::Totals;
use crate::status::{FolderStatus, Handshakes};

/// What a worker carries, and how. The descriptors that come along are those of the queues,
/// then those of the sockets, then those of the folders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setup {
    /// Whether the device carries packets or frames.
    #[serde(with = "ModeName")]
    pub(crate) mode: Mode,
    /// Which super-packets the device takes.
    #[serde(with = "AcceptsFields")]
    pub(crate) accepts: Accepts,
    /// How many queues the device has.
    pub(crate) queues: usize,
    /// How each socket was set up.
    pub(crate) sockets: Vec<SocketSetup>,
    /// What each folder is to be.
    pub(crate) folders: Vec<FolderSetup>,
    /// How long an idle lane looks again before it sleeps.
    pub(crate) busy_poll: Option<Duration>,
    /// The largest inner packet, in octets.
    pub(crate) mtu: u32,
    /// How this side proves who it is; none without security.
    pub(crate) session: Option<SessionSetup>,
    /// Who the peers are.
    pub(crate) peers: Peers,
}

/// How this side proves who it is, and what it may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionSetup {
    pub(crate) private_key: Secret,
    /// Whether data may be sealed with ChaCha20-Poly1305, and with AES-256-GCM.
    pub(crate) chacha: bool,
    pub(crate) aes: bool,
    /// Whether peers of the same kind may find each other.
    pub(crate) extensions: bool,
    /// After how long a session gets other keys.
    pub(crate) rekey_after: Duration,
    /// Whether sessions have been lost with a worker, so that peers must be told.
    pub(crate) lost: bool,
}

/// The peers, without security or with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Peers {
    Plain(Vec<PeerEntry>),
    Sealed(Vec<SealedEntry>),
}

impl Peers {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(peers) => peers.len(),
            Self::Sealed(peers) => peers.len(),
        }
    }
}

/// How a folder is shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FolderSetup {
    /// What people call it.
    pub(crate) name: String,
    /// What this side is found by.
    pub(crate) label: u64,
    /// The longest pause between two looks while it may be that nobody announces what comes.
    pub(crate) poll_max: Duration,
}

/// What the kernel granted to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SocketSetup {
    pub(crate) segmentation: bool,
    pub(crate) coalescing: bool,
}

impl SocketSetup {
    /// How `socket` was set up.
    pub(crate) fn of(socket: &UdpSocket) -> Self {
        Self { segmentation: socket.segmentation(), coalescing: socket.coalescing() }
    }
}

/// What a worker is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// The first message: what to carry.
    Setup(Box<Setup>),
    /// From here on these are the peers.
    Peers(Peers),
    /// A peer is elsewhere.
    Path {
        /// Its public key.
        key: Key,
        /// The way to it.
        path: PathEntry,
    },
    /// A peer that does not answer may be elsewhere.
    Try {
        /// Its public key.
        key: Key,
        /// The way to it.
        path: PathEntry,
    },
    /// What is said to who holds a ticket.
    Answer {
        /// The keypair with which was asked.
        index: u32,
        /// The answer.
        answer: AnswerEntry,
    },
    /// From here on the largest inner packet has so many octets.
    Mtu(u32),
    /// Say what was carried.
    Report,
    /// Say what was carried, and end.
    Stop,
}

/// What a worker tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// What it could not confine itself by.
    Confined(Confinement),
    /// From here on packets are carried.
    Started,
    /// The first sender has become a peer.
    PathLearned {
        /// The peer's place in the table.
        peer: u16,
        /// The way to it.
        path: PathEntry,
    },
    /// Peers have spoken from elsewhere; the last place of each.
    Roamed(Vec<(Key, PathEntry)>),
    /// Peers that do not answer.
    Unanswered(Vec<Key>),
    /// A folder is not what it was when it was opened: another file system, or another folder, may be there.
    FolderGone,
    /// Who hold tickets want to be peers.
    Enrols(Vec<EnrolEntry>),
    /// How it stands with some of the peers.
    Sessions(Vec<SessionEntry>),
    /// What became of handshakes since its start.
    Handshakes(Handshakes),
    /// How it stands with the folders.
    Folders(Vec<FolderStatus>),
    /// What was carried since its start.
    Traffic(Box<Totals>),
    /// It ends by itself.
    Ended(Ending),
}

/// Why a worker ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// The device was deleted.
    DeviceGone,
    /// It could not go on.
    Failed {
        /// Why.
        text: String,
    },
}

/// What this kernel does not confine a worker by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confinement {
    /// Why it still is root, if it is though it could be somebody else.
    pub(crate) still_root: Option<String>,
    /// What could not be applied, and why.
    pub(crate) missing: Vec<String>,
}

/// A peer, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeerEntry {
    name: String,
    path: Option<PathEntry>,
    allowed_ips: Vec<IpNet>,
}

/// A peer with a session, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealedEntry {
    pub(crate) key: Key,
    pub(crate) preshared_key: Option<Secret>,
    pub(crate) path: Option<PathEntry>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) allowed_ips: Vec<IpNet>,
    /// Whether it is known by a ticket alone.
    pub(crate) invitation: bool,
}

/// Who holds a ticket wants to be a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrolEntry {
    /// The ticket's identity.
    pub(crate) identity: Key,
    /// The keypair with which it is answered.
    pub(crate) index: u32,
    /// By what it will be known.
    pub(crate) joiner: Key,
    /// What it proposes to be called.
    pub(crate) name: Option<String>,
}

/// An answer to who holds a ticket, as it travels; settings are those of the ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AnswerEntry {
    Accepted,
    Used,
    Expired,
    Refused(String),
}

impl From<AnswerEntry> for Answer {
    fn from(entry: AnswerEntry) -> Self {
        match entry {
            AnswerEntry::Accepted => Self::Accepted(None),
            AnswerEntry::Used => Self::Used,
            AnswerEntry::Expired => Self::Expired,
            AnswerEntry::Refused(reason) => Self::Refused(reason),
        }
    }
}

/// How it stands with a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionEntry {
    pub(crate) key: Key,
    pub(crate) path: Option<PathEntry>,
    /// When the last handshake was completed, since the Unix epoch.
    pub(crate) handshake: Option<Duration>,
    /// The cipher of what is sent.
    #[serde(with = "OptionalCipher")]
    pub(crate) cipher: Option<Cipher>,
    /// Whether the peer has said that it is one of ours.
    pub(crate) extensions: bool,
    pub(crate) sent: Carried,
    pub(crate) received: Carried,
}

/// What a peer was sent, or has sent: messages with their octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Carried {
    pub(crate) messages: u64,
    pub(crate) octets: u64,
}

/// A path, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathEntry {
    transport: usize,
    remote: RemoteEntry,
    local: Option<(IpAddr, u32)>,
}

/// Where a peer is, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum RemoteEntry {
    Udp(SocketAddr),
    Side { label: u64, run: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Mode")]
enum ModeName {
    Tun,
    Tap,
}

/// A cipher that there may be none of.
struct OptionalCipher;

impl OptionalCipher {
    fn serialize<S: Serializer>(cipher: &Option<Cipher>, to: S) -> Result<S::Ok, S::Error> {
        cipher.map(|cipher| cipher == Cipher::Aes256Gcm).serialize(to)
    }

    fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Cipher>, D::Error> {
        let aes = Option::<bool>::deserialize(from)?;
        Ok(aes.map(|aes| if aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Accepts", deny_unknown_fields)]
struct AcceptsFields {
    tso4: bool,
    tso6: bool,
    uso: bool,
}

impl PeerEntry {
    /// The table of `entries`.
    pub(crate) fn table(entries: Vec<Self>) -> PeerTable {
        PeerTable::new(entries.into_iter().map(Peer::from).collect())
    }
}

impl PathEntry {
    /// Whether a datagram can have come from there.
    pub(crate) fn can_be_sender(&self) -> bool {
        match self.remote {
            RemoteEntry::Udp(remote) => {
                let ip = remote.ip().to_canonical();
                let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
                remote.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
            }
            RemoteEntry::Side { label, run } => label != 0 && run != 0,
        }
    }

    /// Whether there is such a transport, with so many sockets and folders.
    pub(crate) fn is_among(&self, sockets: usize, spools: usize) -> bool {
        match self.remote {
            RemoteEntry::Udp(_) => self.transport < sockets,
            RemoteEntry::Side { .. } => self.transport < spools,
        }
    }
}

impl From<&Peer> for PeerEntry {
    fn from(peer: &Peer) -> Self {
        Self {
            name: peer.name.clone(),
            path: peer.path.map(PathEntry::from),
            allowed_ips: peer.allowed_ips.clone(),
        }
    }
}

impl From<PeerEntry> for Peer {
    fn from(entry: PeerEntry) -> Self {
        Self { name: entry.name, path: entry.path.map(Path::from), allowed_ips: entry.allowed_ips }
    }
}

impl From<Path> for PathEntry {
    fn from(path: Path) -> Self {
        let local = path.local.map(|local| (local.ip, local.interface));
        let remote = match path.remote {
            RemoteAddr::Udp(remote) => RemoteEntry::Udp(remote),
            RemoteAddr::Side(Side { label, run }) => RemoteEntry::Side { label, run },
        };
        Self { transport: path.transport.0, remote, local }
    }
}

impl From<PathEntry> for Path {
    fn from(entry: PathEntry) -> Self {
        Self {
            transport: TransportIndex(entry.transport),
            remote: match entry.remote {
                RemoteEntry::Udp(remote) => RemoteAddr::Udp(remote),
                RemoteEntry::Side { label, run } => RemoteAddr::Side(Side { label, run }),
            },
            local: entry.local.map(|(ip, interface)| LocalAddr { ip, interface }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_over_a_link_local_address_arrives_whole() {
        let path = Path {
            transport: TransportIndex(1),
            remote: RemoteAddr::Udp(SocketAddr::V6(std::net::SocketAddrV6::new(
                "fe80::2".parse().unwrap(),
                4740,
                0,
                3,
            ))),
            local: Some(LocalAddr { ip: "fe80::1".parse().unwrap(), interface: 3 }),
        };
        let json = serde_json::to_vec(&PathEntry::from(path)).unwrap();
        let arrived: PathEntry = serde_json::from_slice(&json).unwrap();
        assert_eq!(Path::from(arrived), path);
    }

    #[test]
    fn nobody_sends_from_a_group_from_everywhere_or_from_port_0() {
        let sends = |remote: &str| {
            let remote = RemoteEntry::Udp(remote.parse().unwrap());
            PathEntry { transport: 0, remote, local: None }.can_be_sender()
        };
        assert!(sends("10.0.0.2:1") && sends("[fe80::2%3]:1") && sends("[::ffff:10.0.0.2]:1"));
        for none in ["10.0.0.2:0", "0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1"] {
            assert!(!sends(none), "{none}");
        }
        assert!(!sends("255.255.255.255:1") && !sends("[::ffff:224.0.0.1]:1"));
    }

    #[test]
    fn a_table_arrives_whole() {
        let allowed_ips = vec!["10.9.0.2/32".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let peer = Peer { name: "b \"\n".into(), path: None, allowed_ips };
        let sent = PeerTable::new(vec![peer]);
        let json =
            serde_json::to_vec(&sent.peers().iter().map(PeerEntry::from).collect::<Vec<_>>())
                .unwrap();
        let arrived = PeerEntry::table(serde_json::from_slice(&json).unwrap());
        assert_eq!(arrived.peers(), sent.peers());
    }
}
