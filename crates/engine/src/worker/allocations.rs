//! The fast path allocates nothing: lanes between real devices, with every allocation of their thread counted.
//!
//! ```text
//!   host A                        host B
//!   adit0 192.0.2.1/24            adit0 192.0.2.2/24
//!     |  egress, ingress            |  egress, ingress       four lanes, which one thread serves
//!   eth0  10.1.0.1 -------------- eth0  10.1.0.2
//! ```
//!
//! The traffic is TCP of the kernel, so super-packets and trains of all lengths come by themselves. Buffers that grow
//! with what they have seen, and handshakes, are what the transfer before the counted one is for.
//! While allocations are counted nobody serves the slow path, and there must be nothing to serve.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket as Socket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use device::{Builder, DeviceName, Mode, Offload, Queue};
use lab::{Deadline, Host, TwoHosts};
use netlink::Address;
use proto::{DropReason, Path, PrivateKey, PublicKey, TransportIndex};
use transport::udp::{Options, UdpSocket};
use wire::offload::Accepts;

use super::egress::Egress;
use super::ingress::Ingress;
use super::lane::{Shared, content};
use super::sessions::Sessions;
use super::slow_path::SlowPath;
use super::stop::Stop;
use crate::channel::key::{Key, Secret};
use crate::channel::message::{SealedEntry, SessionEntry, SessionSetup, ToSupervisor};
use crate::metrics::{Counters, Traffic};

/// What an inner packet may have around it on an Ethernet, and some more.
const MTU: u32 = 1420;

/// Octets that are sent each way, uncounted and counted.
const TRANSFER: usize = 16 << 20;

/// How long a transfer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that strangers send.
const RUBBISH: usize = 2000;

/// Messages of them that wait in a socket at most.
const AT_A_TIME: usize = 50;

/// How often the counted transfer is repeated at most because a timer of the slow path fell into it.
const ATTEMPTS: usize = 5;

/// What two sites agree on.
#[derive(Clone, Copy)]
struct Terms {
    mode: Mode,
    extensions: bool,
    aes: bool,
}

const STOCK: Terms = Terms { mode: Mode::Tun, extensions: false, aes: false };

/// One side: the lanes, and the slow path that makes sessions for them.
struct Site {
    sessions: Sessions,
    slow_path: Arc<SlowPath>,
    sockets: Arc<[UdpSocket]>,
    egress: Egress,
    ingress: Ingress,
    out: Arc<Counters>,
    back: Arc<Counters>,
}

impl Site {
    /// The site with `number`, whose peer is the one with the other number.
    fn new(host: &Host, number: u8, terms: Terms) -> Self {
        let other = 3 - number;
        let mut sessions = Sessions::new(&setup(number, terms), MTU, content(terms.mode), true);
        sessions.replace_peers(vec![peer(other, terms.mode)], false);
        let (queue, accepts) = device(host, number, terms.mode);
        let queue = Arc::new(queue);
        let address = outer(number);
        let socket = host.run(move || UdpSocket::bind(address, &Options::default()).unwrap());
        assert!(socket.segmentation() && socket.coalescing(), "the kernel makes no trains");
        let slow_path = Arc::new(SlowPath::new().unwrap());
        let shared = || Shared {
            folders: Arc::default(),
            mode: terms.mode,
            sockets: Arc::new([]),
            peers: sessions.peers(),
            mtu: Arc::new(AtomicU32::new(1420)),
            counters: Arc::default(),
            stop: Arc::new(Stop::new().unwrap()),
            slow_path: Arc::clone(&slow_path),
        };
        let sockets: Arc<[UdpSocket]> = Arc::new([socket]);
        let [out, back] = [(), ()].map(|()| Shared { sockets: Arc::clone(&sockets), ..shared() });
        let counters = [&out, &back].map(|shared| Arc::clone(&shared.counters));
        let egress = Egress::new(out, Arc::clone(&queue), 0);
        let ingress = Ingress::new(back, TransportIndex(0), queue, accepts);
        let [out, back] = counters;
        Self { sessions, slow_path, sockets, egress, ingress, out, back }
    }

    /// Does what the first thread of a worker does between two waits.
    fn serve_slow_path(&mut self) {
        self.sessions.handle(self.slow_path.take());
        self.sessions.handle_timeout();
        self.sessions.transmit(&self.sockets, &[]);
        self.sessions.news();
    }

