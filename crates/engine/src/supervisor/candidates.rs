//! Where each peer may be by the configuration, and which of these places is in use.
//!
//! # Theory of operation
//!
//! A peer's *candidates* are its endpoints in the order of the configuration, each name replaced by the addresses that
//! it was found to have, without those of a family that no socket speaks. One of them is *chosen*:
//!
//! - at first the first one that is known;
//! - another one when a lookup no longer finds the chosen one, so that a peer whose name leads elsewhere is followed;
//! - the next one in turn when the peer does not answer (with security only, since without it nobody notices);
//! - the one at which the peer was heard of.
//!
//! As long as the chosen one is among the candidates it stays: servers that tell the addresses of a name in turn would
//! otherwise move the tunnel without need. A peer that was heard of elsewhere is left there until it does not answer.
//!
//! # Limits
//!
//! A name counts with [`ADDRESSES_MOST`](super::names::ADDRESSES_MOST) addresses, and a peer has at most 16 endpoints.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::PeerIndex;

use super::names::Found;
use super::place::{self, Place};
use crate::config::{self, Endpoint, Host};

/// A peer is looked for elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// The peer.
    pub(super) peer: PeerIndex,
    /// Where.
    pub(super) to: Place,
}

/// The candidates of all peers, by their places in the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    peers: Vec<Places>,
    /// The addresses of every name that was found, and whose endpoint it is.
    names: HashMap<Arc<str>, Named>,
    /// Whether a socket speaks IPv4, and IPv6.
    speaks: [bool; 2],
    /// The folders that there are.
    folders: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
struct Places {
    endpoints: Vec<Endpoint>,
    chosen: Option<Place>,
}

#[derive(Clone, Debug, Default)]
struct Named {
    /// What it was found to have last.
    addresses: Vec<IpAddr>,
    /// Whether it was looked up at all.
    is_known: bool,
    peers: Vec<PeerIndex>,
}

impl Candidates {
    /// Those of `peers`, of which these are `chosen`, for sockets at `local` and these folders; what `before` knew of
    /// names is known.
    pub(super) fn new(
        peers: &[config::Peer],
        chosen: &[Option<Place>],
        local: &[SocketAddr],
        folders: &[PathBuf],
        mut before: Self,
    ) -> Self {
        let speaks = [true, false].map(|v4| local.iter().any(|local| local.is_ipv4() == v4));
        let (peers_of, names, folders) = (Vec::new(), HashMap::new(), folders.to_vec());
        let mut candidates = Self { peers: peers_of, names, speaks, folders };
        for (place, (peer, &chosen)) in (0..).map(PeerIndex).zip(peers.iter().zip(chosen)) {
            for name in peer.endpoints.iter().filter_map(name) {
                let named = candidates.names.entry(name.into()).or_insert_with(|| Named {
                    peers: Vec::new(),
                    ..before.names.remove(name).unwrap_or_default()
                });
                if named.peers.last() != Some(&place) {
                    named.peers.push(place);
                }
            }
            candidates.peers.push(Places { endpoints: peer.endpoints.clone(), chosen });
        }
        candidates
    }

    /// Which candidate of a peer is in use.
    pub(super) fn chosen(&self, peer: PeerIndex) -> Option<Place> {
        self.places(peer)?.chosen
    }

    /// The names among the endpoints of all peers.
    pub(super) fn names(&self) -> impl Iterator<Item = Arc<str>> {
        self.names.keys().cloned()
    }

    /// The names among the endpoints of one peer.
    pub(super) fn names_of(&self, peer: PeerIndex) -> impl Iterator<Item = &str> {
        self.places(peer).into_iter().flat_map(|places| &places.endpoints).filter_map(name)
    }

    /// Names were looked up: who is elsewhere by that.
    pub(super) fn handle_found(&mut self, found: Vec<Found>) -> Vec<Moved> {
        let mut moved = Vec::new();
        for Found { name, addresses } in found {
            let Some(named) = self.names.get_mut(&name) else { continue };
            named.is_known = true;
            // A name that cannot be looked up changes nothing: the peer is best looked for where it was.
            if !addresses.is_empty() {
                named.addresses = addresses;
            }
            for peer in named.peers.clone() {
                moved.extend(self.follow(peer, &name));
            }
        }
        moved
    }

