//! Kept ways that follow the uplink.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::actual::Way;
use super::properties::planned;
use super::*;

const ENDPOINT: &str = "233.252.0.7/32";

fn roaming() -> Desired {
    Desired {
        addresses: vec![(net("192.0.2.1/24"), None), (net("fd00:7::1/64"), None)],
        default_route: Families { v4: true, v6: true },
        pinned: vec![ip("233.252.0.7"), ip("2001:db8:9::9")],
        exclude: nets(&["172.16.0.0/12"]),
        wait_for_uplink: true,
        ..desired()
    }
}

/// A host on which `desired` was applied, and its journal.
fn applied(desired: &Desired) -> Actual {
    let mut host = host();
    let operations = plan(desired, &host).unwrap();
    operations.iter().for_each(|operation| apply(&mut host, operation));
    host.applied = journal(&operations);
    host
}

/// Another network: a default route of IPv4 that leads elsewhere, or nowhere.
fn move_to(host: &mut Actual, via: Option<(&str, LinkIndex)>) {
    host.routes.retain(|route| route.destination != net("0.0.0.0/0"));
    let metric = Some(100);
    host.routes
        .extend(via.map(|(via, link)| Route { metric, ..route("0.0.0.0/0", Some(via), link, 16) }));
    sort(host);
}

/// Applies what is left to do and keeps the journal.
fn follow(host: &mut Actual, desired: &Desired) -> Vec<Operation> {
    let operations = plan(desired, host).unwrap();
    for operation in &operations {
        host.applied.extend(operation.undo());
        apply(host, operation);
        let withdrawn = operation.withdraws();
        host.applied.retain(|undo| Some(undo) != withdrawn.as_ref());
    }
    operations
}

fn lines(operations: &[Operation]) -> Vec<String> {
    operations.iter().flat_map(Operation::commands).collect()
}

#[test]
fn pins_follow_the_host_to_another_network() {
    let mut host = applied(&roaming());
    assert_eq!(plan(&roaming(), &host), Ok(Vec::new()));
    move_to(&mut host, Some(("10.20.0.1", ETH1)));
    let operations = follow(&mut host, &roaming());
    assert_eq!(
        lines(&operations),
        [
            "ip route replace 172.16.0.0/12 via 10.20.0.1 dev eth1 proto static",
            "ip route replace 233.252.0.7/32 via 10.20.0.1 dev eth1 proto static",
        ]
    );
    let Some(Undo::Route(from)) = operations[1].withdraws() else { panic!("{operations:?}") };
    assert_eq!((from.device.name.as_str(), from.via), ("eth0", Some(ip("198.51.100.1"))));
    assert!(!host.applied.contains(&Undo::Route(from)));
    assert_eq!(plan(&roaming(), &host), Ok(Vec::new()));
}

#[test]
fn a_pin_is_removed_where_it_is_not_needed_any_more() {
    let mut host = applied(&roaming());
    // A route of someone else that is longer than the tunnel's.
    host.routes
        .push(Route { metric: Some(50), ..route("233.252.0.0/24", Some("10.20.0.1"), ETH1, 4) });
    assert_eq!(
        lines(&follow(&mut host, &roaming())),
        ["ip route delete 233.252.0.7/32 via 198.51.100.1 dev eth0 proto static"]
    );
    assert_eq!(plan(&roaming(), &host), Ok(Vec::new()));

    let mut host = applied(&roaming());
    let elsewhere = Desired {
        pinned: vec![ip("233.252.0.8"), ip("2001:db8:9::9")],
        exclude: vec![],
        ..roaming()
    };
    assert_eq!(
        lines(&follow(&mut host, &elsewhere)),
        [
            "ip route delete 172.16.0.0/12 via 198.51.100.1 dev eth0 proto static",
            "ip route delete 233.252.0.7/32 via 198.51.100.1 dev eth0 proto static",
            "ip route add 233.252.0.8/32 via 198.51.100.1 dev eth0 proto static",
        ]
    );
    assert_eq!(plan(&elsewhere, &host), Ok(Vec::new()));
}

#[test]
fn a_tunnel_that_runs_waits_for_its_uplink() {
    let mut host = applied(&roaming());
    move_to(&mut host, None);
    let impatient = Desired { wait_for_uplink: false, ..roaming() };
    let expected = PlanError::NoWay { endpoint: ip("233.252.0.7"), capture: net("128.0.0.0/1") };
    assert_eq!(plan(&impatient, &host), Err(expected));
    // The pin stays: the old way is better than one into the tunnel itself.
    let without = follow(&mut host, &roaming());
    assert_eq!(
        lines(&without),
        [
            "ip route delete 172.16.0.0/12 via 198.51.100.1 dev eth0 proto static",
            "ip route add unreachable 172.16.0.0/12 proto static",
        ]
    );
    assert_eq!(plan(&roaming(), &host), Ok(Vec::new()));
    move_to(&mut host, Some(("10.20.0.1", ETH1)));
    assert_eq!(
        lines(&follow(&mut host, &roaming())),
        [
            "ip route delete unreachable 172.16.0.0/12 proto static",
            "ip route add 172.16.0.0/12 via 10.20.0.1 dev eth1 proto static",
            "ip route replace 233.252.0.7/32 via 10.20.0.1 dev eth1 proto static",
        ]
    );
}

