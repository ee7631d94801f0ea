//! Plans on hosts that exist in memory only.
//!
//! ```text
//!  (198.51.100.2/24) eth0 ── gateway .1        (10.20.0.2/16) eth1        (…) adit0
//! ```

use std::net::IpAddr;

use crate::nftables::{ChainId, Family};
use crate::{Address, Link, LinkIndex, Route, TunLink, TunMode};
use ipnet::IpNet;

use super::simulation::{apply, revert, sort};
use super::*;

mod bridge;
mod filter;
mod properties;
mod uplink;

const ETH0: LinkIndex = LinkIndex(2);
const ETH1: LinkIndex = LinkIndex(3);
const BRIDGE: LinkIndex = LinkIndex(4);
const TUNNEL: LinkIndex = LinkIndex(9);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

fn link(index: LinkIndex, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mtu: 1500,
        up: true,
        carrier: true,
        loopback: name == "lo",
        kind: None,
        mac: None,
        master: None,
        tun: None,
    }
}

fn tunnel() -> Link {
    let tun = TunLink {
        mode: TunMode::Tun,
        owner: None,
        group: None,
        packet_info: false,
        vnet_hdr: true,
        persistent: true,
        multi_queue: false,
        queues: 0,
        disabled_queues: 0,
    };
    Link { up: false, kind: Some("tun".to_owned()), tun: Some(tun), ..link(TUNNEL, "adit0") }
}

fn address(link: LinkIndex, local: &str) -> Address {
    Address { link, local: net(local), peer: None }
}

fn route(destination: &str, via: Option<&str>, link: LinkIndex, protocol: u8) -> Route {
    let metric = destination.contains(':').then_some(1024);
    Route { via: via.map(ip), link: Some(link), metric, protocol, ..Route::new(net(destination)) }
}

fn host() -> Actual {
    let links = vec![
        Link { mtu: 65536, ..link(LinkIndex(1), "lo") },
        link(ETH0, "eth0"),
        link(ETH1, "eth1"),
        Link { kind: Some("bridge".to_owned()), ..link(BRIDGE, "br0") },
        tunnel(),
    ];
    let mut host = Actual {
        addresses: vec![
            address(LinkIndex(1), "127.0.0.1/8"),
            address(ETH0, "198.51.100.2/24"),
            address(ETH0, "2001:db8::2/64"),
            address(ETH1, "10.20.0.2/16"),
        ],
        routes: vec![
            Route { metric: Some(100), ..route("0.0.0.0/0", Some("198.51.100.1"), ETH0, 16) },
            route("198.51.100.0/24", None, ETH0, 2),
            route("10.20.0.0/16", None, ETH1, 2),
            route("10.30.0.0/16", Some("10.20.0.1"), ETH1, 4),
            route("2001:db8::/64", None, ETH0, 2),
            route("::/0", Some("fe80::1"), ETH0, 9),
        ],
        ..Actual::default()
    };
    for name in ["all", "default", "lo", "eth0", "eth1", "br0", "adit0"] {
        for (family, setting, value) in [
            ("ipv4", "rp_filter", "0"),
            ("ipv4", "forwarding", "0"),
            ("ipv4", "accept_redirects", "1"),
            ("ipv6", "forwarding", "0"),
            ("ipv6", "accept_ra", "1"),
        ] {
            host.sysctls.insert(format!("net.{family}.conf.{name}.{setting}"), value.to_owned());
        }
    }
    host.sysctls.insert("net.ipv4.ip_forward".to_owned(), "0".to_owned());
    host.links = links;
    sort(&mut host);
    host
}

fn desired() -> Desired {
    Desired {
        device: "adit0".to_owned(),
        mtu: 1420,
        addresses: vec![(net("192.0.2.1/24"), None)],
        up: true,
        table: "adit-home".to_owned(),
        ..Desired::default()
    }
}

fn dropping(family: Family, table: &str, chain: &str) -> DroppingChain {
    let chain = ChainId { family, table: table.to_owned(), chain: chain.to_owned() };
    DroppingChain { chain, owned: false, accepts: false }
}

/// The undo of operations, as a journal holds them afterwards.
fn journal(operations: &[Operation]) -> Vec<Undo> {
    operations.iter().filter_map(Operation::undo).collect()
}

fn commands(desired: &Desired, host: &Actual) -> Vec<String> {
    plan(desired, host).unwrap().iter().flat_map(Operation::commands).collect()
}

