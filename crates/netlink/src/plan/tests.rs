//! Plans on hosts that exist in memory only.
//!
//! ```text
//!  (198.51.100.2/24) eth0 ── gateway .1        (10.20.0.2/16) eth1        (…) adit0
//! ```

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::{Address, Link, LinkIndex, Route, TunLink, TunMode};

use super::actual::Way;
use super::simulation::{apply, revert, sort};
use super::*;

const ETH0: LinkIndex = LinkIndex(2);
const ETH1: LinkIndex = LinkIndex(3);
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
    for name in ["all", "default", "lo", "eth0", "eth1", "adit0"] {
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
        ..Desired::default()
    }
}

fn commands(desired: &Desired, host: &Actual) -> Vec<String> {
    plan(desired, host).unwrap().iter().map(Operation::command).collect()
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
        ..desired()
    };
    assert_eq!(
        commands(&desired, &host()),
        [
            "sysctl -w net.ipv4.ip_forward=1",
            "sysctl -w net.ipv6.conf.eth0.accept_ra=2",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
            "ip link set dev adit0 mtu 1420",
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
    for operation in operations.iter().rev() {
        revert(&mut host, &operation.undo());
    }
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
        operations.iter().rev().map(|operation| revert(&mut host, &operation.undo())).collect();
    found.retain(|reverted| *reverted != Reverted::Done);
    let changed = |found: &str| Reverted::ChangedSince { found: found.to_owned() };
    assert_eq!(found, [changed("203.0.113.0/24 dev eth1"), changed("1300"), changed("2")]);
    assert!(host.routes.contains(&theirs));
    assert_eq!(host.sysctls["net.ipv4.ip_forward"], "2");
    assert_eq!(host.link(TUNNEL).unwrap().mtu, 1300);
}

fn hosts() -> impl Strategy<Value = Actual> {
    let switches = proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 0..6);
    let lost = subsequence(vec![0_usize, 1, 2, 3, 4, 5], 0..3);
    let own = subsequence(vec!["192.0.2.1/24", "192.0.2.77/24", "fd00:7::1/64"], 0..=3);
    (switches, lost, own, any::<bool>()).prop_map(|(switches, lost, own, up)| {
        let mut host = host();
        let mut position = 0..;
        host.routes.retain(|_| !lost.contains(&position.next().unwrap()));
        let keys: Vec<_> = host.sysctls.keys().cloned().collect();
        for (key, value) in switches {
            let key = key.get(&keys);
            let most = if key.ends_with("rp_filter") || key.ends_with("accept_ra") { 2 } else { 1 };
            set(&mut host, key, &value.min(most).to_string());
        }
        let forward = host.sysctls["net.ipv4.ip_forward"].clone();
        set(&mut host, "net.ipv4.conf.all.forwarding", &forward);
        host.addresses.extend(own.into_iter().map(|local| address(TUNNEL, local)));
        if up {
            let device = Device { index: TUNNEL.0, name: "adit0".to_owned() };
            apply(&mut host, &Operation::SetUp { device });
        }
        sort(&mut host);
        host
    })
}

fn families() -> impl Strategy<Value = Families> {
    (any::<bool>(), any::<bool>()).prop_map(|(v4, v6)| Families { v4, v6 })
}

fn desires() -> impl Strategy<Value = Desired> {
    let addresses = subsequence(
        vec![
            (net("192.0.2.1/24"), None),
            (net("10.1.1.1/32"), Some(net("10.1.1.2/32"))),
            (net("fd00:7::1/64"), None),
            (net("198.51.100.130/25"), None),
        ],
        1..=4,
    );
    let routes = subsequence(
        nets(&["203.0.113.0/24", "192.0.2.0/24", "198.51.100.7/32", "10.0.0.0/8", "fd09::/32"]),
        0..=3,
    );
    let endpoints =
        ["233.252.0.7", "198.51.100.200", "10.30.0.9", "127.0.0.1", "2001:db8:9::9", "fd09::9"];
    let pinned = subsequence(endpoints.map(ip).to_vec(), 0..=3);
    let exclude = subsequence(nets(&["10.0.0.0/9", "172.16.0.0/12", "fc00::/7"]), 0..=2);
    let sources = subsequence(nets(&["0.0.0.0/0", "198.51.100.0/24", "192.0.2.2/32"]), 0..=3);
    let mtu = select(vec![1280_u32, 1420, 1500, 65_535]);
    let switches = (families(), families(), any::<bool>());
    (addresses, routes, pinned, exclude, sources, mtu, switches).prop_map(
        |(addresses, routes, pinned, exclude, sources, mtu, switches)| {
            let (default_route, forward, block) = switches;
            Desired {
                mtu,
                addresses,
                routes,
                pinned,
                exclude,
                sources,
                default_route,
                forward,
                block_ipv6: block && !default_route.v6,
                ..desired()
            }
        },
    )
}

fn planned() -> impl Strategy<Value = (Desired, Actual, Vec<Operation>)> {
    (desires(), hosts()).prop_filter_map("a contradiction", |(desired, host)| {
        plan(&desired, &host).ok().map(|operations| (desired, host, operations))
    })
}

