//! Hosts with a tunnel each, a lane for each made of a few lines, and a network in virtual time between them.
//!
//! Somebody listens on the wire all the time, and fails the test at once when a plaintext shows, a nonce
//! is used twice, or a stock peer is sent what it does not know. So does each host when a packet comes
//! twice or from the wrong peer.

// Each test binary uses a part of it.
#![allow(dead_code, reason = "shared by several test binaries")]

mod host;
mod packet;
mod wire_tap;

use std::time::Duration;

use proto::peer::PeerIndex;
use proto::tunnel::PeerConfig;
use proto::{PresharedKey, PrivateKey, PublicKey, Tunnel};
use simnet::{Conditions, Network, Random};
use wire::message::Kind;

use host::Chance;

pub(crate) use host::{Host, Options};
pub(crate) use wire_tap::{Heard, WireTap};

/// More steps than any test needs between two moments of its own.
const STEPS_MAX: usize = 200_000;

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) network: Network<std::net::SocketAddr, Vec<u8>>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) tap: WireTap,
    pub(crate) random: Random,
    packets: u64,
}

impl World {
    pub(crate) fn new(seed: u64, conditions: Conditions) -> Self {
        let mut random = Random::new(seed);
        Self {
            now: secs(1),
            network: Network::new(random.fork(), conditions),
            hosts: Vec::new(),
            tap: WireTap::default(),
            random,
            packets: 0,
        }
    }

    /// Two hosts that know each other and where they are.
    pub(crate) fn pair() -> Self {
        Self::pair_of(Options::default(), Options::default())
    }

    pub(crate) fn pair_of(first: Options, second: Options) -> Self {
        let mut world = Self::new(1, Conditions::GOOD);
        world.add(first);
        world.add(second);
        world.connect_all();
        world
    }

    pub(crate) fn add(&mut self, options: Options) -> usize {
        let id = self.hosts.len();
        let host = Host::new(id, options, self.random.fork());
        self.hosts.push(host);
        id
    }

    /// A host with this key.
    pub(crate) fn add_with_key(&mut self, options: Options, key: PrivateKey) -> usize {
        let id = self.hosts.len();
        let random = Chance(self.random.fork());
        self.hosts.push(Host::with_key(id, options, key, random));
        id
    }

    /// What `host` is told of `other`.
    pub(crate) fn config(&self, host: usize, other: usize) -> PeerConfig {
        let options = &self.hosts[host].options;
        PeerConfig {
            public_key: self.hosts[other].public_key,
            preshared_key: PresharedKey::default(),
            path: options.knows_paths.then(|| self.hosts[other].path()),
            keepalive: options.keepalive,
            allowed_ips: vec![packet::prefix(other)],
            invitation: false,
        }
    }

    /// Every host is a peer of every other.
    pub(crate) fn connect_all(&mut self) {
        for host in 0..self.hosts.len() {
            self.connect(host);
        }
    }

    pub(crate) fn connect(&mut self, host: usize) {
        let others = (0..self.hosts.len()).filter(|&other| other != host);
        let peers = others.map(|other| self.config(host, other)).collect();
        self.set_peers(host, peers);
    }

    pub(crate) fn set_peers(&mut self, host: usize, peers: Vec<PeerConfig>) -> Vec<PeerIndex> {
        let now = self.now;
        let indices = self.hosts[host].with_tunnel(now, |tunnel, ctx| tunnel.set_peers(ctx, peers));
        self.drain(host);
        indices
    }

    /// Sends a packet, as the lane of `from` does; returns its number.
    pub(crate) fn send(&mut self, from: usize, to: usize) -> u64 {
        self.send_as(from, from, to)
    }