fn set(host: &mut Actual, key: &str, value: &str) {
    assert!(host.sysctls.insert(key.to_owned(), value.to_owned()).is_some(), "{key}");
}

#[test]
fn a_plan_reads_like_the_lines_that_a_person_types_in_that_order() {
    let desired = Desired {
        addresses: vec![
            (net("192.0.2.1/24"), None),
            (net("10.1.1.1/32"), Some(net("10.1.1.2/32"))),
            (net("fd00:7::1/64"), None),
        ],
        routes: nets(&["203.0.113.0/24", "192.0.2.0/24"]),
        default_route: Families { v4: true, v6: true },
        pinned: vec![ip("233.252.0.7"), ip("198.51.100.9"), ip("2001:db8:9::9")],
        exclude: nets(&["10.0.0.0/8", "10.30.0.0/16"]),
        forward: Families { v4: true, v6: true },
        sources: nets(&["192.0.2.0/24"]),
        translate: Some(Translation::Masquerade),
        ..desired()
    };
    assert_eq!(
        commands(&desired, &host()),
        [
            "sysctl -w net.ipv4.ip_forward=1",
            "sysctl -w net.ipv6.conf.eth0.accept_ra=2",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
            "ip link set dev adit0 mtu 1420",
            "nft 'add table inet adit-home'",
            "nft 'add chain inet adit-home postrouting { type nat hook postrouting priority srcnat; \
             policy accept; }'",
            "nft 'add chain inet adit-home forward { type filter hook forward priority filter; \
             policy accept; }'",
            r#"nft 'add rule inet adit-home forward iifname "adit0" accept'"#,
            r#"nft 'add rule inet adit-home forward oifname "adit0" ct state established,related accept'"#,
            r#"nft 'add rule inet adit-home postrouting ip saddr 192.0.2.0/24 oifname != "adit0" masquerade'"#,
            "ip route add 233.252.0.7/32 via 198.51.100.1 dev eth0 proto static",
            "ip route add 2001:db8:9::9/128 via fe80::1 dev eth0 proto static",
            "ip route add 10.0.0.0/8 via 198.51.100.1 dev eth0 proto static",
            "ip address add 192.0.2.1/24 dev adit0",
            "ip address add 10.1.1.1 peer 10.1.1.2/32 dev adit0",
            "ip address add fd00:7::1/64 dev adit0 nodad",
            "ip link set dev adit0 up",
            "ip route add 203.0.113.0/24 dev adit0 proto static",
            "ip route add 0.0.0.0/1 dev adit0 proto static",
            "ip route add 128.0.0.0/1 dev adit0 proto static",
            "ip route add ::/1 dev adit0 proto static",
            "ip route add 8000::/1 dev adit0 proto static",
        ]
    );
}

#[test]
fn every_operation_says_why_in_one_line() {
    let desired = Desired {
        default_route: Families { v4: true, v6: false },
        pinned: vec![ip("233.252.0.7")],
        forward: Families { v4: true, v6: true },
        block_ipv6: true,
        ..desired()
    };
    for operation in plan(&desired, &host()).unwrap() {
        let why = operation.why();
        assert!(!why.is_empty() && !why.contains('\n'), "{operation:?}");
    }
}

#[test]
fn blocked_ipv6_is_refused_and_keeps_the_endpoint_reachable() {
    let desired = Desired { block_ipv6: true, pinned: vec![ip("2001:db8:9::9")], ..desired() };
    let commands = commands(&desired, &host());
    assert_eq!(commands[1], "ip route add 2001:db8:9::9/128 via fe80::1 dev eth0 proto static");
    assert_eq!(
        commands[4..],
        [
            "ip route add unreachable ::/1 proto static",
            "ip route add unreachable 8000::/1 proto static"
        ]
    );
}

#[test]
fn an_endpoint_keeps_a_way_that_the_tunnels_route_would_only_outrank() {
    let mut host = host();
    let worse = route("203.0.113.0/24", Some("10.20.0.1"), ETH1, 4);
    host.routes.push(Route { metric: Some(50), ..worse });
    let desired =
        Desired { routes: nets(&["203.0.113.0/24"]), pinned: vec![ip("203.0.113.9")], ..desired() };
    assert_eq!(
        commands(&desired, &host)[1],
        "ip route add 203.0.113.9/32 via 10.20.0.1 dev eth1 proto static"
    );
}

