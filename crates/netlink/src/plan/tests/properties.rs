//! What holds of every plan on every host.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::actual::Way;
use super::*;

fn hosts() -> impl Strategy<Value = Actual> {
    let switches = proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 0..6);
    let lost = subsequence(vec![0_usize, 1, 2, 3, 4, 5], 0..3);
    let own = subsequence(vec!["192.0.2.1/24", "192.0.2.77/24", "fd00:7::1/64"], 0..=3);
    let dropping = subsequence(dropping_chains(), 0..=4);
    (switches, lost, own, dropping, any::<(bool, bool)>()).prop_map(|given| {
        let (switches, lost, own, dropping, (up, tap)) = given;
        let mut host = host();
        host.filter.dropping = dropping;
        if tap {
            let link = host.links.iter_mut().find(|link| link.index == TUNNEL).unwrap();
            link.tun.as_mut().unwrap().mode = TunMode::Tap;
        }
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

fn dropping_chains() -> Vec<DroppingChain> {
    let owned = dropping(Family::Inet, "firewall", "forward");
    let accepts = dropping(Family::Ipv6, "filter", "FORWARD");
    vec![
        dropping(Family::Ipv4, "filter", "FORWARD"),
        DroppingChain { accepts: true, ..accepts },
        dropping(Family::Inet, "filter", "forward"),
        DroppingChain { owned: true, ..owned },
    ]
}

fn translations() -> impl Strategy<Value = Option<Translation>> {
    let to = |text| Some(Translation::SourceNat(vec![ip(text)]));
    select(vec![None, Some(Translation::Masquerade), to("198.51.100.2"), to("2001:db8::2")])
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
    let sources = nets(&["0.0.0.0/0", "198.51.100.0/24", "192.0.2.2/32", "fd00:7::/64"]);
    let sources = subsequence(sources, 0..=4);
    let mtu = select(vec![1280_u32, 1420, 1500, 65_535]);
    let bridge = select(vec![None, None, Some("br0".to_owned())]);
    let switches = (families(), families(), any::<(bool, bool)>(), translations(), bridge);
    (addresses, routes, pinned, exclude, sources, mtu, switches).prop_map(
        |(addresses, routes, pinned, exclude, sources, mtu, switches)| {
            let (default_route, forward, (block, clamp_mss), translate, bridge) = switches;
            Desired {
                mtu,
                addresses,
                routes,
                pinned,
                exclude,
                sources,
                default_route,
                forward,
                translate: translate.filter(|_| forward.any()),
                clamp_mss,
                bridge,
                block_ipv6: block && !default_route.v6,
                ..desired()
            }
        },
    )
}

pub(super) fn planned() -> impl Strategy<Value = (Desired, Actual, Vec<Operation>)> {
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
    let in_force = after.filter.in_force.as_ref();
    assert_eq!(in_force.is_some(), desired.forward.any());
    let refused = after.filter.dropping.iter().filter(|other| !other.accepts && !other.owned);
    for DroppingChain { chain, .. } in refused {
        let concerns = [(Family::Ipv4, desired.forward.v4), (Family::Ipv6, desired.forward.v6)];
        let concerned = concerns.iter().find(|(family, _)| *family == chain.family);
        assert!(
            !concerned.map_or_else(|| desired.forward.any(), |(_, forward)| *forward),
            "{chain}"
        );
    }
    assert_eq!(device.master, desired.bridge.is_some().then_some(BRIDGE));
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
        host.applied = journal(&operations);
        prop_assert_eq!(host.due(), journal(&operations));
        prop_assert_eq!(plan(&desired, &host), Ok(Vec::new()));
    }

    #[test]
    fn planning_again_after_a_crash_yields_the_rest((desired, host, operations) in planned()) {
        for crash in 0..operations.len() {
            let mut host = host.clone();
            operations[..crash].iter().for_each(|operation| apply(&mut host, operation));
            host.applied = journal(&operations[..=crash]);
            let rest = plan(&desired, &host).unwrap();
            rest.iter().for_each(|operation| apply(&mut host, operation));
            host.applied.extend(journal(&rest));
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
                let Some(undo) = operation.undo() else { continue };
                let reverted = revert(&mut host, &undo);
                prop_assert!(reverted == Reverted::Done || step == crash, "{operation:?}");
            }
            // The table goes with its socket.
            host.filter.in_force = None;
            prop_assert_eq!(&host, &before);
            for undo in journal(&operations).iter().rev() {
                prop_assert_ne!(revert(&mut host, undo), Reverted::Done);
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