    /// How it stands with the only peer.
    fn entry(&self) -> SessionEntry {
        match self.sessions.entries().pop() {
            Some(ToSupervisor::Sessions(mut entries)) => entries.pop().unwrap(),
            other => panic!("no peer: {other:?}"),
        }
    }
}

/// Lets each lane carry a batch at most.
fn turn(site: &mut Site) {
    for turn in [site.egress.turn(), site.ingress.turn()] {
        if let Err(ended) = turn {
            panic!("a lane ended: {ended:?}");
        }
    }
}

fn private_key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

fn outer(number: u8) -> SocketAddr {
    (Ipv4Addr::new(10, 1, 0, number), 4740).into()
}

fn inner(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

fn setup(number: u8, terms: Terms) -> SessionSetup {
    SessionSetup {
        private_key: Secret::from(&private_key(number)),
        chacha: true,
        aes: terms.aes,
        extensions: terms.extensions,
        rekey_after: Duration::from_secs(120),
        lost: false,
    }
}

fn peer(number: u8, mode: Mode) -> SealedEntry {
    let public_key: PublicKey = private_key(number).public_key();
    let path = Path { transport: TransportIndex(0), remote: outer(number).into(), local: None };
    let allowed_ips = match mode {
        Mode::Tun => vec![format!("{}/32", inner(number)).parse().unwrap()],
        Mode::Tap => ["0.0.0.0/0", "::/0"].map(|all| all.parse().unwrap()).to_vec(),
    };
    SealedEntry {
        key: Key(public_key),
        preshared_key: None,
        path: Some(path.into()),
        keepalive: None,
        allowed_ips,
        invitation: false,
    }
}

/// A device of `host` that is up, and which super-packets it takes.
fn device(host: &Host, number: u8, mode: Mode) -> (Queue, Accepts) {
    host.run(move || {
        let name = DeviceName::parse("adit0").unwrap();
        let device = Builder::new(name, mode).vnet_hdr(true).offload(Offload::ALL).open().unwrap();
        let mut socket = netlink::Socket::open().unwrap();
        let link = socket.link("adit0").unwrap().unwrap().index;
        let local = format!("{}/24", inner(number)).parse().unwrap();
        socket.add_address(&Address { link, local, peer: None }).unwrap();
        socket.set_mtu(link, MTU).unwrap();
        socket.set_up(link, true).unwrap();
        let offload = device.offload();
        let accepts =
            Accepts { tso4: offload.tso4, tso6: offload.tso6, uso: offload.uso4 && offload.uso6 };
        (device.into_queues().remove(0), accepts)
    })
}

/// The hosts; none, with a word about why, if this user may not build them.
fn hosts() -> Option<TwoHosts> {
    match TwoHosts::build() {
        Ok(hosts) => Some(hosts),
        Err(error) => {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no hosts: {error}");
            println!("skipped: {error}");
            None
        }
    }
}

fn sites(hosts: &TwoHosts, terms: Terms) -> [Site; 2] {
    [Site::new(&hosts.a, 1, terms), Site::new(&hosts.b, 2, terms)]
}

/// Sends [`TRANSFER`] octets each way through the tunnel, while `serve` is called over and over again.
fn transfer(hosts: &TwoHosts, mut serve: impl FnMut()) {
    let listener = hosts.b.run(|| TcpListener::bind((inner(2), 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Raise(&is_over);
            let client = hosts.a.run(move || TcpStream::connect_timeout(&target, PATIENCE));
            let client = client.unwrap();
            let (server, _) = listener.accept().unwrap();
            thread::scope(|scope| {
                for end in [&client, &server] {
                    scope.spawn(|| send(end));
                    scope.spawn(|| receive(end));
                }
            });
        });
        let deadline = Deadline::after(PATIENCE);
        while !is_over.load(Ordering::Relaxed) && !deadline.remaining().is_zero() {
            serve();
        }
        assert!(is_over.load(Ordering::Relaxed), "the transfer does not come to its end");
    });
}

/// Says that a transfer is over, also by a panic.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn send(mut stream: &TcpStream) {
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&vec![0x5a; TRANSFER]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

fn receive(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut buffer, mut octets) = (vec![0; 1 << 16], 0);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            count => octets += count,
        }
    }
    assert_eq!(octets, TRANSFER);
}

