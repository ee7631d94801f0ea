//! Two adits in a session: with each cipher, with packets and with frames, and after a worker was killed.
//!
//! ```text
//!   host A                        host B
//!   adit0 192.0.2.1 ............. adit0 192.0.2.2
//!   eth0  10.1.0.1 -------------- eth0  10.1.0.2
//! ```

use std::fs;
use std::time::{Duration, Instant};

use lab::{Capture, Filter, Host};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use wire::ethernet::{self, Frame};

use crate::rig::pair::{Family, PORT};
use crate::rig::ping::{Pinger, assert_answers};
use crate::rig::sealed::{SealedPair, Station, only_peer, toml, wait_for_cipher};
use crate::rig::state::{self, assert_no_checksum_errors};
use crate::rig::tcp::{Session, assert_transfers};
use crate::rig::tunnel::DEVICE;
use crate::rig::udp::{self, assert_sizes_echo};
use crate::rig::{soon, wire as outer};

const AES: &str = "AES-256-GCM";
const CHACHA: &str = "ChaCha20-Poly1305";

/// The longest that nothing may pass after a worker was killed.
const GAP: Duration = Duration::from_secs(2);

/// What two adits use by default on this machine.
fn default_cipher() -> &'static str {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    let has_aes = cpuinfo.split_ascii_whitespace().any(|flag| flag == "aes");
    if has_aes { AES } else { CHACHA }
}

/// Fails unless everything passes both ways, and both say that it is by `cipher`.
fn assert_carries(pair: &SealedPair, cipher: &str, is_adit: bool) {
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    assert_answers(a, Family::V4.inner(2));
    wait_for_cipher(&pair.a, a, cipher);
    wait_for_cipher(&pair.b, b, cipher);
    for inner in Family::BOTH {
        assert_answers(a, inner.inner(2));
        assert_answers(b, inner.inner(1));
        assert_transfers(a, b, inner.inner(2), 8 << 20);
        assert_transfers(b, a, inner.inner(1), 1 << 20);
        assert_sizes_echo(a, b, inner.inner(2), [0, 1, 1371, 1372, 1400, 65_507], || {});
    }
    for peer in pair.peers() {
        assert_eq!((&peer["cipher"], &peer["is_adit"]), (&cipher.into(), &is_adit.into()));
        assert_eq!(peer["key_exchange"], "x25519");
        assert!(peer["received"]["octets"].as_u64() > Some(1 << 20), "{peer}");
        assert!(peer["sent"]["octets"].as_u64() > Some(1 << 20), "{peer}");
    }
    assert_no_checksum_errors(a);
    assert_no_checksum_errors(b);
}

#[test]
fn two_adits_use_the_faster_cipher() {
    let Some(pair) = SealedPair::up() else { return };
    assert_carries(&pair, default_cipher(), true);
}

#[test]
fn two_adits_without_offload_carry_the_same() {
    let Some(pair) = SealedPair::with("offload = false", ["", ""]) else { return };
    assert_carries(&pair, default_cipher(), true);
}

#[test]
fn one_side_can_insist_on_chacha20_poly1305() {
    let Some(pair) = SealedPair::with("", ["cipher = \"chacha20-poly1305\"", ""]) else { return };
    assert_carries(&pair, CHACHA, true);
}

#[test]
fn one_side_can_be_a_stock_peer() {
    let Some(pair) = SealedPair::with("", ["", "extensions = false"]) else { return };
    assert_carries(&pair, CHACHA, false);
}

#[test]
fn nothing_of_what_is_inside_shows_outside() {
    let Some(pair) = SealedPair::up() else { return };
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    outer::refuse_super_packets(a);
    outer::refuse_super_packets(b);
    let mut on_wire = Capture::start(b, "eth0", &Filter::udp_port(PORT)).unwrap();
    assert_answers(a, Family::V4.inner(2));
    wait_for_cipher(&pair.a, a, default_cipher());
    let mut session = Session::begin(a, b, Family::V4.inner(2));
    let secret = session.send(4000);
    session.assert_echoes(&secret);
    let mut datagrams = 0;
    while let Some(packet) = on_wire.take().unwrap() {
        datagrams += 1;
        // Any sixteen octets in a row of what was sent would be seen.
        let shows = secret
            .chunks_exact(16)
            .any(|part| packet.octets.windows(part.len()).any(|octets| octets == part));
        assert!(!shows, "{packet:02x?}");
        let addresses = [Family::V4.inner(1), Family::V4.inner(2)].map(|address| match address {
            std::net::IpAddr::V4(address) => address.octets(),
            std::net::IpAddr::V6(_) => unreachable!("the family is IPv4"),
        });
        let pair_of_them = addresses.concat();
        assert!(!packet.octets.windows(8).any(|octets| octets == pair_of_them), "{packet:02x?}");
    }
    assert!(datagrams > 8);
}

