//! All traffic goes through the tunnel, but for what must not, and follows the uplink.
//!
//! ```text
//!   host A                                              host B
//!   adit0 192.0.2.1/24, fd00:7::1/64 ................. adit0
//!   eth0  10.1.0.1/24, fd01::1/64 --------------------- eth0 10.1.0.2/24, fd01::2/64
//!   default via 10.1.0.2 metric 100, via 10.1.0.3 metric 200; via fd01::2
//!   the peer's endpoint is 203.0.113.9, which lies behind the routers
//! ```

use lab::Host;
use rustix::process::Signal;

use crate::rig::pair::{End, hosts};
use crate::rig::sh::{assert_same, everything, json, sh, wait_for_way, way};
use crate::rig::tunnel::{DEVICE, Files, Tunnel};
use crate::rig::{program, soon};

const ROUTERS: &str = "ip route add default via 10.1.0.2 dev eth0 metric 100; \
    ip route add default via 10.1.0.3 dev eth0 metric 200; \
    ip -6 route add default via fd01::2 dev eth0 metric 100";

/// A's end with its peer far away.
fn toml(network: &'static str) -> String {
    End::A.network(network).toml().replace("udp://10.1.0.2:4740", "udp://203.0.113.9:4740")
}

/// A host with routers, and its state.
fn client() -> Option<(lab::TwoHosts, String)> {
    if !program::available("ip") || !program::available("nft") {
        return None;
    }
    let hosts = hosts()?;
    sh(&hosts.a, ROUTERS);
    let before = everything(&hosts.a);
    Some((hosts, before))
}

fn leads_to(host: &Host, address: &str, link: &str, via: Option<&str>) {
    let wanted = Ok((link.to_owned(), via.map(str::to_owned)));
    assert_eq!(way(host, address), wanted, "{address}: {}", sh(host, "ip route; ip -6 route"));
}

