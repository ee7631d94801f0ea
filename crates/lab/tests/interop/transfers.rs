//! TCP passes both ways at the same time, octet by octet as it was sent.
//!
//! ```text
//!   host A                                host B
//!   wg0   192.0.2.1, fd00:7::1 .......... wg0   192.0.2.2, fd00:7::2
//!   eth0  10.1.0.1, fd01::1 ------------- eth0  10.1.0.2, fd01::2
//! ```

use crate::pair::{Pair, for_each_meeting};
use crate::rig::pair::Family;
use crate::rig::state::assert_no_checksum_errors;
use crate::rig::tcp::assert_transfers;
use crate::rig::udp::assert_sizes_echo;

/// Octets of one transfer.
const OCTETS: usize = 8 << 20;

#[test]
fn tcp_passes_both_ways_over_either_family() {
    for_each_meeting(|kinds| {
        for outer in Family::BOTH {
            let pair = Pair::with(kinds, outer, |_, _| {});
            let (a, b) = (&pair.hosts.a, &pair.hosts.b);
            for inner in Family::BOTH {
                assert_transfers(a, b, inner.inner(2), OCTETS);
                assert_transfers(b, a, inner.inner(1), OCTETS);
            }
            pair.hosts.hosts().into_iter().for_each(assert_no_checksum_errors);
        }
    });
}

#[test]
fn udp_passes_whether_in_one_packet_or_in_fragments() {
    for_each_meeting(|kinds| {
        let pair = Pair::up(kinds);
        let (a, b) = (&pair.hosts.a, &pair.hosts.b);
        for inner in Family::BOTH {
            assert_sizes_echo(a, b, inner.inner(2), [0, 1, 1000, 1392, 1393, 9000, 65_507], || {});
        }
        pair.hosts.hosts().into_iter().for_each(assert_no_checksum_errors);
    });
}
