//! Where the peers are: what the worker has heard, what names say, and what both are told.

use std::collections::HashSet;

use proto::key::PublicKey;
use proto::{Path, PeerIndex};
use transport::udp::UdpSocket;

use super::candidates::{Candidates, Moved};
use super::names::{self, Names};
use super::place::Place;
use super::{Supervisor, desired, underlay};
use crate::channel::key::Key;
use crate::channel::message::{PathEntry, Peers, ToWorker};

impl Supervisor {
    /// Remembers where a peer was heard of, for the next worker and for the plan; whether that is news.
    pub(super) fn learn(&mut self, peer: PeerIndex, path: Path) -> bool {
        let remote = path.remote.socket_addr();
        let is_inside = remote.is_some_and(|remote| desired::is_inside(&self.config, remote.ip()));
        !is_inside && self.peers.set_path(peer, path)
    }

    /// Peers with sessions have spoken from elsewhere; whether that is news.
    pub(super) fn handle_roamed(&mut self, roamed: &[(Key, PathEntry)]) -> bool {
        let mut learned = false;
        for (key, path) in roamed {
            // Who was removed meanwhile has no place.
            let Some(place) = self.peers.place(&key.0) else { continue };
            let path = Path::from(*path);
            let before = self.peers.peer(place).and_then(|peer| peer.path);
            learned |= self.learn(place, path);
            self.candidates.handle_heard(place, Place::of(&path));
            if before.is_none_or(|before| before.remote != path.remote)
                && let Some(peer) = self.peers.peer(place)
            {
                tracing::info!("peer {:?} is at {}", peer.name, path.remote);
            }
        }
        learned
    }

    /// Peers do not answer: their names may lead elsewhere by now, or they are at another of their endpoints. Whether
    /// they are looked for elsewhere.
    pub(super) fn handle_unanswered(&mut self, peers: &[Key]) -> bool {
        tracing::debug!("{} peers do not answer", peers.len());
        let places: Vec<_> = peers.iter().filter_map(|key| self.peers.place(&key.0)).collect();
        if let Some(names) = &self.names {
            names.look(places.iter().flat_map(|&place| self.candidates.names_of(place)));
        }
        let mut learned = false;
        for place in places {
            let current = self.peers.peer(place).and_then(|peer| peer.path);
            let current = current.as_ref().map(Place::of);
            let Some(moved) = self.candidates.handle_unanswered(place, current) else { continue };
            if let Some(path) = self.move_to(moved) {
                tracing::debug!("peer {} is looked for at {}", place.0, path.remote);
                learned = true;
                self.tell_of(place, |key| ToWorker::Try { key, path: path.into() });
            }
        }
        learned
    }

    /// Remembers that a peer is looked for elsewhere; the way to it, if there is one.
    fn move_to(&mut self, Moved { peer: place, to }: Moved) -> Option<Path> {
        let peer = self.config.peers.get(usize::from(place.0))?;
        let path = underlay::way(&self.sockets, peer, to).ok()?;
        self.peers.set_path(place, path);
        Some(path)
    }

    /// The names of peers were looked up.
    pub(super) fn handle_found(&mut self, found: Vec<names::Found>) {
        let moved = self.candidates.handle_found(found);
        let moved: Vec<_> =
            moved.into_iter().filter(|moved| self.move_to(*moved).is_some()).collect();
        for peer in moved.iter().filter_map(|moved| self.peers.peer(moved.peer)) {
            if let Some(path) = &peer.path {
                tracing::info!("peer {:?} is at {} now", peer.name, path.remote);
            }
        }
        if moved.is_empty() {
            return;
        }
        // The way first: what is sent to the new address must not go into the tunnel.
        self.fit();
        match &self.keys {
            None => self.tell_peers(&HashSet::new()),
            Some(_) => {
                for Moved { peer, .. } in moved {
                    self.tell_path(peer);
                }
            }
        }
    }

    /// Tells the worker who the peers are. It knows better than anybody where those are that are `staying`.
    pub(super) fn tell_peers(&mut self, staying: &HashSet<PublicKey>) {
        let mut peers = self.peers.entries(&self.config, self.keys.as_ref());
        if let Peers::Sealed(entries) = &mut peers {
            let staying = entries.iter_mut().filter(|entry| staying.contains(&entry.key.0));
            staying.for_each(|entry| entry.path = None);
        }
        self.invitations.append_to(&mut peers);
        self.tell(&ToWorker::Peers(peers));
    }

    /// Tells the worker where a peer is.
    fn tell_path(&mut self, place: PeerIndex) {
        if let Some(path) = self.peers.peer(place).and_then(|peer| peer.path) {
            self.tell_of(place, |key| ToWorker::Path { key, path: path.into() });
        }
    }

    /// Tells the worker something of the peer that has a key.
    fn tell_of(&mut self, place: PeerIndex, message: impl FnOnce(Key) -> ToWorker) {
        let peer = self.config.peers.get(usize::from(place.0));
        if let Some(key) = peer.and_then(|peer| peer.public_key) {
            self.tell(&message(Key(key)));
        }
    }

    /// Looks after the places of the peers that there are now, of which these are `chosen`.
    pub(super) fn watch_names(&mut self, chosen: &[Option<Place>]) {
        let local: Vec<_> = self.sockets.iter().map(UdpSocket::local_addr).collect();
        let before = std::mem::take(&mut self.candidates);
        self.candidates =
            Candidates::new(&self.config.peers, chosen, &local, &self.folders, before);
        if self.names.is_none() && self.candidates.names().next().is_some() {
            let told = |error: &_| tracing::warn!("names of peers are not looked up: {error}");
            self.names = Names::start().inspect_err(told).ok();
        }
        if let Some(names) = &self.names {
            names.replace(self.candidates.names());
        }
    }
}
