//! What is refused before anything is planned.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{Link, LinkIndex, Route};

use super::desired::{connected, plain_metric};
use super::error::MTU_MOST;
use super::{Actual, Desired, Device, PlanError, filter};

/// The least MTU of a TUN or TAP device (`MIN_MTU` in drivers/net/tun.c), as RFC 791 has it.
const MTU_LEAST_V4: u32 = 68;

/// The least MTU of IPv6 (RFC 8200 section 5); below, the kernel takes it off the device.
const MTU_LEAST_V6: u32 = 1280;

/// Finds the device and refuses what cannot be.
pub(super) fn check(desired: &Desired, actual: &Actual) -> Result<Device, PlanError> {
    let device = device(desired, actual)?;
    check_addresses(desired, actual, &device)?;
    check_mtu(desired, actual, &device)?;
    distinct("exclusion", &desired.exclude)?;
    distinct("route", &desired.redirects())?;
    check_routes(desired, actual, &device)?;
    filter::check(desired, actual)?;
    if desired.block_ipv6 && desired.default_route.v6 {
        return Err(PlanError::BlockedAndRouted);
    }
    Ok(device)
}

fn device(desired: &Desired, actual: &Actual) -> Result<Device, PlanError> {
    let name = desired.device.clone();
    match actual.link_named(&name) {
        Some(link) if link.tun.is_some() => Ok(Device { index: link.index.0, name }),
        Some(link) => Err(PlanError::NotTunnel { device: name, kind: kind_of(link) }),
        None if desired.device_made_by_us => Ok(Device { index: 0, name }),
        None => Err(PlanError::NoDevice { device: name }),
    }
}

/// What a link is that was to be something else.
pub(super) fn kind_of(link: &Link) -> String {
    match &link.kind {
        Some(kind) => format!("of kind {kind}"),
        None if link.loopback => "the loopback link".to_owned(),
        None => "hardware".to_owned(),
    }
}

fn check_addresses(desired: &Desired, actual: &Actual, device: &Device) -> Result<(), PlanError> {
    let mut seen = BTreeSet::new();
    for &(local, peer) in &desired.addresses {
        if !seen.insert(local.addr()) {
            let value = local.addr().to_string();
            return Err(PlanError::Duplicate { what: "address", value });
        }
        match peer {
            Some(peer) if peer.addr().is_ipv4() != local.addr().is_ipv4() => {
                return Err(PlanError::PeerFamily { local, peer });
            }
            _ => {}
        }
    }
    for prefix in desired.addresses_on(device.index()).filter_map(|address| connected(&address)) {
        not_on_another_link(prefix, actual, device)?;
    }
    let mut wanted = desired.addresses_on(device.index());
    let taken = wanted.find(|wanted| {
        // IPv6 has an address once a link, IPv4 once a prefix.
        wanted.local.addr().is_ipv6()
            && actual.addresses.iter().any(|present| {
                present.link == wanted.link
                    && present.local.addr() == wanted.local.addr()
                    && present != wanted
            })
    });
    taken.map_or(Ok(()), |address| {
        Err(PlanError::AddressTaken { device: device.name.clone(), local: address.local })
    })
}

/// Refuses a network that another link, such as that of another tunnel, has as its own: the two would
/// take each other's packets.
fn not_on_another_link(prefix: IpNet, actual: &Actual, device: &Device) -> Result<(), PlanError> {
    let alone = prefix.prefix_len() == prefix.max_prefix_len();
    // Every link has those.
    let link_local = matches!(prefix, IpNet::V6(net) if net.addr().is_unicast_link_local());
    let other = actual.addresses.iter().find(|address| {
        !alone
            && !link_local
            && address.link != device.index()
            && connected(address) == Some(prefix)
    });
    other.map_or(Ok(()), |other| {
        let link = Some(actual.name_of(other.link));
        Err(PlanError::RouteTaken { destination: prefix, link })
    })
}

fn check_mtu(desired: &Desired, actual: &Actual, device: &Device) -> Result<(), PlanError> {
    let v6 = desired.has_family(actual, device.index(), false);
    let least = if v6 { MTU_LEAST_V6 } else { MTU_LEAST_V4 };
    if (least..=MTU_MOST).contains(&desired.mtu) {
        return Ok(());
    }
    Err(PlanError::Mtu { device: device.name.clone(), mtu: desired.mtu, least })
}

fn distinct(what: &'static str, networks: &[IpNet]) -> Result<(), PlanError> {
    let mut seen = BTreeSet::new();
    for &network in networks {
        if network != network.trunc() {
            return Err(PlanError::HostBits { what, network });
        }
        if !seen.insert(network) {
            return Err(PlanError::Duplicate { what, value: network.to_string() });
        }
    }
    Ok(())
}

fn check_routes(desired: &Desired, actual: &Actual, device: &Device) -> Result<(), PlanError> {
    let redirects = desired.redirects();
    let up = desired.up || actual.link(device.index()).is_some_and(|link| link.up);
    if !up && !redirects.is_empty() {
        return Err(PlanError::Down { device: device.name.clone() });
    }
    // Asked for once: there may be thousands of both.
    let others: Vec<&Route> = actual.others_routes().collect();
    let unreachable: BTreeSet<IpNet> = actual.others_unreachable().collect();
    for destination in redirects {
        if !desired.has_family(actual, device.index(), destination.addr().is_ipv4()) {
            return Err(PlanError::NoAddress { destination, device: device.name.clone() });
        }
        not_taken(destination, actual, &others, Some(device.index()))?;
        if unreachable.contains(&destination) {
            return Err(PlanError::RouteTaken { destination, link: None });
        }
    }
    desired.blocked_halves().iter().try_for_each(|&half| not_taken(half, actual, &others, None))
}

/// Refuses a destination to which a route of someone else leads that is as good as ours or better.
fn not_taken(
    destination: IpNet,
    actual: &Actual,
    others: &[&Route],
    ours: Option<LinkIndex>,
) -> Result<(), PlanError> {
    let metric = plain_metric(destination);
    let other = others.iter().find(|route| {
        route.destination == destination
            && route.effective_metric() <= metric
            && (route.link != ours || ours.is_none() || route.via.is_some())
    });
    other.map_or(Ok(()), |other| {
        let link = other.link.and_then(|index| actual.link(index));
        Err(PlanError::RouteTaken { destination, link: link.map(|link| link.name.clone()) })
    })
}
