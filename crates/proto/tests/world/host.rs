//! A host: a tunnel, and lanes made of a few lines.

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
use simnet::{Random, WallClock};
use wire::frame::{self, Kind as FrameKind};
use wire::message::{self, DATA_OVERHEAD, DataHeader, Kind};

use super::packet;

/// When virtual time begins, on the clock of the hosts.
const BOOT: Duration = Duration::from_secs(1000);
/// When it begins for people.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Without, it is a stock peer.
    pub(crate) extensions: bool,
    pub(crate) content: Content,
    pub(crate) ciphers: Ciphers,
    pub(crate) keepalive: Option<Duration>,
    /// Whether it is told where its peers are.
    pub(crate) knows_paths: bool,
    pub(crate) timing: Timing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            extensions: true,
            content: Content::Packet,
            ciphers: Ciphers { chacha: true, aes: true },
            keepalive: None,
            knows_paths: true,
            timing: Timing::default(),
        }
    }
}

impl Options {
    pub(crate) fn stock() -> Self {
        Self { extensions: false, ciphers: Ciphers { chacha: true, aes: false }, ..Self::default() }
    }
}

pub(crate) struct Chance(pub(crate) Random);

impl proto::Random for Chance {
    fn fill(&mut self, octets: &mut [u8]) {
        self.0.fill(octets);
    }
}

pub(crate) struct Host {
    pub(crate) id: usize,
    pub(crate) options: Options,
    pub(crate) tunnel: Tunnel,
    pub(crate) public_key: PublicKey,
    pub(crate) wall: WallClock,
    pub(crate) under_load: bool,
    pub(crate) events: Vec<(Duration, Event)>,
    /// What the lanes dropped.
    pub(crate) dropped: Vec<DropReason>,
    /// How often a lane told the tunnel to look.
    pub(crate) looks: usize,
    /// Control and Ethernet frames, and unchecked packets.
    pub(crate) frames: usize,
    /// When a packet last came, and from which host's address.
    pub(crate) last_received: Option<Duration>,
    received: BTreeSet<u64>,
    private_key: PrivateKey,
    random: Chance,
    port: u16,
}

impl Host {
    pub(crate) fn new(id: usize, options: Options, random: Random) -> Self {
        let mut random = Chance(random);
        let private_key = PrivateKey::generate(&mut random);
        Self::with_key(id, options, private_key, random)
    }

    /// A host with a key that somebody else may have, too.
    pub(crate) fn with_key(
        id: usize,
        options: Options,
        private_key: PrivateKey,
        mut random: Chance,
    ) -> Self {
        let ctx = Context { now: Instant::ZERO + BOOT, wall: EPOCH, random: &mut random };
        let tunnel = tunnel(&private_key, options, &ctx);
        Self {
            id,
            options,
            tunnel,
            public_key: private_key.public_key(),
            wall: WallClock::new(EPOCH),
            under_load: false,
            events: Vec::new(),
            dropped: Vec::new(),
            looks: 0,
            frames: 0,
            last_received: None,
            received: BTreeSet::new(),
            private_key,
            random,
            port: 1000,
        }
    }

    /// A new process with the same key: everything else is forgotten.
    pub(crate) fn restart(&mut self, now: Duration) {
        let (private_key, options) = (self.private_key.clone(), self.options);
        self.with_tunnel(now, |old, ctx| *old = tunnel(&private_key, options, ctx));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([192, 0, 2, u8::try_from(self.id + 1).expect("few hosts")], self.port).into()
    }

    pub(crate) fn path(&self) -> Path {
        path(self.address())
    }

    pub(crate) fn move_away(&mut self) {
        self.port += 1;
    }

    pub(crate) fn has_received(&self, number: u64) -> bool {
        self.received.contains(&number)
    }

    pub(crate) fn instant(&self, now: Duration) -> Instant {
        Instant::ZERO + BOOT + now
    }

