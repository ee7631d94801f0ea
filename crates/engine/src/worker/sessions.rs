//! The sessions of a worker: the state machine of the protocol, driven by the first thread.
//!
//! # Theory of operation
//!
//! `proto::tunnel::Tunnel` has no clock, no randomness and no socket; this brings them. What lanes could not treat
//! ([`Work`]) and what the supervisor says go in; what is to be sent and what is to be told come out, until there is
//! nothing more; then the thread sleeps until the tunnel's next deadline.
//!
//! What the supervisor wants to know, where peers are and who does not answer, is told at most once in
//! [`TELL`], since a stranger on the way can make a peer seem to move with every datagram that it lets pass.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proto::InnerMtu;
use proto::enrol::{Answer, Message};
use proto::keypair::Ciphers;
use proto::mtu::Content;
use proto::random::Random;
use proto::ticket::Invitation;
use proto::time::Instant;
use proto::tunnel::{
    Context, Event, PeerConfig, PeerStatus, Timing, Transmit, Tunnel, TunnelConfig,
};
use proto::{Path, PeerIndex};
use transport::udp::{Destination, SendBatch, UdpSocket};

use super::clock;
use super::egress::Way;
use super::folder::Folder;
use super::lane::Peers;
use super::slow_path::Work;
use crate::channel::key::Key;
use crate::channel::message::{
    Carried, EnrolEntry, PathEntry, SealedEntry, SessionEntry, SessionSetup, ToSupervisor,
};
use crate::metrics::Totals;
use crate::status::Handshakes;

/// How often the supervisor is told where peers are and who does not answer.
const TELL: Duration = Duration::from_secs(1);

/// How often strangers are spoken of.
const SPEAK: Duration = Duration::from_secs(60);

/// So many messages are told at a time: together they fit into a socket's buffer, so that nobody waits for a
/// supervisor that is busy.
const NEWS_A_TIME: usize = 8;

/// Nothing is waited for any longer than that: the kernel's clock for waiting stands still while the machine sleeps, and
/// the clock of keys does not.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Under load since many handshakes waited, for so long after (drivers/net/wireguard/receive.c).
const LOADED: Duration = Duration::from_secs(1);

/// Peers in one message to the supervisor, so that it stays below `FROM_WORKER`.
pub(crate) const PEERS_A_MESSAGE: usize = 100;

/// Sessions with peers.
pub(super) struct Sessions {
    tunnel: Tunnel,
    extensions: bool,
    random: Entropy,
    loaded_until: Instant,
    batch: SendBatch,
    news: News,
    wishes: Wishes,
}

/// Who hold tickets and want to be peers, of which the supervisor does not know yet.
#[derive(Default)]
struct Wishes {
    waiting: VecDeque<EnrolEntry>,
    /// Not told before that.
    not_before: Instant,
    /// Handshakes of strangers, when they were last spoken of, and when that may be done again.
    strangers: u64,
    not_said_before: Instant,
}

/// What the supervisor does not know yet.
#[derive(Default)]
struct News {
    roamed: BTreeMap<Key, PathEntry>,
    unanswered: BTreeSet<Key>,
    /// Not told before that.
    not_before: Instant,
}

impl Sessions {
    pub(super) fn new(setup: &SessionSetup, mtu: u32, content: Content, offload: bool) -> Self {
        let config = TunnelConfig {
            private_key: (&setup.private_key).into(),
            ciphers: Ciphers { chacha: setup.chacha, aes: setup.aes },
            content,
            mtu: InnerMtu(mtu),
            offload,
            extensions: setup.extensions,
            timing: Timing { rekey_after: setup.rekey_after },
        };
        let tunnel = Tunnel::new(config, &context(&mut Entropy));
        let (loaded_until, news) = (Instant::ZERO, News::default());
        Self {
            tunnel,
            extensions: setup.extensions,
            random: Entropy,
            loaded_until,
            batch: SendBatch::new(),
            news,
            wishes: Wishes::default(),
        }
    }

    /// What lanes read.
    pub(super) fn peers(&self) -> Peers {
        let directory = Arc::clone(self.tunnel.directory());
        Peers::Sealed { directory, extensions: self.extensions }
    }

    /// From here on these are the peers; with `initiate`, they are told at once that there are new keys.
    pub(super) fn replace_peers(&mut self, peers: Vec<SealedEntry>, initiate: bool) {
        let peers = peers.into_iter().map(PeerConfig::from).collect();
        let context = &mut context(&mut self.random);
        let places = self.tunnel.set_peers(context, peers);
        if initiate {
            for peer in places {
                self.tunnel.initiate(context, peer);
            }
        }
    }

    /// A peer is elsewhere.
    pub(super) fn set_path(&mut self, key: Key, path: PathEntry) {
        if let Some(peer) = self.tunnel.peer(&key.0) {
            let context = &mut context(&mut self.random);
            self.tunnel.set_path(peer, path.into());
            // It did not answer where it was.
            self.tunnel.initiate(context, peer);
        }
    }