#[test]
fn pins_that_went_with_their_link_are_added_again() {
    let mut host = applied(&roaming());
    host.routes.retain(|route| route.link != Some(ETH0));
    assert_eq!(host.due().len() + 3, host.applied.len(), "three kept ways are gone");
    host.applied = host.due();
    move_to(&mut host, Some(("10.20.0.1", ETH1)));
    let added = lines(&follow(&mut host, &roaming()));
    assert_eq!(
        added,
        [
            "ip route add 233.252.0.7/32 via 10.20.0.1 dev eth1 proto static",
            "ip route add unreachable 2001:db8:9::9/128 proto static",
            "ip route add 172.16.0.0/12 via 10.20.0.1 dev eth1 proto static",
        ]
    );
    assert_eq!(host.due(), host.applied);
    host.applied.extend(host.applied.clone());
    assert_eq!(plan(&roaming(), &host), Ok(Vec::new()), "a step may be told twice");
    let way = host.way(net(ENDPOINT), TUNNEL, &[]).unwrap();
    assert_eq!(way.prefix_len(), 0, "today's way is without our own");
}

#[test]
fn an_endpoint_whose_pin_went_with_the_uplink_is_unreachable_until_that_is_back() {
    let desired = Desired { exclude: vec![], pinned: vec![ip("233.252.0.7")], ..roaming() };
    let mut host = applied(&desired);
    let before = host.clone();
    happen(&mut host, Event::Down(ETH0));
    host.applied = host.due();
    let lost = follow(&mut host, &desired);
    assert_eq!(lines(&lost), ["ip route add unreachable 233.252.0.7/32 proto static"]);
    assert_eq!(lost[0].why(), "there is no way to 233.252.0.7/32, and the tunnel itself is none");
    assert_eq!(plan(&desired, &host), Ok(Vec::new()));
    move_to(&mut host, Some(("198.51.100.1", ETH0)));
    assert_eq!(
        lines(&follow(&mut host, &desired)),
        [
            "ip route delete unreachable 233.252.0.7/32 proto static",
            "ip route add 233.252.0.7/32 via 198.51.100.1 dev eth0 proto static",
        ]
    );
    assert!(host.unreachable.is_empty());
    assert_eq!(host.due().len(), before.applied.len());
}

#[test]
fn a_step_that_was_done_again_is_due_once_and_takes_back_to_the_beginning() {
    let mtu = |before, wrote| Undo::Mtu {
        device: Device { index: TUNNEL.0, name: "adit0".into() },
        wrote,
        before,
    };
    let setting = |before: &str| Undo::Sysctl {
        key: "net.ipv4.ip_forward".into(),
        wrote: "1".into(),
        before: before.into(),
        companions: vec![],
    };
    let due = |applied| Actual { applied, ..host() }.due();
    let (flapping, first) = (vec![mtu(1420, 1400), mtu(1400, 1420)], mtu(1500, 1420));
    assert_eq!(due([vec![first.clone()], flapping.clone(), flapping].concat()), [first]);
    // Someone else wrote in between, and the last of that counts.
    assert_eq!(due(vec![mtu(1500, 1420), mtu(1300, 1420)]), [mtu(1300, 1420)]);
    assert_eq!(due(vec![setting("0"), setting("2"), setting("0")]), [setting("0")]);
    let gone = Undo::Down { device: Device { index: 99, name: "adit0".into() } };
    assert_eq!(due(vec![gone]), []);
}

#[test]
fn a_network_that_was_kept_may_go_through_the_tunnel_later() {
    let keeping = Desired {
        addresses: vec![(net("192.0.2.1/24"), None)],
        default_route: Families { v4: true, v6: false },
        exclude: nets(&["172.16.0.0/12"]),
        ..desired()
    };
    let mut host = applied(&keeping);
    let routing = Desired { exclude: vec![], routes: nets(&["172.16.0.0/12"]), ..keeping };
    assert_eq!(
        lines(&follow(&mut host, &routing)),
        [
            "ip route delete 172.16.0.0/12 via 198.51.100.1 dev eth0 proto static",
            "ip route add 172.16.0.0/12 dev adit0 proto static",
        ]
    );
}

