//! The network below the tunnel: which sockets there are, where peers are, and how large packets may be.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use netlink::Socket as Netlink;
use proto::mtu::{Content, Encapsulation};
use proto::{InnerMtu, OuterMtu, Path, TransportIndex};
use thiserror::Error;
use transport::udp::{BindError, Options, UdpSocket};

use super::members::Members;
use super::place::{self, Place, way_in_folder};
use crate::config::{self, Config, Endpoint, Host, Security};
use crate::with_causes::WithCauses;

/// What Ethernet carries, where nothing better is known.
const ETHERNET: OuterMtu = OuterMtu(1500);

/// The inner MTU of a tunnel that has folders only: what most networks behind its peers have. Super-packets are carried
/// as they are in any case.
const IN_FOLDERS: InnerMtu = InnerMtu(1500);

/// The network below is not as the configuration needs it.
#[derive(Debug, Error)]
pub enum UnderlayError {
    /// A name has no address, or cannot be looked up.
    #[error("resolve endpoint {endpoint} of peer {peer:?}")]
    Resolve {
        /// Whose endpoint.
        peer: String,
        /// The endpoint as configured.
        endpoint: Endpoint,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A peer's endpoint is of a family that no socket speaks.
    #[error("peer {peer:?} is at {remote}, but the tunnel listens on no {family} address")]
    Family {
        /// Whose endpoint.
        peer: String,
        /// Its address.
        remote: SocketAddr,
        /// "IPv4" or "IPv6".
        family: &'static str,
    },
}

/// Looks up the addresses of a peer's endpoint, the best first; a folder has none.
fn resolve(peer: &str, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, UnderlayError> {
    let Endpoint::Udp { host, port } = endpoint else { return Ok(Vec::new()) };
    let failed =
        |cause| UnderlayError::Resolve { peer: peer.into(), endpoint: endpoint.clone(), cause };
    match host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, *port)]),
        Host::Name(name) => {
            let found: Vec<_> = (name.as_str(), *port).to_socket_addrs().map_err(failed)?.collect();
            if found.is_empty() {
                let cause = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(failed(cause));
            }
            Ok(found)
        }
    }
}

/// Where each peer is, by its first endpoint that can be found; none for those that have none.
///
/// A peer that cannot be found is looked for later, if that may be: with security, if another one was found, and if
/// the question for its name will not go into the tunnel.
pub(super) fn places(config: &Config) -> Result<Vec<Option<Place>>, UnderlayError> {
    let (listen, folders) = (listen(config), place::folders(config));
    let found: Vec<_> = config.peers.iter().map(|peer| find(peer, &listen, &folders)).collect();
    let may_wait = config.local.security == Security::Wireguard && !config.network.default_route;
    if !may_wait || !found.iter().any(|remote| matches!(remote, Ok(Some(_)))) {
        return found.into_iter().collect();
    }
    let warned = |error: &UnderlayError| tracing::warn!("{}", WithCauses(error));
    Ok(found.into_iter().map(|remote| remote.inspect_err(warned).ok().flatten()).collect())
}

/// Where a peer is, by its first endpoint that can be found; the error of the first one if none can.
fn find(
    peer: &config::Peer,
    listen: &[SocketAddr],
    folders: &[PathBuf],
) -> Result<Option<Place>, UnderlayError> {
    let speaks = |remote: &SocketAddr| {
        listen.is_empty() || listen.iter().any(|local| local.is_ipv4() == remote.is_ipv4())
    };
    let mut error = None;
    for endpoint in &peer.endpoints {
        if let Some(folder) = place::folder(endpoint) {
            return Ok(folders.iter().position(|known| known == folder).map(Place::Folder));
        }
        match resolve(&peer.name, endpoint) {
            // An address of a family that no socket speaks is better than none: the error names it.
            Ok(found) => {
                let best = found.iter().find(|it| speaks(it)).or_else(|| found.first());
                return Ok(best.copied().map(Place::Udp));
            }
            Err(cause) => error = error.or(Some(cause)),
        }
    }
    error.map_or(Ok(None), Err)
}