    /// The same with the inner source of another host.
    pub(crate) fn send_as(&mut self, from: usize, source: usize, to: usize) -> u64 {
        self.packets += 1;
        let packet = packet::make(source, to, self.packets);
        let sent = self.hosts[from].send(self.now, &packet);
        if let Some((path, datagram)) = sent {
            self.put_on_wire(
                from,
                path.remote.socket_addr().expect("a wire is one of UDP"),
                datagram,
            );
        }
        self.drain(from);
        self.packets
    }

    /// Sends a packet and lets it arrive; it must.
    pub(crate) fn exchange(&mut self, from: usize, to: usize) {
        let number = self.send(from, to);
        self.run_for(millis(100));
        assert!(self.has_arrived(to, number), "packet {number} from {from} to {to}");
    }

    pub(crate) fn has_arrived(&self, host: usize, number: u64) -> bool {
        self.hosts[host].has_received(number)
    }

    /// Lets time pass up to `until`, doing what is due when it is due.
    pub(crate) fn run_until(&mut self, until: Duration) {
        for _ in 0..STEPS_MAX {
            let Some(next) = self.next_due().filter(|&next| next <= until) else {
                self.now = self.now.max(until);
                return;
            };
            self.now = self.now.max(next);
            self.step();
        }
        panic!("something is due over and over again at {:?}", self.now);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// A datagram from nowhere.
    pub(crate) fn inject(&mut self, to: usize, from: std::net::SocketAddr, datagram: &[u8]) {
        self.hosts[to].receive(self.now, from, datagram);
        self.drain(to);
    }

    /// The host is elsewhere from now on; nobody is told.
    pub(crate) fn roam(&mut self, host: usize) {
        self.hosts[host].move_away();
    }

    /// What the host sent since `since`.
    pub(crate) fn sent_since(&self, host: usize, since: Duration) -> Vec<&Heard> {
        let is_meant = |heard: &&Heard| heard.from == host && heard.at >= since;
        self.tap.heard.iter().filter(is_meant).collect()
    }

    /// When the host sent messages of this kind since `since`.
    pub(crate) fn times(&self, host: usize, since: Duration, kind: Kind) -> Vec<Duration> {
        let sent = self.sent_since(host, since).into_iter();
        sent.filter(|heard| heard.kind == kind).map(|heard| heard.at).collect()
    }

    pub(crate) fn host_with(&self, key: &PublicKey) -> Option<usize> {
        self.hosts.iter().position(|host| host.public_key == *key)
    }

    fn next_due(&self) -> Option<Duration> {
        let tunnels = self.hosts.iter().filter_map(Host::poll_timeout);
        tunnels.chain(self.network.poll_timeout()).min()
    }

    fn step(&mut self) {
        while let Some(delivery) = self.network.poll_delivery(self.now) {
            let to = self.hosts.iter().position(|host| host.address() == delivery.to);
            if let Some(to) = to {
                self.inject(to, delivery.from, &delivery.datagram);
            }
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].poll_timeout().is_some_and(|at| at <= self.now) {
                let now = self.now;
                self.hosts[host].with_tunnel(now, Tunnel::handle_timeout);
                self.drain(host);
            }
        }
    }

    /// Sends what the host's tunnel has to send, and keeps what it has to tell.
    pub(crate) fn drain(&mut self, host: usize) {
        for transmit in self.hosts[host].drain(self.now) {
            self.put_on_wire(
                host,
                transmit.path.remote.socket_addr().expect("a wire is one of UDP"),
                transmit.datagram,
            );
        }
    }

    fn put_on_wire(&mut self, from: usize, to: std::net::SocketAddr, datagram: Vec<u8>) {
        let receiver = self.hosts.iter().find(|host| host.address() == to);
        let is_stock = |host: &Host| !host.options.extensions;
        let is_for_stock = is_stock(&self.hosts[from]) || receiver.is_some_and(is_stock);
        self.tap.hear(self.now, from, receiver.map(|host| host.id), is_for_stock, &datagram);
        self.network.send(self.now, self.hosts[from].address(), to, datagram);
    }
}
