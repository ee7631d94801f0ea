//! The slow path of the session: handshakes, keys, timers, control frames.
//!
//! # Theory of operation
//!
//! A tunnel is one private key and its peers. Lanes carry packets with what the [`Directory`] and the
//! sessions in it say; everything else is decided here, by one task, which waits for nothing itself.
//! Something comes in by `handle_*`; then the task drains every `poll_*`, and waits until
//! [`Tunnel::poll_timeout`] or the next input. A lane hands over:
//!
//! | what | when |
//! |---|---|
//! | [`handle_handshake`](Tunnel::handle_handshake) | a message that is not data arrived |
//! | [`handle_outgoing`](Tunnel::handle_outgoing) | there is a packet, but no keypair to seal it with |
//! | [`handle_control`](Tunnel::handle_control) | a control frame was opened |
//! | [`handle_look`](Tunnel::handle_look) | the session's `sent` or `received` said so |
//!
//! WireGuard's rules are those of the whitepaper, section 6, with Linux's answers (`drivers/net/wireguard`) where it
//! is silent. The parts have files of their own: handshakes, the succession of keys, the packets that wait,
//! and a peer with its timers.
//!
//! # What adit adds
//!
//! An initiation carries a mark ([`tai64n`](crate::tai64n)) that stock peers do not see. A responder that
//! finds it says *hello* in a control frame as soon as the keypair is confirmed, and who hears a hello
//! says its own, once with each keypair. Only who has heard a hello uses frames, so a stock peer never gets one.
//! Ethernet frames, and any data if only AES-256-GCM is allowed, wait for the hello. While new keys wait for it,
//! data goes on with the old ones.
//!
//! A peer that is known by a ticket alone says who it wants to be, carries no data, and is asked for new keys until it has
//! said hello ([`enrol`](crate::enrol)).
//!
//! # Limits
//!
//! Packets that wait: 128 a peer and 16 MiB over all, the oldest dropped first. Initiations: one a peer and `REKEY_TIMEOUT`
//! sent, 50 a peer and second answered. Timers treated at a time: [`TIMERS_A_TURN`]. Datagrams and events that nobody
//! polls for are dropped beyond some thousands. Peers: [`PeerTable::CAPACITY`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::directory::Directory;
use crate::drop_reason::DropReason;
use crate::enrol::Message;
use crate::key::PublicKey;
use crate::mtu::{Content, InnerMtu};
use crate::path::Path;
use crate::peer::{PeerIndex, PeerTable};
use crate::routing::Routing;
use crate::time::Instant;

mod config;
mod core;
mod enrolment;
mod handshake;
mod keys;
mod remote;
mod staged;
mod status;

use self::core::Core;
use remote::Remote;

pub use config::{Context, PeerConfig, Timing, TunnelConfig};
pub use handshake::{INITIATION_INTERVAL, REKEY_ATTEMPT_TIME};
pub use status::{Event, HandshakeCounters, PeerStatus, Transmit};

/// So many timers are treated in one [`Tunnel::handle_timeout`]; the others are due right after it.
pub const TIMERS_A_TURN: usize = 256;

/// The place of a peer that was removed stays empty until so many others were removed, so that what is still on its
/// way to the old peer does not meet a new one.
const RESTING_PLACES: usize = 64;

/// All peers of one private key.
pub struct Tunnel {
    core: Core,
    remotes: Vec<Option<Remote>>,
    by_key: BTreeMap<PublicKey, PeerIndex>,
    /// Empty places, the one that became empty first in front.
    empty: VecDeque<PeerIndex>,
    directory: Arc<ArcSwap<Directory>>,
}

impl Tunnel {
    /// A tunnel without peers.
    ///
    /// Its timestamps do not go back behind the wall clock of this moment, whatever that clock does later.
    pub fn new(config: TunnelConfig, ctx: &Context<'_>) -> Self {
        let core = Core::new(config, ctx.wall);
        let routing = Routing::new([]);
        let directory = Directory::new(routing, Arc::clone(&core.keypairs), Vec::new());
        Self {
            core,
            remotes: Vec::new(),
            by_key: BTreeMap::new(),
            empty: VecDeque::new(),
            directory: Arc::new(ArcSwap::from_pointee(directory)),
        }
    }

    /// By what the peers know this side.
    pub fn public_key(&self) -> PublicKey {
        self.core.identity.public()
    }

    /// The place of the peer with this key.
    pub fn peer(&self, key: &PublicKey) -> Option<PeerIndex> {
        self.by_key.get(key).copied()
    }

    /// The device has another MTU, which peers are told of with the next keys.
    pub fn set_mtu(&mut self, mtu: InnerMtu) {
        self.core.mtu = mtu;
    }

