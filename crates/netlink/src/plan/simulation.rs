//! A host that exists in memory only: what the kernel makes of operations and of their undo.

use crate::nftables::ChainId;
use crate::{Address, LinkIndex, Route, TABLE_MAIN};

use super::change::due_companions;
use super::desired::connected;
use super::{Actual, DeviceRoute, DroppingChain, Operation, Reverted, Undo};

const PROTOCOL_KERNEL: u8 = 2;

/// Applies an operation; panics where the kernel would refuse it.
pub(super) fn apply(host: &mut Actual, operation: &Operation) {
    match operation {
        Operation::SetMtu { device, to, from } => {
            let link = link_mut(host, device.index());
            assert_eq!(link.mtu, *from);
            link.mtu = *to;
        }
        Operation::WriteSysctl { key, from, to, .. } => {
            assert_eq!(host.sysctls[key], *from);
            write_sysctl(host, key, to);
        }
        Operation::AddAddress(address) => add_address(host, address.address()),
        Operation::SetUp { device } => set_up(host, device.index()),
        Operation::ChangeNames(_) => unreachable!("the simulated host has no resolver"),
        Operation::AddRoute { route, .. } => add_route(host, &route.route()),
        Operation::ReplaceRoute { from, to, .. } => {
            remove_route(host, from);
            add_route(host, &to.route());
        }
        Operation::DeleteRoute { route } => remove_route(host, route),
        Operation::DeleteUnreachable { destination } => {
            assert!(host.unreachable.contains(destination));
            host.unreachable.retain(|other| other != destination);
        }
        Operation::InstallTable { table } => host.filter.in_force = Some(table.clone()),
        Operation::AcceptForward { chain, .. } => {
            let dropping = dropping_mut(host, chain);
            assert!(!dropping.owned && !dropping.accepts, "{chain}");
            dropping.accepts = true;
        }
        Operation::SetMaster { device, bridge } => {
            link_mut(host, device.index()).master = Some(bridge.index());
        }
        Operation::AddUnreachable { destination, .. } => {
            assert!(host.routes.iter().all(|route| route.destination != *destination));
            assert!(!host.unreachable.contains(destination));
            host.unreachable.push(*destination);
        }
    }
    sort(host);
}

/// Reverts an operation if that is still due.
pub(super) fn revert(host: &mut Actual, undo: &Undo) -> Reverted {
    let verdict = undo.judge(host);
    if verdict == Reverted::Done {
        put_back(host, undo);
        sort(host);
    }
    verdict
}

pub(super) fn sort(host: &mut Actual) {
    host.addresses.sort_by_key(|address| (address.link, address.local, address.peer));
    host.routes.sort_by_key(|route| (route.destination, route.link, route.metric, route.via));
    host.unreachable.sort();
}

fn put_back(host: &mut Actual, undo: &Undo) {
    match undo {
        Undo::Mtu { device, before, .. } => link_mut(host, device.index()).mtu = *before,
        Undo::Sysctl { key, before, companions, .. } => {
            let seen = host.clone();
            write_sysctl(host, key, before);
            for companion in due_companions(companions, key, before, &seen) {
                write_sysctl(host, &companion.key, &companion.value);
            }
        }
        Undo::Address(address) => delete_address(host, &address.address()),
        Undo::Down { device } => {
            link_mut(host, device.index()).up = false;
            host.routes.retain(|route| route.link != Some(device.index()));
        }
        Undo::Route(ours) => remove_route(host, ours),
        Undo::Names(_) => unreachable!("the simulated host has no resolver"),
        Undo::AcceptForward { chain, .. } => dropping_mut(host, chain).accepts = false,
        Undo::NoMaster { device, .. } => link_mut(host, device.index()).master = None,
        Undo::Unreachable { destination } => {
            host.unreachable.retain(|other| other != destination);
        }
    }
}

fn remove_route(host: &mut Actual, ours: &DeviceRoute) {
    let there = host.routes.iter().position(|route| ours.is(route)).unwrap();
    host.routes.remove(there);
}

