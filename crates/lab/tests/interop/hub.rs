//! Three parties: one in the middle, through which the others reach each other.
//!
//! ```text
//!   host B                     host A: forwards             host C
//!   wg0   192.0.2.2 .......... wg0   192.0.2.1 ............ wg0   192.0.2.3
//!   eth0  10.1.0.2             eth0  10.1.0.1               eth0  10.1.0.3
//!    |                          |                            |
//!  --+--------------------------+----------------------------+-- lan
//! ```
//!
//! B and C know only A, which owns everything for them.

use lab::{Host, ThreeHosts};

use crate::pair::{for_each_meeting, peer, spec};
use crate::party::{Keys, Kind, Party, Spec};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sh::sh;
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::Files;

/// The three, who end before the hosts.
pub(crate) struct Hub {
    pub(crate) parties: [Party; 3],
    pub(crate) specs: [Spec; 3],
    pub(crate) files: Files,
    pub(crate) hosts: ThreeHosts,
}

impl Hub {
    /// A is of the first kind, B of the second, C is wireguard-go; all after `change`.
    pub(crate) fn with(kinds: [Kind; 2], change: impl FnOnce(&mut [Spec; 3])) -> Self {
        let hosts = ThreeHosts::build().unwrap();
        let files = Files::new();
        let mut specs = specs(hosts.hosts());
        change(&mut specs);
        let up = |kind, host, spec| Party::up(kind, host, &files, spec);
        let parties = [
            up(kinds[0], &hosts.a, &specs[0]),
            up(kinds[1], &hosts.b, &specs[1]),
            up(Kind::WireguardGo, &hosts.c, &specs[2]),
        ];
        // Strict reverse path filtering does not mind, and forwarding is off in every host of a lab.
        sh(&hosts.a, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        Self { parties, specs, files, hosts }
    }
}

fn specs(hosts: [&Host; 3]) -> [Spec; 3] {
    let [a, b, c] = hosts.map(Keys::new);
    let mut specs = [spec(1, &a), spec(2, &b), spec(3, &c)];
    specs[0].peers = vec![peer(2, &b, Family::V4), peer(3, &c, Family::V6)];
    for (spec, outer) in specs[1..].iter_mut().zip(Family::BOTH) {
        let mut hub = peer(1, &a, outer);
        hub.allowed_ips = vec!["192.0.2.0/24".to_owned(), "fd00:7::/64".to_owned()];
        spec.peers.push(hub);
    }
    specs
}

#[test]
fn two_parties_reach_each_other_through_a_third() {
    for_each_meeting(|kinds| {
        let hub = Hub::with(kinds, |_| {});
        let ThreeHosts { a, b, c, .. } = &hub.hosts;
        for inner in Family::BOTH {
            Pinger::new(b, inner.inner(3)).assert_answers(56);
            Pinger::new(c, inner.inner(2)).assert_answers(1000);
            Pinger::new(a, inner.inner(2)).assert_answers(56);
            Pinger::new(a, inner.inner(3)).assert_answers(56);
            assert_transfers(b, c, inner.inner(3), 4 << 20);
            assert_transfers(a, c, inner.inner(3), 4 << 20);
        }
    });
}
