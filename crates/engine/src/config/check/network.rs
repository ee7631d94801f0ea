//! The rules of `[network]`: what contradicts what, and what would have no effect.
//!
//! # Terms
//!
//! What the tunnel *takes* are the prefixes of which it takes packets off the way that they go without
//! it: those that are routed through the device or are on its link, and, where the default route is
//! of IPv4 only, all of IPv6, which is blocked. A prefix of length 0 among a peer's allowed IPs takes
//! nothing, since it says who owns addresses and not what is routed.

use std::collections::{BTreeMap, HashSet};
use std::iter;
use std::net::IpAddr;

use device::Mode;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::draft::{At, DeviceDraft, Draft, Format, NetworkDraft, PeerDraft};
use super::super::error::Problems;
use super::super::{InterfaceAddress, Network, Translate, owns};
use super::{located, refuse_repeats};

/// The longest prefix that a default route has: it is made of the two halves of a family.
const HALF: u8 = 1;

/// Reports what is wrong in `[network]`, on its own and with the rest of the file.
pub(super) fn check(draft: &Draft, problems: &mut Problems<'_>) {
    let Draft { device, network, peers, .. } = draft;
    check_repeats(draft, problems);
    if draft.format == Format::Conf {
        // That knows none of the other keys, and says with prefixes what a default route takes.
        return check_everything(draft, problems);
    }
    check_routes(network, device, problems);
    check_default_route(network, device, peers, problems);
    check_ipv6_beside(network, device, problems);
    check_exclude(draft, problems);
    check_translation(network, problems);
    check_source_nat(network, device, problems);
    check_bridge(network, device, problems);
}

/// Makes a network of its draft.
pub(super) fn finish(network: NetworkDraft) -> Network {
    let translate = if network.source_nat.is_empty() {
        is_wanted(network.masquerade).map(|_| Translate::Masquerade)
    } else {
        Some(Translate::SourceNat(network.source_nat.into_values()))
    };
    Network {
        routes: network.routes.into_values(),
        allowed_ips_routed: network.allowed_ips_routed,
        default_route: is_wanted(network.default_route).is_some(),
        exclude: network.exclude.into_values(),
        ipv6_beside: is_wanted(network.ipv6_beside).is_some(),
        forward: match network.forward {
            Some(forward) => forward.value,
            None => translate.is_some(),
        },
        translate,
        bridge: network.bridge.map(|bridge| bridge.value.to_string()),
        dns: network.dns.into_values(),
        dns_search: network.dns_search.into_values(),
    }
}

fn check_repeats(Draft { network, format, .. }: &Draft, problems: &mut Problems<'_>) {
    let words = format.words();
    let NetworkDraft { place, routes, exclude, dns, dns_search, .. } = network;
    refuse_repeats(located(place, &routes.items), problems, |it| format!("routes \"{it}\""));
    refuse_repeats(located(place, &exclude.items), problems, |it| format!("exclude \"{it}\""));
    refuse_repeats(located(place, &dns.items), problems, |it| format!("{} \"{it}\"", words.dns));
    refuse_repeats(located(place, &dns_search.items), problems, |it| {
        format!("{} \"{it}\"", words.dns_search)
    });
}

/// Without an address of its family the host has no source address for a route.
fn check_routes(network: &NetworkDraft, device: &DeviceDraft, problems: &mut Problems<'_>) {
    let place = &network.place;
    let default_route = is_wanted(network.default_route);
    for At { offset, value: route } in &network.routes.items {
        let family = Family::of(route.addr());
        if lacks(device, family) {
            let message = format!(
                "{place}routes \"{route}\" is {family}, but [device] has no {family} address"
            );
            problems.push(*offset, message);
        } else if let Some(default_route) = default_route
            && route.prefix_len() <= HALF
        {
            let message =
                format!("{place}routes \"{route}\" is a part of default-route, which is set");
            problems.push_contradiction(*offset, default_route, message);
        }
    }
}

