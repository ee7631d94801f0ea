//! The check of the way back is loose where packets need it, and nowhere else.
//!
//! ```text
//!   host A: rp_filter 1 everywhere                 host B
//!   adit0 192.0.2.1/24 ........................... adit0 192.0.2.2
//!   eth0  10.1.0.1/24 ---------------------------- eth0  10.1.0.2, 10.1.0.77
//!         10.1.0.77 is reached through the tunnel, and answers on the wire
//! ```

use std::net::SocketAddr;

use lab::{Host, TwoHosts};
use rustix::process::Signal;

use crate::rig::pair::{End, hosts};
use crate::rig::program;
use crate::rig::sh::{assert_same, everything, sh};
use crate::rig::tunnel::{Files, Tunnel, adit_in};
use crate::rig::{soon, state, udp};

const REDIRECTED: End = End::A.network("routes = [\"10.1.0.77/32\"]");

fn prepared() -> Option<TwoHosts> {
    let programs = ["ip", "nft", "sysctl"];
    programs.into_iter().all(program::available).then(hosts)?
}

/// What is set for all links, the first Ethernet and the tunnel.
fn values(host: &Host) -> [String; 3] {
    ["all", "eth0", "adit0"].map(|link| {
        let key = format!("net.ipv4.conf.{link}.rp_filter");
        sh(host, &format!("sysctl -n {key}")).trim().to_owned()
    })
}

/// Brings a tunnel of A up and down again, with these values for all links, eth0 and adit0 while it is up.
fn assert_values(toml: &str, wanted: [&str; 3]) {
    let Some(hosts) = prepared() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    assert!(before.contains("net.ipv4.conf.eth0.rp_filter = 1\n"), "{before}");
    let tunnel = Tunnel::up(&hosts.a, &files, "a", toml);
    assert_eq!(values(&hosts.a), wanted, "all, eth0, adit0");
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_same(&before, &everything(&hosts.a));
}

fn only_peer_owns(prefixes: &str) -> String {
    format!("{}allowed-ips = [{prefixes}]\n", End::A.toml())
}

#[test]
fn strict_stays_strict_where_packets_come_and_go_by_the_same_link() {
    let network = "routes = [\"203.0.113.0/24\"]\nforward = true";
    assert_values(&End::A.network(network).toml(), ["1", "1", "1"]);
    assert_values(&only_peer_owns("\"192.0.2.0/24\", \"203.0.113.0/24\""), ["1", "1", "1"]);
}

#[test]
fn strict_stays_strict_for_a_device_with_an_address_of_its_own_only() {
    let toml = only_peer_owns("\"192.0.2.2/32\"").replace("192.0.2.1/24", "192.0.2.1/32");
    assert_values(&toml, ["1", "1", "1"]);
}

#[test]
fn the_link_of_a_redirected_neighbour_is_loose() {
    assert_values(&REDIRECTED.toml(), ["1", "2", "1"]);
}

#[test]
fn what_a_redirected_neighbour_sends_on_the_wire_arrives() {
    let Some(hosts) = prepared() else { return };
    sh(&hosts.b, "ip address add 10.1.0.77/24 dev eth0");
    let files = Files::new();
    let _tunnel = Tunnel::up(&hosts.a, &files, "a", &REDIRECTED.toml());
    let server = udp::bind(&hosts.a, "10.1.0.1:0".parse().unwrap());
    let neighbour = udp::bind(&hosts.b, "10.1.0.77:0".parse().unwrap());
    neighbour.send_to(b"directly", server.local_addr().unwrap()).unwrap();
    let (_, source) = server.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(source.ip(), SocketAddr::ip(&neighbour.local_addr().unwrap()));
}

#[test]
fn a_killed_tunnel_leaves_a_loose_link_that_down_makes_strict() {
    let Some(hosts) = prepared() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let _ = Tunnel::up(&hosts.a, &files, "a", &REDIRECTED.toml()).end(Signal::KILL);
    let gone = || state::link(&hosts.a, "adit0").is_none().then_some(());
    soon().wait_until(gone).unwrap();
    assert_eq!(sh(&hosts.a, "sysctl -n net.ipv4.conf.eth0.rp_filter"), "2\n");
    let down = adit_in(&hosts.a, &files, &["down", "a"]);
    assert_eq!(down.code, Some(0), "{}", down.said);
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn a_link_that_someone_has_set_meanwhile_is_left_alone_and_said() {
    let Some(hosts) = prepared() else { return };
    let files = Files::new();
    let tunnel = Tunnel::up(&hosts.a, &files, "a", &REDIRECTED.toml());
    sh(&hosts.a, "sysctl -w net.ipv4.conf.eth0.rp_filter=0");
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let mut lines = ended.said.lines();
    let said = lines.any(|line| line.contains("eth0.rp_filter") && line.contains("left alone"));
    assert!(said, "{}", ended.said);
    assert_eq!(sh(&hosts.a, "sysctl -n net.ipv4.conf.eth0.rp_filter"), "0\n");
}
