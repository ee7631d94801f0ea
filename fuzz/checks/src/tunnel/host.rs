//! A host: the tunnel that is checked, and lanes made of a few lines.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use proto::keypair::Ciphers;
use proto::mtu::{Content, InnerMtu};
use proto::path::{Path, TransportIndex};
use proto::peer::PeerIndex;
use proto::session::{Received, Sent, padding};
use proto::tunnel::{Context, Event, Timing, Transmit, Tunnel, TunnelConfig};
use proto::{DropReason, Instant, PrivateKey, PublicKey};
use wire::frame::{self, Kind as FrameKind};
use wire::message::{DATA_OVERHEAD, DataHeader};

use super::model::At;
use super::packet;
use super::steps::Cast;

/// When virtual time begins, on the clock of the hosts.
const BOOT: Duration = Duration::from_secs(1000);
/// When it begins for people.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// Octets that repeat with the host. Its keys are as good as any for whoever does not guess.
struct Chance {
    state: u64,
    host: u32,
    calls: u32,
}

pub(crate) struct Host {
    pub(crate) id: usize,
    pub(crate) tunnel: Tunnel,
    pub(crate) public_key: PublicKey,
    pub(crate) under_load: bool,
    pub(crate) mtu: u32,
    /// What a lane has to tell.
    pub(crate) pending: BTreeSet<PeerIndex>,
    pub(crate) is_lazy: bool,
    wall: Duration,
    port: u16,
    random: Chance,
}

/// What a lane opened.
pub(crate) struct Opened {
    pub(crate) peer: PeerIndex,
    pub(crate) receiver: u32,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) must_look: bool,
}

/// What the tunnel wants after it was told something.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) events: Vec<Event>,
    pub(crate) transmits: Vec<Transmit>,
}

/// What became of a packet of the device.
pub(crate) enum Outgoing {
    /// The lane sealed it, and tells whether the tunnel must look.
    Sealed(Transmit, PeerIndex, bool),
    /// The lane cannot.
    Handed(PeerIndex),
    Dropped,
}

impl Host {
    pub(crate) fn new(id: usize, cast: &Cast) -> Self {
        let is_set = |bits: u8| bits >> id & 1 == 1;
        let host = u32::try_from(id).expect("few hosts");
        let mut random = Chance { state: u64::from(host) << 32 | 0x9e37_79b9, host, calls: 0 };
        let private_key = PrivateKey::generate(&mut random);
        let ctx = Context { now: Instant::ZERO + BOOT, wall: EPOCH, random: &mut random };
        let config = TunnelConfig {
            private_key: private_key.clone(),
            ciphers: Ciphers { chacha: true, aes: is_set(cast.aes) },
            content: Content::Packet,
            offload: false,
            mtu: InnerMtu(1420),
            timing: Timing::default(),
            extensions: is_set(cast.extensions),
        };
        Self {
            id,
            tunnel: Tunnel::new(config, &ctx),
            public_key: private_key.public_key(),
            under_load: false,
            mtu: 1420,
            pending: BTreeSet::new(),
            is_lazy: is_set(cast.is_lazy),
            wall: EPOCH,
            port: 1000,
            random,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([192, 0, 2, u8::try_from(self.id + 1).expect("few hosts")], self.port).into()
    }

    pub(crate) fn move_away(&mut self) {
        self.port += 1;
    }

    pub(crate) fn set_wall(&mut self, wall: Duration) {
        self.wall = wall;
    }

    pub(crate) fn set_mtu(&mut self, mtu: u32) {
        self.mtu = mtu;
        self.tunnel.set_mtu(InnerMtu(mtu));
    }

    pub(crate) fn instant(&self, now: At) -> Instant {
        Instant::ZERO + BOOT + now
    }

    /// When the tunnel has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<At> {
        let at = self.tunnel.poll_timeout()?;
        Some(Duration::from_nanos(at.as_nanos()).saturating_sub(BOOT))
    }

