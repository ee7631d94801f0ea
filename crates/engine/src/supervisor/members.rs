//! The peers of a tunnel: who they are by the configuration, and where they are at the moment.
//!
//! # Theory of operation
//!
//! The configuration has an order, which is that of the peers' places here and in the table of a worker without
//! security. Where a peer is comes from its endpoint, and then from wherever it was heard of last. When the
//! configuration is read again, or changed by `wg`, who is in both stays where it is, unless its endpoint
//! is another one.

use std::collections::HashMap;

use device::Mode;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proto::key::PublicKey;
use proto::{Path, Peer, PeerIndex};

use super::keys::Keys;
use super::place::Place;
use crate::channel::key::Key;
use crate::channel::message::{PeerEntry, Peers, SealedEntry};
use crate::config::{self, Config};

/// The peers, in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    peers: Vec<Peer>,
    /// Their places.
    by_key: HashMap<PublicKey, u16>,
}

impl Members {
    /// The peers of `config`; `path` says where each is.
    pub(super) fn new<E>(
        config: &Config,
        mut path: impl FnMut(usize, &config::Peer) -> Result<Option<Path>, E>,
    ) -> Result<Self, E> {
        let peers: Vec<_> = config
            .peers
            .iter()
            .enumerate()
            .map(|(place, peer)| {
                let path = path(place, peer)?;
                let allowed_ips = allowed_ips(config, peer);
                Ok(Peer { name: peer.name.clone(), path, allowed_ips })
            })
            .collect::<Result<_, E>>()?;
        let keys = (0..).zip(&config.peers);
        let by_key = keys.filter_map(|(place, peer)| Some((peer.public_key?, place))).collect();
        Ok(Self { peers, by_key })
    }

    pub(super) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    pub(super) fn peer(&self, place: PeerIndex) -> Option<&Peer> {
        self.peers.get(usize::from(place.0))
    }

    /// The place of the peer with that key.
    pub(super) fn place(&self, key: &PublicKey) -> Option<PeerIndex> {
        self.by_key.get(key).copied().map(PeerIndex)
    }

    /// A peer is there from now on; whether that is news.
    pub(super) fn set_path(&mut self, place: PeerIndex, path: Path) -> bool {
        let Some(peer) = self.peers.get_mut(usize::from(place.0)) else { return false };
        let is_news = peer.path != Some(path);
        peer.path = Some(path);
        is_news
    }

    /// Where each peer is, as far as that is known.
    pub(super) fn places(&self) -> Vec<Option<Place>> {
        self.peers.iter().map(|peer| peer.path.as_ref().map(Place::of)).collect()
    }

    /// What a worker has to know of them.
    pub(super) fn entries(&self, config: &Config, keys: Option<&Keys>) -> Peers {
        let Some(keys) = keys else {
            return Peers::Plain(self.peers.iter().map(PeerEntry::from).collect());
        };
        let known = self.peers.iter().zip(&config.peers);
        let sealed = known.filter_map(|(peer, configured)| {
            let key = configured.public_key?;
            Some(SealedEntry {
                key: Key(key),
                preshared_key: keys.preshared.get(&key).map(Into::into),
                path: peer.path.map(Into::into),
                keepalive: configured.keepalive,
                allowed_ips: peer.allowed_ips.clone(),
                invitation: false,
            })
        });
        Peers::Sealed(sealed.collect())
    }
}

/// What a peer owns inside the tunnel. Frames are not routed by address: the only peer gets all of them.
fn allowed_ips(config: &Config, peer: &config::Peer) -> Vec<IpNet> {
    match config.device.mode {
        Mode::Tun => peer.allowed_ips.clone(),
        Mode::Tap => vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
    }
}
