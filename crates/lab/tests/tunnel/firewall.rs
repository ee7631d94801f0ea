//! Packet filters of others that drop what is forwarded.
//!
//! ```text
//!   host A                  host B: FORWARD drops                      host C
//!   adit0 192.0.2.1 ....... adit0 192.0.2.2: passes, with answers ---- eth0 198.51.100.3
//!   eth0  10.1.0.1 -------- eth0  10.1.0.2:  is dropped -------------- eth0 198.51.100.4
//! ```

use std::net::{SocketAddr, UdpSocket};

use lab::{Gateway, Host, Process};
use rustix::process::Signal;

use crate::rig::gateway::{beside, hosts, inside, source_seen, up};
use crate::rig::pair::{End, Family};
use crate::rig::program::spawn;
use crate::rig::sh::{assert_same, everything, sh, try_sh};
use crate::rig::tunnel::{Files, Tunnel, adit_in};
use crate::rig::{soon, udp};

const FORWARD: End = End::B.network("forward = true");

const IPTABLES: &str = "iptables -P FORWARD DROP; iptables -A FORWARD -s 10.78.0.0/16 -j ACCEPT";

const IP6TABLES: &str = "ip6tables -P FORWARD DROP; ip6tables -A FORWARD -s fd78::/64 -j ACCEPT";

const NFT: &str = "nft add table inet theirs; \
    nft 'add chain inet theirs hold { type filter hook forward priority 7; policy drop; }'; \
    nft add rule inet theirs hold ip saddr 10.78.0.0/16 counter accept";

/// The way back into the tunnel, which is not translated here.
const WAY_BACK: &str =
    "ip route add 192.0.2.0/24 via 198.51.100.2; ip route add fd00:7::/64 via 2001:db8:100::2";

/// What the programs of others print of B's packet filter, but for the marked rules.
fn theirs(b: &Host) -> String {
    let printed = sh(b, "iptables -S; ip6tables -S; nft list table inet theirs 2>&1 || true");
    let lines = printed.lines().filter(|line| !line.contains("adit adit0"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Fails unless a datagram of A that goes beside the tunnel does not arrive, while a later one does.
fn assert_drops_the_rest(hosts: &Gateway, family: Family) {
    let anywhere = match family {
        Family::V4 => "0.0.0.0:0",
        Family::V6 => "[::]:0",
    };
    let server = udp::bind(&hosts.c, anywhere.parse().unwrap());
    let port = server.local_addr().unwrap().port();
    let to = |address| udp::connect(&hosts.a, SocketAddr::new(address, port));
    to(beside(family)).send(b"beside").unwrap();
    to(inside(family)).send(b"inside").unwrap();
    assert_eq!(receive(&server), "inside");
}

fn receive(socket: &UdpSocket) -> String {
    let mut datagram = [0; 16];
    let count = socket.recv(&mut datagram).unwrap();
    String::from_utf8_lossy(&datagram[..count]).into_owned()
}

fn assert_passes(hosts: &Gateway, family: Family) {
    assert_eq!(source_seen(&hosts.a, &hosts.c, inside(family)), family.inner(1));
}

/// A tunnel through the filter that `make` makes, which drops packets of `dropped`.
fn assert_passes_through(make: &str, dropped: &[Family]) {
    let Some(hosts) = hosts() else { return };
    sh(&hosts.c, WAY_BACK);
    sh(&hosts.b, make);
    let (files, before, rules) = (Files::new(), everything(&hosts.b), theirs(&hosts.b));
    let (_a, b) = up(&hosts, &files, FORWARD);
    for family in Family::BOTH {
        assert_passes(&hosts, family);
    }
    for &family in dropped {
        assert_drops_the_rest(&hosts, family);
    }
    assert_eq!(theirs(&hosts.b), rules);
    assert!(!b.said().contains("drops what is forwarded"), "{}", b.said());
    let ended = b.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_same(&before, &everything(&hosts.b));
}

#[test]
fn a_policy_of_iptables() {
    assert_passes_through(IPTABLES, &[Family::V4]);
}

#[test]
fn a_policy_of_ip6tables() {
    assert_passes_through(IP6TABLES, &[Family::V6]);
}

#[test]
fn a_chain_of_both_families() {
    assert_passes_through(NFT, &Family::BOTH);
}

#[test]
fn several_filters_at_once() {
    assert_passes_through(&[IPTABLES, IP6TABLES, NFT].join("; "), &Family::BOTH);
}

/// The rules accept what comes from the tunnel and its answers, and no connection into it.
#[test]
fn who_is_behind_the_filter_does_not_come_into_the_tunnel() {
    let Some(hosts) = hosts() else { return };
    sh(&hosts.c, WAY_BACK);
    sh(&hosts.b, &[IPTABLES, IP6TABLES].join("; "));
    let files = Files::new();
    let _both = up(&hosts, &files, FORWARD);
    for family in Family::BOTH {
        let server = udp::bind(&hosts.a, SocketAddr::new(family.inner(1), 0));
        let target = server.local_addr().unwrap();
        let stranger = udp::connect(&hosts.c, target);
        let gateway = udp::connect(&hosts.b, target);
        stranger.send(b"dropped").unwrap();
        gateway.send(b"passes").unwrap();
        assert_eq!(receive(&server), "passes");
    }
}

/// A table that belongs to nft(8) as long as that runs, with a chain that drops.
fn owned_by_nft(b: &Host, files: &Files) -> Process {
    let fifo = files.path().join("commands");
    let line = format!(
        "mkfifo {fifo} && exec 3<>{fifo} && printf '%s\\n' \
         'add table inet theirs {{ flags owner; }}' \
         'add chain inet theirs hold {{ type filter hook forward priority 7; policy drop; }}' >&3 \
         && exec nft -i <&3",
        fifo = fifo.display()
    );
    let nft = spawn(b, "sh", &["-c", &line]);
    let made = || try_sh(b, "nft list chain inet theirs hold").ok();
    soon().wait_until(made).unwrap_or_else(|error| panic!("{error}: {}", nft.stderr()));
    nft
}

#[test]
fn a_chain_that_belongs_to_another_process_is_named() {
    const OBSTACLE: &str = "warning: chain hold of table inet theirs drops what is forwarded, and its \
        table belongs to another process";
    let Some(hosts) = hosts() else { return };
    let files = Files::new();
    let mut nft = owned_by_nft(&hosts.b, &files);
    let before = everything(&hosts.b);
    let file = files.write("b", &FORWARD.toml());
    let planned = adit_in(&hosts.b, &files, &["up", "--plan", file.to_str().unwrap()]);
    assert_eq!(planned.code, Some(0), "{}", planned.said);
    assert!(planned.said.contains(OBSTACLE), "{}", planned.said);
    let tunnel = Tunnel::up(&hosts.b, &files, "b", &FORWARD.toml());
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(ended.said.matches(OBSTACLE).count(), 1, "{}", ended.said);
    assert_same(&before, &everything(&hosts.b));
    nft.kill().unwrap();
}