/// A default route takes the families of the device's addresses, and needs a peer for every packet.
fn check_default_route(
    network: &NetworkDraft,
    device: &DeviceDraft,
    peers: &[PeerDraft],
    problems: &mut Problems<'_>,
) {
    let Some(offset) = is_wanted(network.default_route) else { return };
    let mut report = |message: &str| problems.push(offset, format!("{}{message}", network.place));
    match device.mode {
        None => return,
        Some(Mode::Tap) => {
            return report("default-route needs a TUN device; write mode = \"tun\" in [device]");
        }
        Some(Mode::Tun) if device.addresses.is_empty() => {
            return report(
                "default-route needs an address of the device; write addresses = \
                 [\"ADDRESS/LENGTH\"] in [device]",
            );
        }
        Some(Mode::Tun) => {}
    }
    for family in [Family::V4, Family::V6] {
        if has(device, family) && !is_owned(family, peers) {
            let everything = family.everything();
            report(&format!(
                "default-route takes all of {family}, since [device] has an {family} address, but no \
                 peer owns it; add \"{everything}\" to the allowed-ips of one"
            ));
        }
    }
}

/// In wg-quick's format a prefix of length 0 is a default route of its family, for which the device needs an
/// address of that family; without one of IPv6, a default route of IPv4 blocks IPv6.
fn check_everything(draft: &Draft, problems: &mut Problems<'_>) {
    let Draft { device, network, peers, format, .. } = draft;
    if is_wanted(network.default_route).is_none() {
        return;
    }
    let words = format.words();
    let takes_ipv4 = peers.iter().any(|peer| everything(peer).any(|it| it.value.addr().is_ipv4()));
    let blocks_ipv6 = takes_ipv4 && has(device, Family::V4);
    for peer in peers {
        for At { offset, value: prefix } in everything(peer) {
            let family = Family::of(prefix.addr());
            if lacks(device, family) && !(family == Family::V6 && blocks_ipv6) {
                let (place, key, addresses) = (&peer.place, words.allowed_ips, words.addresses);
                let message = format!(
                    "{place}{key} \"{prefix}\" takes all of {family}, but [Interface] has no {family} \
                     {addresses}"
                );
                problems.push(*offset, message);
            }
        }
    }
}

/// The prefixes of length 0 of a peer.
fn everything(peer: &PeerDraft) -> impl Iterator<Item = &At<IpNet>> {
    peer.allowed_ips.items.iter().filter(|prefix| prefix.value.prefix_len() == 0)
}

/// Whether the peers together own all addresses of a family, as far as they are known.
fn is_owned(family: Family, peers: &[PeerDraft]) -> bool {
    let complete =
        |peer: &PeerDraft| !peer.allowed_ips.is_empty() && peer.allowed_ips.is_complete();
    if !peers.iter().all(complete) {
        // Nothing written is everything, or an error of its own as a wrong prefix is.
        return true;
    }
    let prefixes = peers.iter().flat_map(|peer| &peer.allowed_ips.items).map(|item| item.value);
    owns(family.everything(), prefixes)
}

fn check_ipv6_beside(network: &NetworkDraft, device: &DeviceDraft, problems: &mut Problems<'_>) {
    let Some(offset) = is_wanted(network.ipv6_beside) else { return };
    let place = &network.place;
    let ipv6 = device.addresses.items.iter().find(|address| address.value.local().is_ipv6());
    if is_wanted(network.default_route).is_none() {
        let message = "ipv6-beside-tunnel has no meaning without default-route = true";
        problems.push(offset, format!("{place}{message}"));
    } else if let Some(ipv6) = ipv6 {
        let message = "ipv6-beside-tunnel is set, but default-route takes IPv6 into the tunnel, since \
                       [device] has an IPv6 address";
        problems.push_contradiction(offset, ipv6.offset, format!("{place}{message}"));
    }
}