#[test]
fn everything_goes_through_the_tunnel_but_endpoints_neighbours_and_exclusions() {
    let Some((hosts, before)) = client() else { return };
    let files = Files::new();
    let defaults = json(&hosts.a, "ip -j route show default");
    let network = "default-route = true\nexclude = [\"198.51.100.0/24\", \"2001:db8:5::/48\"]";
    let tunnel = Tunnel::up(&hosts.a, &files, "a", &toml(network));
    for (address, link, via) in [
        ("8.8.8.8", DEVICE, None),
        ("233.252.0.1", "eth0", None),
        ("192.88.99.1", DEVICE, None),
        ("2001:db8:9::1", DEVICE, None),
        ("203.0.113.9", "eth0", Some("10.1.0.2")),
        ("203.0.113.8", DEVICE, None),
        ("198.51.100.7", "eth0", Some("10.1.0.2")),
        ("2001:db8:5::7", "eth0", Some("fd01::2")),
        ("10.1.0.2", "eth0", None),
    ] {
        if address.starts_with("233.") {
            // Multicast is not unicast: nothing is said of its way.
            continue;
        }
        leads_to(&hosts.a, address, link, via);
    }
    assert_eq!(json(&hosts.a, "ip -j route show default"), defaults);
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(!ended.said.contains("mended"), "{}", ended.said);
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn ipv6_does_not_pass_beside_a_tunnel_of_ipv4_unless_it_may() {
    let Some((hosts, before)) = client() else { return };
    let files = Files::new();
    let only_v4 = |toml: String| toml.replace(", \"fd00:7::1/64\"", "");
    let blocked = only_v4(toml("default-route = true"));
    let mut tunnel = Tunnel::start(&hosts.a, &files, "a", &blocked);
    tunnel.wait_for("IPv6 is blocked");
    tunnel.wait_for("is up");
    let refused = way(&hosts.a, "2001:db8:9::1").unwrap_err();
    assert!(refused.contains("No route to host"), "{refused}");
    leads_to(&hosts.a, "fd01::2", "eth0", None);
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    assert_same(&before, &everything(&hosts.a));

    let beside = only_v4(toml("default-route = true\nipv6-beside-tunnel = true"));
    let mut tunnel = Tunnel::start(&hosts.a, &files, "a", &beside);
    tunnel.wait_for("IPv6 passes beside the tunnel");
    tunnel.wait_for("is up");
    leads_to(&hosts.a, "2001:db8:9::1", "eth0", Some("fd01::2"));
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn the_way_to_an_endpoint_follows_the_uplink() {
    let Some((hosts, before)) = client() else { return };
    let files = Files::new();
    let tunnel = Tunnel::up(&hosts.a, &files, "a", &toml("default-route = true"));
    leads_to(&hosts.a, "203.0.113.9", "eth0", Some("10.1.0.2"));
    // Another router.
    sh(&hosts.a, "ip route del default via 10.1.0.2 metric 100");
    wait_for_way(&hosts.a, "203.0.113.9", "eth0", Some("10.1.0.3"));
    leads_to(&hosts.a, "8.8.8.8", DEVICE, None);
    // The uplink goes away and comes back.
    sh(&hosts.a, "ip link set eth0 down");
    soon().wait_until(|| way(&hosts.a, "203.0.113.9").is_err().then_some(())).unwrap_or(());
    sh(&hosts.a, "ip link set eth0 up; ip -6 address replace fd01::1/64 dev eth0 nodad");
    sh(&hosts.a, "ip -6 address replace fe80::1/64 dev eth0 nodad");
    sh(&hosts.a, ROUTERS);
    wait_for_way(&hosts.a, "203.0.113.9", "eth0", Some("10.1.0.2"));
    leads_to(&hosts.a, "8.8.8.8", DEVICE, None);
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn without_an_uplink_the_tunnels_own_datagrams_do_not_go_into_the_tunnel() {
    let Some((hosts, _)) = client() else { return };
    let files = Files::new();
    let mut tunnel = Tunnel::up(&hosts.a, &files, "a", &toml("default-route = true"));
    sh(&hosts.a, "ip route del default metric 100; ip route del default metric 200");
    sh(&hosts.a, "ip route del 203.0.113.9");
    tunnel.wait_for("mended: ip route add unreachable 203.0.113.9/32");
    let refused = way(&hosts.a, "203.0.113.9").unwrap_err();
    assert!(refused.contains("No route to host"), "{refused}");
    leads_to(&hosts.a, "8.8.8.8", DEVICE, None);

    let entered = || {
        let links = json(&hosts.a, &format!("ip -j -s link show dev {DEVICE}"));
        links[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
    };
    let before = entered();
    for count in 1..=5 {
        hosts.a.run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"once", "8.8.8.8:9").unwrap();
        });
        soon().wait_until(|| (entered() >= before + count).then_some(())).unwrap();
    }
    // Five, and what the kernel sends of its own; a datagram that went round would be thousands.
    let entered = entered() - before;
    assert!(entered < 20, "{entered} packets entered the tunnel");

    sh(&hosts.a, ROUTERS.split(';').next().unwrap());
    wait_for_way(&hosts.a, "203.0.113.9", "eth0", Some("10.1.0.2"));
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    let left = sh(&hosts.a, "ip route");
    assert!(!left.contains("unreachable") && !left.contains("203.0.113.9"), "{left}");
}

#[test]
fn a_route_that_someone_deletes_is_made_again_and_said() {
    let Some((hosts, before)) = client() else { return };
    let files = Files::new();
    let mut tunnel = Tunnel::up(&hosts.a, &files, "a", &toml("default-route = true"));
    for route in ["0.0.0.0/1", "203.0.113.9", "8000::/1"] {
        sh(&hosts.a, &format!("ip route del {route}"));
        tunnel.wait_for(&format!("mended: ip route add {route}"));
    }
    leads_to(&hosts.a, "8.8.8.8", DEVICE, None);
    leads_to(&hosts.a, "203.0.113.9", "eth0", Some("10.1.0.2"));
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn a_second_tunnel_that_wants_everything_is_refused_and_changes_nothing() {
    let Some((hosts, _)) = client() else { return };
    let files = Files::new();
    let _first = Tunnel::up(&hosts.a, &files, "a", &toml("default-route = true"));
    let before = everything(&hosts.a);
    let second = toml("default-route = true")
        .replace("adit0", "adit1")
        .replace("10.1.0.1:4740", "10.1.0.1:4741")
        .replace("192.0.2.1/24", "192.0.3.1/24")
        .replace("fd00:7::1/64", "fd00:8::1/64");
    let ended = Tunnel::fail(&hosts.a, &files, "second", &second);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("0.0.0.0/1 already by \"adit0\""), "{}", ended.said);
    assert_same(&before, &everything(&hosts.a));
}