    /// A peer may be elsewhere, if it still does not answer where it is.
    pub(super) fn try_path(&mut self, key: Key, path: PathEntry) {
        let Some(peer) = self.tunnel.peer(&key.0) else { return };
        if self.tunnel.try_path(clock::now(), peer, path.into()) {
            return;
        }
        // The supervisor takes it to be there.
        let status = self.tunnel.status(peer, clock::now());
        if let Some(path) = status.and_then(|status| status.path) {
            self.news.roamed.insert(key, path.into());
        }
    }

    /// Says an answer to who holds a ticket. If the keypair is gone, it asks again with another one.
    pub(super) fn answer(&mut self, index: u32, answer: Answer) {
        let message = Message::Enrolled(answer);
        if !self.tunnel.say(&mut context(&mut self.random), index, &message) {
            tracing::debug!("who asked with a ticket is not there any more");
        }
    }

    /// Treats what lanes could not.
    pub(super) fn handle(&mut self, work: Work) {
        let context = &mut context(&mut self.random);
        if work.is_loaded {
            self.loaded_until = context.now + LOADED;
        }
        let under_load = context.now < self.loaded_until;
        for peer in work.looks {
            self.tunnel.handle_look(context, PeerIndex(peer));
        }
        for (index, message) in work.controls {
            self.tunnel.handle_control(context, index, &message);
        }
        for (peer, packet) in work.packets {
            self.tunnel.handle_outgoing(context, peer, &packet);
        }
        for handshake in work.handshakes {
            // Each takes long enough to be noticed.
            context.now = clock::now();
            let datagram = handshake.datagram();
            self.tunnel.handle_handshake(context, &handshake.from, datagram, under_load);
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self) {
        self.tunnel.handle_timeout(&mut context(&mut self.random));
    }

    /// When something is due next, from now on; nothing waits longer than that.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let told = (!self.news.is_empty()).then_some(self.news.not_before);
        let wished = (!self.wishes.waiting.is_empty()).then_some(self.wishes.not_before);
        let next = self.tunnel.poll_timeout().into_iter().chain(told).chain(wished).min()?;
        Some(next.since(clock::now()).min(LONGEST_WAIT))
    }

    /// Sends what the tunnel has to send.
    pub(super) fn transmit(&mut self, sockets: &[UdpSocket], folders: &[Arc<Folder>]) {
        while let Some(Transmit { path, datagram }) = self.tunnel.poll_transmit() {
            match Way::of(&path) {
                Way::Socket(place, destination) => {
                    let Some(socket) = sockets.get(place) else { continue };
                    self.send(socket, &destination, &datagram);
                }
                Way::Folder(place, side) => {
                    let Some(folder) = folders.get(place) else { continue };
                    folder.mail.post(side, &datagram);
                }
            }
        }
    }

    fn send(&mut self, socket: &UdpSocket, destination: &Destination, datagram: &[u8]) {
        let Some(room) = self.batch.reserve(datagram.len()) else { return };
        room.copy_from_slice(datagram);
        self.batch.commit(datagram.len(), destination);
        let outcome = socket.send(&mut self.batch);
        if let Some(error) = outcome.error {
            tracing::debug!("send to {}: {error}", destination.remote);
        }
        // What cannot leave now is sent again by its timer, or was never promised to arrive.
        self.batch.clear();
    }

    /// What the supervisor is to be told now.
    pub(super) fn news(&mut self) -> Vec<ToSupervisor> {
        while let Some(event) = self.tunnel.poll_event() {
            self.note(&event);
        }
        let now = clock::now();
        self.wishes.speak_of_strangers(now, self.tunnel.counters().unknown_peer);
        let wishes = self.wishes.take(now);
        if self.news.is_empty() || now < self.news.not_before {
            return wishes.into_iter().collect();
        }
        self.news.not_before = now + TELL;
        let mut news = self.news.take(NEWS_A_TIME * PEERS_A_MESSAGE);
        news.extend(wishes);
        news
    }

    fn note(&mut self, event: &Event) {
        let Some(status) = self.tunnel.status(event.peer(), clock::now()) else { return };
        let key = Key(status.public_key);
        match event {
            Event::Established { .. } => tracing::debug!("peer {}: new keys", status.public_key),
            Event::PathChanged { .. } => {
                if let Some(path) = status.path {
                    self.news.roamed.insert(key, path.into());
                }
            }
            Event::HandshakeFailed { .. } => {
                self.news.unanswered.insert(key);
            }
            Event::GaveUp { .. } => {
                tracing::info!("peer {} does not answer", status.public_key);
                self.news.unanswered.insert(key);
            }
            Event::Said { index, message: Message::Enrol(enrolment), .. } => {
                let (joiner, name) = (Key(enrolment.public_key), enrolment.name.clone());
                self.wishes.add(EnrolEntry { identity: key, index: *index, joiner, name });
            }
            Event::Greeted { .. } | Event::Said { .. } | Event::Unsaid { .. } => {}
        }
    }