fn dropping_mut<'a>(host: &'a mut Actual, chain: &ChainId) -> &'a mut DroppingChain {
    host.filter.dropping.iter_mut().find(|dropping| dropping.chain == *chain).unwrap()
}

fn link_mut(host: &mut Actual, index: LinkIndex) -> &mut crate::Link {
    host.links.iter_mut().find(|link| link.index == index).unwrap()
}

fn write_sysctl(host: &mut Actual, key: &str, value: &str) {
    host.sysctls.insert(key.to_owned(), value.to_owned());
    let conf = match key {
        "net.ipv4.ip_forward" => {
            let accepts = if value == "0" { "1" } else { "0" };
            let redirects = "net.ipv4.conf.all.accept_redirects".to_owned();
            host.sysctls.insert(redirects, accepts.to_owned());
            "net.ipv4.conf."
        }
        "net.ipv6.conf.all.forwarding" => {
            if value == "1" {
                forget_advertised(host);
            }
            "net.ipv6.conf."
        }
        _ => return,
    };
    for (key, other) in &mut host.sysctls {
        if key.starts_with(conf) && key.ends_with(".forwarding") {
            value.clone_into(other);
        }
    }
}

/// Forgets the routes that the kernel learned. Where it does not listen, a daemon put them there.
fn forget_advertised(host: &mut Actual) {
    let Actual { links, routes, sysctls, .. } = host;
    routes.retain(|route| {
        let link = links.iter().find(|link| Some(link.index) == route.link);
        let key = link.map(|link| format!("net.ipv6.conf.{}.accept_ra", link.name));
        route.protocol != 9 || key.is_none_or(|key| sysctls[&key] != "1")
    });
}

fn add_address(host: &mut Actual, address: Address) {
    assert!(!host.addresses.contains(&address));
    if host.link(address.link).unwrap().up {
        connect(host, &address);
    }
    host.addresses.push(address);
}

fn delete_address(host: &mut Actual, address: &Address) {
    host.addresses.retain(|other| other != address);
    let still = host
        .addresses
        .iter()
        .any(|other| other.link == address.link && connected(other) == connected(address));
    if let Some(prefix) = connected(address).filter(|_| !still) {
        host.routes.retain(|route| {
            route.destination != prefix
                || route.link != Some(address.link)
                || route.protocol != PROTOCOL_KERNEL
        });
    }
}

fn set_up(host: &mut Actual, link: LinkIndex) {
    assert!(!link_mut(host, link).up);
    link_mut(host, link).up = true;
    // Of the two ends of an IPv6 address the kernel takes the near one here.
    let is_brought = |address: &&Address| address.peer.is_none_or(|end| end.addr().is_ipv4());
    let own = host.addresses.iter().filter(|address| address.link == link).filter(is_brought);
    for address in own.cloned().collect::<Vec<_>>() {
        connect(host, &address);
    }
}

/// Adds the route to an address's prefix, as the kernel does by itself.
fn connect(host: &mut Actual, address: &Address) {
    let Some(prefix) = connected(address) else { return };
    let there = host.routes.iter().any(|route| {
        route.destination == prefix
            && route.link == Some(address.link)
            && route.protocol == PROTOCOL_KERNEL
    });
    if !there {
        host.routes.push(Route {
            link: Some(address.link),
            metric: prefix.addr().is_ipv6().then_some(256),
            protocol: PROTOCOL_KERNEL,
            ..Route::new(prefix)
        });
    }
}

fn add_route(host: &mut Actual, route: &Route) {
    let link = host.link(route.link.unwrap()).unwrap();
    assert!(link.up, "the kernel has no routes of links that are down");
    let exists = host.routes.iter().any(|other| {
        other.destination == route.destination
            && other.table == TABLE_MAIN
            && other.effective_metric() == route.effective_metric()
    });
    assert!(!exists && !host.unreachable.contains(&route.destination), "{route:?} exists");
    let metric = route.destination.addr().is_ipv6().then(|| route.effective_metric());
    host.routes.push(Route { metric, ..route.clone() });
}
