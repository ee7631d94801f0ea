//! A device with several queues.
//!
//! ```text
//!   host A                          host B
//!   adit0 (2 queues) .............. adit0 (1 or 4 queues)
//!   eth0  10.1.0.1 ---------------- eth0  10.1.0.2
//! ```

use std::thread;

use rustix::process::Signal;

use crate::rig::pair::{End, Family, Pair};
use crate::rig::ping::assert_answers;
use crate::rig::state::{self, assert_no_checksum_errors};
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::DEVICE;
use crate::rig::udp::assert_sizes_echo;

/// Connections at a time, so that every queue has some with near certainty.
const FLOWS: usize = 12;

fn assert_flows_pass(b: End) {
    let Some(pair) = Pair::with(End::A.device("queues = 2"), b) else { return };
    let device = state::link(&pair.a.host, DEVICE).unwrap().tun.unwrap();
    assert_eq!((device.multi_queue, device.queues, device.disabled_queues), (true, 2, 0));
    let (a, b) = (&pair.a.host, &pair.b.host);
    for inner in Family::BOTH {
        assert_answers(a, inner.inner(2));
        thread::scope(|scope| {
            for _ in 0..FLOWS {
                scope.spawn(|| assert_transfers(a, b, inner.inner(2), 1 << 20));
            }
        });
        assert_sizes_echo(a, b, inner.inner(2), [0, 1000, 65_507], || {});
    }
    assert_no_checksum_errors(a);
    assert_no_checksum_errors(b);
    let ended = pair.a.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(state::link(&pair.a.host, DEVICE), None);
}

#[test]
fn flows_pass_between_two_queues_and_one() {
    assert_flows_pass(End::B);
}

#[test]
fn flows_pass_between_two_queues_and_four() {
    assert_flows_pass(End::B.device("queues = 4"));
}