    /// What the lanes read; another one is published whenever peers are set.
    pub fn directory(&self) -> &Arc<ArcSwap<Directory>> {
        &self.directory
    }

    /// Replaces the peers, and returns their indices in the order of `peers`.
    ///
    /// A peer that was there before keeps its index, its keys and, unless its configuration has a path, where it
    /// is. Another preshared key ends the handshakes that are not completed; keys that are there live on.
    /// Of equal prefixes the last peer owns it; of equal public keys the last configuration counts. Peers
    /// beyond [`PeerTable::CAPACITY`] are left out.
    pub fn set_peers(&mut self, ctx: &Context<'_>, mut peers: Vec<PeerConfig>) -> Vec<PeerIndex> {
        peers.truncate(PeerTable::CAPACITY);
        let wanted: BTreeSet<_> = peers.iter().map(|peer| peer.public_key).collect();
        let unwanted: Vec<_> =
            self.by_key.keys().filter(|key| !wanted.contains(key)).copied().collect();
        for key in unwanted {
            self.remove_peer(key);
        }
        let indices: Vec<_> = peers.into_iter().map(|peer| self.set_peer(ctx.now, peer)).collect();
        self.publish(&indices);
        indices
    }

    /// The peer is there, as somebody else found out; it is not told to anybody.
    pub fn set_path(&mut self, peer: PeerIndex, path: Path) {
        if let Some((remote, _)) = self.find(peer) {
            remote.session.set_path(path);
        }
    }

    /// The peer may be at `path`: the next initiation goes there, if one is due and nothing has come from the peer
    /// for `REKEY_TIMEOUT`, so that a lost datagram moves nobody. Whether that is so.
    pub fn try_path(&mut self, now: Instant, peer: PeerIndex, path: Path) -> bool {
        let Some((remote, _)) = self.find(peer) else { return false };
        let is_lost = remote.is_lost(now);
        if is_lost {
            remote.session.set_path(path);
        }
        is_lost
    }

    /// Makes new keys, in the next [`Self::handle_timeout`]s or `REKEY_TIMEOUT` after the last initiation.
    pub fn initiate(&mut self, ctx: &mut Context<'_>, peer: PeerIndex) {
        if let Some((remote, core)) = self.find(peer) {
            remote.schedule_handshake(core, ctx.now);
        }
    }

    /// An initiation, response or cookie reply, or what came in its place. Under load only who has a cookie is
    /// heard.
    pub fn handle_handshake(
        &mut self,
        ctx: &mut Context<'_>,
        from: &Path,
        datagram: &[u8],
        under_load: bool,
    ) {
        let Err(reason) = self.receive_handshake(ctx, from, datagram, under_load) else { return };
        self.core.dropped(reason, 1);
        match reason {
            DropReason::RateLimited => self.core.counters.rate_limited += 1,
            DropReason::StaleTimestamp => self.core.counters.replayed_initiations += 1,
            DropReason::UnknownPeer => self.core.counters.unknown_peer += 1,
            _ => {}
        }
    }

    /// A complete packet or frame of the device for which the lane had no keypair: it waits for one, and
    /// a handshake begins.
    pub fn handle_outgoing(&mut self, ctx: &mut Context<'_>, peer: PeerIndex, packet: &[u8]) {
        // Whose it is may have changed since the lane asked.
        if self.core.content == Content::Packet
            && self.directory.load().routing.route(Content::Packet, packet) != Ok(peer)
        {
            return self.core.dropped(DropReason::NoPeer, 1);
        }
        match self.find(peer) {
            Some((remote, core)) => remote.handle_outgoing(core, ctx, packet),
            None => self.core.dropped(DropReason::NoPeer, 1),
        }
    }

    /// A control frame that a lane opened with the keypair of this receiver index.
    pub fn handle_control(&mut self, ctx: &mut Context<'_>, index: u32, frame: &[u8]) {
        if !self.core.extensions {
            return self.core.dropped(DropReason::UnknownFrame, 1);
        }
        let peer = self.core.keypairs.get(index).map(|found| found.peer());
        match peer.and_then(|peer| self.find(peer)) {
            Some((remote, core)) => {
                // The frame may be the first message, and overtake the look at what it confirmed.
                remote.look(core, ctx);
                remote.handle_control(core, ctx, index, frame);
            }
            None => self.core.dropped(DropReason::UnknownReceiver, 1),
        }
    }

    /// Says a message to the peer of an invitation with the keypair of this receiver index. It is repeated until it arrives,
    /// or [`Event::Unsaid`] tells that it may not have.
    ///
    /// False, and nothing is said, if the peer has not said hello with this keypair, the keypair is gone, or the
    /// message cannot be written.
    pub fn say(&mut self, ctx: &mut Context<'_>, index: u32, message: &Message) -> bool {
        let peer = self.core.keypairs.get(index).map(|found| found.peer());
        let found = peer.and_then(|peer| self.find(peer));
        found.is_some_and(|(remote, core)| remote.say(core, ctx, index, message))
    }

