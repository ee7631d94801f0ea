//! A TAP device is a port of a bridge, and who is behind the bridge is a neighbour of the other side.
//!
//! ```text
//!   host L                    host A                            host B
//!                             br0 --- adit0 (TAP) ............. adit0 (TAP) 192.0.2.2, fd00:7::2
//!   eth0 192.0.2.9 ---------- lan0 -/
//!        fd00:7::9            eth0 10.1.0.1 ------------------- eth0 10.1.0.2
//! ```

use std::net::IpAddr;
use std::os::fd::AsFd;

use lab::{Host, TwoHosts};
use netlink::Socket;
use rustix::process::Signal;

use crate::rig::pair::{End, Family, Pair, hosts};
use crate::rig::ping::{Pinger, assert_answers};
use crate::rig::program;
use crate::rig::sh::{assert_same, everything, json, sh, wait_for_links};
use crate::rig::tunnel::{DEVICE, add_device};

const A: End = End::A.device("mode = \"tap\"").without_addresses().network("bridge = \"br0\"");

const B: End = End::B.device("mode = \"tap\"");

const MAC: &str = "02:00:00:00:00:09";

/// A host behind a bridge of A, which is dropped before A is.
fn behind(a: &Host) -> Host {
    let behind = Host::new("L").unwrap();
    let namespace = behind.as_fd().try_clone_to_owned().unwrap();
    let veth = move || Socket::open()?.add_veth("lan0", "eth0", Some(namespace.as_fd()));
    a.run(veth).unwrap();
    // The bridge's own MAC address does not depend on its ports.
    sh(
        a,
        "ip link add br0 address 02:00:00:00:00:01 type bridge mcast_snooping 0; \
         ip link set br0 addrgenmode none; \
         ip link set lan0 addrgenmode none; ip link set lan0 master br0; \
         ip link set lan0 up; ip link set br0 up",
    );
    sh(
        &behind,
        &format!(
            "ip link set eth0 address {MAC}; ip link set eth0 addrgenmode none; \
             ip link set eth0 up; ip address add 192.0.2.9/24 dev eth0; \
             ip address add fd00:7::9/64 dev eth0 nodad"
        ),
    );
    behind
}

fn prepared() -> Option<(TwoHosts, Host)> {
    if !program::available("ip") || !program::available("nft") {
        return None;
    }
    let hosts = hosts()?;
    let behind = behind(&hosts.a);
    wait_for_links(&hosts.a);
    Some((hosts, behind))
}

/// The bridge that a link is a port of.
fn master(host: &Host, link: &str) -> Option<String> {
    let link = &json(host, &format!("ip -j link show {link}"))[0];
    link["master"].as_str().map(str::to_owned)
}

/// The MAC address that a host has learned for an address (RFC 826, RFC 4861).
fn neighbour(host: &Host, address: IpAddr) -> Option<String> {
    let neighbour = &json(host, &format!("ip -j neighbour show {address} dev {DEVICE}"))[0];
    neighbour["lladdr"].as_str().map(str::to_owned)
}

fn assert_is_one_ethernet(pair: &Pair, behind: &Host) {
    for family in Family::BOTH {
        let target = family.inner(9);
        Pinger::new(&pair.b.host, target).wait_for_answer();
        assert_eq!(neighbour(&pair.b.host, target).as_deref(), Some(MAC));
        assert_answers(behind, family.inner(2));
    }
    let entries = json(&pair.a.host, &format!("bridge -j fdb show br br0 brport {DEVICE}"));
    let mac = json(&pair.b.host, &format!("ip -j link show {DEVICE}"))[0]["address"].clone();
    let learned = entries.as_array().unwrap().iter().any(|entry| entry["mac"] == mac);
    assert!(learned, "{mac}: {entries}");
}

#[test]
fn a_host_behind_the_bridge_is_a_neighbour_of_the_other_side() {
    let Some((hosts, behind)) = prepared() else { return };
    let before = everything(&hosts.a);
    let pair = Pair::between(hosts, A, B).unwrap();
    assert_eq!(master(&pair.a.host, DEVICE).as_deref(), Some("br0"));
    assert_is_one_ethernet(&pair, &behind);
    let ended = pair.a.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(master(&pair.a.host, "lan0").as_deref(), Some("br0"));
    assert_same(&before, &everything(&pair.a.host));
}

#[test]
fn a_persistent_device_is_in_no_bridge_again() {
    let Some((hosts, behind)) = prepared() else { return };
    add_device(&hosts.a, &["--mode", "tap"]);
    sh(&hosts.a, &format!("ip link set {DEVICE} addrgenmode none"));
    let before = everything(&hosts.a);
    assert_eq!(master(&hosts.a, DEVICE), None);
    let pair = Pair::between(hosts, A, B).unwrap();
    assert_eq!(master(&pair.a.host, DEVICE).as_deref(), Some("br0"));
    assert_is_one_ethernet(&pair, &behind);
    let ended = pair.a.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(master(&pair.a.host, DEVICE), None);
    assert_same(&before, &everything(&pair.a.host));
}

/// Whoever put it there wants it there.
#[test]
fn a_persistent_device_that_was_in_the_bridge_stays_there() {
    let Some((hosts, behind)) = prepared() else { return };
    add_device(&hosts.a, &["--mode", "tap"]);
    sh(&hosts.a, &format!("ip link set {DEVICE} addrgenmode none master br0"));
    let before = everything(&hosts.a);
    let pair = Pair::between(hosts, A, B).unwrap();
    assert_is_one_ethernet(&pair, &behind);
    let ended = pair.a.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(master(&pair.a.host, DEVICE).as_deref(), Some("br0"));
    assert_same(&before, &everything(&pair.a.host));
}