#[test]
fn frames_travel_in_a_session() {
    let Some(pair) = SealedPair::with("mode = \"tap\"", ["", ""]) else { return };
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    let mut at_b = Capture::start(b, DEVICE, &Filter::everything()).unwrap();
    assert_answers(a, Family::V4.inner(2));
    let question = at_b.find(soon(), |packet| {
        let frame = Frame::parse(&packet.octets).ok()?;
        (frame.ethertype() == ethernet::ARP && !packet.outgoing).then(|| frame.destination().0)
    });
    // The first one may have waited for the session, and is not lost.
    assert_eq!(question.unwrap(), [0xff; 6]);
    assert_answers(b, Family::V6.inner(1));
    Pinger::new(a, Family::V4.inner(2)).assert_answers(1400 - 14 - 20 - 8);
    assert_carries(&pair, default_cipher(), true);
}

#[test]
fn frames_go_to_no_stock_peer() {
    let Some(pair) = SealedPair::with("", ["", "extensions = false"]) else { return };
    drop(pair.a);
    let config = toml(1, "mode = \"tap\"", "", &[only_peer(2)]);
    let a = Station::up(&pair.hosts.a, 1, &config);
    let mut at_b = Capture::start(&pair.hosts.b, DEVICE, &Filter::everything()).unwrap();
    let client = udp::connect(&pair.hosts.a, (Family::V4.inner(2), 9).into());
    let told = soon().wait_until(|| {
        let _ = client.send(b"to nobody");
        let status = a.status(&pair.hosts.a);
        let drops = &status["traffic"]["out"]["drops"];
        (drops["no_hello"].as_u64() > Some(0)).then_some(())
    });
    told.unwrap_or_else(|error| panic!("{error}: {}", a.status(&pair.hosts.a)));
    while let Some(packet) = at_b.take().unwrap() {
        assert!(packet.outgoing, "a frame was delivered: {packet:02x?}");
    }
}

fn latest_handshake(peer: &Value) -> Value {
    assert!(!peer["latest_handshake"].is_null(), "{peer}");
    peer["latest_handshake"].clone()
}

/// Kills the worker of A or of B, and lets `from` speak first.
fn assert_worker_is_replaced(killed: fn(&SealedPair) -> &Station, from: u8) {
    let Some(pair) = SealedPair::up() else { return };
    let (a, b): (&Host, &Host) = (&pair.hosts.a, &pair.hosts.b);
    assert_answers(a, Family::V4.inner(2));
    wait_for_cipher(&pair.a, a, default_cipher());
    wait_for_cipher(&pair.b, b, default_cipher());
    let mut session = Session::begin(a, b, Family::V4.inner(2));
    session.exchange(100_000);
    let before = pair.peers().map(|peer| latest_handshake(&peer));
    let tunnel = &killed(&pair).tunnel;
    let worker = tunnel.worker().unwrap();
    let index = state::link(a, DEVICE).unwrap().index;
    let begin = Instant::now();
    kill_process(Pid::from_raw(worker.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let successor = soon().wait_until(|| tunnel.worker().filter(|&pid| pid != worker));
    successor.unwrap();
    let (host, other) = if from == 1 { (a, 2) } else { (b, 1) };
    Pinger::new(host, Family::V4.inner(other)).wait_for_answer();
    let gap = begin.elapsed();
    eprintln!("an answer after {gap:?}");
    assert!(gap < GAP, "{gap:?}");
    session.exchange(100_000);
    for (peer, before) in pair.peers().iter().zip(before) {
        assert_ne!(latest_handshake(peer), before, "the old keys are gone");
    }
    assert_eq!(state::link(a, DEVICE).unwrap().index, index);
}

#[test]
fn a_session_is_made_anew_when_the_worker_is_killed() {
    assert_worker_is_replaced(|pair| &pair.a, 1);
    assert_worker_is_replaced(|pair| &pair.a, 2);
}

#[test]
fn a_session_is_made_anew_when_the_worker_of_the_responder_is_killed() {
    assert_worker_is_replaced(|pair| &pair.b, 1);
    assert_worker_is_replaced(|pair| &pair.b, 2);
}