/// By which link and router a packet goes.
fn hop(host: &Actual, to: IpNet) -> Option<(Option<LinkIndex>, Option<IpAddr>)> {
    match host.way(to, LinkIndex(0), &[]) {
        Some(Way::Route(route)) => Some((route.link, route.via)),
        Some(Way::Unreachable(_)) | None => None,
    }
}

/// By which link and router a packet goes if none of the tunnel's routes were there.
fn hop_outside(host: &Actual, to: IpNet) -> Option<(Option<LinkIndex>, Option<IpAddr>)> {
    match host.way(to, TUNNEL, &[]) {
        Some(Way::Route(route)) => Some((route.link, route.via)),
        Some(Way::Unreachable(_)) | None => None,
    }
}

fn assert_reached(desired: &Desired, before: &Actual, after: &Actual) {
    let device = after.link(TUNNEL).unwrap();
    assert_eq!((device.mtu, device.up), (desired.mtu, true));
    for (local, peer) in &desired.addresses {
        let address = Address { link: TUNNEL, local: *local, peer: *peer };
        assert!(after.addresses.contains(&address), "{address:?}");
    }
    let through = |prefix: &IpNet| {
        after.routes.iter().any(|route| {
            route.destination == *prefix && route.link == Some(TUNNEL) && route.via.is_none()
        })
    };
    for route in &desired.routes {
        assert!(through(route), "{route}");
        assert_eq!(hop(after, *route), Some((Some(TUNNEL), None)), "{route}");
    }
    for (wanted, halves) in [
        (desired.default_route.v4, ["0.0.0.0/1", "128.0.0.0/1"]),
        (desired.default_route.v6, ["::/1", "8000::/1"]),
    ] {
        assert!(!wanted || halves.iter().all(|half| through(&net(half))));
    }
    assert!(!desired.block_ipv6 || hop(after, net("2606::/16")).is_none());
    for &endpoint in desired.pinned.iter().filter(|&&endpoint| !before.is_local(endpoint)) {
        let endpoint = IpNet::from(endpoint);
        assert_eq!(hop(after, endpoint), hop_outside(before, endpoint), "{endpoint}");
    }
    for &network in &desired.exclude {
        assert_eq!(hop(after, network), hop_outside(before, network), "{network}");
    }
    let on = |key: &str| after.sysctls[key] == "1";
    assert!(!desired.forward.v4 || on("net.ipv4.ip_forward"));
    assert!(!desired.forward.v6 || on("net.ipv6.conf.all.forwarding"));
}

proptest! {
    #[test]
    fn applying_a_plan_reaches_what_is_desired((desired, before, operations) in planned()) {
        let mut host = before.clone();
        operations.iter().for_each(|operation| apply(&mut host, operation));
        assert_reached(&desired, &before, &host);
        // Nothing that was there is gone.
        prop_assert!(before.routes.iter().all(|route| host.routes.contains(route)));
        prop_assert!(before.addresses.iter().all(|address| host.addresses.contains(address)));
    }

    #[test]
    fn planning_again_yields_nothing((desired, mut host, operations) in planned()) {
        operations.iter().for_each(|operation| apply(&mut host, operation));
        prop_assert_eq!(plan(&desired, &host), Ok(Vec::new()));
    }

    #[test]
    fn planning_again_after_a_crash_yields_the_rest((desired, host, operations) in planned()) {
        for crash in 0..operations.len() {
            let mut host = host.clone();
            operations[..crash].iter().for_each(|operation| apply(&mut host, operation));
            let rest = plan(&desired, &host).unwrap();
            rest.iter().for_each(|operation| apply(&mut host, operation));
            prop_assert_eq!(plan(&desired, &host), Ok(Vec::new()));
        }
    }

    #[test]
    fn undoing_from_any_step_restores_the_host_exactly((_, before, operations) in planned()) {
        for crash in 0..=operations.len() {
            let mut host = before.clone();
            operations[..crash].iter().for_each(|operation| apply(&mut host, operation));
            // The journal may be one step ahead.
            let recorded = operations.len().min(crash + 1);
            for (step, operation) in operations[..recorded].iter().enumerate().rev() {
                let reverted = revert(&mut host, &operation.undo());
                prop_assert!(reverted == Reverted::Done || step == crash, "{operation:?}");
            }
            prop_assert_eq!(&host, &before);
            for operation in operations.iter().rev() {
                prop_assert_ne!(revert(&mut host, &operation.undo()), Reverted::Done);
            }
            prop_assert_eq!(&host, &before);
        }
    }

    #[test]
    fn the_endpoints_never_lose_their_way((desired, before, operations) in planned()) {
        let mut host = before.clone();
        for operation in &operations {
            apply(&mut host, operation);
            for &endpoint in desired.pinned.iter().filter(|&&endpoint| !before.is_local(endpoint)) {
                let endpoint = IpNet::from(endpoint);
                prop_assert_eq!(hop(&host, endpoint), hop_outside(&before, endpoint));
            }
        }
    }

    #[test]
    fn operations_come_in_the_order_of_their_stages((_, _, operations) in planned()) {
        prop_assert!(operations.is_sorted_by_key(Operation::stage));
    }
}