/// Carries a transfer and counts; how many allocations there were, and whether the slow path was not needed.
fn counted_transfer(hosts: &TwoHosts, sites: &mut [Site; 2]) -> (u64, bool) {
    let mut allocations = 0;
    transfer(hosts, || {
        allocations += measure(|| sites.each_mut().into_iter().for_each(turn)).count_total;
    });
    let is_idle = sites.each_mut().map(|site| {
        let work = site.slow_path.take();
        let is_idle = work.looks.is_empty() && work.controls.is_empty() && work.packets.is_empty();
        site.sessions.handle(work);
        is_idle
    });
    (allocations, is_idle == [true; 2])
}

fn assert_carried_without_allocation(terms: Terms, cipher: &str) {
    let Some(hosts) = hosts() else { return };
    let mut sites = sites(&hosts, terms);
    let mut at_first = 0;
    transfer(&hosts, || {
        for site in &mut sites {
            at_first += measure(|| turn(site)).count_total;
            site.serve_slow_path();
        }
    });
    assert!(at_first > 0, "packets that wait for a session are counted");
    let before: Vec<Traffic> = sites.iter().map(|site| site.back.traffic()).collect();
    let counted = (0..ATTEMPTS).map(|_| counted_transfer(&hosts, &mut sites));
    // Buffers grow until they have seen the largest batch, which may come after the first transfer.
    let costs: Vec<_> = { counted }.collect();
    assert!(costs.contains(&(0, true)), "{cipher}: {costs:?}");
    for (site, before) in sites.iter().zip(before) {
        let (out, back) = (site.out.traffic(), site.back.traffic());
        assert!(back.octets - before.octets > TRANSFER as u64, "{back}");
        assert_eq!(out.dropped(DropReason::NoSession), 0, "{out}");
        let entry = site.entry();
        assert_eq!(entry.cipher.map(|cipher| cipher.to_string()).as_deref(), Some(cipher));
        assert_eq!(entry.extensions, terms.extensions);
    }
}

#[test]
fn packets_sealed_with_chacha20_poly1305_cost_no_allocation() {
    assert_carried_without_allocation(STOCK, "ChaCha20-Poly1305");
}

#[test]
fn unchecked_packets_sealed_with_aes_256_gcm_cost_no_allocation() {
    let terms = Terms { extensions: true, aes: true, ..STOCK };
    assert_carried_without_allocation(terms, "AES-256-GCM");
}

#[test]
fn unchecked_packets_sealed_with_chacha20_poly1305_cost_no_allocation() {
    let terms = Terms { extensions: true, ..STOCK };
    assert_carried_without_allocation(terms, "ChaCha20-Poly1305");
}

#[test]
fn frames_cost_no_allocation() {
    let terms = Terms { mode: Mode::Tap, extensions: true, aes: true };
    assert_carried_without_allocation(terms, "AES-256-GCM");
}

#[test]
fn rubbish_that_looks_like_data_costs_no_allocation() {
    let Some(hosts) = hosts() else { return };
    let [_, mut site] = sites(&hosts, STOCK);
    let stranger = hosts.a.run(|| Socket::bind((Ipv4Addr::new(10, 1, 0, 1), 0)).unwrap());
    let reasons = [DropReason::NotAMessage, DropReason::UnknownReceiver];
    let dropped = |site: &Site| -> u64 {
        let traffic = site.back.traffic();
        reasons.iter().map(|&reason| traffic.dropped(reason)).sum()
    };
    let (mut sent, mut allocations) = (0, 0);
    for round in 0..RUBBISH {
        let mut rubbish = vec![0xa5; round % 1472];
        rubbish.iter_mut().zip([4, 0, 0, 0]).for_each(|(place, octet)| *place = octet);
        stranger.send_to(&rubbish, outer(2)).unwrap();
        sent += 1;
        if sent % AT_A_TIME == 0 {
            let all_seen = Deadline::after(PATIENCE).wait_until(|| {
                allocations += measure(|| turn(&mut site)).count_total;
                (dropped(&site) == sent as u64).then_some(())
            });
            all_seen.unwrap();
        }
    }
    assert_eq!(allocations, 0);
    assert!(reasons.iter().all(|&reason| site.back.traffic().dropped(reason) > 0));
}
