//! What the host's network shall be like.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::resolver::Names;
use crate::{Address, LinkIndex, Route};

use super::Actual;

/// The two halves of all IPv4 addresses: together they outrank a default route without touching it.
const HALVES_V4: [&str; 2] = ["0.0.0.0/1", "128.0.0.0/1"];

/// The two halves of all IPv6 addresses.
const HALVES_V6: [&str; 2] = ["::/1", "8000::/1"];

/// What the host's network shall be like while a tunnel is up.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Desired {
    /// The tunnel's name, without blanks; only with `names`.
    pub tunnel: String,
    /// The name of the tunnel's device.
    pub device: String,
    /// Whether the tunnel makes the device. Only then may the device be missing: the plan is then that
    /// of a device just made, to be shown and not to be applied.
    pub device_made_by_us: bool,
    /// The largest inner packet, in octets.
    pub mtu: u32,
    /// The device's addresses, each with the other end if the device is point-to-point.
    pub addresses: Vec<(IpNet, Option<IpNet>)>,
    /// Whether the device shall be up; if not, it is left as it is.
    pub up: bool,
    /// Networks that are reached through the device.
    pub routes: Vec<IpNet>,
    /// The families whose whole traffic goes through the device, save what has a longer route.
    pub default_route: Families,
    /// Endpoints of the tunnel, which keep the way that they have today.
    pub pinned: Vec<IpAddr>,
    /// Networks that keep the way that they have today, or the lack of one.
    pub exclude: Vec<IpNet>,
    /// Whether an endpoint without any way is unreachable meanwhile: a tunnel that runs waits for its
    /// uplink to come back. If not, such a plan is refused.
    pub wait_for_uplink: bool,
    /// Networks that packets from the tunnel come from, for the check of the route back and for
    /// `translate`. The whole of a family is 0.0.0.0/0 or ::/0.
    pub sources: Vec<IpNet>,
    /// The families whose packets the host forwards.
    pub forward: Families,
    /// What source address the packets of `sources` get that leave by another link. It concerns the
    /// families that are forwarded, and without a source of theirs nothing.
    pub translate: Option<Translation>,
    /// Whether TCP connections that are forwarded through the device use segments that fit; only with
    /// `forward`.
    pub clamp_mss: bool,
    /// The name of the tunnel's table in the packet filter, as [`crate::nftables::Table::name`]; only
    /// with `forward`.
    pub table: String,
    /// The bridge that the device is a port of; only for TAP.
    pub bridge: Option<String>,
    /// Whether IPv6 is unreachable, save what has a longer route, so that nothing passes beside a
    /// tunnel that carries IPv4 only.
    pub block_ipv6: bool,
    /// Who answers names; if none, whoever does.
    pub names: Option<Names>,
}

/// What source address packets get that leave for elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translation {
    /// That of the link that they leave by.
    Masquerade,
    /// Those of these that are of the packet's family, which are the host's. A family without keeps its
    /// addresses.
    SourceNat(Vec<IpAddr>),
}

/// A choice for IPv4 and for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Whether either is chosen.
    pub fn any(self) -> bool {
        self.v4 || self.v6
    }

    /// Whether the family of an address is chosen.
    pub fn of(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

impl Desired {
    /// Whether the packet filter has a part in it.
    pub(super) fn needs_filter(&self) -> bool {
        self.forward.any() || self.translate.is_some()
    }

    /// The device's addresses as the kernel lists them.
    pub(super) fn addresses_on(&self, link: LinkIndex) -> impl Iterator<Item = Address> {
        self.addresses.iter().map(move |&(local, peer)| match peer {
            Some(peer) if peer.addr() == local.addr() => Address { link, local: peer, peer: None },
            Some(peer) => Address { link, local: IpNet::from(local.addr()), peer: Some(peer) },
            None => Address { link, local, peer: None },
        })
    }

    /// The halves that shall lead into the tunnel.
    pub(super) fn default_halves(&self) -> Vec<IpNet> {
        let Families { v4, v6 } = self.default_route;
        let v4 = HALVES_V4.iter().filter(move |_| v4);
        let v6 = HALVES_V6.iter().filter(move |_| v6);
        v4.chain(v6).map(|half| constant(half)).collect()
    }

    /// The halves that shall be unreachable.
    pub(super) fn blocked_halves(&self) -> Vec<IpNet> {
        let halves = HALVES_V6.iter().filter(|_| self.block_ipv6);
        halves.map(|half| constant(half)).collect()
    }

    /// All that leads into the tunnel because someone asked for a route.
    pub(super) fn redirects(&self) -> Vec<IpNet> {
        let mut redirects = self.routes.clone();
        redirects.extend(self.default_halves());
        redirects
    }

    /// All prefixes that take packets off the way that they go today.
    pub(super) fn captures(&self) -> Vec<IpNet> {
        let mut captures = self.redirects();
        captures.extend(self.blocked_halves());
        captures.extend(self.addresses_on(LinkIndex(0)).filter_map(|address| connected(&address)));
        captures
    }

    /// Whether the device has an address of that family, or shall have one.
    pub(super) fn has_family(&self, actual: &Actual, link: LinkIndex, v4: bool) -> bool {
        let present = actual.addresses.iter().filter(|address| address.link == link);
        present.map(|address| address.local.addr().is_ipv4()).any(|is_v4| is_v4 == v4)
            || self.addresses.iter().any(|(local, _)| local.addr().is_ipv4() == v4)
    }
}

/// The prefix that the kernel itself routes to the link of an address while it is up.
pub(super) fn connected(address: &Address) -> Option<IpNet> {
    let prefix = address.peer.unwrap_or(address.local).trunc();
    let alone = address.peer.is_none() && prefix.addr().is_ipv4() && prefix.prefix_len() == 32;
    (!alone).then_some(prefix)
}

/// The metric of a route without one: [`Route::effective_metric`] of its family.
pub(super) fn plain_metric(destination: IpNet) -> u32 {
    Route::new(destination).effective_metric()
}

fn constant(prefix: &str) -> IpNet {
    prefix.parse().expect("the constants above are prefixes")
}
