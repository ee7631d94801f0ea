//! What routers and hosts say about packets comes back through the tunnel.
//!
//! ```text
//!   host A                       host B: forwards               host C
//!   wg0   192.0.2.1 ............ wg0   192.0.2.2
//!   eth0  10.1.0.1 ------------- eth0  10.1.0.2
//!                                eth1  198.51.100.2, MTU 1300 -- eth0 198.51.100.3
//! ```

use std::io::ErrorKind;

use lab::{Gateway, Host};

use crate::pair::{Pair, for_each_meeting, peer, spec};
use crate::party::{Keys, Kind, Party};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sh::sh;
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::Files;
use crate::rig::{gateway, soon, udp};

#[test]
fn a_closed_port_is_reported_to_the_sender() {
    for_each_meeting(|kinds| {
        let pair = Pair::up(kinds);
        for inner in Family::BOTH {
            let client = udp::connect(&pair.hosts.a, (inner.inner(2), 9).into());
            client.send(b"anyone?").unwrap();
            let error = client.recv(&mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
    });
}

/// A and B, and C behind B, to which A's tunnel leads.
fn behind(kinds: [Kind; 2], hosts: &Gateway, files: &Files) -> [Party; 2] {
    let keys = [&hosts.a, &hosts.b].map(Keys::new);
    let [mut a, mut b] = [spec(1, &keys[0]), spec(2, &keys[1])];
    a.peers.push(peer(2, &keys[1], Family::V4));
    a.peers[0].allowed_ips.extend(["198.51.100.3/32", "2001:db8:100::3/128"].map(str::to_owned));
    b.peers.push(peer(1, &keys[0], Family::V4));
    let parties =
        [Party::up(kinds[0], &hosts.a, files, &a), Party::up(kinds[1], &hosts.b, files, &b)];
    sh(&hosts.b, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    sh(
        &hosts.c,
        "ip route add 192.0.2.0/24 via 198.51.100.2; \
        ip route add fd00:7::/64 via 2001:db8:100::2",
    );
    parties
}

/// The path MTU that the kernel of `host` has learned.
fn learned_mtu(host: &Host, address: &str) -> Option<String> {
    let route = sh(host, &format!("ip route get {address}"));
    let (_, mtu) = route.split_once(" mtu ")?;
    mtu.split_whitespace().next().map(str::to_owned)
}

#[test]
fn a_narrow_link_behind_the_tunnel_is_learned_of() {
    for_each_meeting(|kinds| {
        let Some(hosts) = gateway::hosts() else { return };
        let files = Files::new();
        let parties = behind(kinds, &hosts, &files);
        sh(&hosts.b, "ip link set eth1 mtu 1300");
        // C knows its own link, which drops what is longer, and has A send more than that.
        sh(
            &hosts.c,
            "ip route replace 192.0.2.0/24 via 198.51.100.2 mtu 1300 advmss 1460; \
            ip route replace fd00:7::/64 via 2001:db8:100::2 mtu 1300 advmss 1440",
        );
        for family in Family::BOTH {
            let c = gateway::inside(family);
            Pinger::new(&hosts.a, c).wait_for_answer();
            assert_transfers(&hosts.a, &hosts.c, c, 1 << 20);
            let learned = || (learned_mtu(&hosts.a, &c.to_string())? == "1300").then_some(());
            soon().wait_until(learned).unwrap();
        }
        drop(parties);
    });
}

#[test]
fn an_expired_hop_limit_is_reported_to_the_sender() {
    for_each_meeting(|kinds| {
        let Some(hosts) = gateway::hosts() else { return };
        let files = Files::new();
        let parties = behind(kinds, &hosts, &files);
        for family in Family::BOTH {
            let c = gateway::inside(family);
            Pinger::new(&hosts.a, c).wait_for_answer();
            let said = sh(&hosts.a, &format!("ping -n -c 1 -W 10 -t 1 {c} || true"));
            let router = family.inner(2).to_string();
            let from_router = said.lines().find(|line| line.contains(&router));
            assert!(from_router.is_some_and(|line| line.contains("xceeded")), "{said}");
        }
        drop(parties);
    });
}
