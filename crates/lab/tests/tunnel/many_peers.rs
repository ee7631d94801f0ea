//! Ten thousand peers on one device.
//!
//! ```text
//!   host A: all peers          host B: the last one
//!   adit0 192.0.2.1 .......... adit0 192.0.2.2
//!   eth0  10.1.0.1 ----------- eth0  10.1.0.2
//! ```

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use lab::TwoHosts;
use rustix::process::Signal;

use crate::rig::Pattern;
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sealed::{Station, only_peer, peer, toml};
use crate::rig::tunnel::runnable;

/// Peers besides B.
const PEERS: usize = 9_999;

/// How long it may take on a busy machine until the tunnel is up, the status is told, one peer
/// is gone, the first packet is answered, and the tunnel is down.
const UP: Duration = Duration::from_secs(60);
const STATUS: Duration = Duration::from_secs(60);
const RELOAD: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(60);
const DOWN: Duration = Duration::from_secs(60);

/// Octets that supervisor and worker may use: ten thousand peers with some kilobytes each.
const RESIDENT: u64 = 128 << 20;

/// Peers that never answer, since nobody knows where they are, with two prefixes each.
fn others(count: usize) -> Vec<String> {
    let mut pattern = Pattern::new(31);
    let mut other = |number: usize| {
        let key = Base64::encode_string(&pattern.octets(32));
        let (high, low) = (number / 250, number % 250 + 1);
        let mut peer = format!("[[peer]]\nname = \"other-{number}\"\npublic-key = \"{key}\"\n");
        let prefixes = format!("\"10.200.{high}.{low}/32\", \"fd00:8::{number:x}/128\"");
        writeln!(peer, "allowed-ips = [{prefixes}]").unwrap();
        peer
    };
    (0..count).map(&mut other).collect()
}

/// Octets of a process in memory.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Says how long something took, and fails if that was too long.
fn assert_quick<T>(what: &str, limit: Duration, act: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = act();
    let took = begin.elapsed();
    eprintln!("{what}: {took:?}");
    assert!(took < limit, "{what}: {took:?}");
    result
}

/// Fails if supervisor or worker use much memory, which is told.
fn assert_resident(processes: &[(&str, u32)], when: &str) {
    for (process, pid) in processes {
        let octets = resident(*pid);
        eprintln!("{process}: {} KiB resident {when}", octets >> 10);
        assert!(octets < RESIDENT, "{process}: {octets} octets");
    }
}

/// Brings A up with [`PEERS`] and B, whose configuration is made by `config`, and changes one.
fn assert_served_in_seconds(config: fn(&[String]) -> String) {
    if !runnable() {
        return;
    }
    let hosts = TwoHosts::build().unwrap();
    let mut peers = others(PEERS);
    peers.push(peer(2, &[]));
    let a = assert_quick("up", UP, || Station::up(&hosts.a, 1, &config(&peers)));
    let _b = Station::up(&hosts.b, 2, &toml(2, "", "", &[only_peer(1)]));
    assert_quick("first answer", ANSWER, || {
        Pinger::new(&hosts.b, Family::V4.inner(1)).wait_for_answer();
    });
    Pinger::new(&hosts.a, Family::V6.inner(2)).assert_answers(56);

    let status = assert_quick("status", STATUS, || a.status(&hosts.a));
    let told = status["peers"].as_array().unwrap();
    assert_eq!(told.len(), PEERS + 1);
    for (number, peer) in told[..PEERS].iter().enumerate() {
        assert_eq!(peer["name"], format!("other-{number}"));
        assert_eq!(peer["allowed_ips"].as_array().unwrap().len(), 2);
        assert!(peer["latest_handshake"].is_null() && !peer["public_key"].is_null());
    }
    let before = told[PEERS].clone();
    assert!(!before["latest_handshake"].is_null());
    let processes = [("supervisor", a.tunnel.id()), ("worker", a.tunnel.worker().unwrap())];
    assert_resident(&processes, "at first");

    let removed = peers.remove(PEERS / 2);
    assert_quick("reload", RELOAD, || a.reload(&hosts.a, &config(&peers)));
    let status = assert_quick("status", STATUS, || a.status(&hosts.a));
    let told = status["peers"].as_array().unwrap();
    assert_eq!(told.len(), PEERS);
    assert!(told.iter().all(|peer| !removed.contains(peer["public_key"].as_str().unwrap())));
    assert_eq!(told[PEERS - 1]["latest_handshake"], before["latest_handshake"]);
    Pinger::new(&hosts.a, Family::V4.inner(2)).assert_answers(56);
    assert_resident(&processes, "after the reload");
    let ended = assert_quick("down", DOWN, || a.tunnel.end(Signal::TERM));
    assert_eq!(ended.code, Some(0), "{}", ended.said);
}

#[test]
fn ten_thousand_peers_in_the_device_s_own_network_are_served() {
    assert_served_in_seconds(|peers| {
        let own = "addresses = [\"10.200.255.254/16\", \"fd00:8::ffff/64\", ";
        toml(1, "", "", peers).replacen("addresses = [", own, 1)
    });
}

#[test]
fn ten_thousand_peers_behind_routes_are_served() {
    assert_served_in_seconds(|peers| toml(1, "", "", peers));
}
