//! A party that was killed and starts anew is met again, with nothing done at the other side.
//!
//! ```text
//!   host A                       host B: killed, started again
//!   wg0   192.0.2.1 ............ wg0   192.0.2.2
//!   eth0  10.1.0.1 ------------- eth0  10.1.0.2
//! ```

use crate::pair::{Pair, for_each_meeting};
use crate::party::Party;
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::{soon, state};

#[test]
fn a_party_that_was_killed_is_met_again() {
    for_each_meeting(|kinds| {
        let Pair { a: _a, b, specs, files, hosts } = Pair::up(kinds);
        Pinger::new(&hosts.a, Family::V4.inner(2)).assert_answers(56);
        b.kill();
        // The kernel removes the device after the last descriptor.
        let gone = || state::link(&hosts.b, crate::party::DEVICE).is_none().then_some(());
        soon().wait_until(gone).unwrap();
        let _b = Party::up(kinds[1], &hosts.b, &files, &specs[1]);
        // The one that starts anew says so by an initiation.
        Pinger::new(&hosts.b, Family::V4.inner(1)).assert_answers(56);
        Pinger::new(&hosts.a, Family::V6.inner(2)).assert_answers(56);
    });
}

/// Nothing tells A that B has forgotten the session, but that it does not answer: A begins anew after
/// `KEEPALIVE_TIMEOUT` and `REKEY_TIMEOUT`, 15 s (whitepaper, section 6.5).
#[test]
fn a_party_that_has_forgotten_the_session_is_asked_for_a_new_one() {
    for_each_meeting(|kinds| {
        let Pair { a: _a, b, specs, files, hosts } = Pair::up(kinds);
        Pinger::new(&hosts.a, Family::V4.inner(2)).assert_answers(56);
        b.kill();
        let mut specs = specs;
        specs[1].peers[0].endpoint = None;
        let gone = || state::link(&hosts.b, crate::party::DEVICE).is_none().then_some(());
        soon().wait_until(gone).unwrap();
        let _b = Party::up(kinds[1], &hosts.b, &files, &specs[1]);
        Pinger::new(&hosts.a, Family::V4.inner(2)).wait_for_answer();
    });
}