/// An exclusion takes a part out of something larger.
fn check_exclude(draft: &Draft, problems: &mut Problems<'_>) {
    let Draft { device, network, peers, .. } = draft;
    let place = &network.place;
    let routes: BTreeMap<_, _> =
        network.routes.items.iter().map(|route| (route.value, route.offset)).collect();
    let taken = Taken::of(draft);
    let complete = network.routes.is_complete()
        && device.addresses.is_complete()
        && peers.iter().all(|peer| peer.allowed_ips.is_complete());
    for At { offset, value: exclude } in &network.exclude.items {
        // In the order of prefixes, what a prefix contains follows it.
        let contained =
            routes.range(exclude..).next().filter(|(route, _)| exclude.contains(*route));
        let half = taken.default_route(*exclude).filter(|_| exclude.prefix_len() <= HALF);
        if let Some((route, earlier)) = contained {
            let message = format!("{place}exclude \"{exclude}\" takes back routes \"{route}\"");
            problems.push_contradiction(*offset, *earlier, message);
        } else if let Some(earlier) = half {
            let message = format!("{place}exclude \"{exclude}\" takes back default-route");
            problems.push_contradiction(*offset, earlier, message);
        } else if let Some(earlier) = taken.owned.get(exclude) {
            let message =
                format!("{place}exclude \"{exclude}\" takes back allowed-ips \"{exclude}\"");
            problems.push_contradiction(*offset, *earlier, message);
        } else if complete && !taken.contains(*exclude) {
            let message = format!(
                "{place}exclude \"{exclude}\" has no effect, since the tunnel takes nothing of which it \
                 is a part"
            );
            problems.push(*offset, message);
        }
    }
}

/// What the tunnel takes.
struct Taken {
    /// Networks that are routed through the device or on its link.
    prefixes: HashSet<IpNet>,
    /// The allowed IPs that are routed, and where they stand.
    owned: BTreeMap<IpNet, usize>,
    /// The families that are taken whole, and where that is said.
    whole: Vec<(Family, usize)>,
}

impl Taken {
    fn of(draft: &Draft) -> Self {
        let Draft { device, network, peers, .. } = draft;
        let allowed_ips = peers.iter().flat_map(|peer| &peer.allowed_ips.items);
        let routed = allowed_ips.filter(|prefix| prefix.value.prefix_len() > 0);
        let owned: BTreeMap<_, _> = routed.map(|prefix| (prefix.value, prefix.offset)).collect();
        let mut prefixes: HashSet<_> = owned.keys().copied().collect();
        prefixes.extend(network.routes.items.iter().map(|route| route.value));
        prefixes.extend(device.addresses.items.iter().map(|address| on_link(&address.value)));
        let is_beside = is_wanted(network.ipv6_beside).is_some();
        let is_whole =
            |family: &Family| has(device, *family) || (*family == Family::V6 && !is_beside);
        let families = [Family::V4, Family::V6].into_iter().filter(is_whole);
        let default_route = is_wanted(network.default_route);
        let whole = default_route
            .into_iter()
            .flat_map(|offset| families.clone().map(move |family| (family, offset)));
        Self { prefixes, owned, whole: whole.collect() }
    }

    /// Where it is said that all of a prefix's family is taken.
    fn default_route(&self, prefix: IpNet) -> Option<usize> {
        let family = Family::of(prefix.addr());
        self.whole.iter().find(|(whole, _)| *whole == family).map(|(_, offset)| *offset)
    }

    fn contains(&self, prefix: IpNet) -> bool {
        let mut supernets = iter::successors(Some(prefix), IpNet::supernet);
        self.default_route(prefix).is_some()
            || supernets.any(|supernet| self.prefixes.contains(&supernet))
    }
}

/// What an address makes reachable on the link of its device.
fn on_link(address: &InterfaceAddress) -> IpNet {
    match address {
        InterfaceAddress::Prefix(prefix) => prefix.trunc(),
        InterfaceAddress::PointToPoint { peer, .. } => peer.trunc(),
    }
}

/// Only one translation is possible, and only of packets that are forwarded.
fn check_translation(network: &NetworkDraft, problems: &mut Problems<'_>) {
    let place = &network.place;
    let masquerade = is_wanted(network.masquerade);
    let source_nat = (!network.source_nat.is_empty()).then_some(network.source_nat.offset);
    if let (Some(masquerade), Some(source_nat)) = (masquerade, source_nat) {
        let message = "source-nat and masquerade exclude each other; masquerade is set";
        problems.push_contradiction(source_nat, masquerade, format!("{place}{message}"));
    }
    if let Some(At { offset: forward, value: false }) = network.forward {
        for (key, offset) in [("masquerade", masquerade), ("source-nat", source_nat)] {
            let Some(offset) = offset else { continue };
            let message = format!("{place}{key} needs forward = true, but forward is false");
            problems.push_contradiction(offset, forward, message);
        }
    }
}