    /// Tells the tunnel something, and drains it.
    pub(crate) fn with_tunnel<T>(
        &mut self,
        now: At,
        act: impl FnOnce(&mut Tunnel, &mut Context<'_>) -> T,
    ) -> (T, Output) {
        let now = self.instant(now);
        let wall = self.wall + now.since(Instant::ZERO + BOOT);
        let mut ctx = Context { now, wall, random: &mut self.random };
        let result = act(&mut self.tunnel, &mut ctx);
        let before = self.tunnel.poll_timeout();
        let output = Output {
            events: std::iter::from_fn(|| self.tunnel.poll_event()).collect(),
            transmits: std::iter::from_fn(|| self.tunnel.poll_transmit()).collect(),
        };
        if !output.events.is_empty() || !output.transmits.is_empty() {
            assert_eq!(before, Some(Instant::ZERO), "something waits to be polled");
        }
        (result, output)
    }

    /// What the egress lane does with a packet of the device.
    pub(crate) fn send(&self, now: At, packet: &[u8]) -> Outgoing {
        let here = self.instant(now);
        let directory = self.tunnel.directory().load_full();
        let Ok(peer) = directory.routing.route(Content::Packet, packet) else {
            return Outgoing::Dropped;
        };
        let session = directory.session(peer).expect("who owns a prefix has a session");
        let (Some(keypair), Some(path)) = (session.sealing(here), session.path()) else {
            return Outgoing::Handed(peer);
        };
        let padding = padding(packet.len(), InnerMtu(self.mtu));
        let mut datagram = vec![0; packet.len() + padding + DATA_OVERHEAD];
        let counter = keypair.reserve(1).expect("nobody sends so much");
        let len = keypair.seal(counter, packet, padding, &mut datagram).expect("there is room");
        assert_eq!(len, datagram.len());
        let must_look = session.sent(here, &keypair, 1, len, Sent::Data);
        Outgoing::Sealed(Transmit { path, datagram }, peer, must_look)
    }

    /// Wastes counters of the keypair that data is sealed with; whether there is one.
    pub(crate) fn skip(&self, now: At, peer: PeerIndex, count: usize) -> Option<u32> {
        let directory = self.tunnel.directory().load_full();
        let keypair = directory.session(peer)?.sealing(self.instant(now))?;
        keypair.reserve(count)?;
        Some(keypair.local())
    }

    /// What the ingress lane does with a data message.
    pub(crate) fn open(
        &self,
        now: At,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Opened, DropReason> {
        let here = self.instant(now);
        let mut datagram = datagram.to_vec();
        let header = DataHeader::parse(&datagram).map_err(|_| DropReason::NotAMessage)?;
        let directory = self.tunnel.directory().load_full();
        let found = directory.keypairs.get(header.receiver).ok_or(DropReason::UnknownReceiver)?;
        let (peer, keypair) = (found.peer(), found.keypair());
        if !keypair.is_alive(here) {
            return Err(DropReason::KeypairExpired);
        }
        let octets = datagram.len();
        let range = keypair.open(&header, &mut datagram)?;
        let plaintext = datagram[range].to_vec();
        let session = directory.session(peer).ok_or(DropReason::UnknownPeer)?;
        let kind = match frame::kind(&plaintext) {
            FrameKind::Keepalive | FrameKind::Control => Received::Keepalive,
            _ => Received::Data,
        };
        let must_look = session.received(here, keypair, &path(from), 1, octets, kind);
        Ok(Opened { peer, receiver: header.receiver, plaintext, must_look })
    }

    /// The packet that the device gets of a plaintext.
    pub(crate) fn admit<'a>(&self, peer: PeerIndex, plaintext: &'a [u8]) -> Option<&'a [u8]> {
        let packet = &plaintext[..frame::ip_len(plaintext)?];
        let directory = self.tunnel.directory().load();
        directory.routing.admit(Content::Packet, peer, packet).ok().map(|()| packet)
    }

    /// Packets dropped so far, on their way out and in.
    pub(crate) fn drops(&self) -> (Vec<u64>, u64) {
        let drops = self.tunnel.drops();
        let outgoing = DropReason::ALL.iter().filter(|reason| reason.is_outgoing()).count();
        (drops[..outgoing].to_vec(), drops[outgoing..].iter().sum())
    }
}

/// The way to somewhere.
pub(crate) fn path(remote: SocketAddr) -> Path {
    Path { transport: TransportIndex(0), remote: remote.into(), local: None }
}

/// Prefixes as the tunnel takes them.
pub(crate) fn allowed_ips<T: std::str::FromStr>(prefixes: &[packet::Prefix]) -> Vec<T> {
    let text = |&([a, b, c, d], len): &packet::Prefix| format!("{a}.{b}.{c}.{d}/{len}");
    prefixes.iter().filter_map(|prefix| text(prefix).parse().ok()).collect()
}

impl proto::Random for Chance {
    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ mixed >> 31).to_le_bytes()[..chunk.len()]);
        }
    }

    /// Never the same for two hosts, and seldom for one, so that no index means two things by chance.
    fn u32(&mut self) -> u32 {
        self.calls = self.calls.wrapping_add(1);
        self.calls.wrapping_mul(0x9e3) << 20 | self.host << 18
    }
}
