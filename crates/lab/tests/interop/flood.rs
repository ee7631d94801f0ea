//! Strangers flood a party with initiations, and its peer gets through.
//!
//! ```text
//!   host A: flooded            host B: the peer          host C: the strangers
//!   wg0   192.0.2.1 .......... wg0   192.0.2.2
//!   eth0  10.1.0.1             eth0  10.1.0.2            eth0  10.1.0.50 to 10.1.0.249
//!    |                          |                         |
//!  --+--------------------------+-------------------------+-- lan
//! ```
//!
//! Everybody who knows A's public key can make a mac1 that is right (whitepaper, section 5.4.4). The rest
//! of a stranger's initiation is rubbish, which A notices only after a computation on a curve.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use lab::topology::ETH0;
use lab::{Deadline, ThreeHosts};

use crate::messages::{Messages, Type};
use crate::pair::{endpoint, for_each_meeting, peer, spec};
use crate::party::{Keys, Kind, Party};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sh::sh;
use crate::rig::tunnel::Files;
use crate::rig::{Pattern, soon};

/// The last parts of the strangers' addresses.
const STRANGERS: std::ops::Range<u8> = 50..250;

/// Octets of an initiation, of what of it mac1 covers, and of both macs.
const INITIATION: usize = 148;
const COVERED: usize = 116;
const MACS: std::ops::Range<usize> = 116..148;

/// The time from one volley, in which every stranger takes part, to the next: more would fill the queue
/// of A's socket, where the peer's initiation would be lost before A sees it.
const PAUSE: Duration = Duration::from_millis(20);

/// How often each stranger sends in a volley: together more than may wait before A is under load.
const VOLLEY: usize = 6;

/// What mac1's key is made of, beside the responder's public key (whitepaper, section 5.4).
const LABEL_MAC1: &[u8] = b"mac1----";

/// Initiations with a wrong mac1 that are sent.
const WRONG: usize = 2000;

/// Makes initiations.
struct Forger {
    mac1_key: [u8; 32],
    pattern: Pattern,
}

impl Forger {
    fn new(responder: &str) -> Self {
        let public_key = Base64::decode_vec(responder).unwrap();
        let mac1_key = Blake2s256::new().chain_update(LABEL_MAC1).chain_update(public_key);
        Self { mac1_key: mac1_key.finalize().into(), pattern: Pattern::new(11) }
    }

    /// Rubbish with a mac1 that is wrong.
    fn wrong(&mut self) -> Vec<u8> {
        let mut initiation = self.pattern.octets(INITIATION);
        initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
        initiation
    }

    /// Rubbish with a mac1 that is right, and no mac2.
    fn right(&mut self) -> Vec<u8> {
        let mut initiation = self.wrong();
        let mut mac = Blake2sMac::<U16>::new_from_slice(&self.mac1_key).unwrap();
        mac.update(&initiation[..COVERED]);
        initiation[MACS].fill(0);
        initiation[COVERED..COVERED + 16].copy_from_slice(&mac.finalize().into_bytes());
        initiation
    }
}

/// A and B, and the strangers' sockets.
struct Scene {
    _parties: [Party; 2],
    strangers: Vec<UdpSocket>,
    forger: Forger,
    _files: Files,
    hosts: ThreeHosts,
}

fn scene(kinds: [Kind; 2]) -> Scene {
    let hosts = ThreeHosts::build().unwrap();
    let files = Files::new();
    let keys = [&hosts.a, &hosts.b].map(Keys::new);
    let [mut a, mut b] = [spec(1, &keys[0]), spec(2, &keys[1])];
    a.peers.push(peer(2, &keys[1], Family::V4));
    b.peers.push(peer(1, &keys[0], Family::V4));
    let parties =
        [Party::up(kinds[0], &hosts.a, &files, &a), Party::up(kinds[1], &hosts.b, &files, &b)];
    let strangers = strangers(&hosts);
    let forger = Forger::new(&keys[0].public);
    Scene { _parties: parties, strangers, forger, _files: files, hosts }
}

/// A socket for each stranger.
fn strangers(hosts: &ThreeHosts) -> Vec<UdpSocket> {
    let addresses =
        STRANGERS.map(|number| format!("ip address add 10.1.0.{number}/24 dev {ETH0};"));
    sh(&hosts.c, &addresses.collect::<String>());
    let open = |number| {
        let socket = UdpSocket::bind((Family::V4.outer(number), 0)).unwrap();
        socket.connect(endpoint(Family::V4, 1)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    hosts.c.run(move || STRANGERS.map(open).collect())
}

/// What came back to the strangers: how many answers, and octets.
fn answers(strangers: &[UdpSocket], mut look: impl FnMut(&[u8])) -> (u64, u64) {
    let (mut count, mut octets) = (0, 0);
    let mut buffer = [0; 2048];
    for socket in strangers {
        while let Ok(length) = socket.recv(&mut buffer) {
            look(&buffer[..length]);
            (count, octets) = (count + 1, octets + length as u64);
        }
    }
    (count, octets)
}

#[test]
fn a_peer_gets_through_a_flood_of_initiations() {
    for_each_meeting(|kinds| {
        let Scene { _parties, strangers, mut forger, _files, hosts } = scene(kinds);
        let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let is_over = || over.load(Ordering::Relaxed).then_some(());
                while is_over().is_none() {
                    for stranger in strangers.iter().cycle().take(VOLLEY * strangers.len()) {
                        // Refused while the queue of the wire is full.
                        let passed = stranger.send(&forger.right()).is_ok();
                        sent.fetch_add(passed.into(), Ordering::Relaxed);
                    }
                    let _ = Deadline::after(PAUSE).wait_until(is_over);
                }
            });
            let _over = Raise(&over);
            let (mut cookies, mut octets) = (0, 0);
            let asked_for_cookies = soon().wait_until(|| {
                let (_, more) = answers(&strangers, |answer| {
                    assert_eq!(
                        (answer[0], answer.len()),
                        (3, 64),
                        "no cookie reply: {answer:02x?}"
                    );
                    cookies += 1;
                });
                octets += more;
                (cookies > 100).then_some(())
            });
            asked_for_cookies.unwrap();
            // The peer sends again every 5 s, with the cookie that it got.
            Pinger::new(&hosts.b, Family::V4.inner(1)).wait_for_answer();
            Pinger::new(&hosts.a, Family::V6.inner(2)).wait_for_answer();
            octets += answers(&strangers, |_| {}).1;
            assert!(octets < sent.load(Ordering::Relaxed) * INITIATION as u64);
        });
    });
}

/// Ends the flood when it is dropped, also by a panic.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_initiation_with_a_wrong_mac_gets_no_answer() {
    for_each_meeting(|kinds| {
        let mut scene = scene(kinds);
        let mut messages = Messages::watch(&scene.hosts.c, &[]);
        for stranger in scene.strangers.iter().cycle().take(WRONG) {
            stranger.send(&scene.forger.wrong()).unwrap();
        }
        // B's ping comes after them, and is answered.
        Pinger::new(&scene.hosts.b, Family::V4.inner(1)).assert_answers(56);
        assert_eq!(answers(&scene.strangers, |_| {}), (0, 0));
        assert_eq!(messages.so_far().len(), messages.count(Type::Initiation));
    });
}
