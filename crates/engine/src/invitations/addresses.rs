//! Which addresses a joiner gets.
//!
//! Each network that the inviter's device is in gives one: the first host address behind the inviter's own, or from the
//! beginning of the network, that is nobody's.

use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

/// So many addresses of a network are looked at.
const LOOKS_MAX: usize = 1 << 16;

/// There is no address for a joiner.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum NoAddress {
    /// The device has none whose network has room for others.
    #[error("the device has no address in a network that others could have an address of")]
    NoNetwork,
    /// All are taken.
    #[error("all addresses of {0} are taken")]
    Full(IpNet),
    /// The one that is asked for is somebody else's.
    #[error("address {0} is taken")]
    Taken(IpAddr),
    /// It is no address of a host.
    #[error("{0} is no address of a host")]
    NoHost(IpNet),
}

/// Addresses for a joiner: those `asked` for, or one for each network of `own`, the addresses of the inviter's device.
/// `taken` is what peers and invitations have.
pub(crate) fn choose(
    own: &[IpNet],
    asked: &[IpNet],
    taken: &[IpNet],
) -> Result<Vec<IpNet>, NoAddress> {
    if !asked.is_empty() {
        return asked.iter().map(|&asked| check(own, asked, taken)).collect();
    }
    let networks = own.iter().filter(|own| is_shared(own));
    let chosen: Vec<_> =
        networks.map(|&network| next(network, own, taken)).collect::<Result<_, _>>()?;
    if chosen.is_empty() { Err(NoAddress::NoNetwork) } else { Ok(chosen) }
}

/// The address that is asked for, if nobody has it; without a length it gets that of the inviter's network around it.
fn check(own: &[IpNet], asked: IpNet, taken: &[IpNet]) -> Result<IpNet, NoAddress> {
    let ip = asked.addr();
    let network = own.iter().find(|own| own.contains(&ip));
    if ip.is_unspecified() || ip.is_multicast() || !network.is_none_or(|own| is_host(*own, ip)) {
        return Err(NoAddress::NoHost(asked));
    }
    if is_taken(ip, own, taken) {
        return Err(NoAddress::Taken(ip));
    }
    let is_bare = asked.prefix_len() == asked.max_prefix_len();
    let around = network.filter(|_| is_bare).and_then(|own| IpNet::new(ip, own.prefix_len()).ok());
    Ok(around.unwrap_or(asked))
}

/// Whether a network has addresses for others.
fn is_shared(network: &IpNet) -> bool {
    network.prefix_len() < network.max_prefix_len()
}

fn next(network: IpNet, own: &[IpNet], taken: &[IpNet]) -> Result<IpNet, NoAddress> {
    let behind = iter::successors(following(network.addr()), |&ip| following(ip));
    let behind = behind.take_while(|ip| network.contains(ip));
    let start = iter::successors(Some(network.network()), |&ip| following(ip));
    let start = start.take_while(|&ip| ip < network.addr());
    let mut candidates = behind.take(LOOKS_MAX).chain(start.take(LOOKS_MAX));
    let free = candidates.find(|&ip| is_host(network, ip) && !is_taken(ip, own, taken));
    let free = free.and_then(|ip| IpNet::new(ip, network.prefix_len()).ok());
    free.ok_or_else(|| NoAddress::Full(network.trunc()))
}

/// Whether a host can have an address of this network: of IPv4 the first and the last stand for the network and for
/// everybody (RFC 1122, section 3.2.1.3) if there are more than two (RFC 3021); of IPv6 the first is every router's (RFC 4291,
/// section 2.6.1).
fn is_host(network: IpNet, ip: IpAddr) -> bool {
    let has_room = network.max_prefix_len() - network.prefix_len() > 1;
    match ip {
        IpAddr::V4(_) => !has_room || (ip != network.network() && ip != network.broadcast()),
        IpAddr::V6(_) => !has_room || ip != network.network(),
    }
}

/// Whether somebody has it. Who owns everything, or all that the inviter's device is in, has no single address by that.
fn is_taken(ip: IpAddr, own: &[IpNet], taken: &[IpNet]) -> bool {
    let is_wide = |prefix: &IpNet| own.iter().any(|own| prefix.contains(&own.trunc()));
    own.iter().any(|own| own.addr() == ip)
        || taken.iter().any(|taken| taken.contains(&ip) && !is_wide(taken))
}

fn following(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_add(1).map(|ip| Ipv4Addr::from(ip).into()),
        IpAddr::V6(ip) => u128::from(ip).checked_add(1).map(|ip| Ipv6Addr::from(ip).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(own: &[&str], asked: &[&str], taken: &[&str]) -> Result<Vec<String>, String> {
        let chosen = choose(&nets(own), &nets(asked), &nets(taken));
        chosen
            .map(|chosen| chosen.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_joiner_gets_the_next_free_address_of_each_network() {
        let own = ["192.0.2.1/24", "fd00:7::1/64"];
        assert_eq!(chosen(&own, &[], &[]).unwrap(), ["192.0.2.2/24", "fd00:7::2/64"]);
        let taken = ["192.0.2.2/32", "192.0.2.4/30", "fd00:7::2/128", "0.0.0.0/0", "192.0.2.0/24"];
        assert_eq!(chosen(&own, &[], &taken).unwrap(), ["192.0.2.3/24", "fd00:7::3/64"]);
        let taken = ["192.0.2.2/31", "192.0.2.4/30"];
        assert_eq!(chosen(&own[..1], &[], &taken).unwrap(), ["192.0.2.8/24"]);
    }

    #[test]
    fn behind_the_end_of_the_network_its_beginning_follows() {
        assert_eq!(chosen(&["192.0.2.254/24"], &[], &[]).unwrap(), ["192.0.2.1/24"]);
        assert_eq!(chosen(&["192.0.2.1/31"], &[], &[]).unwrap(), ["192.0.2.0/31"]);
        let full = chosen(&["192.0.2.1/30"], &[], &["192.0.2.2/32"]);
        assert_eq!(full.unwrap_err(), "all addresses of 192.0.2.0/30 are taken");
        assert!(chosen(&["192.0.2.1/32"], &[], &[]).unwrap_err().contains("no address in"));
        assert_eq!(chosen(&["255.255.255.254/8"], &[], &[]).unwrap(), ["255.0.0.1/8"]);
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_if_nobody_has_it() {
        let own = ["192.0.2.1/24"];
        assert_eq!(chosen(&own, &["192.0.2.9/32"], &[]).unwrap(), ["192.0.2.9/24"]);
        assert_eq!(chosen(&own, &["10.0.0.9/32"], &[]).unwrap(), ["10.0.0.9/32"]);
        let refused = |asked, taken: &[&str]| chosen(&own, &[asked], taken).unwrap_err();
        assert_eq!(refused("192.0.2.1/24", &[]), "address 192.0.2.1 is taken");
        assert_eq!(refused("192.0.2.9/24", &["192.0.2.8/29"]), "address 192.0.2.9 is taken");
        assert_eq!(refused("192.0.2.255/24", &[]), "192.0.2.255/24 is no address of a host");
    }
}