    /// The peer does not answer at `current`: where to look for it instead, if there is another place.
    pub(super) fn handle_unanswered(
        &mut self,
        peer: PeerIndex,
        current: Option<Place>,
    ) -> Option<Moved> {
        let candidates = self.of(peer);
        // A peer without a choice may well be where it was heard of last.
        if candidates.len() < 2 {
            return None;
        }
        let place = candidates.iter().position(|&candidate| Some(candidate) == current);
        let next = place.map_or(0, |place| (place + 1) % candidates.len());
        self.choose(peer, *candidates.get(next)?)
    }

    /// The peer was heard of there.
    pub(super) fn handle_heard(&mut self, peer: PeerIndex, at: Place) {
        if self.of(peer).contains(&at) {
            self.choose(peer, at);
        }
    }

    /// Chooses again, after `name` was looked up; where the peer is then, if that is news.
    fn follow(&mut self, peer: PeerIndex, name: &str) -> Option<Moved> {
        let candidates = self.of(peer);
        let first = match self.chosen(peer) {
            None => *candidates.first()?,
            Some(chosen) if candidates.contains(&chosen) => return None,
            // It may be an address of a name that is still to be looked up.
            Some(_) if !self.names_of(peer).all(|name| self.is_known(name)) => return None,
            // Endpoints that are addresses never cease, so most likely it was one that this name had.
            Some(_) => {
                let of_name = |endpoint: &Endpoint| self::name(endpoint) == Some(name);
                let first = self.of_endpoints(peer, of_name).next();
                first.or_else(|| candidates.first().copied())?
            }
        };
        self.choose(peer, first)
    }

    fn is_known(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|named| named.is_known)
    }

    fn choose(&mut self, peer: PeerIndex, to: Place) -> Option<Moved> {
        self.peers.get_mut(usize::from(peer.0))?.chosen = Some(to);
        Some(Moved { peer, to })
    }

    /// The candidates of a peer, each once.
    fn of(&self, peer: PeerIndex) -> Vec<Place> {
        let mut candidates = Vec::new();
        for candidate in self.of_endpoints(peer, |_| true) {
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        candidates
    }

    fn of_endpoints(
        &self,
        peer: PeerIndex,
        which: impl Fn(&Endpoint) -> bool,
    ) -> impl Iterator<Item = Place> {
        let endpoints = self.places(peer).into_iter().flat_map(|places| &places.endpoints);
        endpoints.filter(move |endpoint| which(endpoint)).flat_map(|endpoint| {
            let at_folder = place::folder(endpoint).and_then(|folder| self.folder(folder));
            self.addresses(endpoint).map(Place::Udp).chain(at_folder)
        })
    }

    /// The addresses of an endpoint that a socket speaks to.
    fn addresses<'a>(&'a self, endpoint: &'a Endpoint) -> impl Iterator<Item = SocketAddr> + 'a {
        let (addresses, port) = match endpoint {
            Endpoint::Udp { host: Host::Ip(ip), port } => (std::slice::from_ref(ip), *port),
            Endpoint::Udp { host: Host::Name(name), port } => {
                let named = self.names.get(name.as_str());
                (named.map_or(&[][..], |named| &named.addresses), *port)
            }
            Endpoint::Spool { .. } => (&[][..], 0),
        };
        let [v4, v6] = self.speaks;
        let spoken = addresses.iter().filter(move |ip| if ip.is_ipv4() { v4 } else { v6 });
        spoken.map(move |&ip| SocketAddr::new(ip, port))
    }

    fn folder(&self, folder: &Path) -> Option<Place> {
        self.folders.iter().position(|known| known == folder).map(Place::Folder)
    }

    fn places(&self, peer: PeerIndex) -> Option<&Places> {
        self.peers.get(usize::from(peer.0))
    }
}

