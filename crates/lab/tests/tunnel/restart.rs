//! A TCP session inside outlives the programs that carry it, if the devices do.
//!
//! ```text
//!   host A                                host B
//!   adit0 192.0.2.1, fd00:7::1 .......... adit0 192.0.2.2, fd00:7::2    persistent devices
//!   eth0  10.1.0.1 ---------------------- eth0  10.1.0.2
//! ```

use rustix::process::Signal;

use crate::rig::pair::{End, Family, Pair, Site, hosts};
use crate::rig::tcp::Session;
use crate::rig::tunnel::{Files, Tunnel, add_device};

/// Octets of each exchange: several super-packets.
const OCTETS: usize = 300_000;

/// Two tunnels over persistent devices that have their addresses.
fn persistent_pair(outer: Family) -> Option<Pair> {
    let hosts = hosts()?;
    add_device(&hosts.a, &["--address", "192.0.2.1/24", "--address", "fd00:7::1/64", "--up"]);
    add_device(&hosts.b, &["--address", "192.0.2.2/24", "--address", "fd00:7::2/64", "--up"]);
    let end = |end: End| end.without_addresses().over(outer);
    Pair::between(hosts, end(End::A), end(End::B))
}

/// Kills the tunnel at `site` without warning and starts it again.
fn restart(site: Site, end: End, files: &Files, meanwhile: impl FnOnce()) -> Site {
    let Site { tunnel, host } = site;
    let ended = tunnel.end(Signal::KILL);
    assert_eq!(ended.code, None, "{}", ended.said);
    meanwhile();
    let tunnel = Tunnel::up(&host, files, end.name(), &end.toml());
    Site { tunnel, host }
}

fn assert_sessions_survive(outer: Family) {
    let Some(Pair { mut a, mut b, files }) = persistent_pair(outer) else { return };
    let mut sessions = Family::BOTH.map(|inner| Session::begin(&a.host, &b.host, inner.inner(2)));
    for session in &mut sessions {
        session.exchange(OCTETS);
    }
    for _ in 0..2 {
        let mut sent = Vec::new();
        let end = End::A.without_addresses().over(outer);
        a = restart(a, end, &files, || {
            sent.extend(sessions.iter_mut().map(|session| session.send(OCTETS / 10)));
        });
        for (session, sent) in sessions.iter_mut().zip(&sent) {
            session.assert_echoes(sent);
            session.exchange(OCTETS);
        }
        let end = End::B.without_addresses().over(outer);
        sent.clear();
        b = restart(b, end, &files, || {
            sent.extend(sessions.iter_mut().map(|session| session.send(OCTETS / 10)));
        });
        for (session, sent) in sessions.iter_mut().zip(&sent) {
            session.assert_echoes(sent);
            session.exchange(OCTETS);
        }
    }
    assert_eq!(sessions[0].local().ip(), Family::V4.inner(1));
    assert_eq!(sessions[1].local().ip(), Family::V6.inner(1));
    drop(sessions);
    drop((a, b));
}

#[test]
fn a_session_survives_the_kill_of_either_side_over_ipv4() {
    assert_sessions_survive(Family::V4);
}

#[test]
fn a_session_survives_the_kill_of_either_side_over_ipv6() {
    assert_sessions_survive(Family::V6);
}