    /// A lane was told that the tunnel must look at this peer.
    pub fn handle_look(&mut self, ctx: &mut Context<'_>, peer: PeerIndex) {
        if let Some((remote, core)) = self.find(peer) {
            remote.look(core, ctx);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        for _ in 0..TIMERS_A_TURN {
            let Some((peer, timer)) = self.core.timers.pop_due(ctx.now) else { return };
            if let Some((remote, core)) = self.find(peer) {
                remote.handle_timer(core, ctx, timer);
            }
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.core.outbox.pop_front()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is due; long ago while something waits to be polled.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_drained = self.core.outbox.is_empty() && self.core.events.is_empty();
        if is_drained { self.core.timers.next() } else { Some(Instant::ZERO) }
    }

    /// How a peer is.
    pub fn status(&self, peer: PeerIndex, now: Instant) -> Option<PeerStatus> {
        Some(self.remotes.get(usize::from(peer.0))?.as_ref()?.status(now))
    }

    /// How all peers are, in the order of their indices.
    pub fn statuses(&self, now: Instant) -> Vec<PeerStatus> {
        self.remotes.iter().flatten().map(|remote| remote.status(now)).collect()
    }

    /// Handshake messages that passed, and those that did not.
    pub fn counters(&self) -> &HandshakeCounters {
        &self.core.counters
    }

    /// What was dropped here, by [`DropReason::index`].
    pub fn drops(&self) -> &[u64; DropReason::ALL.len()] {
        &self.core.drops
    }

    fn find(&mut self, peer: PeerIndex) -> Option<(&mut Remote, &mut Core)> {
        let remote = self.remotes.get_mut(usize::from(peer.0))?.as_mut()?;
        Some((remote, &mut self.core))
    }

    fn set_peer(&mut self, now: Instant, config: PeerConfig) -> PeerIndex {
        if let Some(&peer) = self.by_key.get(&config.public_key) {
            if let Some((remote, core)) = self.find(peer) {
                remote.reconfigure(core, now, config);
            }
            return peer;
        }
        let peer = self.take_place();
        self.by_key.insert(config.public_key, peer);
        let remote = Remote::new(&self.core, peer, config);
        remote.start(&mut self.core, now);
        self.remotes[usize::from(peer.0)] = Some(remote);
        peer
    }

    fn remove_peer(&mut self, key: PublicKey) {
        let Some(peer) = self.by_key.remove(&key) else { return };
        if let Some(mut remote) = self.remotes[usize::from(peer.0)].take() {
            remote.remove(&mut self.core);
        }
        self.empty.push_back(peer);
    }

    /// An empty place, a new one if there is room and few others are empty.
    fn take_place(&mut self) -> PeerIndex {
        let is_full = self.remotes.len() >= PeerTable::CAPACITY;
        if (is_full || self.empty.len() > RESTING_PLACES)
            && let Some(peer) = self.empty.pop_front()
        {
            return peer;
        }
        self.remotes.push(None);
        PeerIndex(u16::try_from(self.remotes.len() - 1).unwrap_or(u16::MAX))
    }

    /// Publishes a directory in which a peer owns a prefix if none after it does.
    fn publish(&self, order: &[PeerIndex]) {
        let remote = |peer: &PeerIndex| self.remotes.get(usize::from(peer.0))?.as_ref();
        let owned = order.iter().filter_map(|peer| Some((*peer, remote(peer)?)));
        let owned = owned.filter(|(_, remote)| !remote.config.invitation);
        let routing = Routing::new(owned.flat_map(|(peer, remote)| {
            remote.config.allowed_ips.iter().map(move |&prefix| (prefix, peer))
        }));
        let session = |remote: &Option<Remote>| Some(Arc::clone(&remote.as_ref()?.session));
        let sessions = self.remotes.iter().map(session).collect();
        let keypairs = Arc::clone(&self.core.keypairs);
        self.directory.store(Arc::new(Directory::new(routing, keypairs, sessions)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Session;

    #[test]
    fn a_peer_without_keys_takes_little_memory() {
        let timers = crate::timer::Timer::ALL.len() * size_of::<Option<Instant>>();
        let octets = size_of::<Option<Remote>>() + size_of::<Session>() + timers;
        assert!(octets <= 2048, "{octets} octets");
    }

    #[test]
    fn keys_take_less_than_sixteen_kibibytes_a_peer() {
        // Three keypairs, each of which has four keys of aws-lc on the heap beside what is counted here.
        let octets = 3 * size_of::<crate::keypair::Keypair>();
        assert!(octets <= 16 << 10, "{octets} octets");
    }
}