/// The addresses to listen on.
pub(super) fn listen(config: &Config) -> Vec<SocketAddr> {
    let addresses = config.local.listen.iter().filter_map(|endpoint| match endpoint {
        Endpoint::Udp { host: Host::Ip(ip), port } => Some(SocketAddr::new(*ip, *port)),
        Endpoint::Udp { host: Host::Name(_), .. } | Endpoint::Spool { .. } => None,
    });
    addresses.collect()
}

/// Opens the sockets of `config` and finds the way to each peer.
pub(super) fn open(config: &Config) -> Result<(Vec<UdpSocket>, Members), UnderlayError> {
    let places = places(config)?;
    let sockets = bind(config, &places)?;
    let peers = Members::new(config, |index, peer| {
        let place = places.get(index).copied().flatten();
        place.map(|place| way(&sockets, peer, place)).transpose()
    })?;
    Ok((sockets, peers))
}

/// The way to a peer that is there, before it has spoken.
pub(super) fn way(
    sockets: &[UdpSocket],
    peer: &config::Peer,
    place: Place,
) -> Result<Path, UnderlayError> {
    let remote = match place {
        Place::Udp(remote) => remote,
        Place::Folder(folder) => return Ok(way_in_folder(folder, peer.public_key.as_ref())),
    };
    let transport = socket_for(sockets, &peer.name, remote)?;
    Ok(Path { transport, remote: remote.into(), local: None })
}

/// Opens the sockets to listen on. Without any, one on a free port for each family of `places`; with security, for
/// both families, since a peer may come from anywhere. A tunnel that has folders only has no socket.
fn bind(config: &Config, places: &[Option<Place>]) -> Result<Vec<UdpSocket>, UnderlayError> {
    let listen = listen(config);
    let mut endpoints = config.peers.iter().flat_map(|peer| &peer.endpoints);
    let in_folders_only = !place::folders(config).is_empty()
        && !endpoints.any(|endpoint| place::folder(endpoint).is_none());
    if listen.is_empty() && in_folders_only {
        return Ok(Vec::new());
    }
    if listen.is_empty() && config.local.security == Security::Wireguard {
        return Ok(bind_both(0, config.local.fwmark)?);
    }
    let remotes = places.iter().flatten().filter_map(Place::socket_addr);
    let any = remotes.map(|remote| match remote {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    });
    let addresses: BTreeSet<_> =
        if listen.is_empty() { any.collect() } else { listen.iter().copied().collect() };
    Ok(bind_all(addresses, config.local.fwmark)?)
}

/// Opens a socket for each address. Who asks for any address of both families and has one of them gets that.
pub(super) fn bind_all(
    addresses: impl IntoIterator<Item = SocketAddr>,
    mark: Option<u32>,
) -> Result<Vec<UdpSocket>, BindError> {
    let options = Options { mark, ..Options::default() };
    let mut sockets = Vec::new();
    for address in addresses {
        match UdpSocket::bind(address, &options) {
            Err(BindError::Create { .. }) if !sockets.is_empty() && is_any_ipv6(address) => {
                tracing::debug!("this host has no IPv6");
            }
            socket => sockets.push(socket?),
        }
    }
    Ok(sockets)
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// Opens a socket for each family, if possible on the same port. A host without IPv6 has one.
fn bind_both(port: u16, mark: Option<u32>) -> Result<Vec<UdpSocket>, BindError> {
    let v4 = bind_all([SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))], mark)?;
    let same = v4.first().map_or(port, |socket| socket.local_addr().port());
    let v6 = |port| bind_all([SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))], mark);
    let v6 = v6(same).or_else(|_| v6(0)).unwrap_or_default();
    Ok(v4.into_iter().chain(v6).collect())
}

