//! Whether packets for the inner networks go into the tunnel, and what comes out of it is let in.

use ipnet::IpNet;
use netlink::{LinkIndex, Route, sysctl};

use super::observed::{Observed, ObservedTunnel, inner_networks};
use super::{Check, Finding, Severity};

/// The halves that stand for a default route, of IPv4 and of IPv6.
const HALVES: [(bool, [&str; 2]); 2] =
    [(true, ["0.0.0.0/1", "128.0.0.0/1"]), (false, ["::/1", "8000::/1"])];

/// The value of `rp_filter` that drops packets whose source is reached by another link
/// (ip-sysctl.rst); the larger of the values of `all` and of the link counts.
const STRICT: &str = "1";

pub(super) fn checks(observed: &Observed, tunnel: &ObservedTunnel) -> Vec<Check> {
    let device = tunnel.device();
    let taken = taken(observed, tunnel);
    let longer = taken.iter().map(|taken| longer_route(observed, taken));
    let mut checks = vec![Check::new("no longer route leads past the tunnel", longer)];
    let Some(link) = observed.link_named(device).filter(|_| tunnel.running.is_some()) else {
        return checks;
    };
    let astray = astray(observed, tunnel, link.index, &taken);
    let strict = strict(observed, tunnel, link.index);
    checks.push(Check::new("the inner networks are reached through the tunnel", astray));
    checks.push(Check::new(format!("rp_filter lets in what comes by {device}"), strict));
    if tunnel.config.network.default_route {
        let halves = missing_halves(observed, tunnel, link.index);
        checks.push(Check::new("the default route leads into the tunnel", halves));
    }
    checks
}

/// A part of an inner network that a longer route of others takes.
struct Taken<'a> {
    route: &'a Route,
    network: IpNet,
}

/// The inner networks that are reached by another link than the device, or not at all.
fn astray(
    observed: &Observed,
    tunnel: &ObservedTunnel,
    device: LinkIndex,
    taken: &[Taken<'_>],
) -> Vec<Finding> {
    let name = tunnel.device();
    let is_taken = |way: &Result<Route, String>| {
        let way = way.as_ref().ok();
        way.is_some_and(|way| {
            taken.iter().any(|it| it.route.destination.contains(&way.destination))
        })
    };
    let astray = tunnel.ways.iter().filter(|(_, way)| !leads_to(way, device) && !is_taken(way));
    let finding = |(network, way): &(IpNet, Result<Route, String>)| Finding {
        severity: Severity::Stops,
        subject: format!("route {network}"),
        says: match way {
            Ok(way) => format!(
                "packets for it leave by {} and not by the tunnel",
                observed.link_name(way.link)
            ),
            Err(_) => "packets for it go nowhere".to_owned(),
        },
        evidence: match way {
            Ok(way) => format!("ip route get: dev {}", observed.link_name(way.link)),
            Err(cause) => format!("ip route get: {cause}"),
        },
        mend: format!("ip route replace {network} dev {name}"),
    };
    astray.map(finding).collect()
}

fn leads_to(way: &Result<Route, String>, link: LinkIndex) -> bool {
    way.as_ref().is_ok_and(|way| way.link == Some(link))
}

fn missing_halves(
    observed: &Observed,
    tunnel: &ObservedTunnel,
    device: LinkIndex,
) -> impl Iterator<Item = Finding> {
    let addresses = &tunnel.config.device.addresses;
    let has = |v4: bool| addresses.iter().any(|address| address.local().is_ipv4() == v4);
    let families = HALVES.iter().filter(move |(v4, _)| has(*v4));
    let halves = families.flat_map(|(_, halves)| halves);
    let present = move |half: &str| {
        let mut routes = observed.main_routes().filter(|route| route.link == Some(device));
        routes.any(|route| route.destination.to_string() == half)
    };
    halves.filter(move |half| !present(half)).map(|half| Finding {
        severity: Severity::Stops,
        subject: format!("route {half}"),
        says: "this half of the default route does not lead into the tunnel".to_owned(),
        evidence: "ip route: not listed".to_owned(),
        mend: format!("ip route replace {half} dev {}", tunnel.device()),
    })
}

/// The parts of inner networks to which longer routes of others lead.
fn taken<'a>(observed: &'a Observed, tunnel: &ObservedTunnel) -> Vec<Taken<'a>> {
    let device = observed.link_named(tunnel.device()).map(|link| link.index);
    let inner = inner_networks(&tunnel.config);
    let part_of = |route: &Route| {
        let mut networks = inner.iter().filter(|network| **network != route.destination);
        networks.find(|network| network.contains(&route.destination)).copied()
    };
    let foreign = observed
        .main_routes()
        .filter(|route| route.link != device && !stays_outside(tunnel, route.destination));
    let taken = foreign.filter_map(|route| Some(Taken { route, network: part_of(route)? }));
    taken.collect()
}

fn longer_route(observed: &Observed, taken: &Taken<'_>) -> Finding {
    let (part, network) = (taken.route.destination, taken.network);
    let link = observed.link_name(taken.route.link);
    Finding {
        severity: Severity::Degrades,
        subject: format!("route {part}"),
        says: format!(
            "it leads by {link}, so that this part of {network} does not reach the tunnel"
        ),
        evidence: format!("ip route: {part} dev {link}"),
        mend: format!("ip route delete {part} dev {link}, or exclude = [\"{part}\"] in [network]"),
    }
}

/// Whether a destination is meant to be outside the tunnel: excluded, or an endpoint.
fn stays_outside(tunnel: &ObservedTunnel, destination: IpNet) -> bool {
    let mut endpoints = tunnel.endpoints.iter().filter_map(|it| it.remote.as_ref().ok());
    tunnel.config.network.exclude.iter().any(|exclude| exclude.contains(&destination))
        || endpoints.any(|remote| IpNet::from(remote.ip()) == destination)
}

/// What a strict check of the way back drops of the packets that come out of the tunnel.
fn strict(observed: &Observed, tunnel: &ObservedTunnel, device: LinkIndex) -> Vec<Finding> {
    let name = tunnel.device();
    let key = sysctl::key_for_interface("net.ipv4.conf", name, "rp_filter");
    let value = |key: &str| observed.sysctl(key).unwrap_or("0").to_owned();
    let effective = value("net.ipv4.conf.all.rp_filter").max(value(&key));
    if effective != STRICT {
        return Vec::new();
    }
    let finding = |severity, says: String| Finding {
        severity,
        subject: format!("sysctl {key}"),
        says,
        evidence: format!("the larger of {key} and net.ipv4.conf.all.rp_filter is 1 (strict)"),
        mend: format!("sysctl -w {key}=2"),
    };
    let astray = tunnel
        .ways
        .iter()
        .filter(|(network, way)| network.addr().is_ipv4() && !leads_to(way, device));
    let mut findings: Vec<_> = astray
        .map(|(network, _)| {
            let says = format!(
                "packets from {network} that come out of the tunnel are dropped, since the way back to \
                 them is another"
            );
            finding(Severity::Stops, says)
        })
        .collect();
    if owns_everything(tunnel) && !tunnel.config.network.default_route {
        let says = "packets from elsewhere that come out of the tunnel are dropped, since the way back \
                    to them is another";
        findings.push(finding(Severity::Degrades, says.to_owned()));
    }
    findings
}

/// Whether a peer may send from all of IPv4.
fn owns_everything(tunnel: &ObservedTunnel) -> bool {
    let mut allowed = tunnel.config.peers.iter().flat_map(|peer| &peer.allowed_ips);
    allowed.any(|network| network.addr().is_ipv4() && network.prefix_len() == 0)
}
