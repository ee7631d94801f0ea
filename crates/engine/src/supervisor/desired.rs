//! What a configuration asks of the host's network.

use std::collections::HashSet;
use std::net::IpAddr;

use device::Mode;
use ipnet::IpNet;
use netlink::nftables::TABLE_PREFIX;
use netlink::plan::{self, Families, Translation};
use netlink::resolver::Names;
use netlink::sysctl;
use proto::InnerMtu;

use crate::config::{Config, InterfaceAddress, Translate};

/// What decides besides the configuration.
#[derive(Clone, Debug)]
pub(super) struct Circumstances {
    /// Whether the tunnel has made the device, or will.
    pub(super) made_by_us: bool,
    /// The largest inner packet.
    pub(super) mtu: InnerMtu,
    /// Where the peers are at the moment.
    pub(super) endpoints: Vec<IpAddr>,
    /// Whether the host speaks IPv6.
    pub(super) ipv6: bool,
    /// Whether the tunnel runs already, so that an uplink that is gone may come back.
    pub(super) running: bool,
}

/// The state of the host's network that `config` asks for.
pub(super) fn desired(config: &Config, circumstances: &Circumstances) -> plan::Desired {
    let network = &config.network;
    let own = families(config);
    let default_route = config.default_families();
    let forward = both(network.forward, forwarded(config, own));
    plan::Desired {
        tunnel: config.name.clone(),
        device: config.device.name.to_string(),
        device_made_by_us: circumstances.made_by_us,
        mtu: circumstances.mtu.0,
        addresses: config.device.addresses.iter().map(address).collect(),
        up: true,
        routes: routes(config),
        default_route,
        pinned: circumstances.endpoints.clone(),
        wait_for_uplink: circumstances.running,
        exclude: network.exclude.clone(),
        sources: sources(config),
        forward,
        block_ipv6: leaks_ipv6(config) && circumstances.ipv6 && !network.ipv6_beside,
        bridge: network.bridge.clone(),
        translate: network.translate.as_ref().map(translation),
        clamp_mss: forward.v4 || forward.v6,
        table: format!("{TABLE_PREFIX}{}", config.name),
        names: (!network.dns.is_empty())
            .then(|| Names { servers: network.dns.clone(), domains: network.dns_search.clone() }),
    }
}

/// Whether an address is one that the tunnel has itself or alone leads to, and so no endpoint of it: there
/// is no plan with such a one.
pub(super) fn is_inside(config: &Config, address: IpAddr) -> bool {
    let mut routes = config.network.routes.iter().chain(allowed(config));
    config.device.addresses.iter().any(|own| own.local() == address)
        || routes.any(|&route| route == IpNet::from(address))
}

/// Whether all of IPv4 goes through the tunnel, and nothing of IPv6.
pub(super) fn leaks_ipv6(config: &Config) -> bool {
    let default_route = config.default_families();
    default_route.v4 && !default_route.v6
}

/// Whether this host speaks IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    sysctl::read("net.ipv6.conf.all.disable_ipv6").is_ok_and(|disabled| disabled == "0")
}

/// Says what does not go through a tunnel that takes the default route.
pub(super) fn warn_of_leaks(config: &Config) {
    let Families { v4, v6 } = config.default_families();
    let device = &config.device.name;
    if leaks_ipv6(config) && has_ipv6() {
        if config.network.ipv6_beside {
            tracing::warn!("device {device} has no IPv6 address: IPv6 passes beside the tunnel");
        } else {
            tracing::warn!(
                "device {device} has no IPv6 address: IPv6 is blocked, so that it does not pass beside \
                 the tunnel (ipv6-beside-tunnel = true lets it)"
            );
        }
    }
    if v6 && !v4 {
        tracing::warn!("device {device} has no IPv4 address: IPv4 passes beside the tunnel");
    }
}

/// The families of which the device has an address.
fn families(config: &Config) -> Families {
    let mut addresses = config.device.addresses.iter().map(InterfaceAddress::local);
    let v4 = addresses.clone().any(|address| address.is_ipv4());
    Families { v4, v6: addresses.any(|address| address.is_ipv6()) }
}

/// The families that come through the device, of which it may have no address itself.
fn forwarded(config: &Config, own: Families) -> Families {
    let routes = routes(config);
    Families {
        v4: own.v4 || routes.iter().any(|route| route.addr().is_ipv4()),
        v6: own.v6 || routes.iter().any(|route| route.addr().is_ipv6()),
    }
}

fn both(wanted: bool, families: Families) -> Families {
    Families { v4: wanted && families.v4, v6: wanted && families.v6 }
}

fn address(address: &InterfaceAddress) -> (IpNet, Option<IpNet>) {
    match *address {
        InterfaceAddress::Prefix(prefix) => (prefix, None),
        InterfaceAddress::PointToPoint { local, peer } => (IpNet::from(local), Some(peer)),
    }
}

fn translation(translate: &Translate) -> Translation {
    match translate {
        Translate::Masquerade => Translation::Masquerade,
        Translate::SourceNat(addresses) => Translation::SourceNat(addresses.clone()),
    }
}

/// What is routed into the device: what the configuration says, and the peers' allowed IPs.
///
/// A peer that owns everything is no reason to redirect the default route, and what an address of
/// the device makes on-link needs no route of its own.
fn routes(config: &Config) -> Vec<IpNet> {
    let allowed = allowed(config).filter(|_| config.network.allowed_ips_routed);
    let routes = config.network.routes.iter().chain(allowed).copied();
    let is_on_link = |route: &IpNet| {
        config.device.addresses.iter().any(|address| on_link(address).contains(route))
    };
    // One lookup for each, since there may be thousands.
    let mut seen = HashSet::new();
    routes.filter(|route| !is_on_link(route) && seen.insert(*route)).collect()
}

/// Where packets from the tunnel come from: what is reached through it.
///
/// Of a peer that owns everything it is expected that it sends from there, too.
fn sources(config: &Config) -> Vec<IpNet> {
    let on_link = config.device.addresses.iter().map(|address| on_link(address).trunc());
    routes(config).into_iter().chain(on_link).collect()
}

/// The peers' allowed IPs, save what stands for everything.
fn allowed(config: &Config) -> impl Iterator<Item = &IpNet> {
    let allowed = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
    allowed.filter(|prefix| config.device.mode == Mode::Tun && prefix.prefix_len() > 0)
}

/// What an address of a device makes reachable on its link.
fn on_link(address: &InterfaceAddress) -> IpNet {
    match address {
        InterfaceAddress::Prefix(prefix) => *prefix,
        InterfaceAddress::PointToPoint { peer, .. } => *peer,
    }
}