/// What becomes of the host's network around a tunnel. Nothing of it is the tunnel's.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The default route of IPv4 or IPv6 leads by another link and router, or is gone.
    Default(&'static str, Option<(&'static str, LinkIndex)>),
    /// A longer route appears.
    Appears(&'static str, &'static str, LinkIndex),
    /// All routes to that network disappear that have a metric of their own.
    Disappears(&'static str),
    /// All routes of a link are gone, with those of the tunnel.
    Down(LinkIndex),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = select(vec![
        Event::Default("0.0.0.0/0", None),
        Event::Default("0.0.0.0/0", Some(("198.51.100.1", ETH0))),
        Event::Default("0.0.0.0/0", Some(("198.51.100.254", ETH0))),
        Event::Default("0.0.0.0/0", Some(("10.20.0.1", ETH1))),
        Event::Default("::/0", None),
        Event::Default("::/0", Some(("fe80::1", ETH0))),
        Event::Default("::/0", Some(("fe80::2", ETH1))),
        Event::Appears("233.252.0.0/24", "10.20.0.1", ETH1),
        Event::Appears("10.0.0.0/9", "10.20.0.1", ETH1),
        Event::Appears("2001:db8:9::/48", "fe80::3", ETH0),
        Event::Disappears("233.252.0.0/24"),
        Event::Disappears("10.0.0.0/9"),
        Event::Disappears("2001:db8:9::/48"),
        Event::Down(ETH0),
        Event::Down(ETH1),
    ]);
    proptest::collection::vec(event, 1..8)
}

fn happen(host: &mut Actual, event: Event) {
    let add = |host: &mut Actual, destination: &str, via, link| {
        // Someone else's routes have a metric, so that they are never in the way of the tunnel's.
        let metric = Some(if destination.contains(':') { 512 } else { 50 });
        host.routes.push(Route { metric, ..route(destination, Some(via), link, 16) });
    };
    match event {
        Event::Default(destination, way) => {
            host.routes.retain(|route| route.destination != net(destination));
            if let Some((via, link)) = way {
                add(host, destination, via, link);
            }
        }
        Event::Appears(destination, via, link) => {
            happen(host, Event::Disappears(destination));
            add(host, destination, via, link);
        }
        Event::Disappears(destination) => {
            let metric = if destination.contains(':') { 512 } else { 50 };
            host.routes.retain(|route| {
                route.destination != net(destination) || route.metric != Some(metric)
            });
        }
        Event::Down(link) => host.routes.retain(|route| route.link != Some(link)),
    }
    sort(host);
}

/// By which link and router packets go: as the host is, or as it would be without the tunnel.
fn hop(host: &Actual, to: IpNet, tunnel: LinkIndex) -> Option<(Option<LinkIndex>, Option<IpAddr>)> {
    match host.way(to, tunnel, &[]) {
        Some(Way::Route(route)) => Some((route.link, route.via)),
        Some(Way::Unreachable(_)) | None => None,
    }
}

proptest! {
    #[test]
    fn kept_ways_are_those_of_today_whatever_happens_and_all_is_undone(
        (desired, mut without, operations) in planned(),
        events in events(),
    ) {
        let desired = Desired { wait_for_uplink: true, ..desired };
        let mut host = without.clone();
        operations.iter().for_each(|operation| apply(&mut host, operation));
        host.applied = journal(&operations);
        let mut never_withdrawn = host.applied.clone();
        for event in events {
            happen(&mut host, event);
            happen(&mut without, event);
            never_withdrawn.extend(journal(&follow(&mut host, &desired)));
            prop_assert_eq!(plan(&desired, &host), Ok(Vec::new()));
            host.applied = host.due();
            prop_assert_eq!(plan(&desired, &host), Ok(Vec::new()));

            let seen = Actual { applied: Vec::new(), ..host.clone() };
            let pinned = desired.pinned.iter().filter(|&&endpoint| !without.is_local(endpoint));
            for endpoint in pinned.copied().map(IpNet::from) {
                let today = hop(&without, endpoint, TUNNEL);
                let found = hop(&seen, endpoint, LinkIndex(0));
                let waits = today.is_none() && found.is_none_or(|(link, _)| link != Some(TUNNEL));
                prop_assert!(waits || found == today, "{}: {:?}", endpoint, event);
            }
            for &network in &desired.exclude {
                let today = hop(&without, network, TUNNEL);
                prop_assert_eq!(hop(&seen, network, LinkIndex(0)), today, "{}", network);
            }
        }
        let mut crashed = host.clone();
        for undo in host.applied.clone().iter().rev() {
            prop_assert_eq!(revert(&mut host, undo), Reverted::Done, "{:?}", undo);
        }
        (host.applied, host.filter.in_force) = (Vec::new(), None);
        prop_assert_eq!(&host, &without);
        // A crash before a step could be withdrawn leaves it in the journal.
        for undo in never_withdrawn.iter().rev() {
            revert(&mut crashed, undo);
        }
        (crashed.applied, crashed.filter.in_force) = (Vec::new(), None);
        prop_assert_eq!(&crashed, &without);
    }
}
