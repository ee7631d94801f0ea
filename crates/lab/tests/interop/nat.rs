//! A party behind a translation that forgets soon is reached as long as it sends keepalives.
//!
//! ```text
//!   host A                    host B: masquerades, forgets     host C
//!   wg0   192.0.2.1 ............................................ wg0   192.0.2.3
//!   eth0  10.1.0.1 ---------- eth0  10.1.0.2
//!                             eth1  198.51.100.2 -------------- eth0  198.51.100.3
//! ```
//!
//! C does not know where A is.

use std::net::SocketAddr;
use std::time::Duration;

use lab::{Deadline, Gateway};

use crate::pair::{for_each_meeting, peer, spec};
use crate::party::{Keys, Kind, PORT, Party};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sh::{sh, try_sh};
use crate::rig::tunnel::Files;
use crate::rig::{PATIENCE, gateway, udp};

/// B translates, and forgets after two seconds, or three for those who were answered.
const TRANSLATE: &str = "sysctl -qw net.ipv4.ip_forward=1; nft -f - <<END
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat
        oif eth1 masquerade
    }
}
END
sysctl -qw net.netfilter.nf_conntrack_udp_timeout=2 net.netfilter.nf_conntrack_udp_timeout_stream=3";

/// After so long without a packet the translation has forgotten.
const FORGOTTEN: Duration = Duration::from_secs(4);

/// A, behind B, and C.
struct Scene {
    parties: [Party; 2],
    _files: Files,
    hosts: Gateway,
}

fn scene(kinds: [Kind; 2], keepalive: Option<u16>) -> Option<Scene> {
    let hosts = gateway::hosts()?;
    sh(&hosts.b, TRANSLATE);
    let files = Files::new();
    let keys = [&hosts.a, &hosts.c].map(Keys::new);
    let [mut a, mut c] = [spec(1, &keys[0]), spec(3, &keys[1])];
    a.peers.push(peer(3, &keys[1], Family::V4));
    a.peers[0].endpoint = Some(SocketAddr::new(Gateway::C.into(), PORT));
    a.peers[0].keepalive = keepalive;
    c.peers.push(peer(1, &keys[0], Family::V4));
    c.peers[0].endpoint = None;
    let parties =
        [Party::up(kinds[0], &hosts.a, &files, &a), Party::up(kinds[1], &hosts.c, &files, &c)];
    Some(Scene { parties, _files: files, hosts })
}

/// Waits for longer than the translation remembers, which it does not tell: it counts what it has forgotten until it
/// comes to clean up.
fn wait_until_forgotten() {
    let never = Deadline::after(FORGOTTEN).wait_until(|| None::<()>);
    assert!(never.is_err());
}

#[test]
fn keepalives_keep_a_party_behind_a_translation_reachable() {
    for_each_meeting(|kinds| {
        let Some(scene) = scene(kinds, Some(1)) else { return };
        let Scene { parties, hosts, .. } = &scene;
        // The first keepalive begins the session.
        Pinger::new(&hosts.c, Family::V4.inner(1)).wait_for_answer();
        // Nothing but keepalives for longer than the translation remembers.
        wait_until_forgotten();
        Pinger::new(&hosts.c, Family::V4.inner(1)).assert_answers(56);
        if let Some(peer) = parties[1].only_peer(&hosts.c) {
            assert_eq!(peer.endpoint.unwrap().ip(), Gateway::UPLINK);
        }
    });
}

#[test]
fn without_keepalives_a_party_behind_a_translation_is_lost_until_it_speaks() {
    for_each_meeting(|kinds| {
        let Some(scene) = scene(kinds, None) else { return };
        let Scene { hosts, .. } = &scene;
        Pinger::new(&hosts.a, Family::V4.inner(3)).assert_answers(56);
        // Passive keepalives come 10 s after the last packet, if at all.
        wait_until_forgotten();
        let client = udp::connect(&hosts.c, (Family::V4.inner(1), 9).into());
        let refused_by_b = "nft add table ip seen; \
            nft 'add chain ip seen input { type filter hook input priority 0; }'; \
            nft add rule ip seen input udp dport != 0 counter";
        sh(&hosts.b, refused_by_b);
        client.send(b"lost").unwrap();
        let seen = || {
            let rules = try_sh(&hosts.b, "nft list chain ip seen input").ok()?;
            (!rules.contains("packets 0 ")).then_some(())
        };
        Deadline::after(PATIENCE).wait_until(seen).unwrap();
        Pinger::new(&hosts.a, Family::V4.inner(3)).assert_answers(56);
        Pinger::new(&hosts.c, Family::V4.inner(1)).assert_answers(56);
    });
}
