//! An endpoint that is routed into its own tunnel: nothing is sent round and round.
//!
//! ```text
//!   host A                          host B
//!   wg0   192.0.2.1 ............... wg0   192.0.2.2
//!     ^------ 10.1.0.2              |
//!   eth0  10.1.0.1 ---------------- eth0  10.1.0.2
//! ```

use std::time::Duration;

use lab::{Deadline, Host};

use crate::pair::{Pair, for_each_meeting};
use crate::party::{DEVICE, Kind};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sh::{json, sh};
use crate::rig::udp;

/// Packets that are sent into the tunnel while it leads into itself.
const PACKETS: u64 = 100;

/// How long the device must be still to be at rest, which one that loops never is.
const REST: Duration = Duration::from_millis(300);

/// Packets and octets that the kernel of `host` has handed to the party.
fn handed(host: &Host) -> (u64, u64) {
    let links = json(host, &format!("ip -j -s link show {DEVICE}"));
    let count = |key: &str| links[0]["stats64"]["tx"][key].as_u64().unwrap();
    (count("packets"), count("bytes"))
}

/// What was handed to the party once that is at rest.
fn handed_at_rest(host: &Host) -> (u64, u64) {
    crate::rig::soon()
        .wait_until(|| {
            let before = handed(host);
            let more = || (handed(host) != before).then_some(());
            Deadline::after(REST).wait_until(more).is_err().then_some(before)
        })
        .unwrap_or_else(|error| panic!("{error}: it goes round and round: {:?}", handed(host)))
}

#[test]
fn a_tunnel_that_leads_into_itself_carries_nothing_twice() {
    for_each_meeting(|kinds| {
        // What others do is not for us to say.
        if kinds[0] != Kind::Adit {
            return;
        }
        let pair = Pair::with(kinds, Family::V4, |a, _| {
            a.peers[0].allowed_ips = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
            a.network = "default-route = true";
        });
        let (a, b) = (&pair.hosts.a, &pair.hosts.b);
        Pinger::new(a, Family::V4.inner(2)).assert_answers(56);
        sh(a, &format!("ip route replace 10.1.0.2/32 dev {DEVICE}"));
        let (before, _) = handed_at_rest(a);
        let client = udp::connect(a, (Family::V4.inner(2), 9).into());
        for _ in 0..PACKETS {
            client.send(&[0; 100]).unwrap();
        }
        let (after, _) = handed_at_rest(a);
        let added = after - before;
        assert!((PACKETS..=3 * PACKETS).contains(&added), "{added} packets");
        sh(a, &format!("ip route del 10.1.0.2/32 dev {DEVICE}"));
        Pinger::new(a, Family::V4.inner(2)).wait_for_answer();
        Pinger::new(b, Family::V4.inner(1)).assert_answers(56);
    });
}

#[test]
fn everything_but_the_endpoint_goes_through_the_tunnel() {
    for_each_meeting(|kinds| {
        if kinds[0] != Kind::Adit {
            return;
        }
        let pair = Pair::with(kinds, Family::V4, |a, _| {
            a.peers[0].allowed_ips = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
            a.network = "default-route = true";
        });
        let (a, b) = (&pair.hosts.a, &pair.hosts.b);
        sh(b, &format!("ip address add 203.0.113.9/32 dev {DEVICE}"));
        Pinger::new(a, "203.0.113.9".parse().unwrap()).assert_answers(56);
        Pinger::new(a, Family::V6.inner(2)).assert_answers(56);
    });
}
