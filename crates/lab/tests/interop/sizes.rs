//! Packets of all sizes pass, each padded as WireGuard does: to 16 octets, but not beyond the MTU.
//!
//! ```text
//!   host A                          host B
//!   wg0   192.0.2.1 ............... wg0   192.0.2.2      MTU 1420
//!   eth0  10.1.0.1, fd01::1 ------- eth0  10.1.0.2       MTU 1500, no super-packets
//!           \
//!            every message is measured here
//! ```

use crate::messages::{Messages, Seen, Type};
use crate::pair::{Pair, for_each_meeting};
use crate::party::{Kind, MTU};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;

/// Octets of IPv4 and ICMP headers around the payload of a ping.
const HEADERS: usize = 28;

/// Header and tag of a data message.
const OVERHEAD: usize = 32;

/// What is padded to (whitepaper, section 5.4.6).
const PADDING: usize = 16;

/// The length of the message that carries a packet of so many octets.
fn message(packet: usize) -> usize {
    packet.next_multiple_of(PADDING).min(MTU as usize) + OVERHEAD
}

/// The data messages from `source` with something in them.
fn data(seen: &[Seen], source: std::net::IpAddr) -> Vec<usize> {
    let is_data = |seen: &&Seen| seen.kind == Type::Data && seen.source == source;
    let lengths = seen.iter().filter(is_data).map(|seen| seen.length);
    lengths.filter(|length| *length > OVERHEAD).collect()
}

/// Whether the party with `number` pads as WireGuard does: boringtun never, adit not for its kind.
fn pads(kinds: [Kind; 2], number: u8) -> bool {
    kinds[usize::from(number) - 1] != Kind::Boringtun && kinds != [Kind::Adit; 2]
}

/// Every seventh payload, and all of the last ones up to the MTU.
fn payloads() -> impl Iterator<Item = usize> {
    let longest = MTU as usize - HEADERS;
    (0..longest - 40).step_by(7).chain(longest - 40..=longest)
}

#[test]
fn packets_of_all_sizes_pass_and_are_padded() {
    for_each_meeting(|kinds| {
        for outer in Family::BOTH {
            let pair = Pair::with(kinds, outer, |_, _| {});
            let mut messages = Messages::watch(&pair.hosts.a, &[&pair.hosts.b]);
            let mut pinger = Pinger::new(&pair.hosts.a, Family::V4.inner(2));
            for payload in payloads() {
                pinger.assert_answers(payload);
            }
            let expected: Vec<_> = payloads().map(|payload| message(payload + HEADERS)).collect();
            for number in [1, 2].into_iter().filter(|number| pads(kinds, *number)) {
                assert_eq!(data(messages.so_far(), outer.outer(number)), expected);
            }
            messages.so_far();
        }
    });
}

#[test]
fn packets_longer_than_the_mtu_pass_in_fragments() {
    for_each_meeting(|kinds| {
        for outer in Family::BOTH {
            let pair = Pair::with(kinds, outer, |_, _| {});
            let mut messages = Messages::watch(&pair.hosts.a, &[&pair.hosts.b]);
            for inner in Family::BOTH {
                let mut pinger = Pinger::new(&pair.hosts.a, inner.inner(2));
                for payload in [1393, 1420, 1500, 9000, 65_507] {
                    pinger.assert_answers(payload);
                }
            }
            messages.so_far();
        }
    });
}