    /// How it stands with every peer.
    pub(super) fn entries(&self) -> Vec<ToSupervisor> {
        let entries: Vec<_> =
            self.tunnel.statuses(clock::now()).into_iter().map(SessionEntry::from).collect();
        entries.chunks(PEERS_A_MESSAGE).map(|some| ToSupervisor::Sessions(some.into())).collect()
    }

    /// What became of handshakes.
    pub(super) fn handshakes(&self) -> Handshakes {
        let counters = self.tunnel.counters();
        Handshakes::from_iter([
            ("initiations_sent", counters.initiations_sent),
            ("initiations_received", counters.initiations_received),
            ("responses_sent", counters.responses_sent),
            ("responses_received", counters.responses_received),
            ("cookie_replies_sent", counters.cookie_replies_sent),
            ("cookie_replies_received", counters.cookie_replies_received),
            ("bad_mac1", counters.bad_mac1),
            ("rate_limited", counters.rate_limited),
            ("replayed_initiations", counters.replayed_initiations),
            ("unknown_peer", counters.unknown_peer),
            ("established", counters.established),
            ("control_given_up", counters.control_given_up),
        ])
    }

    /// What was dropped on the slow path.
    pub(super) fn drops(&self) -> Totals {
        Totals::of_drops(self.tunnel.drops())
    }

    /// The largest inner packet has another size.
    pub(super) fn set_mtu(&mut self, mtu: u32) {
        self.tunnel.set_mtu(InnerMtu(mtu));
    }
}

impl Wishes {
    /// One that finds no room is asked again.
    fn add(&mut self, entry: EnrolEntry) {
        if self.waiting.len() < Invitation::COUNT_MAX {
            self.waiting.push_back(entry);
        }
    }

    /// What is to be told at `now`: at once, and then not before [`TELL`].
    fn take(&mut self, now: Instant) -> Option<ToSupervisor> {
        if self.waiting.is_empty() || now < self.not_before {
            return None;
        }
        self.not_before = now + TELL;
        Some(ToSupervisor::Enrols(self.waiting.drain(..).collect()))
    }

    /// Says that handshakes of strangers came, of which there were so many by now. Only who knows this side's public key can
    /// begin one.
    fn speak_of_strangers(&mut self, now: Instant, strangers: u64) {
        if strangers > self.strangers && now >= self.not_said_before {
            tracing::info!(
                "{} handshakes of keys that are nobody's were not answered: a peer that was removed, or a \
                 ticket that is unknown here",
                strangers - self.strangers
            );
            self.strangers = strangers;
            self.not_said_before = now + SPEAK;
        }
    }
}

impl News {
    /// What is to be told of so many peers at most.
    fn take(&mut self, most: usize) -> Vec<ToSupervisor> {
        let roamed: Vec<_> = std::iter::from_fn(|| self.roamed.pop_first()).take(most).collect();
        let most = most - roamed.len();
        let unanswered: Vec<_> =
            std::iter::from_fn(|| self.unanswered.pop_first()).take(most).collect();
        let roamed = roamed.chunks(PEERS_A_MESSAGE).map(|some| ToSupervisor::Roamed(some.into()));
        let unanswered = unanswered.chunks(PEERS_A_MESSAGE);
        roamed.chain(unanswered.map(|some| ToSupervisor::Unanswered(some.into()))).collect()
    }

    fn is_empty(&self) -> bool {
        self.roamed.is_empty() && self.unanswered.is_empty()
    }
}

fn context(random: &mut Entropy) -> Context<'_> {
    Context { now: clock::now(), wall: clock::wall(), random }
}

/// The kernel's randomness (getrandom(2)).
pub(crate) struct Entropy;

impl Random for Entropy {
    fn fill(&mut self, octets: &mut [u8]) {
        let mut filled = 0;
        while let Some(rest) = octets.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                // Every kernel since 3.17 has it. Without it there are no keys, so no tunnel either.
                Err(error) => panic!("getrandom: {error}"),
            }
        }
    }
}

impl From<SealedEntry> for PeerConfig {
    fn from(entry: SealedEntry) -> Self {
        Self {
            public_key: entry.key.0,
            preshared_key: entry.preshared_key.as_ref().map(Into::into).unwrap_or_default(),
            path: entry.path.map(Path::from),
            keepalive: entry.keepalive,
            allowed_ips: entry.allowed_ips,
            invitation: entry.invitation,
        }
    }
}

impl From<PeerStatus> for SessionEntry {
    fn from(status: PeerStatus) -> Self {
        let traffic = status.traffic;
        Self {
            key: Key(status.public_key),
            path: status.path.map(PathEntry::from),
            handshake: status.last_handshake,
            cipher: status.cipher,
            extensions: status.is_adit,
            sent: Carried { messages: traffic.sent_messages, octets: traffic.sent_octets },
            received: Carried {
                messages: traffic.received_messages,
                octets: traffic.received_octets,
            },
        }
    }
}