/// The name that an endpoint is.
fn name(endpoint: &Endpoint) -> Option<&str> {
    match endpoint {
        Endpoint::Udp { host: Host::Name(name), .. } => Some(name),
        Endpoint::Udp { host: Host::Ip(_), .. } | Endpoint::Spool { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerIndex = PeerIndex(0);

    fn at(text: &str) -> Place {
        Place::Udp(text.parse().unwrap())
    }

    fn peer(endpoints: &[&str]) -> config::Peer {
        config::Peer {
            name: "b".to_owned(),
            public_key: None,
            preshared_key: None,
            endpoints: endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect(),
            allowed_ips: Vec::new(),
            keepalive: None,
        }
    }

    /// The candidates of one peer that is at `remote`, for sockets of both families.
    fn candidates(endpoints: &[&str], remote: Option<&str>) -> Candidates {
        let sockets = ["0.0.0.0:1", "[::]:1"].map(|socket| socket.parse().unwrap());
        let (peers, folders) = ([peer(endpoints)], ["/share".into()]);
        Candidates::new(&peers, &[remote.map(at)], &sockets, &folders, Candidates::default())
    }

    /// Where the peer is after a lookup of `name`, if that is news.
    fn found(candidates: &mut Candidates, name: &str, addresses: &[&str]) -> Option<Place> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let moved = candidates.handle_found(vec![Found { name: name.into(), addresses }]);
        assert!(moved.len() < 2 && moved.iter().all(|moved| moved.peer == PEER));
        moved.first().map(|moved| moved.to)
    }

    fn unanswered(candidates: &mut Candidates, current: &str) -> Option<Place> {
        candidates.handle_unanswered(PEER, Some(at(current))).map(|moved| moved.to)
    }

    #[test]
    fn an_address_that_is_still_among_those_of_the_name_stays() {
        let mut of = candidates(&["udp://b.test:7"], Some("10.0.0.2:7"));
        assert_eq!(found(&mut of, "b.test", &["10.0.0.1", "10.0.0.2"]), None);
        assert_eq!(found(&mut of, "b.test", &["10.0.0.3", "10.0.0.1"]), Some(at("10.0.0.3:7")));
        assert_eq!(found(&mut of, "b.test", &["10.0.0.1", "10.0.0.3"]), None);
        assert_eq!(found(&mut of, "other.test", &["10.0.0.9"]), None);
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_leaves_the_peer_where_it_was() {
        let mut of = candidates(&["udp://b.test:7"], Some("10.0.0.1:7"));
        assert_eq!(found(&mut of, "b.test", &[]), None);
        assert_eq!(found(&mut of, "b.test", &["10.0.0.1"]), None);
        assert_eq!(found(&mut of, "b.test", &[]), None);
        assert_eq!(found(&mut of, "b.test", &["10.0.0.2"]), Some(at("10.0.0.2:7")));
    }

    #[test]
    fn a_peer_that_nobody_found_is_where_it_is_found_first() {
        let mut of = candidates(&["udp://b.test:7", "udp://10.0.0.9:8"], None);
        assert_eq!(found(&mut of, "b.test", &[]), Some(at("10.0.0.9:8")));
        let mut of = candidates(&["udp://b.test:7", "udp://10.0.0.9:8"], None);
        assert_eq!(found(&mut of, "b.test", &["10.0.0.1"]), Some(at("10.0.0.1:7")));
    }

    #[test]
    fn a_peer_does_not_move_to_a_family_that_no_socket_speaks() {
        let remotes = [Some(at("10.0.0.1:7"))];
        let peers = [peer(&["udp://b.test:7", "udp://[fd00::9]:7"])];
        let mut of = Candidates::new(
            &peers,
            &remotes,
            &["0.0.0.0:1".parse().unwrap()],
            &[],
            Candidates::default(),
        );
        assert_eq!(found(&mut of, "b.test", &["fd00::1"]), None);
        assert_eq!(unanswered(&mut of, "10.0.0.1:7"), None);
        assert_eq!(found(&mut of, "b.test", &["fd00::1", "10.0.0.2"]), Some(at("10.0.0.2:7")));
    }

    #[test]
    fn endpoints_and_addresses_of_names_are_tried_in_turn() {
        let endpoints = ["udp://b.test:7", "udp://[fd00::9]:8", "udp://10.0.0.2:7"];
        let mut of = candidates(&endpoints, Some("10.0.0.1:7"));
        found(&mut of, "b.test", &["10.0.0.1", "10.0.0.2"]);
        let turns = ["10.0.0.1:7", "10.0.0.2:7", "[fd00::9]:8", "10.0.0.1:7"];
        for turn in turns.windows(2) {
            assert_eq!(unanswered(&mut of, turn[0]), Some(at(turn[1])));
        }
    }

    #[test]
    fn a_folder_is_a_place_like_any_other() {
        let endpoints = ["udp://10.0.0.1:7", "spool:///share", "spool:///not/there"];
        let mut of = candidates(&endpoints, Some("10.0.0.1:7"));
        assert_eq!(unanswered(&mut of, "10.0.0.1:7"), Some(Place::Folder(0)));
        let back = of.handle_unanswered(PEER, Some(Place::Folder(0))).map(|moved| moved.to);
        assert_eq!(back, Some(at("10.0.0.1:7")));
    }

    #[test]
    fn a_peer_that_has_gone_elsewhere_is_looked_for_from_the_first_endpoint_on() {
        let mut of = candidates(&["udp://10.0.0.1:7", "udp://10.0.0.2:7"], Some("10.0.0.2:7"));
        assert_eq!(unanswered(&mut of, "172.16.0.1:999"), Some(at("10.0.0.1:7")));
        assert_eq!(of.handle_unanswered(PEER, None).map(|moved| moved.to), Some(at("10.0.0.1:7")));
    }

    #[test]
    fn a_peer_without_a_choice_stays_where_it_was_heard_of() {
        let mut of = candidates(&["udp://10.0.0.1:7"], Some("10.0.0.1:7"));
        assert_eq!(unanswered(&mut of, "10.0.0.1:7"), None);
        assert_eq!(unanswered(&mut of, "172.16.0.1:999"), None);
        let mut of = candidates(&[], None);
        assert_eq!(unanswered(&mut of, "172.16.0.1:999"), None);
    }

    #[test]
    fn what_a_name_no_longer_says_matters_to_who_is_there_only() {
        let mut of = candidates(&["udp://b.test:7", "udp://10.0.0.9:7"], Some("10.0.0.1:7"));
        found(&mut of, "b.test", &["10.0.0.1"]);
        of.handle_heard(PEER, at("10.0.0.9:7"));
        assert_eq!(found(&mut of, "b.test", &["10.0.0.2"]), None);
        of.handle_heard(PEER, at("172.16.0.1:999"));
        assert_eq!(found(&mut of, "b.test", &["10.0.0.3"]), None);
        of.handle_heard(PEER, at("10.0.0.3:7"));
        assert_eq!(found(&mut of, "b.test", &["10.0.0.4"]), Some(at("10.0.0.4:7")));
    }

    #[test]
    fn a_peer_stays_while_one_of_its_names_is_still_to_be_looked_up() {
        let mut of = candidates(&["udp://b.test:7", "udp://c.test:7"], Some("10.0.0.1:7"));
        assert_eq!(found(&mut of, "c.test", &["10.0.0.2"]), None);
        assert_eq!(found(&mut of, "b.test", &["10.0.0.3"]), Some(at("10.0.0.3:7")));
    }

    #[test]
    fn what_is_known_of_names_stays_known_when_the_configuration_is_read_again() {
        let mut of = candidates(&["udp://b.test:7"], Some("10.0.0.1:7"));
        found(&mut of, "b.test", &["10.0.0.1", "10.0.0.2"]);
        let sockets = ["0.0.0.0:1".parse().unwrap()];
        let peers = [peer(&["udp://b.test:7"]), peer(&["udp://c.test:7", "udp://b.test:8"])];
        let remotes = [Some(at("10.0.0.1:7")), None];
        let mut of = Candidates::new(&peers, &remotes, &sockets, &[], of);
        assert_eq!(of.names_of(PeerIndex(1)).collect::<Vec<_>>(), ["c.test", "b.test"]);
        assert_eq!(of.names().count(), 2);
        assert_eq!(unanswered(&mut of, "10.0.0.1:7"), Some(at("10.0.0.2:7")));
        let moved = of.handle_unanswered(PeerIndex(1), None).map(|moved| moved.to);
        assert_eq!(moved, Some(at("10.0.0.1:8")));
    }
}
