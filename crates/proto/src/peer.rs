//! The peers of a tunnel and the paths to them.
//!
//! # Theory of operation
//!
//! Workers look peers up for every packet, so they read a [`PeerTable`] that never changes. Whoever
//! learns something (where a peer is, which of our addresses it talks to) makes another table from it
//! and publishes that one.
//!
//! In a plain tunnel (`security = "none"`) a peer is known by the address and port that it sends
//! from, and by nothing else. At most one peer may be configured without an endpoint: the first
//! sender that no other peer claims becomes it, and stays it as long as the tunnel lives. All other
//! senders are strangers.

use ipnet::IpNet;

use crate::path::{Path, RemoteAddr, Side};
use crate::routing::Routing;

/// A peer's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u16);

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What people call it.
    pub name: String,
    /// The way to it, if that is known.
    pub path: Option<Path>,
    /// The inner addresses that belong to it.
    pub allowed_ips: Vec<IpNet>,
}

/// Who sent a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A peer whose endpoint is known.
    Peer(PeerIndex),
    /// Nobody known, but this peer waits for a first sender.
    First(PeerIndex),
    /// Nobody known.
    Stranger,
}

/// All peers, immutable.
#[derive(Clone, Debug)]
pub struct PeerTable {
    peers: Vec<Peer>,
    routing: Routing,
    /// Sorted by where the peers send from.
    remotes: Vec<(RemoteAddr, PeerIndex)>,
    waiting: Option<PeerIndex>,
    /// Who is whoever else is in a folder.
    anybody: Option<PeerIndex>,
}

impl PeerTable {
    /// The most peers that a table can hold.
    pub const CAPACITY: usize = u16::MAX as usize;

    /// Makes a table; peers beyond [`Self::CAPACITY`] are left out.
    pub fn new(mut peers: Vec<Peer>) -> Self {
        peers.truncate(Self::CAPACITY);
        let routing =
            Routing::new(indexed(&peers).flat_map(|(index, peer)| {
                peer.allowed_ips.iter().map(move |&prefix| (prefix, index))
            }));
        let mut remotes: Vec<_> = indexed(&peers)
            .filter_map(|(index, peer)| Some((peer.path?.remote.sender(), index)))
            .collect();
        remotes.sort_by_key(|&(remote, _)| remote);
        let waiting = indexed(&peers).find(|(_, peer)| peer.path.is_none()).map(|(index, _)| index);
        let nobody = RemoteAddr::Side(Side::default());
        let anybody = remotes.iter().find(|(remote, _)| *remote == nobody).map(|(_, peer)| *peer);
        Self { peers, routing, remotes, waiting, anybody }
    }

    /// The peers in the order of the configuration.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peer at `index`.
    pub fn peer(&self, index: PeerIndex) -> Option<&Peer> {
        self.peers.get(usize::from(index.0))
    }

    /// Whose inner packets are.
    #[inline]
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// The way to a peer.
    #[inline]
    pub fn path(&self, index: PeerIndex) -> Option<&Path> {
        self.peer(index)?.path.as_ref()
    }

    /// Who sends from `remote`.
    #[inline]
    pub fn sender(&self, remote: &RemoteAddr) -> Sender {
        match self.remotes.binary_search_by_key(&remote.sender(), |&(remote, _)| remote) {
            Ok(place) => Sender::Peer(self.remotes[place].1),
            Err(_) => match (remote, self.anybody) {
                (RemoteAddr::Side(_), Some(peer)) => Sender::Peer(peer),
                _ => self.waiting.map_or(Sender::Stranger, Sender::First),
            },
        }
    }

    /// The table with `path` as the way to a peer.
    ///
    /// A first sender is only accepted once: a peer that has an endpoint keeps its remote address, and
    /// only the socket and the local address follow.
    #[must_use]
    pub fn with_path(&self, index: PeerIndex, path: Path) -> Self {
        let mut peers = self.peers.clone();
        if let Some(peer) = peers.get_mut(usize::from(index.0))
            && peer.path.is_none_or(|known| known.remote.means(&path.remote))
        {
            peer.path = Some(path);
        }
        Self::new(peers)
    }

    /// The table with a peer somewhere else, wherever it was known to be.
    #[must_use]
    pub fn moved(&self, index: PeerIndex, path: Path) -> Self {
        let mut peers = self.peers.clone();
        if let Some(peer) = peers.get_mut(usize::from(index.0)) {
            peer.path = Some(path);
        }
        Self::new(peers)
    }
}

