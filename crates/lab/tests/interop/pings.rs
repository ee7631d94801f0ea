//! Both families pass inside over both families outside, whoever begins, with and without a preshared key.
//!
//! ```text
//!   host A                                host B
//!   wg0   192.0.2.1, fd00:7::1 .......... wg0   192.0.2.2, fd00:7::2
//!   eth0  10.1.0.1, fd01::1 ------------- eth0  10.1.0.2, fd01::2
//!           \
//!            who sends the first initiation?
//! ```

use lab::TwoHosts;

use crate::messages::{Messages, Type};
use crate::pair::{Pair, for_each_meeting, specs};
use crate::party::{Kind, Spec};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sh::sh;

/// Packets that were sent before there was a session are kept and arrive, so the first ping is answered.
fn assert_answers(pair: &Pair, first: u8) {
    for inner in Family::BOTH {
        let (from, to, other) = pair.from(first);
        Pinger::new(from, inner.inner(other)).assert_answers(56);
        Pinger::new(to, inner.inner(first)).assert_answers(1000);
    }
}

fn assert_session_begins(
    kinds: [Kind; 2],
    outer: Family,
    first: u8,
    change: impl FnOnce(&TwoHosts, &mut [Spec; 2]),
) {
    let hosts = TwoHosts::build().unwrap();
    let mut specs = specs(&hosts, outer);
    change(&hosts, &mut specs);
    let mut messages = Messages::watch(&hosts.a, &[&hosts.b]);
    let pair = Pair::between(hosts, kinds, specs);
    assert_answers(&pair, first);
    let initiation = messages.first(Type::Initiation).unwrap();
    assert_eq!(initiation.source, outer.outer(first));
    // One handshake is enough for both.
    assert_eq!(messages.count(Type::Initiation), 1);
    assert_eq!(messages.count(Type::Response), 1);
    assert_eq!(messages.count(Type::CookieReply), 0);
}

#[test]
fn the_first_ping_begins_a_session_over_either_family() {
    for_each_meeting(|kinds| {
        for outer in Family::BOTH {
            for first in [1, 2] {
                assert_session_begins(kinds, outer, first, |_, _| {});
            }
        }
    });
}

#[test]
fn the_first_ping_begins_a_session_with_a_preshared_key() {
    for_each_meeting(|kinds| {
        for first in [1, 2] {
            assert_session_begins(kinds, Family::V4, first, |hosts, specs| {
                let key = sh(&hosts.a, "wg genpsk").trim().to_owned();
                specs.iter_mut().for_each(|spec| spec.peers[0].preshared_key = Some(key.clone()));
            });
        }
    });
}

#[test]
fn parties_with_different_preshared_keys_do_not_meet() {
    for_each_meeting(|kinds| {
        let hosts = TwoHosts::build().unwrap();
        let mut specs = specs(&hosts, Family::V4);
        for spec in &mut specs {
            spec.peers[0].preshared_key = Some(sh(&hosts.a, "wg genpsk").trim().to_owned());
            // Says something as soon as it can.
            spec.peers[0].keepalive = Some(1);
        }
        let mut messages = Messages::watch(&hosts.a, &[&hosts.b]);
        let pair = Pair::between(hosts, kinds, specs);
        // The preshared key is mixed in with the response, so each initiation is answered in vain.
        messages.wait_for(Type::Response, 1);
        messages.wait_for(Type::Initiation, 3);
        assert_eq!(messages.count(Type::Data), 0);
        drop(pair);
    });
}
