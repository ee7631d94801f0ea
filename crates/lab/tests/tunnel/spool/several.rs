//! Several sides in one folder.
//!
//! ```text
//!   host A (hub)          host B            host C
//!   adit0 ............... adit0             adit0           A with B, A with C
//!   folder -------------- folder ---------- folder
//!
//!   host A                host B            host C          host D
//!   adit0 ............... adit0             adit0 ......... adit0     A with B, C with D
//!   folder -------------- folder ---------- folder -------- folder
//! ```

use lab::Host;

use crate::rig::folder::{Folder, end_all, hosts, only_peer, peer, toml};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sealed::Station;
use crate::rig::state;
use crate::rig::tcp::assert_transfers;

#[test]
fn a_hub_and_two_peers_reach_each_other() {
    let Some(hosts) = hosts() else { return };
    let (folder, c) = (Folder::new(), Host::new("C").unwrap());
    let hub = [peer(2, &folder, &[]), peer(3, &folder, &[])];
    let hub = toml(1, &folder, "", "", &hub);
    let all = ["192.0.2.0/24", "fd00:7::/64"];
    let spoke = |number| toml(number, &folder, "", "", &[peer(1, &folder, &all)]);
    let stations = [
        Station::up(&hosts.a, 1, &format!("{hub}[network]\nforward = true\n")),
        Station::up(&hosts.b, 2, &spoke(2)),
        Station::up(&c, 3, &spoke(3)),
    ];
    state::write_sysctl(&hosts.a, "net.ipv4.conf.all.send_redirects", "0");
    let all = [(&hosts.a, 1), (&hosts.b, 2), (&c, 3)];
    for (from, here) in all {
        for (_, there) in all.iter().filter(|(_, there)| *there != here) {
            for inner in Family::BOTH {
                Pinger::new(from, inner.inner(*there)).wait_for_answer();
            }
        }
    }
    for (from, to, number) in [(&hosts.a, &hosts.b, 2), (&hosts.b, &c, 3), (&c, &hosts.a, 1)] {
        assert_transfers(from, to, Family::V4.inner(number), 2 << 20);
        assert_transfers(from, to, Family::V6.inner(number), 2 << 20);
    }
    end_all(stations);
    folder.assert_empty();
}

#[test]
fn two_tunnels_in_one_folder_know_nothing_of_each_other() {
    let Some(hosts) = hosts() else { return };
    let (folder, c, d) = (Folder::new(), Host::new("C").unwrap(), Host::new("D").unwrap());
    let all = [(&hosts.a, 1, 2), (&hosts.b, 2, 1), (&c, 3, 4), (&d, 4, 3)];
    let stations = all.map(|(host, number, other)| {
        Station::up(host, number, &toml(number, &folder, "", "", &[only_peer(other, &folder)]))
    });
    assert_eq!(folder.inboxes().len(), 4);
    for (from, _, other) in all {
        Pinger::new(from, Family::V4.inner(other)).wait_for_answer();
    }
    std::thread::scope(|scope| {
        for (from, to, number) in [(&hosts.a, &hosts.b, 2), (&c, &d, 4)] {
            scope.spawn(move || assert_transfers(from, to, Family::V4.inner(number), 16 << 20));
        }
    });
    let [a, b, _c, _d] = stations;
    // The end of one is no end of the other.
    end_all([a, b]);
    assert_eq!(folder.inboxes().len(), 2);
    assert_transfers(&d, &c, Family::V6.inner(3), 2 << 20);
}