    pub(crate) fn with_tunnel<T>(
        &mut self,
        now: Duration,
        act: impl FnOnce(&mut Tunnel, &mut Context<'_>) -> T,
    ) -> T {
        let now_here = self.instant(now);
        let mut ctx = Context { now: now_here, wall: self.wall.at(now), random: &mut self.random };
        act(&mut self.tunnel, &mut ctx)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let at = self.tunnel.poll_timeout()?;
        Some(Duration::from_nanos(at.as_nanos()).saturating_sub(BOOT))
    }

    pub(crate) fn drain(&mut self, now: Duration) -> Vec<Transmit> {
        while let Some(event) = self.tunnel.poll_event() {
            self.events.push((now, event));
        }
        std::iter::from_fn(|| self.tunnel.poll_transmit()).collect()
    }

    /// What the egress lane does with a packet of the device.
    pub(crate) fn send(&mut self, now: Duration, packet: &[u8]) -> Option<(Path, Vec<u8>)> {
        let here = self.instant(now);
        let directory = self.tunnel.directory().load_full();
        let peer = match directory.routing.route(self.options.content, packet) {
            Ok(peer) => peer,
            Err(reason) => {
                self.dropped.push(reason);
                return None;
            }
        };
        let session = directory.session(peer).expect("who owns a prefix has a session");
        let (Some(keypair), Some(path)) = (session.sealing(here), session.path()) else {
            self.with_tunnel(now, |tunnel, ctx| tunnel.handle_outgoing(ctx, peer, packet));
            return None;
        };
        let (plaintext, padding) = match self.options.content {
            Content::Packet => (packet.to_vec(), padding(packet.len(), InnerMtu(1420))),
            Content::Frame => ([&[frame::ETHERNET], packet].concat(), 0),
        };
        let mut datagram = vec![0; plaintext.len() + padding + DATA_OVERHEAD];
        let counter = keypair.reserve(1).expect("no test sends so much");
        let len = keypair.seal(counter, &plaintext, padding, &mut datagram).expect("room");
        assert_eq!(len, datagram.len());
        if session.sent(here, &keypair, 1, len, Sent::Data) {
            self.look(now, peer);
        }
        Some((path, datagram))
    }

    /// What the ingress lane does with a datagram.
    pub(crate) fn receive(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) {
        if message::kind(datagram) != Some(Kind::Data) {
            let under_load = self.under_load;
            return self.with_tunnel(now, |tunnel, ctx| {
                tunnel.handle_handshake(ctx, &path(from), datagram, under_load);
            });
        }
        if let Err(reason) = self.open(now, from, &mut datagram.to_vec()) {
            self.dropped.push(reason);
        }
    }

    fn open(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let here = self.instant(now);
        let header = DataHeader::parse(datagram).map_err(|_| DropReason::NotAMessage)?;
        let directory = self.tunnel.directory().load_full();
        let found = directory.keypairs.get(header.receiver).ok_or(DropReason::UnknownReceiver)?;
        let (peer, keypair) = (found.peer(), found.keypair());
        if !keypair.is_alive(here) {
            return Err(DropReason::KeypairExpired);
        }
        let octets = datagram.len();
        let plaintext = keypair.open(&header, datagram)?;
        let plaintext = &datagram[plaintext];
        let session = directory.session(peer).ok_or(DropReason::UnknownPeer)?;
        let kind = frame::kind(plaintext);
        let received = match kind {
            FrameKind::Keepalive | FrameKind::Control => Received::Keepalive,
            _ => Received::Data,
        };
        if session.received(here, keypair, &path(from), 1, octets, received) {
            self.look(now, peer);
        }
        self.frames += usize::from(kind.is_extension());
        assert!(self.options.extensions || !kind.is_extension(), "a stock peer sees a frame");
        let packet = match (kind, self.options.content) {
            (FrameKind::Keepalive, _) => return Ok(()),
            (FrameKind::Control, _) => {
                let (index, frame) = (header.receiver, plaintext);
                self.with_tunnel(now, |tunnel, ctx| tunnel.handle_control(ctx, index, frame));
                return Ok(());
            }
            (FrameKind::Packet, Content::Packet) => {
                let len = frame::ip_len(plaintext).ok_or(DropReason::LengthMismatch)?;
                &plaintext[..len]
            }
            (FrameKind::Ethernet, Content::Frame) => &plaintext[1..],
            _ => return Err(DropReason::FrameNotAgreed),
        };
        directory.routing.admit(self.options.content, peer, packet)?;
        let number = packet::number(packet).expect("packets arrive whole");
        assert!(self.received.insert(number), "packet {number} comes twice");
        self.last_received = Some(now);
        Ok(())
    }

    fn look(&mut self, now: Duration, peer: PeerIndex) {
        self.looks += 1;
        self.with_tunnel(now, |tunnel, ctx| tunnel.handle_look(ctx, peer));
    }
}

fn path(remote: SocketAddr) -> Path {
    Path { transport: TransportIndex(0), remote: remote.into(), local: None }
}

fn tunnel(private_key: &PrivateKey, options: Options, ctx: &Context<'_>) -> Tunnel {
    let config = TunnelConfig {
        private_key: private_key.clone(),
        ciphers: options.ciphers,
        content: options.content,
        offload: false,
        mtu: InnerMtu(1420),
        timing: options.timing,
        extensions: options.extensions,
    };
    Tunnel::new(config, ctx)
}
