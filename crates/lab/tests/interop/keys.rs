//! A party with another key is another party.
//!
//! ```text
//!   host A: gets another key      host B: is told later
//!   wg0   192.0.2.1 ............. wg0   192.0.2.2
//!   eth0  10.1.0.1 -------------- eth0  10.1.0.2
//! ```

use crate::messages::{Messages, Seen, Type};
use crate::pair::{Pair, for_each_meeting};
use crate::party::Keys;
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::udp;

#[test]
fn a_new_key_counts_once_the_other_side_knows_it() {
    for_each_meeting(|kinds| {
        let Pair { mut a, mut b, mut specs, files, hosts } = Pair::up(kinds);
        Pinger::new(&hosts.a, Family::V4.inner(2)).assert_answers(56);
        specs[0].keys = Keys::new(&hosts.a);
        a = a.reconfigure(&hosts.a, &files, &specs[0]);
        let mut messages = Messages::watch(&hosts.a, &[&hosts.b]);
        let client = udp::connect(&hosts.a, (Family::V4.inner(2), 9).into());
        client.send(b"hello?").unwrap();
        // The second one is sent because the first was not answered.
        messages.wait_for(Type::Initiation, 2);
        assert_eq!(messages.count(Type::Response), 0, "B does not know this key");
        specs[1].peers[0].public_key = specs[0].keys.public.clone();
        b = b.reconfigure(&hosts.b, &files, &specs[1]);
        Pinger::new(&hosts.a, Family::V4.inner(2)).wait_for_answer();
        Pinger::new(&hosts.b, Family::V6.inner(1)).assert_answers(56);
        drop((a, b));
    });
}

#[test]
fn a_stranger_gets_no_answer_at_all() {
    for_each_meeting(|kinds| {
        let pair = Pair::with(kinds, Family::V4, |_, b| {
            // B waits for somebody else, but A knows B.
            b.peers[0].public_key = format!("{}=", "s".repeat(43));
            b.peers[0].endpoint = None;
        });
        let mut messages = Messages::watch(&pair.hosts.a, &[&pair.hosts.b]);
        let client = udp::connect(&pair.hosts.a, (Family::V4.inner(2), 9).into());
        client.send(b"hello?").unwrap();
        messages.wait_for(Type::Initiation, 2);
        let from_b = |seen: &&Seen| seen.source == Family::V4.outer(2);
        assert_eq!(messages.so_far().iter().find(from_b), None);
    });
}
