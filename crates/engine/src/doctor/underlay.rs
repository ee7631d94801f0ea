//! Whether the tunnel's datagrams reach the peers, and come in here.

use crate::supervisor::encapsulation;
use std::net::{IpAddr, SocketAddr};

use netlink::{Link, Route};
use proto::OuterMtu;

use super::observed::{Listener, Observed, ObservedEndpoint, ObservedTunnel};
use super::{Check, Finding, Severity, content};
use crate::config::{Endpoint, Host};

pub(super) fn checks(observed: &Observed, tunnel: &ObservedTunnel) -> Vec<Check> {
    let reach = tunnel.endpoints.iter().map(|endpoint| {
        let fine = format!("{} is reached", describe(endpoint));
        Check::new(fine, unreachable(observed, tunnel, endpoint))
    });
    let mut checks: Vec<_> = reach.collect();
    let large =
        tunnel.endpoints.iter().filter_map(|endpoint| too_large(observed, tunnel, endpoint));
    checks.push(Check::new("full packets reach the peers in one piece", large));
    if tunnel.running.is_none() {
        let taken = tunnel.config.local.listen.iter().filter_map(|listen| taken(tunnel, listen));
        checks.push(Check::new("the ports to listen on are free", taken));
    }
    checks
}

fn describe(endpoint: &ObservedEndpoint) -> String {
    format!("peer {}, endpoint {}", endpoint.peer, endpoint.endpoint)
}

fn unreachable(
    observed: &Observed,
    tunnel: &ObservedTunnel,
    endpoint: &ObservedEndpoint,
) -> Option<Finding> {
    let (says, evidence, mend) = match (&endpoint.remote, &endpoint.way) {
        (Err(cause), _) => (
            "its name cannot be looked up, so that nobody knows where the peer is".to_owned(),
            format!("getaddrinfo: {cause}"),
            "correct the name, or write the address of the peer".to_owned(),
        ),
        (Ok(remote), Err(cause)) => (
            "there is no way to it, so that no datagram leaves".to_owned(),
            format!("ip route get {}: {cause}", remote.ip()),
            format!("ip route add {} via ROUTER", remote.ip()),
        ),
        (Ok(remote), Ok(route)) => bad_way(link_of(observed, route)?, tunnel, remote.ip())?,
    };
    let severity = if endpoint.first { Severity::Stops } else { Severity::Degrades };
    Some(Finding { severity, subject: describe(endpoint), says, evidence, mend })
}

/// What is wrong with the link by which datagrams to a peer leave, the evidence, and what mends it.
fn bad_way(link: &Link, tunnel: &ObservedTunnel, ip: IpAddr) -> Option<(String, String, String)> {
    let name = &link.name;
    let evidence = format!("ip route get {ip}: dev {name}");
    if name == tunnel.device() {
        let says =
            "the way to it leads into the tunnel itself, so that datagrams go round in circles";
        let mend = format!("ip route add {ip} via ROUTER dev UPLINK");
        return Some((says.to_owned(), evidence, mend));
    }
    (!link.up || !link.carrier).then(|| {
        let says = format!("the link {name} on the way to it is down or has no carrier");
        (says, evidence, format!("ip link set {name} up; the cable"))
    })
}

/// Datagrams for full packets must fit into what the way carries.
fn too_large(
    observed: &Observed,
    tunnel: &ObservedTunnel,
    endpoint: &ObservedEndpoint,
) -> Option<Finding> {
    let (Ok(remote), Ok(route)) = (&endpoint.remote, &endpoint.way) else { return None };
    let link = link_of(observed, route)?;
    let device = tunnel.device();
    let mtu = match tunnel.running {
        Some(_) => observed.link_named(device).map(|link| link.mtu),
        None => tunnel.config.device.mtu,
    };
    let mtu = mtu.filter(|_| link.name != device)?;
    let outer = OuterMtu(route.mtu.filter(|&mtu| mtu > 0).unwrap_or(link.mtu));
    let most =
        outer.inner(remote.ip(), content(tunnel.config.device.mode), encapsulation(&tunnel.config));
    (mtu > most.0).then(|| Finding {
        severity: Severity::Degrades,
        subject: format!("device {device}"),
        says: format!(
            "its MTU of {mtu} makes datagrams that are larger than the {} octets of the way to peer {}, so \
             that large packets travel in fragments or are lost",
            outer.0, endpoint.peer
        ),
        evidence: format!("ip route get {}: dev {} mtu {}", remote.ip(), link.name, outer.0),
        mend: format!("mtu = {most} in [device], or none at all"),
    })
}

fn taken(tunnel: &ObservedTunnel, listen: &Endpoint) -> Option<Finding> {
    let Endpoint::Udp { host: Host::Ip(ip), port } = listen else { return None };
    let wanted = SocketAddr::new(*ip, *port);
    let other = tunnel.listeners.iter().find(|other| *port != 0 && overlap(wanted, other.local))?;
    let Listener { local, process } = other;
    let who = process.as_ref().map_or_else(
        || "another process".to_owned(),
        |(pid, command)| format!("process {pid} ({command})"),
    );
    Some(Finding {
        severity: Severity::Stops,
        subject: format!("listen {listen}"),
        says: format!("{who} has the port already, so that the tunnel cannot listen there"),
        evidence: format!("ss -ulnp: {local}"),
        mend: match process {
            Some((pid, _)) => format!("kill {pid}, or another port in [local]"),
            None => "another port in [local]".to_owned(),
        },
    })
}

/// Whether two sockets cannot be bound side by side.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || any(one.ip()) || any(other.ip()))
}

fn link_of<'a>(observed: &'a Observed, route: &Route) -> Option<&'a Link> {
    observed.links.iter().find(|link| Some(link.index) == route.link)
}
