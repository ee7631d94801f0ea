//! Packets of every size pass, and none is fragmented outside.
//!
//! ```text
//!   host A                            host B
//!   adit0 192.0.2.1 ................. adit0 192.0.2.2     MTU 1472 over IPv4, 1452 over IPv6
//!   eth0  10.1.0.1, fd01::1 --------- eth0  10.1.0.2      MTU 1500, no super-packets
//!                                 \
//!                                  every packet is judged here
//! ```

use crate::rig::pair::{End, Family, Pair, hosts};
use crate::rig::ping::Pinger;
use crate::rig::tunnel::DEVICE;
use crate::rig::udp::{MAX_PAYLOAD, assert_sizes_echo};
use crate::rig::wire::{Judge, refuse_super_packets};
use crate::rig::{Pattern, state};

/// Payloads that are all tried.
const SMALL: usize = 2000;

/// How many payloads of random size are tried.
const RANDOM: usize = 100;

/// Payloads of echo requests: none, one octet, the longest packet and one more for both MTUs, a
/// few fragments, the longest that IPv4 carries.
const ECHOES: [usize; 9] = [0, 1, 1424, 1425, 1444, 1445, 9000, 65_506, 65_507];

/// A tunnel over `outer` on a wire that is judged.
fn judged(outer: Family) -> Option<(Pair, Judge)> {
    let hosts = hosts()?;
    hosts.hosts().into_iter().for_each(refuse_super_packets);
    let judge = Judge::watch(&hosts.a, outer);
    let pair = Pair::between(hosts, End::A.over(outer), End::B.over(outer))?;
    Some((pair, judge))
}

/// The octets that fit into one packet of the tunnel.
fn mtu(pair: &Pair) -> usize {
    usize::try_from(state::link(&pair.a.host, DEVICE).unwrap().mtu).unwrap()
}

/// Small ones, those around every multiple of `mtu`, some random ones, and the largest.
fn sizes(mtu: usize) -> impl Iterator<Item = usize> {
    // An IPv4 fragment carries 20 octets less than the MTU, an IPv6 one 48.
    let edges = (2..MAX_PAYLOAD / mtu)
        .flat_map(move |count| [0, 20, 28, 40, 48].map(|header| (mtu - header) * count));
    let around_edges = edges.flat_map(|edge| edge - 2..=edge + 2);
    let mut pattern = Pattern::new(3);
    let random = std::iter::repeat_with(move || {
        usize::try_from(pattern.next() % (MAX_PAYLOAD - SMALL) as u64).unwrap() + SMALL
    });
    (0..=SMALL).chain(around_edges.step_by(7)).chain(random.take(RANDOM)).chain([MAX_PAYLOAD])
}

fn assert_sizes_pass(outer: Family, expected_mtu: usize) {
    let Some((pair, mut judge)) = judged(outer) else { return };
    assert_eq!(mtu(&pair), expected_mtu);
    let (a, b) = (&pair.a.host, &pair.b.host);
    for inner in Family::BOTH {
        assert_sizes_echo(a, b, inner.inner(2), sizes(expected_mtu), || judge.look());
    }
    let (datagrams, longest) = judge.verdict();
    assert!(datagrams > 4 * SMALL, "{datagrams}");
    // The MTU is used to its last octet, or to the last eight of an inner fragment.
    assert_eq!(longest, 1500);
}

fn assert_echoes_pass(outer: Family) {
    let Some((pair, mut judge)) = judged(outer) else { return };
    for inner in Family::BOTH {
        for (from, to) in [(&pair.a.host, 2), (&pair.b.host, 1)] {
            let mut pinger = Pinger::new(from, inner.inner(to));
            for payload in ECHOES {
                pinger.assert_answers(payload);
                judge.look();
            }
        }
    }
    let (datagrams, _) = judge.verdict();
    // Two ways, two families, and 45 fragments at least for each of the two longest.
    assert!(datagrams > 2 * 2 * 2 * 2 * 45, "{datagrams}");
}

#[test]
fn udp_of_every_size_passes_over_ipv4_unfragmented() {
    assert_sizes_pass(Family::V4, 1472);
}

#[test]
fn udp_of_every_size_passes_over_ipv6_unfragmented() {
    assert_sizes_pass(Family::V6, 1452);
}

#[test]
fn icmp_echoes_up_to_the_longest_pass_over_ipv4_unfragmented() {
    assert_echoes_pass(Family::V4);
}

#[test]
fn icmp_echoes_up_to_the_longest_pass_over_ipv6_unfragmented() {
    assert_echoes_pass(Family::V6);
}
