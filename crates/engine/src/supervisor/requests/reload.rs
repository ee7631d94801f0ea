//! The configuration is read again; what can be so at once is so.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;

use proto::key::PublicKey;
use proto::{Peer, PeerIndex};

use crate::config::{self, Config, Endpoint, Host};
use crate::supervisor::attachment::Attachment;
use crate::supervisor::keys::Keys;
use crate::supervisor::members::Members;
use crate::supervisor::place::Place;
use crate::supervisor::{Supervisor, underlay};
use crate::with_causes::WithCauses;

impl Supervisor {
    /// Reads the configuration again, because a signal asks for it.
    pub(in crate::supervisor) fn handle_reload(&mut self) {
        match self.reload() {
            Ok(changes) if changes.is_empty() => tracing::info!("read again: nothing has changed"),
            Ok(_) => {}
            Err(reason) => tracing::error!("{reason}"),
        }
    }

    /// Reads the configuration again; what has changed, line by line.
    pub(in crate::supervisor) fn reload(&mut self) -> Result<Vec<String>, String> {
        let said = |error: &dyn std::error::Error| WithCauses(error).to_string();
        let config = config::load(&self.file).map_err(|error| said(&error))?;
        let keys = Keys::read(&config).map_err(|error| said(&error))?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let mut changes = self.waiting_changes(&config, keys.as_ref());
        // The peers of a tunnel without security have no keys, so they wait with it.
        if config.local.security == self.config.local.security {
            changes.extend(peer_changes(&self.config.peers, &config.peers));
            changes.extend(self.adopt(config.peers, keys, &HashMap::new()));
        }
        for change in &changes {
            tracing::info!("read again: {change}");
        }
        Ok(changes)
    }

    /// The sections of `config` that differ from today's and have to wait.
    fn waiting_changes(&self, config: &Config, keys: Option<&Keys>) -> Vec<String> {
        let now = &self.config;
        // A key may be in another file, or in the same one.
        let mut local = config.local.clone();
        if keys.is_some() == self.keys.is_some() {
            local.private_key.clone_from(&now.local.private_key);
        }
        let sections = [
            ("[device]", now.device == config.device),
            ("[local]", now.local == local),
            ("[network]", now.network == config.network),
        ];
        let differ = sections.into_iter().filter(|(_, same)| !same);
        differ
            .map(|(section, _)| {
                format!("{section} has changed, which waits until the tunnel is started again")
            })
            .collect()
    }

    /// Has other peers and keys from now on; `moved` says where some of them are. What that changes besides peers.
    pub(in crate::supervisor) fn adopt(
        &mut self,
        peers: Vec<config::Peer>,
        keys: Option<Keys>,
        moved: &HashMap<PublicKey, SocketAddr>,
    ) -> Option<String> {
        let keys = keys.filter(|_| self.keys.is_some());
        let before = std::mem::replace(&mut self.config.peers, peers);
        let staying = self.place(&before, moved);
        let other_key = keys.as_ref().map(Keys::public) != self.keys.as_ref().map(Keys::public);
        self.keys = keys.or_else(|| self.keys.take());
        // The ways first: what is sent to another address must not go into the tunnel.
        self.fit();
        if other_key {
            // All sessions end, since all of them are with the key of before.
            self.with_attachment(Attachment::restart);
        } else {
            self.tell_peers(&staying);
        }
        other_key.then(|| "this side has another private key".to_owned())
    }

    /// Finds out where the peers are, after those of the configuration were replaced; who stays where it is.
    fn place(
        &mut self,
        before: &[config::Peer],
        moved: &HashMap<PublicKey, SocketAddr>,
    ) -> HashSet<PublicKey> {
        let known = std::mem::take(&mut self.peers);
        let (sockets, config) = (&self.sockets, &self.config);
        let places = (0..).map(PeerIndex).zip(before.iter().zip(known.peers()));
        let known: HashMap<_, _> = places.map(known_by).collect();
        let told = |peer: &config::Peer| moved.get(&peer.public_key?).copied();
        let stays = |peer: &config::Peer| {
            let (place, before, member) = known.get(&identity(peer))?;
            let stays = told(peer).is_none() && before.endpoints == peer.endpoints;
            stays.then_some((*place, *member))
        };
        let path = |peer: &config::Peer| {
            if let Some((_, member)) = stays(peer) {
                return member.path;
            }
            let first = || peer.endpoints.first().and_then(|first| self.place_of(first));
            let place = told(peer).map(Place::Udp).or_else(first)?;
            let way = underlay::way(sockets, peer, place);
            way.inspect_err(|error| tracing::warn!("{}", WithCauses(error))).ok()
        };
        let Ok(members) = Members::new::<Infallible>(config, |_, peer| Ok(path(peer)));
        let chosen = config.peers.iter().zip(members.places()).map(|(peer, remote)| {
            stays(peer).and_then(|(place, _)| self.candidates.chosen(place)).or(remote)
        });
        let chosen: Vec<_> = chosen.collect();
        let staying = config.peers.iter().filter(|peer| stays(peer).is_some());
        let staying = staying.filter_map(|peer| peer.public_key).collect();
        self.peers = members;
        self.watch_names(&chosen);
        staying
    }

    /// Where an endpoint is that is no name; a folder that the tunnel has had since it was started.
    fn place_of(&self, endpoint: &Endpoint) -> Option<Place> {
        match endpoint {
            Endpoint::Udp { host: Host::Ip(ip), port } => {
                Some(Place::Udp(SocketAddr::new(*ip, *port)))
            }
            Endpoint::Udp { host: Host::Name(_), .. } => None,
            Endpoint::Spool { folder } => {
                self.folders.iter().position(|known| known == folder).map(Place::Folder)
            }
        }
    }
}

type Known<'a> = (Result<PublicKey, String>, (PeerIndex, &'a config::Peer, &'a Peer));

/// By what a peer is known: its key, or its name without security.
fn identity(peer: &config::Peer) -> Result<PublicKey, String> {
    peer.public_key.ok_or_else(|| peer.name.clone())
}

fn known_by<'a>((place, (peer, member)): (PeerIndex, (&'a config::Peer, &'a Peer))) -> Known<'a> {
    (identity(peer), (place, peer, member))
}

/// Who came, who went, and who is another.
fn peer_changes(before: &[config::Peer], after: &[config::Peer]) -> Vec<String> {
    let by_identity = |peers: &[config::Peer]| -> HashMap<_, _> {
        peers.iter().map(|peer| (identity(peer), peer.clone())).collect()
    };
    let (known, wanted) = (by_identity(before), by_identity(after));
    let gone = before.iter().filter(|peer| !wanted.contains_key(&identity(peer)));
    let gone = gone.map(|peer| format!("peer {:?} is removed", peer.name));
    let other = after.iter().filter_map(|peer| match known.get(&identity(peer)) {
        None => Some(format!("peer {:?} is added", peer.name)),
        Some(known) if known != peer => Some(format!("peer {:?} is changed", peer.name)),
        Some(_) => None,
    });
    gone.chain(other).collect()
}
