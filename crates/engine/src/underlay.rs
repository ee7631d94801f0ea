//! The network below the tunnel: which sockets there are, where peers are, and how large packets may be.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use netlink::Socket as Netlink;
use proto::mtu::Content;
use proto::{InnerMtu, OuterMtu, PeerTable, SocketIndex};
use thiserror::Error;
use transport::udp::{BindError, Options, UdpSocket};

use crate::config::{Endpoint, Host};

/// What Ethernet carries, where nothing better is known.
const ETHERNET: OuterMtu = OuterMtu(1500);

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

/// Looks up the address of a peer's endpoint.
pub(crate) fn resolve(peer: &str, endpoint: &Endpoint) -> Result<SocketAddr, UnderlayError> {
    let Endpoint::Udp { host, port } = endpoint;
    let failed =
        |cause| UnderlayError::Resolve { peer: peer.into(), endpoint: endpoint.clone(), cause };
    match host {
        Host::Ip(ip) => Ok(SocketAddr::new(*ip, *port)),
        Host::Name(name) => {
            (name.as_str(), *port).to_socket_addrs().map_err(failed)?.next().ok_or_else(|| {
                failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
            })
        }
    }
}

/// Opens the sockets to listen on; without any, one on a free port for each family of `remotes`.
pub(crate) fn bind(
    listen: &[SocketAddr],
    remotes: &[SocketAddr],
) -> Result<Vec<UdpSocket>, UnderlayError> {
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
pub(crate) fn socket_for(
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
/// For a peer whose endpoint is not known, every link that it could come in by counts.
pub(crate) fn inner_mtu(
    netlink: &mut Netlink,
    sockets: &[UdpSocket],
    peers: &PeerTable,
    content: Content,
    device: &str,
) -> Result<InnerMtu, netlink::Error> {
    let mut smallest: Option<InnerMtu> = None;
    let mut consider = |outer: OuterMtu, remote| {
        let inner = outer.inner(remote, content);
        smallest = Some(smallest.map_or(inner, |smallest| smallest.min(inner)));
    };
    for peer in peers.peers() {
        match &peer.path {
            Some(path) => consider(outer_mtu(netlink, path.remote.ip())?, path.remote.ip()),
            None => {
                for socket in sockets {
                    let local = socket.local_addr().ip();
                    consider(listening_mtu(netlink, local, device)?, local);
                }
            }
        }
    }
    Ok(smallest.unwrap_or_else(|| ETHERNET.inner(IpAddr::V4(Ipv4Addr::UNSPECIFIED), content)))
}

/// What the way to `remote` carries: the route's MTU, or that of its link.
fn outer_mtu(netlink: &mut Netlink, remote: IpAddr) -> Result<OuterMtu, netlink::Error> {
    let Ok(route) = netlink.route_to(remote) else {
        // No way to the peer now; there may be one later, most likely Ethernet.
        return Ok(ETHERNET);
    };
    if let Some(mtu) = route.mtu.filter(|&mtu| mtu > 0) {
        return Ok(OuterMtu(mtu));
    }
    let Some(link) = route.link else { return Ok(ETHERNET) };
    Ok(netlink.link_at(link)?.map_or(ETHERNET, |link| OuterMtu(link.mtu)))
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
