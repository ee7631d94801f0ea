//! Peers come, change and go while a tunnel runs, and the others do not notice.
//!
//! ```text
//!   host A: reloaded           host B: stays        host C: comes and goes
//!   adit0 192.0.2.1 .......... adit0 192.0.2.2
//!     |  ..........................................  adit0 192.0.2.3, 203.0.113.3
//!   eth0  10.1.0.1             eth0  10.1.0.2        eth0  10.1.0.3
//!    |                          |                     |
//!  --+--------------------------+---------------------+-- lan
//! ```

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use lab::{Host, ThreeHosts};
use rustix::process::Signal;
use serde_json::Value;

use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sealed::{Station, keys, only_peer, peer, toml};
use crate::rig::soon;
use crate::rig::state::add_address;
use crate::rig::tcp::Session;
use crate::rig::tunnel::{DEVICE, runnable};

/// Another address of C.
const ANOTHER: &str = "203.0.113.3";

/// Says that it is over, also by a panic.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn with_b() -> String {
    toml(1, "", "", &[peer(2, &[])])
}

fn with_b_and_c(more: &[&str]) -> String {
    // In front of B, so that B has another place among them.
    toml(1, "", "", &[peer(3, more), peer(2, &[])])
}

fn peer_of(status: &Value, number: u8) -> Option<&Value> {
    let peers = status["peers"].as_array().unwrap();
    peers.iter().find(|peer| peer["public_key"] == keys(number).public)
}

/// Fails if C's packets reach A: what C sends is counted, and not answered.
fn assert_unheard(a: &Station, host: &Host, c: &Host) {
    let drops = |status: &Value| {
        let drops = &status["traffic"]["back"]["drops"];
        let of = |reason: &str| drops[reason].as_u64().unwrap_or(0);
        of("unknown_receiver") + of("unknown_peer")
    };
    let before = drops(&a.status(host));
    let client = crate::rig::udp::connect(c, (Family::V4.inner(1), 9).into());
    a.wait_for_status(host, |status| {
        let _ = client.send(b"anybody?");
        drops(status) > before
    });
}

/// What happens to the peers of `a`, by whatever way it is told.
fn change_peers(a: &Station, hosts: &ThreeHosts, reload: impl Fn(&str)) {
    let ping = |address: IpAddr| Pinger::new(&hosts.a, address).wait_for_answer();
    reload(&with_b_and_c(&[]));
    a.wait_for_status(&hosts.a, |status| peer_of(status, 3).is_some());
    Pinger::new(&hosts.c, Family::V4.inner(1)).wait_for_answer();
    ping(Family::V4.inner(3));
    ping(Family::V6.inner(3));

    let prefix = format!("{ANOTHER}/32");
    reload(&with_b_and_c(&[&prefix]));
    a.wait_for_status(&hosts.a, |status| {
        let prefixes = peer_of(status, 3).map(|peer| peer["allowed_ips"].to_string());
        prefixes.is_some_and(|prefixes| prefixes.contains(&prefix))
    });
    ping(ANOTHER.parse().unwrap());

    reload(&with_b());
    a.wait_for_status(&hosts.a, |status| peer_of(status, 3).is_none());
    assert_unheard(a, &hosts.a, &hosts.c);
}

/// Changes the peers of A while a stream and echoes travel between A and B.
fn assert_others_are_undisturbed(reload: impl Fn(&Station, &Host, &str)) {
    if !runnable() {
        return;
    }
    let hosts = ThreeHosts::build().unwrap();
    let a = Station::up(&hosts.a, 1, &with_b());
    let _b = Station::up(&hosts.b, 2, &toml(2, "", "", &[only_peer(1)]));
    let _c = Station::up(&hosts.c, 3, &toml(3, "", "", &[peer(1, &[])]));
    add_address(&hosts.c, DEVICE, &format!("{ANOTHER}/32"));
    Pinger::new(&hosts.a, Family::V4.inner(2)).wait_for_answer();
    let mut session = Session::begin(&hosts.a, &hosts.b, Family::V4.inner(2));
    let mut pinger = Pinger::new(&hosts.b, Family::V6.inner(1));
    session.exchange(100_000);
    let before = a.status(&hosts.a);
    let (over, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let _over = Raise(&over);
            while !over.load(Ordering::Relaxed) {
                session.exchange(100_000);
                // Each is answered, and none is asked twice.
                pinger.assert_answers(1000);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        {
            let _over = Raise(&over);
            for _ in 0..2 {
                change_peers(&a, &hosts, |toml| reload(&a, &hosts.a, toml));
            }
            let more = rounds.load(Ordering::Relaxed) + 2;
            let goes_on = soon().wait_until(|| {
                (rounds.load(Ordering::Relaxed) >= more || stream.is_finished()).then_some(())
            });
            goes_on.unwrap();
        }
        stream.join().unwrap();
    });
    let after = a.status(&hosts.a);
    let [before, after] = [&before, &after].map(|status| peer_of(status, 2).unwrap());
    assert_eq!(after["latest_handshake"], before["latest_handshake"]);
    assert_eq!(after["endpoint"], before["endpoint"]);
    assert!(after["sent"]["octets"].as_u64() > before["sent"]["octets"].as_u64());
}

#[test]
fn a_command_reloads_peers_without_disturbing_others() {
    assert_others_are_undisturbed(|a, host, toml| {
        let ended = a.reload(host, toml);
        assert!(!ended.printed.is_empty() || !ended.said.is_empty(), "it says what has changed");
    });
}

#[test]
fn a_signal_reloads_peers_without_disturbing_others() {
    assert_others_are_undisturbed(|a, _, toml| {
        a.files.write("a", toml);
        a.tunnel.signal(Signal::HUP);
    });
}

#[test]
fn a_broken_configuration_changes_nothing() {
    if !runnable() {
        return;
    }
    let hosts = ThreeHosts::build().unwrap();
    let mut a = Station::up(&hosts.a, 1, &with_b());
    let _b = Station::up(&hosts.b, 2, &toml(2, "", "", &[only_peer(1)]));
    Pinger::new(&hosts.a, Family::V4.inner(2)).wait_for_answer();
    a.files.write("a", &with_b_and_c(&[]).replace("allowed-ips", "alowed-ips"));
    let ended = crate::rig::tunnel::adit_in(&hosts.a, &a.files, &["reload", "a"]);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("did you mean \"allowed-ips\"?"), "{}", ended.said);
    a.tunnel.signal(Signal::HUP);
    a.tunnel.wait_for("did you mean \"allowed-ips\"?");
    let status = a.status(&hosts.a);
    assert!(peer_of(&status, 2).is_some() && peer_of(&status, 3).is_none(), "{status}");
    Pinger::new(&hosts.a, Family::V4.inner(2)).assert_answers(56);
}
