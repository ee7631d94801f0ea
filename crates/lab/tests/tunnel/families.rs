//! IPv4 and IPv6 inside IPv4 and IPv6: all four.
//!
//! ```text
//!   host A                                      host B
//!   adit0 192.0.2.1/24, fd00:7::1/64 .......... adit0 192.0.2.2/24, fd00:7::2/64
//!   eth0  10.1.0.1/24, fd01::1/64 ------------- eth0  10.1.0.2/24, fd01::2/64
//! ```

use crate::rig::pair::{End, Family, Pair, hosts};
use crate::rig::ping::assert_answers;
use crate::rig::tcp::assert_transfers;
use crate::rig::udp::assert_sizes_echo;
use crate::rig::wire::{Judge, refuse_super_packets};

const MIB: usize = 1 << 20;

fn assert_passes(inner: Family, outer: Family) {
    let Some(hosts) = hosts() else { return };
    hosts.hosts().into_iter().for_each(refuse_super_packets);
    // It fails at the first datagram of the other family.
    let mut judge = Judge::watch(&hosts.b, outer);
    let pair = Pair::between(hosts, End::A.over(outer), End::B.over(outer)).unwrap();
    let (a, b) = (&pair.a.host, &pair.b.host);
    assert_answers(a, inner.inner(2));
    assert_answers(b, inner.inner(1));
    judge.look();
    assert_sizes_echo(a, b, inner.inner(2), [0, 1, 500, 1400, 4000], || judge.look());
    assert_sizes_echo(b, a, inner.inner(1), [0, 1, 500, 1400, 4000], || judge.look());
    assert_transfers(a, b, inner.inner(2), MIB);
    judge.look();
    assert_transfers(b, a, inner.inner(1), MIB);
    let (datagrams, _) = judge.verdict();
    assert!(datagrams > 4 * MIB / 1460, "{datagrams}");
}

#[test]
fn ipv4_passes_inside_ipv4() {
    assert_passes(Family::V4, Family::V4);
}

#[test]
fn ipv6_passes_inside_ipv4() {
    assert_passes(Family::V6, Family::V4);
}

#[test]
fn ipv4_passes_inside_ipv6() {
    assert_passes(Family::V4, Family::V6);
}

#[test]
fn ipv6_passes_inside_ipv6() {
    assert_passes(Family::V6, Family::V6);
}