/// The first socket that can reach `remote`.
fn socket_for(
    sockets: &[UdpSocket],
    peer: &str,
    remote: SocketAddr,
) -> Result<TransportIndex, UnderlayError> {
    let place = sockets.iter().position(|socket| socket.local_addr().is_ipv4() == remote.is_ipv4());
    place.map(TransportIndex).ok_or_else(|| UnderlayError::Family {
        peer: peer.into(),
        remote,
        family: if remote.is_ipv4() { "IPv4" } else { "IPv6" },
    })
}

/// The largest inner packet that reaches every peer in one piece.
///
/// For a peer whose endpoint is not known, every link counts by which datagrams to the `listening`
/// addresses could come in.
pub(super) fn inner_mtu(
    netlink: &mut Netlink,
    listening: &[SocketAddr],
    places: &[Option<Place>],
    content: Content,
    encapsulation: Encapsulation,
    device: &str,
) -> Result<InnerMtu, netlink::Error> {
    let mut smallest: Option<InnerMtu> = None;
    // A peer with a session may move to the other family, with its longer header.
    let moves = encapsulation == Encapsulation::Sealed && listening.iter().any(SocketAddr::is_ipv6);
    let any = if moves { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
    let mut consider = |outer: OuterMtu, remote: IpAddr| {
        let remote = if moves { any } else { remote };
        let inner = outer.inner(remote, content, encapsulation);
        smallest = Some(smallest.map_or(inner, |smallest| smallest.min(inner)));
    };
    // Each question is asked once, since peers are many, and places fewer.
    let ip = |place: Place| match place {
        Place::Udp(remote) => Some(Some(remote.ip())),
        // Whatever its length, a packet goes into a file.
        Place::Folder(_) => None,
    };
    let remotes: BTreeSet<_> =
        places.iter().filter_map(|place| place.map_or(Some(None), ip)).collect();
    if listening.is_empty() && !remotes.iter().any(Option::is_some) {
        return Ok(IN_FOLDERS);
    }
    for remote in remotes {
        match remote {
            Some(remote) => consider(outer_mtu(netlink, remote, device)?, remote),
            None => {
                for local in listening.iter().map(SocketAddr::ip) {
                    consider(listening_mtu(netlink, local, device)?, local);
                }
            }
        }
    }
    Ok(smallest.unwrap_or_else(|| ETHERNET.inner(any, content, encapsulation)))
}

/// What the way to `remote` carries: the route's MTU, or that of its link.
fn outer_mtu(
    netlink: &mut Netlink,
    remote: IpAddr,
    device: &str,
) -> Result<OuterMtu, netlink::Error> {
    // Without a way to the peer now, there may be one later, most likely Ethernet.
    let Ok(route) = netlink.route_to(remote) else { return Ok(ETHERNET) };
    let Some(link) = route.link else { return Ok(ETHERNET) };
    // A way through the tunnel itself is none: the MTU would shrink each time that it is asked for.
    let Some(link) = netlink.link_at(link)?.filter(|link| link.name != device) else {
        return Ok(ETHERNET);
    };
    Ok(OuterMtu(route.mtu.filter(|&mtu| mtu > 0).unwrap_or(link.mtu)))
}

/// What the links carry by which datagrams to `local` can come in; not the tunnel's own device.
fn listening_mtu(
    netlink: &mut Netlink,
    local: IpAddr,
    device: &str,
) -> Result<OuterMtu, netlink::Error> {
    let links = netlink.links()?;
    let addresses = netlink.addresses()?;
    let smallest = links
        .iter()
        .filter(|link| link.up && link.name != device)
        .filter(|link| {
            addresses.iter().filter(|address| address.link == link.index).any(|address| {
                let here = address.local.addr();
                here == local
                    || (local.is_unspecified()
                        && !link.loopback
                        && here.is_ipv4() == local.is_ipv4())
            })
        })
        .map(|link| link.mtu)
        .min();
    Ok(smallest.map_or(ETHERNET, OuterMtu))
}
