//! What the supervisor and its worker tell each other.
//!
//! ```text
//! supervisor                           worker
//!   Setup, with descriptors  ------->
//!                            <-------    Confined, Started
//!                            <-------    PathLearned, whenever that happens
//!   Peers, Report            ------->
//!                            <-------    Traffic, for each Report
//!   Stop                     ------->
//!                            <-------    Traffic; Ended, if nobody asked it to; then the end of the stream
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use device::Mode;
use ipnet::IpNet;
use proto::{LocalAddr, Path, Peer, PeerTable, SocketIndex};
use serde::{Deserialize, Serialize};
use transport::udp::UdpSocket;
use wire::offload::Accepts;

use crate::metrics::Totals;

/// What a worker carries, and how. The descriptors that come along are those of the queues, then those of the sockets.
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
    /// How long an idle lane looks again before it sleeps.
    pub(crate) busy_poll: Option<Duration>,
    /// Who the peers are.
    pub(crate) peers: Vec<PeerEntry>,
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
    Peers(Vec<PeerEntry>),
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
    /// What was carried since its start.
    Traffic(Totals),
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

/// A path, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathEntry {
    socket: usize,
    remote: SocketAddr,
    local: Option<(IpAddr, u32)>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Mode")]
enum ModeName {
    Tun,
    Tap,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Accepts", deny_unknown_fields)]
struct AcceptsFields {
    tso4: bool,
    tso6: bool,
    uso: bool,
}

impl PeerEntry {
    /// All peers of a table.
    pub(crate) fn all(table: &PeerTable) -> Vec<Self> {
        table.peers().iter().map(Self::from).collect()
    }

    /// The table of `entries`.
    pub(crate) fn table(entries: Vec<Self>) -> PeerTable {
        PeerTable::new(entries.into_iter().map(Peer::from).collect())
    }
}

impl PathEntry {
    /// Whether a datagram can have come from there.
    pub(crate) fn can_be_sender(&self) -> bool {
        let ip = self.remote.ip().to_canonical();
        let is_broadcast = ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
        self.remote.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
    }

    /// Which socket it leaves from.
    pub(crate) fn socket(&self) -> usize {
        self.socket
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
        Self { socket: path.socket.0, remote: path.remote, local }
    }
}

impl From<PathEntry> for Path {
    fn from(entry: PathEntry) -> Self {
        Self {
            socket: SocketIndex(entry.socket),
            remote: entry.remote,
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
            socket: SocketIndex(1),
            remote: SocketAddr::V6(std::net::SocketAddrV6::new(
                "fe80::2".parse().unwrap(),
                4740,
                0,
                3,
            )),
            local: Some(LocalAddr { ip: "fe80::1".parse().unwrap(), interface: 3 }),
        };
        let json = serde_json::to_vec(&PathEntry::from(path)).unwrap();
        let arrived: PathEntry = serde_json::from_slice(&json).unwrap();
        assert_eq!(Path::from(arrived), path);
    }

    #[test]
    fn nobody_sends_from_a_group_from_everywhere_or_from_port_0() {
        let sends = |remote: &str| {
            let remote = remote.parse().unwrap();
            PathEntry { socket: 0, remote, local: None }.can_be_sender()
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
        let json = serde_json::to_vec(&PeerEntry::all(&sent)).unwrap();
        let arrived = PeerEntry::table(serde_json::from_slice(&json).unwrap());
        assert_eq!(arrived.peers(), sent.peers());
    }
}
