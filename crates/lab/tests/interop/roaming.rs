//! A party that gets another address keeps its sessions: the other follows what it can authenticate.
//!
//! ```text
//!   host A                                    host B
//!   wg0   192.0.2.1 ......................... wg0   192.0.2.2
//!   eth0  10.1.0.1, then 10.1.0.11 ---------- eth0  10.1.0.2, then 10.1.0.12
//!         fd01::1, then fd01::11                    fd01::2, then fd01::12
//! ```

use lab::Host;
use lab::topology::ETH0;

use crate::messages::{Messages, Type};
use crate::pair::{Pair, endpoint, for_each_meeting};
use crate::party::{Kind, Party};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::state;
use crate::rig::tcp::Session;

/// The number after it: a 1 is put before its only digit, which is decimal or hexadecimal.
fn moved(outer: Family, number: u8) -> u8 {
    number + if outer == Family::V4 { 10 } else { 0x10 }
}

/// Gives the host with `number` another address in the place of its own.
fn renumber(host: &Host, outer: Family, number: u8) {
    let new = moved(outer, number);
    let length = if outer == Family::V4 { 24 } else { 64 };
    // In this order, since the kernel removes with an address what came later to its subnet.
    state::delete_address(host, ETH0, &format!("{}/{length}", outer.outer(number)));
    state::add_address(host, ETH0, &format!("{}/{length}", outer.outer(new)));
}

/// Fails unless the only peer is where it should be.
fn assert_endpoint(party: &Party, host: &Host, outer: Family, number: u8) {
    if let Some(peer) = party.only_peer(host) {
        assert_eq!(peer.endpoint, Some(endpoint(outer, number)));
    }
}

/// Fails unless the party with `number` keeps its session when its host gets another address.
fn assert_followed(pair: &Pair, kinds: [Kind; 2], outer: Family, number: u8) {
    let (moving, staying, other) = pair.from(number);
    let mut messages = Messages::watch(moving, &[staying]);
    renumber(moving, outer, number);
    Pinger::new(moving, Family::V4.inner(other)).wait_for_answer();
    Pinger::new(staying, Family::V4.inner(number)).assert_answers(56);
    let knows = if number == 1 { &pair.b } else { &pair.a };
    assert_endpoint(knows, staying, outer, moved(outer, number));
    // wireguard-go goes on sending from the address that is gone until its peer seems to be dead.
    if kinds[usize::from(number) - 1] == Kind::Adit {
        assert_eq!(messages.count(Type::Initiation), 0, "the session should go on");
    }
}

#[test]
fn either_side_may_get_another_address() {
    for_each_meeting(|kinds| {
        for outer in Family::BOTH {
            let pair = Pair::with(kinds, outer, |_, _| {});
            let (a, b) = (&pair.hosts.a, &pair.hosts.b);
            Pinger::new(a, Family::V4.inner(2)).assert_answers(56);
            let mut session = Session::begin(a, b, Family::V6.inner(2));
            // boringtun sends from sockets that are bound to its first address for good.
            let may_move = |number: &u8| kinds[usize::from(*number) - 1] != Kind::Boringtun;
            for number in [1, 2].into_iter().filter(may_move) {
                assert_followed(&pair, kinds, outer, number);
                session.exchange(100_000);
            }
        }
    });
}

#[test]
fn a_party_that_is_known_by_its_key_only_is_found_by_what_it_sends() {
    for_each_meeting(|kinds| {
        for outer in Family::BOTH {
            let pair = Pair::with(kinds, outer, |_, b| b.peers[0].endpoint = None);
            Pinger::new(&pair.hosts.a, Family::V6.inner(2)).assert_answers(56);
            assert_endpoint(&pair.b, &pair.hosts.b, outer, 1);
            Pinger::new(&pair.hosts.b, Family::V4.inner(1)).assert_answers(56);
        }
    });
}

#[test]
fn a_party_may_move_from_one_family_to_the_other() {
    for_each_meeting(|kinds| {
        let mut pair = Pair::up(kinds);
        Pinger::new(&pair.hosts.a, Family::V4.inner(2)).assert_answers(56);
        pair.specs[0].peers[0].endpoint = Some(endpoint(Family::V6, 2));
        pair.a = pair.a.reconfigure(&pair.hosts.a, &pair.files, &pair.specs[0]);
        Pinger::new(&pair.hosts.a, Family::V4.inner(2)).wait_for_answer();
        assert_endpoint(&pair.b, &pair.hosts.b, Family::V6, 1);
        Pinger::new(&pair.hosts.b, Family::V6.inner(1)).assert_answers(56);
    });
}
