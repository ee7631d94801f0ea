//! Keys change under load, and nobody notices.
//!
//! ```text
//!   host A: rekey-after = "5s"        host B
//!   wg0   192.0.2.1 ................. wg0   192.0.2.2
//!   eth0  10.1.0.1 ------------------ eth0  10.1.0.2
//! ```
//!
//! WireGuard's own time is 120 s, and of the two parties the initiator looks at it.

use crate::messages::{Messages, Type};
use crate::pair::{Pair, for_each_meeting};
use crate::party::Kind;
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::soon;
use crate::rig::tcp::Session;

/// How many handshakes are waited for.
const HANDSHAKES: usize = 4;

#[test]
fn keys_change_under_load_without_a_lost_packet() {
    for_each_meeting(|kinds| {
        // Others keep to their own time.
        if kinds[0] != Kind::Adit {
            return;
        }
        let pair = Pair::with(kinds, Family::V4, |a, _| a.local = "rekey-after = \"5s\"");
        let (a, b) = (&pair.hosts.a, &pair.hosts.b);
        let mut messages = Messages::watch(a, &[b]);
        Pinger::new(a, Family::V4.inner(2)).assert_answers(56);
        let mut session = Session::begin(a, b, Family::V6.inner(2));
        let mut pinger = Pinger::new(b, Family::V4.inner(1));
        let changed = soon().wait_until(|| {
            session.exchange(50_000);
            // Each is answered, and none is asked twice.
            pinger.assert_answers(1000);
            (messages.count(Type::Response) >= HANDSHAKES).then_some(())
        });
        changed.unwrap();
        // Nobody begins a handshake that is not needed.
        assert!(messages.count(Type::Initiation) <= HANDSHAKES + 1);
    });
}
