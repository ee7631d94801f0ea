//! Changes as a monitor tells them.

use std::time::{Duration, Instant};

use netlink::{Address, Change, Group, LinkIndex, Monitor, Route};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::namespace::{in_namespace, index, ip, pair};

const PATIENCE: Duration = Duration::from_secs(10);

/// Collects changes until one of them is `wanted`; fails when it does not come.
fn until(monitor: &mut Monitor, wanted: impl Fn(&Change) -> bool) -> Vec<Change> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while !seen.iter().any(&wanted) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "not among {seen:?}");
        let mut descriptors = [PollFd::new(monitor, PollFlags::IN)];
        let left = Timespec::try_from(left).unwrap();
        poll(&mut descriptors, Some(&left)).unwrap();
        seen.extend(monitor.changes().unwrap());
    }
    seen
}

fn is_link(change: &Change, index: LinkIndex, up: bool) -> bool {
    matches!(change, Change::LinkChanged(link) if link.index == index && link.up == up)
}

#[test]
fn a_link_goes_down_and_up_and_away() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        let mut monitor = Monitor::open(&[Group::Link]).unwrap();
        assert_eq!(monitor.changes().unwrap(), [], "nothing has changed yet");

        socket.set_up(left, false).unwrap();
        until(&mut monitor, |change| is_link(change, left, false));
        socket.set_up(left, true).unwrap();
        until(&mut monitor, |change| is_link(change, left, true));
        socket.delete_link(left).unwrap();
        let gone = Change::LinkGone(left, "left".to_owned());
        until(&mut monitor, |change| *change == gone);
    });
}

#[test]
fn leaving_a_bridge_is_not_reported_as_the_end_of_a_link() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        socket.add_bridge("bridge").unwrap();
        let bridge = index(socket, "bridge");
        socket.set_master(left, Some(bridge)).unwrap();
        let mut monitor = Monitor::open(&[Group::Link]).unwrap();
        socket.set_master(left, None).unwrap();
        socket.set_mtu(left, 1234).unwrap();
        let seen = until(
            &mut monitor,
            |change| matches!(change, Change::LinkChanged(link) if link.mtu == 1234),
        );
        assert!(!seen.iter().any(|change| matches!(change, Change::LinkGone(..))), "{seen:?}");
    });
}

#[test]
fn addresses_and_routes_come_and_go() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        let groups = [Group::Ipv4Address, Group::Ipv6Address, Group::Ipv4Route, Group::Ipv6Route];
        for (local, destination) in [("10.1.0.1/24", "10.9.0.0/16"), ("fd01::1/64", "fd09::/32")] {
            let mut monitor = Monitor::open(&groups).unwrap();
            let address = Address { link: left, local: local.parse().unwrap(), peer: None };
            let route = Route {
                link: Some(left),
                metric: Some(7),
                ..Route::new(destination.parse().unwrap())
            };
            socket.add_address(&address).unwrap();
            until(&mut monitor, |change| *change == Change::AddressAdded(address.clone()));
            socket.add_route(&route).unwrap();
            until(&mut monitor, |change| *change == Change::RouteAdded(route.clone()));
            socket.delete_route(&route).unwrap();
            until(&mut monitor, |change| *change == Change::RouteGone(route.clone()));
            socket.delete_address(&address).unwrap();
            until(&mut monitor, |change| *change == Change::AddressGone(address.clone()));
        }
    });
}

#[test]
fn changes_that_others_make_are_seen_too() {
    in_namespace(|_| {
        let mut monitor = Monitor::open(&[Group::Link]).unwrap();
        ip("tuntap add tun7 mode tun");
        until(
            &mut monitor,
            |change| matches!(change, Change::LinkChanged(link) if link.name == "tun7"),
        );
    });
}

#[test]
fn a_monitor_that_nobody_reads_says_once_that_it_missed_changes() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        let mut monitor = Monitor::open(&[Group::Link]).unwrap();
        // Each change leaves about a kilobyte, and the buffer is far from this many.
        for number in 0..3000 {
            socket.set_mtu(left, 1000 + number % 400).unwrap();
        }
        let mut seen = until(&mut monitor, |change| *change == Change::Missed);
        loop {
            match monitor.changes().unwrap() {
                changes if changes.is_empty() => break,
                changes => seen.extend(changes),
            }
        }
        assert_eq!(seen.iter().filter(|change| **change == Change::Missed).count(), 1);

        socket.set_mtu(left, 1450).unwrap();
        until(
            &mut monitor,
            |change| matches!(change, Change::LinkChanged(link) if link.mtu == 1450),
        );
    });
}

#[test]
fn a_monitor_hears_only_the_groups_it_joined() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        let mut monitor = Monitor::open(&[Group::Ipv4Address]).unwrap();
        socket.set_mtu(left, 1234).unwrap();
        let local = "10.1.0.1/24".parse().unwrap();
        let address = Address { link: left, local, peer: None };
        socket.add_address(&address).unwrap();
        let added = Change::AddressAdded(address);
        let seen = until(&mut monitor, |change| *change == added);
        assert_eq!(seen, [added]);
    });
}