#[test]
fn an_excluded_network_without_a_way_stays_without_one() {
    let mut host = host();
    host.routes.retain(|route| route.protocol != 9);
    let desired = Desired {
        addresses: vec![(net("fd00:7::1/64"), None)],
        default_route: Families { v4: false, v6: true },
        exclude: nets(&["fc00::/7"]),
        ..desired()
    };
    assert_eq!(commands(&desired, &host)[1], "ip route add unreachable fc00::/7 proto static");
}

#[test]
fn a_device_that_has_yet_to_be_made_can_be_planned() {
    let mut host = host();
    host.links.retain(|link| link.index != TUNNEL);
    assert_eq!(plan(&desired(), &host), Err(PlanError::NoDevice { device: "adit0".to_owned() }));
    let made = Desired { device_made_by_us: true, ..desired() };
    assert_eq!(
        commands(&made, &host),
        [
            "ip link set dev adit0 mtu 1420",
            "ip address add 192.0.2.1/24 dev adit0",
            "ip link set dev adit0 up"
        ]
    );
}

#[test]
fn the_check_of_the_route_back_is_loosened_only_where_it_is_strict_and_answers_go_elsewhere() {
    let relay = Desired { sources: nets(&["198.51.100.7/32"]), ..desired() };
    let loose = "sysctl -w net.ipv4.conf.adit0.rp_filter=2";
    for (all, own, expected) in [
        ("0", "0", false),
        ("1", "0", true),
        ("0", "1", true),
        ("2", "1", false),
        ("1", "2", false),
    ] {
        let mut host = host();
        set(&mut host, "net.ipv4.conf.all.rp_filter", all);
        set(&mut host, "net.ipv4.conf.adit0.rp_filter", own);
        let found = commands(&relay, &host).iter().any(|command| command == loose);
        assert_eq!(found, expected, "all {all}, adit0 {own}");

        let symmetric = Desired { sources: nets(&["192.0.2.2/32"]), ..desired() };
        assert!(!commands(&symmetric, &host).iter().any(|command| command == loose));
    }
}

#[test]
fn neighbours_that_are_reached_through_the_tunnel_may_answer_directly() {
    let mut host = host();
    set(&mut host, "net.ipv4.conf.all.rp_filter", "1");
    let neighbour = Desired { routes: nets(&["198.51.100.7/32"]), ..desired() };
    assert_eq!(commands(&neighbour, &host)[0], "sysctl -w net.ipv4.conf.eth0.rp_filter=2");
    let far = Desired { routes: nets(&["203.0.113.0/24"]), ..desired() };
    assert!(!commands(&far, &host).iter().any(|command| command.contains("rp_filter")));
}

#[test]
fn undoing_forwarding_brings_back_what_the_kernel_resets_along() {
    let mut host = host();
    set(&mut host, "net.ipv4.conf.all.accept_redirects", "0");
    set(&mut host, "net.ipv4.conf.eth1.forwarding", "1");
    let before = host.clone();
    let desired = Desired { forward: Families { v4: true, v6: false }, ..desired() };
    let operations = plan(&desired, &host).unwrap();
    operations.iter().for_each(|operation| apply(&mut host, operation));
    assert_eq!(host.sysctls["net.ipv4.conf.eth0.forwarding"], "1");
    for undo in journal(&operations).iter().rev() {
        revert(&mut host, undo);
    }
    // The table goes with its socket.
    host.filter.in_force = None;
    assert_eq!(host, before);
}

