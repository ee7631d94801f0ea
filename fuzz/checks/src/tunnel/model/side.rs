//! One host: its peers, and what was counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use proto::peer::PeerIndex;

use super::super::packet::{Prefix, contains};
use super::{At, Link};

/// What a host must know, and what it must have counted.
#[derive(Default)]
pub(crate) struct Side {
    pub(crate) is_adit: bool,
    pub(crate) has_aes: bool,
    pub(crate) links: BTreeMap<usize, Link>,
    pub(crate) places: BTreeMap<PeerIndex, usize>,
    /// Local indices of keys of peers that were removed.
    pub(crate) gone: Vec<u32>,
    /// Packets dropped because nobody owns them, because their peer is nowhere, and because it has no session.
    pub(crate) no_peer: u64,
    pub(crate) no_endpoint: u64,
    pub(crate) no_session: u64,
    /// What came in and was refused.
    pub(crate) refused: u64,
    pub(crate) initiations: u64,
    pub(crate) responses: u64,
    /// How often there were new keys, and how often that was told.
    pub(crate) established: u64,
    pub(crate) told: u64,
    /// Who owns what; of equal prefixes the last counts.
    owned: Vec<(usize, Prefix)>,
    /// When timers were last treated.
    handled: At,
}

/// What a host is told of a peer.
pub(crate) struct Told {
    pub(crate) other: usize,
    pub(crate) psk: u8,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) path: Option<SocketAddr>,
    pub(crate) prefixes: Vec<Prefix>,
}

impl Side {
    pub(crate) fn new(is_adit: bool, has_aes: bool) -> Self {
        Self { is_adit, has_aes, ..Self::default() }
    }

    /// Who owns an inner address, by looking at all prefixes.
    pub(crate) fn owner(&self, address: [u8; 4]) -> Option<usize> {
        let containing = self.owned.iter().filter(|(_, prefix)| contains(*prefix, address));
        // Of equals the last is the greatest.
        containing.max_by_key(|(_, (_, len))| len).map(|&(owner, _)| owner)
    }

    pub(crate) fn place(&self, other: usize) -> Option<PeerIndex> {
        self.places.iter().find(|&(_, &found)| found == other).map(|(&place, _)| place)
    }

    /// With whom there is a key of this remote index.
    pub(crate) fn sealing_for(&self, remote: u32) -> Option<usize> {
        let has_key = |link: &Link| link.keys().any(|key| key.remote == remote);
        self.links.iter().find(|(_, link)| has_key(link)).map(|(&other, _)| other)
    }

    /// The peers are these and no others.
    pub(crate) fn set_peers(&mut self, told: &[Told]) {
        let is_told = |other: &usize| told.iter().any(|told| told.other == *other);
        let unwanted: Vec<_> =
            self.links.keys().filter(|&other| !is_told(other)).copied().collect();
        for other in unwanted {
            self.remove(other);
        }
        self.owned.clear();
        for Told { other, psk, keepalive, path, prefixes } in told {
            let link = self.links.entry(*other).or_insert_with(|| Link::new(*path));
            link.path = path.or(link.path);
            link.keepalive = *keepalive;
            link.set_psk(*psk);
            self.owned.extend(prefixes.iter().map(|&prefix| (*other, prefix)));
        }
    }

    fn remove(&mut self, other: usize) {
        let Some(mut link) = self.links.remove(&other) else { return };
        self.no_peer += link.staged.len() as u64;
        link.erase_keys();
        self.gone.extend(link.gone);
        self.places.retain(|_, found| *found != other);
    }

    /// A packet was handed over for a peer.
    pub(crate) fn hand(&mut self, now: At, other: usize, packet: &[u8]) {
        let link = self.links.get_mut(&other).expect("packets are routed to peers");
        match link.path {
            None => self.no_endpoint += 1,
            Some(_) => self.no_session += link.stage(now, packet),
        }
    }

    pub(crate) fn give_up(&mut self, now: At, other: usize) {
        let link = self.links.get_mut(&other).expect("events are of peers");
        self.no_session += link.give_up(now);
    }

    /// Timers are about to be treated.
    pub(crate) fn before_timeout(&mut self, now: At) {
        for link in self.links.values_mut() {
            link.before_timeout(self.handled, now);
        }
    }

    /// Timers were treated.
    pub(crate) fn after_timeout(&mut self, now: At) {
        for link in self.links.values_mut() {
            link.after_timeout(now);
        }
        self.handled = now;
    }
}
