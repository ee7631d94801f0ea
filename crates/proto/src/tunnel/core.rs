//! What all peers of a tunnel share in the slow path.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wire::frame::{Features, Hello, Mode};

use super::config::{Context, Timing, TunnelConfig};
use super::status::{Event, HandshakeCounters, Transmit};
use crate::cookie::Checker;
use crate::drop_reason::DropReason;
use crate::keypair::{Ciphers, Keypair};
use crate::keypairs::{Indices, KeypairTable};
use crate::mtu::{Content, InnerMtu};
use crate::noise::Identity;
use crate::path::Path;
use crate::peer::PeerIndex;
use crate::ratelimit::RateLimiter;
use crate::tai64n::Tai64n;
use crate::time::Instant;
use crate::timer::{JITTER_MAX, Timer, Timers};

/// The most datagrams that wait to be sent, far more than one input makes.
pub(super) const OUTBOX_MAX: usize = 4096;
/// The most events that wait to be read, far more than one input makes.
pub(super) const EVENTS_MAX: usize = 4096;

pub(super) struct Core {
    pub(super) identity: Identity,
    pub(super) ciphers: Ciphers,
    pub(super) content: Content,
    pub(super) mtu: InnerMtu,
    offload: bool,
    pub(super) timing: Timing,
    pub(super) extensions: bool,
    pub(super) keypairs: Arc<KeypairTable>,
    indices: Indices,
    /// Whose unanswered initiation has the sender index.
    pub(super) initiating: BTreeMap<u32, PeerIndex>,
    pub(super) timers: Timers,
    pub(super) checker: Checker,
    pub(super) limiter: RateLimiter,
    /// Octets that wait for sessions.
    pub(super) staged: usize,
    /// The greatest timestamp sent to anybody, or when the tunnel began.
    pub(super) timestamp: Tai64n,
    pub(super) outbox: VecDeque<Transmit>,
    pub(super) events: VecDeque<Event>,
    pub(super) counters: HandshakeCounters,
    pub(super) drops: [u64; DropReason::ALL.len()],
}

impl Core {
    pub(super) fn new(config: TunnelConfig, wall: Duration) -> Self {
        let identity = Identity::new(config.private_key);
        Self {
            checker: Checker::new(&identity.public()),
            identity,
            ciphers: config.ciphers,
            content: config.content,
            mtu: config.mtu,
            offload: config.offload,
            timing: config.timing,
            extensions: config.extensions,
            keypairs: Arc::new(KeypairTable::new()),
            indices: Indices::new(),
            initiating: BTreeMap::new(),
            timers: Timers::default(),
            limiter: RateLimiter::new(),
            staged: 0,
            timestamp: timestamp(wall, config.extensions),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            counters: HandshakeCounters::default(),
            drops: [0; DropReason::ALL.len()],
        }
    }

    pub(super) fn transmit(&mut self, path: Path, datagram: Vec<u8>) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back(Transmit { path, datagram });
        } else {
            self.dropped(DropReason::SendFailed, 1);
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(super) fn dropped(&mut self, reason: DropReason, packets: u64) {
        self.drops[reason.index()] += packets;
    }

    /// Arms a timer for a wait that began at `since`, a little late at random.
    pub(super) fn arm_jittered(
        &mut self,
        ctx: &mut Context<'_>,
        peer: PeerIndex,
        timer: Timer,
        at: Instant,
    ) {
        let jitter = JITTER_MAX.mul_f64(f64::from(ctx.random.u32()) / f64::from(u32::MAX));
        self.timers.arm(peer, timer, at + jitter);
    }

    /// A timestamp that is greater than `last`, the one that the same peer got before, and not less than any
    /// other, whatever the wall clock does.
    pub(super) fn next_timestamp(&mut self, wall: Duration, last: Tai64n) -> Tai64n {
        let timestamp = timestamp(wall, self.extensions).max(self.timestamp);
        let timestamp = if timestamp <= last { last.next() } else { timestamp };
        self.timestamp = timestamp;
        timestamp
    }

    pub(super) fn claim_index(&mut self, ctx: &mut Context<'_>) -> Option<u32> {
        self.indices.claim(ctx.random)
    }

    pub(super) fn release_index(&mut self, index: u32) {
        self.indices.release(index);
    }

    /// Nobody uses the keypair from now on.
    pub(super) fn discard(&mut self, keypair: &Keypair) {
        keypair.retire();
        self.keypairs.remove(keypair.local());
        self.indices.release(keypair.local());
    }

    /// What this side is.
    pub(super) fn hello(&self) -> Hello {
        let (mode, takes) = match self.content {
            Content::Packet => (Mode::Packets, Features::UNCHECKED),
            Content::Frame => (Mode::Frames, Features::ETHERNET),
        };
        let only_if = |holds, feature| if holds { feature } else { Features::default() };
        let aes = only_if(self.ciphers.aes, Features::AES_256_GCM);
        let offload = only_if(self.offload, Features::OFFLOAD);
        let features = takes.union(aes).union(offload);
        Hello { version: Hello::VERSION, mode, mtu: self.mtu.0, features }
    }
}

fn timestamp(wall: Duration, is_marked: bool) -> Tai64n {
    let timestamp = Tai64n::from_unix(wall);
    if is_marked { timestamp.marked() } else { timestamp }
}