#[test]
fn contradictions_are_found_before_anything_is_changed() {
    let device = || "adit0".to_owned();
    let route = |routes: &[&str]| Desired { routes: nets(routes), ..desired() };
    let all_v4 = Desired { default_route: Families { v4: true, v6: false }, ..desired() };
    let cases = [
        (
            Desired { device: "eth0".to_owned(), ..desired() },
            PlanError::NotTunnel { device: "eth0".to_owned(), kind: "hardware".to_owned() },
        ),
        (Desired { mtu: 67, ..desired() }, PlanError::Mtu { device: device(), mtu: 67, least: 68 }),
        (
            Desired { mtu: 1279, addresses: vec![(net("fd00::1/64"), None)], ..desired() },
            PlanError::Mtu { device: device(), mtu: 1279, least: 1280 },
        ),
        (
            Desired {
                addresses: vec![(net("192.0.2.1/24"), None), (net("192.0.2.1/32"), None)],
                ..desired()
            },
            PlanError::Duplicate { what: "address", value: "192.0.2.1".to_owned() },
        ),
        (
            route(&["203.0.113.0/24", "203.0.113.0/24"]),
            PlanError::Duplicate { what: "route", value: "203.0.113.0/24".to_owned() },
        ),
        (
            Desired { routes: nets(&["128.0.0.0/1"]), ..all_v4.clone() },
            PlanError::Duplicate { what: "route", value: "128.0.0.0/1".to_owned() },
        ),
        (
            route(&["203.0.113.1/24"]),
            PlanError::HostBits { what: "route", network: net("203.0.113.1/24") },
        ),
        (
            Desired {
                addresses: vec![(net("192.0.2.1/32"), Some(net("fd00::1/128")))],
                ..desired()
            },
            PlanError::PeerFamily { local: net("192.0.2.1/32"), peer: net("fd00::1/128") },
        ),
        (
            route(&["fd09::/32"]),
            PlanError::NoAddress { destination: net("fd09::/32"), device: device() },
        ),
        (Desired { up: false, ..route(&["203.0.113.0/24"]) }, PlanError::Down { device: device() }),
        (
            route(&["10.30.0.0/16"]),
            PlanError::RouteTaken {
                destination: net("10.30.0.0/16"),
                link: Some("eth1".to_owned()),
            },
        ),
        (
            Desired { pinned: vec![ip("192.0.2.1")], ..desired() },
            PlanError::OwnEndpoint { endpoint: ip("192.0.2.1"), device: device() },
        ),
        (
            Desired { pinned: vec![ip("203.0.113.5")], ..route(&["203.0.113.5/32"]) },
            PlanError::KeptAndRouted { network: net("203.0.113.5/32") },
        ),
        (
            Desired { exclude: nets(&["203.0.113.0/24"]), ..route(&["203.0.113.0/24"]) },
            PlanError::KeptAndRouted { network: net("203.0.113.0/24") },
        ),
    ];
    for (desired, expected) in cases {
        assert_eq!(plan(&desired, &host()), Err(expected));
    }

    let mut alone = host();
    alone.routes.retain(|route| route.destination.prefix_len() > 0);
    let pinned = Desired { pinned: vec![ip("233.252.0.7")], ..all_v4 };
    let expected = PlanError::NoWay { endpoint: ip("233.252.0.7"), capture: net("128.0.0.0/1") };
    assert_eq!(plan(&pinned, &alone), Err(expected));
    let several = Route { metric: None, ..Route::new(net("0.0.0.0/0")) };
    alone.routes.push(several);
    let expected =
        PlanError::SeveralWays { network: net("233.252.0.7/32"), capture: net("128.0.0.0/1") };
    assert_eq!(plan(&pinned, &alone), Err(expected));
}

#[test]
fn what_someone_else_put_in_place_of_ours_is_left_alone() {
    let mut host = host();
    let desired = Desired {
        routes: nets(&["203.0.113.0/24"]),
        forward: Families { v4: true, v6: false },
        ..desired()
    };
    let operations = plan(&desired, &host).unwrap();
    operations.iter().for_each(|operation| apply(&mut host, operation));
    set(&mut host, "net.ipv4.ip_forward", "2");
    host.links.iter_mut().find(|link| link.index == TUNNEL).unwrap().mtu = 1300;
    let ours = host.routes.iter_mut().find(|route| route.destination == net("203.0.113.0/24"));
    let ours = ours.unwrap();
    (ours.link, ours.via) = (Some(ETH1), Some(ip("10.20.0.1")));
    let theirs = ours.clone();

    let mut found: Vec<_> =
        journal(&operations).iter().rev().map(|undo| revert(&mut host, undo)).collect();
    found.retain(|reverted| *reverted != Reverted::Done);
    let changed = |found: &str| Reverted::ChangedSince { found: found.to_owned() };
    assert_eq!(found, [changed("203.0.113.0/24 dev eth1"), changed("1300"), changed("2")]);
    assert!(host.routes.contains(&theirs));
    assert_eq!(host.sysctls["net.ipv4.ip_forward"], "2");
    assert_eq!(host.link(TUNNEL).unwrap().mtu, 1300);
}