/// There is one address to hide behind for each family that the device can carry.
fn check_source_nat(network: &NetworkDraft, device: &DeviceDraft, problems: &mut Problems<'_>) {
    let (place, items) = (&network.place, &network.source_nat.items);
    for (index, At { offset, value: ip }) in items.iter().enumerate() {
        let family = Family::of(*ip);
        let of_family = |other: &&At<IpAddr>| Family::of(other.value) == family;
        if let Some(first) = items.iter().take(index).find(of_family) {
            let message =
                format!("{place}source-nat \"{ip}\" is a second {family} address; the first is");
            problems.push_contradiction(*offset, first.offset, message);
        } else if lacks(device, family) {
            let message = format!(
                "{place}source-nat \"{ip}\" is {family}, but [device] has no {family} address"
            );
            problems.push(*offset, message);
        }
    }
}

/// A bridge takes what a TAP device carries.
fn check_bridge(network: &NetworkDraft, device: &DeviceDraft, problems: &mut Problems<'_>) {
    let Some(At { offset, value: bridge }) = &network.bridge else { return };
    let place = &network.place;
    if device.mode == Some(Mode::Tun) {
        let message = format!(
            "{place}bridge \"{bridge}\": a bridge takes Ethernet frames, so that the device must be a TAP \
             device; write mode = \"tap\" in [device]"
        );
        return problems.push(*offset, message);
    }
    if device.name.as_ref() == Some(bridge) {
        let message = format!("{place}bridge \"{bridge}\" is the name of the device itself");
        problems.push(*offset, message);
    }
    check_port(*offset, network, device, problems);
}

/// A port hands every frame to its bridge, which has the addresses and the routes; `bridge` is where
/// that is said.
fn check_port(
    bridge: usize,
    network: &NetworkDraft,
    device: &DeviceDraft,
    problems: &mut Problems<'_>,
) {
    const LAYER_3: &str = "has no meaning for the port of a bridge";
    let place = &network.place;
    let written = |is_empty: bool, offset| (!is_empty).then_some(offset);
    let NetworkDraft { routes, source_nat, .. } = network;
    let addresses = &device.addresses;
    let refused = [
        (
            &device.place,
            "addresses",
            written(addresses.is_empty(), addresses.offset),
            "belong to the bridge and not to its port",
        ),
        (
            place,
            "routes",
            written(routes.is_empty(), routes.offset),
            "lead to the bridge and not to its port",
        ),
        (place, "forward", is_wanted(network.forward), LAYER_3),
        (place, "masquerade", is_wanted(network.masquerade), LAYER_3),
        (place, "source-nat", written(source_nat.is_empty(), source_nat.offset), LAYER_3),
    ];
    for (place, key, offset, why) in refused {
        if let Some(offset) = offset {
            let message = format!("{place}{key} {why}; bridge is set");
            problems.push_contradiction(offset, bridge, message);
        }
    }
}

/// Where a boolean stands that is true.
fn is_wanted(key: Option<At<bool>>) -> Option<usize> {
    key.filter(|key| key.value).map(|key| key.offset)
}

/// Whether the device has an address of a family.
fn has(device: &DeviceDraft, family: Family) -> bool {
    let mut addresses = device.addresses.items.iter().map(|address| address.value.local());
    addresses.any(|address| Family::of(address) == family)
}

/// Whether it is sure that packets of a family have no place in the device: a TAP device may get its
/// address from the other side, and a wrong address may have been of that family.
fn lacks(device: &DeviceDraft, family: Family) -> bool {
    device.mode == Some(Mode::Tun) && device.addresses.is_complete() && !has(device, family)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn everything(self) -> IpNet {
        match self {
            Self::V4 => IpNet::V4(Ipv4Net::default()),
            Self::V6 => IpNet::V6(Ipv6Net::default()),
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
