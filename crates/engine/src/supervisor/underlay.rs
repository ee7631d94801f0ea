//! The network below the tunnel: which sockets there are, where peers are, and how large packets may be.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use device::Mode;
use ipnet::{Ipv4Net, Ipv6Net};
use netlink::Socket as Netlink;
use proto::mtu::Content;
use proto::{InnerMtu, OuterMtu, Path, Peer, PeerTable, SocketIndex};
use thiserror::Error;
use transport::udp::{BindError, Options, UdpSocket};

use crate::config::{Config, Endpoint, Host};

/// What Ethernet carries, where nothing better is known.
const ETHERNET: OuterMtu = OuterMtu(1500);

const EVERY_IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
const EVERY_IPV6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);

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

/// Looks up the addresses of a peer's endpoint, the best first.
pub(super) fn resolve(peer: &str, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, UnderlayError> {
    let Endpoint::Udp { host, port } = endpoint;
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

/// Where each peer is, by its first endpoint; none for those that have none.
pub(super) fn remotes(config: &Config) -> Result<Vec<Option<SocketAddr>>, UnderlayError> {
    let listen = listen(config);
    let speaks = |remote: &SocketAddr| {
        listen.is_empty() || listen.iter().any(|local| local.is_ipv4() == remote.is_ipv4())
    };
    let remote = |peer: &crate::config::Peer| {
        let Some(endpoint) = peer.endpoints.first() else { return Ok(None) };
        let found = resolve(&peer.name, endpoint)?;
        // An address of a family that no socket speaks is better than none: the error names it.
        Ok(found.iter().find(|remote| speaks(remote)).or_else(|| found.first()).copied())
    };
    config.peers.iter().map(remote).collect()
}

/// The addresses to listen on.
pub(super) fn listen(config: &Config) -> Vec<SocketAddr> {
    let addresses = config.local.listen.iter().filter_map(|endpoint| match endpoint {
        Endpoint::Udp { host: Host::Ip(ip), port } => Some(SocketAddr::new(*ip, *port)),
        Endpoint::Udp { host: Host::Name(_), .. } => None,
    });
    addresses.collect()
}

/// Opens the sockets of `config` and finds the way to each peer.
pub(super) fn open(config: &Config) -> Result<(Vec<UdpSocket>, PeerTable), UnderlayError> {
    let remotes = remotes(config)?;
    let known: Vec<_> = remotes.iter().flatten().copied().collect();
    let sockets = bind(&listen(config), &known)?;
    let mut peers = Vec::new();
    for (peer, remote) in config.peers.iter().zip(remotes) {
        let path = match remote {
            Some(remote) => {
                let socket = socket_for(&sockets, &peer.name, remote)?;
                Some(Path { socket, remote, local: None })
            }
            None => None,
        };
        let allowed_ips = match config.device.mode {
            Mode::Tun => peer.allowed_ips.clone(),
            // Frames are not routed by address: the only peer gets all of them.
            Mode::Tap => vec![EVERY_IPV4.into(), EVERY_IPV6.into()],
        };
        peers.push(Peer { name: peer.name.clone(), path, allowed_ips });
    }
    Ok((sockets, PeerTable::new(peers)))
}

/// Opens the sockets to listen on; without any, one on a free port for each family of `remotes`.
fn bind(listen: &[SocketAddr], remotes: &[SocketAddr]) -> Result<Vec<UdpSocket>, UnderlayError> {
    let any = remotes.iter().map(|remote| match remote {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    });
    let addresses: BTreeSet<_> =
        if listen.is_empty() { any.collect() } else { listen.iter().copied().collect() };
    let options = Options::default();
    Ok(addresses
        .into_iter()
        .map(|address| UdpSocket::bind(address, &options))
        .collect::<Result<_, _>>()?)
}

/// The first socket that can reach `remote`.
pub(super) fn socket_for(
    sockets: &[UdpSocket],
    peer: &str,
    remote: SocketAddr,
) -> Result<SocketIndex, UnderlayError> {
    let place = sockets.iter().position(|socket| socket.local_addr().is_ipv4() == remote.is_ipv4());
    place.map(SocketIndex).ok_or_else(|| UnderlayError::Family {
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
    remotes: &[Option<SocketAddr>],
    content: Content,
    device: &str,
) -> Result<InnerMtu, netlink::Error> {
    let mut smallest: Option<InnerMtu> = None;
    let mut consider = |outer: OuterMtu, remote| {
        let inner = outer.inner(remote, content);
        smallest = Some(smallest.map_or(inner, |smallest| smallest.min(inner)));
    };
    for remote in remotes {
        match remote {
            Some(remote) => consider(outer_mtu(netlink, remote.ip(), device)?, remote.ip()),
            None => {
                for local in listening.iter().map(SocketAddr::ip) {
                    consider(listening_mtu(netlink, local, device)?, local);
                }
            }
        }
    }
    Ok(smallest.unwrap_or_else(|| ETHERNET.inner(IpAddr::V4(Ipv4Addr::UNSPECIFIED), content)))
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
