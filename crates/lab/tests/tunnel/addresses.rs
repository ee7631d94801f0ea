//! Addresses and MTU of the device, as ip(8) shows them.
//!
//! ```text
//!   host A                                            host B
//!   adit0 10.7.1.1 peer 10.7.1.2 .................... adit0 10.7.1.2 peer 10.7.1.1
//!         fd00:8::1 peer fd00:8::2                          fd00:8::2 peer fd00:8::1
//!         10.7.2.1/24, 10.7.3.1/32, fd00:9::1/64
//!   eth0  10.1.0.1, fd01::1, MTU 1500 --------------- eth0  10.1.0.2, fd01::2
//! ```

use std::collections::BTreeSet;

use lab::Host;
use rustix::process::Signal;
use serde_json::Value;

use crate::rig::pair::{End, Family, Pair, hosts};
use crate::rig::ping::assert_answers;
use crate::rig::program;
use crate::rig::sh::{assert_same, everything, json, sh};
use crate::rig::state;
use crate::rig::tunnel::{DEVICE, add_device};

const A: End = End::A.without_addresses().device(
    "addresses = [{ local = \"10.7.1.1\", peer = \"10.7.1.2/32\" }, \
     { local = \"fd00:8::1\", peer = \"fd00:8::2/128\" }, \
     \"10.7.2.1/24\", \"10.7.3.1/32\", \"fd00:9::1/64\"]\nmtu = 1300",
);

const B: End = End::B.without_addresses().device(
    "addresses = [{ local = \"10.7.1.2\", peer = \"10.7.1.1/32\" }, \
     { local = \"fd00:8::2\", peer = \"fd00:8::1/128\" }]\nmtu = 1300",
);

/// What ip(8) shows of the addresses of [`A`].
const SHOWN: [&str; 5] = [
    "10.7.1.1 peer 10.7.1.2/32",
    "10.7.2.1/24",
    "10.7.3.1/32",
    "fd00:8::1 peer fd00:8::2/128",
    "fd00:9::1/64",
];

fn device(host: &Host) -> Value {
    json(host, &format!("ip -j address show dev {DEVICE}"))[0].clone()
}

/// `192.0.2.1/24`, or `10.7.1.1 peer 10.7.1.2/32`.
fn addresses(host: &Host) -> BTreeSet<String> {
    let device = device(host);
    let shown = device["addr_info"].as_array().unwrap().iter().map(|address| {
        let local = address["local"].as_str().unwrap();
        let length = &address["prefixlen"];
        match address["address"].as_str() {
            Some(peer) => format!("{local} peer {peer}/{length}"),
            None => format!("{local}/{length}"),
        }
    });
    shown.collect()
}

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|&address| address.to_owned()).collect()
}

fn assert_peers_answer(pair: &Pair) {
    for (host, peers) in
        [(&pair.a.host, ["10.7.1.2", "fd00:8::2"]), (&pair.b.host, ["10.7.1.1", "fd00:8::1"])]
    {
        for peer in peers {
            assert_answers(host, peer.parse().unwrap());
        }
    }
}

#[test]
fn two_ends_and_several_addresses() {
    if !program::available("ip") || !program::available("nft") {
        return;
    }
    let Some(hosts) = hosts() else { return };
    let before = everything(&hosts.a);
    let pair = Pair::between(hosts, A, B).unwrap();
    assert_eq!(addresses(&pair.a.host), set(&SHOWN));
    assert_eq!(device(&pair.a.host)["mtu"], 1300);
    assert_peers_answer(&pair);
    let ended = pair.a.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(state::link(&pair.a.host, DEVICE), None);
    assert_same(&before, &everything(&pair.a.host));
}

#[test]
fn addresses_that_a_persistent_device_has_stay() {
    if !program::available("ip") || !program::available("nft") {
        return;
    }
    let Some(hosts) = hosts() else { return };
    add_device(&hosts.a, &["--mtu", "1350"]);
    let own = "ip link set adit0 addrgenmode none; ip link set adit0 up; \
        ip address add 10.8.0.1/24 dev adit0; ip address add fd00:10::1/64 dev adit0 nodad; \
        ip address add 10.7.3.1/32 dev adit0";
    sh(&hosts.a, own);
    let (before, shown) = (everything(&hosts.a), device(&hosts.a));
    let had = addresses(&hosts.a);
    assert_eq!(had, set(&["10.8.0.1/24", "10.7.3.1/32", "fd00:10::1/64"]));
    let pair = Pair::between(hosts, A, B).unwrap();
    assert_eq!(addresses(&pair.a.host), &had | &set(&SHOWN));
    assert_eq!(device(&pair.a.host)["mtu"], 1300);
    assert_peers_answer(&pair);
    let ended = pair.a.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let after = device(&pair.a.host);
    assert_eq!((&after["mtu"], &after["ifindex"]), (&Value::from(1350), &shown["ifindex"]));
    assert_eq!(addresses(&pair.a.host), had);
    assert_same(&before, &everything(&pair.a.host));
}

/// What is left of 1500 octets after the headers of IP and UDP.
#[test]
fn an_mtu_that_is_not_given_is_what_fits_into_the_wire() {
    if !program::available("ip") {
        return;
    }
    for (outer, mtu) in [(Family::V4, 1472), (Family::V6, 1452)] {
        let Some(pair) = Pair::with(End::A.over(outer), End::B.over(outer)) else { return };
        assert_eq!(device(&pair.a.host)["mtu"], mtu, "{outer:?}");
        assert_eq!(device(&pair.b.host)["mtu"], mtu, "{outer:?}");
    }
}

#[test]
fn an_mtu_that_is_not_given_follows_the_link() {
    if !program::available("ip") {
        return;
    }
    let Some(hosts) = hosts() else { return };
    sh(&hosts.a, "ip link set eth0 mtu 1400");
    let pair = Pair::between(hosts, End::A, End::B).unwrap();
    assert_eq!(device(&pair.a.host)["mtu"], 1372);
}