fn indexed(peers: &[Peer]) -> impl Iterator<Item = (PeerIndex, &Peer)> {
    (0..=u16::MAX).map(PeerIndex).zip(peers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{LocalAddr, TransportIndex};

    fn path(remote: &str) -> Path {
        Path { transport: TransportIndex(0), remote: remote.parse().unwrap(), local: None }
    }

    fn peer(name: &str, remote: Option<&str>, allowed: &[&str]) -> Peer {
        Peer {
            name: name.into(),
            path: remote.map(path),
            allowed_ips: allowed.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        }
    }

    fn three() -> PeerTable {
        PeerTable::new(vec![
            peer("b", Some("10.0.0.2:4740"), &["10.9.0.2/32", "10.20.0.0/16"]),
            peer("c", None, &["10.9.0.3/32"]),
            peer("d", Some("[fd00::4]:4740"), &["10.20.7.0/24"]),
        ])
    }

    #[test]
    fn peers_are_known_by_address_and_port() {
        let table = three();
        assert_eq!(table.sender(&"10.0.0.2:4740".parse().unwrap()), Sender::Peer(PeerIndex(0)));
        assert_eq!(table.sender(&"[fd00::4]:4740".parse().unwrap()), Sender::Peer(PeerIndex(2)));
        assert_eq!(table.sender(&"10.0.0.2:4741".parse().unwrap()), Sender::First(PeerIndex(1)));
    }

    #[test]
    fn a_side_of_a_folder_is_known_over_all_its_lives() {
        let side = |label, run| Path {
            transport: TransportIndex(0),
            remote: RemoteAddr::Side(Side { label, run }),
            local: None,
        };
        let table = three().with_path(PeerIndex(1), side(7, 1));
        assert_eq!(table.sender(&side(7, 2).remote), Sender::Peer(PeerIndex(1)));
        assert_eq!(table.sender(&side(8, 1).remote), Sender::Stranger);
        let later = table.with_path(PeerIndex(1), side(7, 2));
        assert_eq!(later.path(PeerIndex(1)), Some(&side(7, 2)));
    }

    #[test]
    fn whoever_else_is_in_the_folder_is_one_side_from_its_first_word_on() {
        let at = |label, run| Path {
            transport: TransportIndex(0),
            remote: RemoteAddr::Side(Side { label, run }),
            local: None,
        };
        let anybody = Peer { path: Some(at(0, 0)), ..peer("b", None, &["0.0.0.0/0"]) };
        let table = PeerTable::new(vec![anybody]);
        assert_eq!(table.sender(&at(7, 1).remote), Sender::Peer(PeerIndex(0)));
        let table = table.with_path(PeerIndex(0), at(7, 1));
        assert_eq!(table.path(PeerIndex(0)), Some(&at(7, 1)));
        assert_eq!(table.sender(&at(8, 1).remote), Sender::Stranger);
        let table = table.with_path(PeerIndex(0), at(8, 1));
        assert_eq!(table.path(PeerIndex(0)), Some(&at(7, 1)));
    }

    #[test]
    fn the_first_sender_is_kept() {
        let table = three().with_path(PeerIndex(1), path("10.0.0.3:1000"));
        assert_eq!(table.sender(&"10.0.0.3:1000".parse().unwrap()), Sender::Peer(PeerIndex(1)));
        assert_eq!(table.sender(&"10.0.0.3:1001".parse().unwrap()), Sender::Stranger);
        let later = table.with_path(PeerIndex(1), path("10.0.0.66:1000"));
        assert_eq!(later.path(PeerIndex(1)), Some(&path("10.0.0.3:1000")));
    }

    #[test]
    fn a_peer_that_has_moved_is_known_by_its_address_of_today_only() {
        let table = three().moved(PeerIndex(0), path("10.0.0.8:4740"));
        assert_eq!(table.sender(&"10.0.0.8:4740".parse().unwrap()), Sender::Peer(PeerIndex(0)));
        assert_eq!(table.path(PeerIndex(0)), Some(&path("10.0.0.8:4740")));
        assert_ne!(table.sender(&"10.0.0.2:4740".parse().unwrap()), Sender::Peer(PeerIndex(0)));
    }

    #[test]
    fn the_local_address_follows_the_peer() {
        let local = Some(LocalAddr { ip: "10.0.0.1".parse().unwrap(), interface: 3 });
        let moved = Path { local, transport: TransportIndex(1), ..path("10.0.0.2:4740") };
        let table = three().with_path(PeerIndex(0), moved);
        assert_eq!(table.path(PeerIndex(0)), Some(&moved));
    }

    #[test]
    fn inner_addresses_belong_to_the_longest_prefix() {
        let table = three();
        assert_eq!(table.routing().owner("10.20.7.1".parse().unwrap()), Some(PeerIndex(2)));
        assert_eq!(table.routing().owner("10.20.8.1".parse().unwrap()), Some(PeerIndex(0)));
        assert_eq!(table.routing().owner("192.0.2.1".parse().unwrap()), None);
        assert_eq!(table.routing().sole(), None);
    }

    #[test]
    fn a_tunnel_of_two_has_a_sole_peer() {
        let table = PeerTable::new(vec![peer("b", None, &["0.0.0.0/0", "::/0"])]);
        assert_eq!(table.routing().sole(), Some(PeerIndex(0)));
    }
}
