//! How datagrams travel while a machine enrols: to all places at which the inviter may be, and back from any.
//!
//! An inviter takes an initiation once, so the same one may be sent to all places; the way on which its answer comes is
//! taken from then on. So a ticket with an address that is not reached from here costs no time.

mod folder;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proto::{Path, RemoteAddr, Side, TransportIndex};
use rustix::event::{PollFd, PollFlags};
use thiserror::Error;
use transport::spool::OpenError;

use self::folder::FolderLine;
use crate::config::{Endpoint, EndpointError, Host};
use crate::poll::poll_until;

/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

/// The largest datagram that is looked at; those of an enrolment are smaller.
const DATAGRAM_MAX: usize = 2048;

/// There is no way to the inviter.
#[derive(Debug, Error)]
pub enum LineError {
    /// An endpoint is none.
    #[error("endpoint")]
    Endpoint(#[from] EndpointError),
    /// A name cannot be looked up.
    #[error("resolve endpoint {endpoint}")]
    Resolve {
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// A folder cannot be shared.
    #[error("share folder {}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        cause: Box<OpenError>,
    },
    /// There is no socket.
    #[error("open a UDP socket")]
    Socket(#[source] io::Error),
    /// Waiting failed.
    #[error("wait for the inviter")]
    Wait(#[source] io::Error),
}

/// All ways to the inviter.
pub(super) struct Line {
    /// Those of IPv4 and IPv6, as far as this host has them.
    sockets: Vec<UdpSocket>,
    folders: Vec<FolderLine>,
    /// Where the inviter may be, each with the place of its endpoint.
    places: Vec<(usize, Path)>,
    buffer: Vec<u8>,
}

impl Line {
    /// The ways to these endpoints: of those that can be used, if one can. In folders this is the side `own`, and the
    /// inviter the side `inviter`.
    pub(super) fn open(endpoints: &[String], own: Side, inviter: Side) -> Result<Self, LineError> {
        let sockets: Vec<_> = [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), any_ipv6()]
            .into_iter()
            .filter_map(|local| udp_socket(local).ok())
            .collect();
        let buffer = vec![0; DATAGRAM_MAX];
        let mut line = Self { sockets, folders: Vec::new(), places: Vec::new(), buffer };
        let mut error = None;
        for (number, endpoint) in endpoints.iter().enumerate() {
            match line.ways(endpoint, own, inviter) {
                Ok(ways) => line.places.extend(ways.into_iter().map(|way| (number, way))),
                Err(cause) => error = error.or(Some(cause)),
            }
        }
        match (line.places.is_empty(), error) {
            (true, Some(error)) => Err(error),
            (true, None) => Err(LineError::Socket(ErrorKind::AddrNotAvailable.into())),
            (false, _) => Ok(line),
        }
    }

    /// The ways to one endpoint.
    fn ways(&mut self, endpoint: &str, own: Side, inviter: Side) -> Result<Vec<Path>, LineError> {
        match endpoint.parse()? {
            Endpoint::Udp { host, port } => {
                let found = resolve(&host, port).map_err(|source| LineError::Resolve {
                    endpoint: endpoint.to_owned(),
                    source,
                })?;
                Ok(found.into_iter().filter_map(|remote| self.way(remote)).collect())
            }
            Endpoint::Spool { folder } => {
                self.folders.push(FolderLine::open(&folder, own)?);
                Ok(vec![folder::way(self.folders.len() - 1, inviter)])
            }
        }
    }

    /// The way to an address, if a socket speaks to the like.
    fn way(&self, remote: SocketAddr) -> Option<Path> {
        let speaks = |socket: &UdpSocket| {
            socket.local_addr().is_ok_and(|local| local.is_ipv4() == remote.is_ipv4())
        };
        let transport = TransportIndex(self.sockets.iter().position(speaks)?);
        Some(Path { transport, remote: remote.into(), local: None })
    }

    /// The first way.
    pub(super) fn first(&self) -> Option<Path> {
        self.places.first().map(|(_, path)| *path)
    }

    /// The endpoint that a way leads to.
    pub(super) fn endpoint(&self, path: &Path) -> Option<usize> {
        let is_there = |place: &Path| match (place.remote, path.remote) {
            // The inviter's run may be another one, or was not known before.
            (RemoteAddr::Side(_), RemoteAddr::Side(_)) => place.transport == path.transport,
            (place, remote) => place == remote,
        };
        self.places.iter().find(|(_, place)| is_there(place)).map(|(number, _)| *number)
    }

    /// Sends a datagram on one way, or on all. What is lost is sent again by who has made it.
    pub(super) fn send(&mut self, path: Option<&Path>, datagram: &[u8]) {
        let all = self.places.iter().map(|(_, path)| path).filter(|_| path.is_none());
        let ways = path.into_iter().chain(all).map(|path| (path.remote, path.transport.0));
        // Each way once: a name may have the address of another endpoint.
        for (remote, place) in ways.collect::<BTreeSet<_>>() {
            match remote {
                RemoteAddr::Udp(remote) => {
                    let Some(socket) = self.sockets.get(place) else { continue };
                    if let Err(error) = socket.send_to(datagram, remote) {
                        tracing::debug!("send to {remote}: {error}");
                    }
                }
                RemoteAddr::Side(side) => {
                    let Some(folder) = self.folders.get_mut(place) else { continue };
                    folder.send(side, datagram);
                }
            }
        }
    }

    /// The next datagram, if one comes within `timeout`, and where it comes from.
    pub(super) fn receive(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<(Path, &mut [u8])>, LineError> {
        let deadline = Instant::now() + timeout;
        loop {
            self.wait(deadline)?;
            for (number, socket) in self.sockets.iter().enumerate() {
                // An error tells of a datagram that was sent before, and of none that has come.
                if let Ok((count, remote)) = socket.recv_from(&mut self.buffer) {
                    let (transport, remote) = (TransportIndex(number), remote.into());
                    let datagram = self.buffer.get_mut(..count).unwrap_or_default();
                    return Ok(Some((Path { transport, remote, local: None }, datagram)));
                }
            }
            if let Some(place) = self.folder_with_message() {
                let received = self.folders.get_mut(place).and_then(FolderLine::taken);
                return Ok(received.map(|(remote, message)| (folder::way(place, remote), message)));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Waits until something may have come, or it is time to look into a folder.
    fn wait(&self, deadline: Instant) -> Result<(), LineError> {
        let sockets = self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN));
        let waits = || self.folders.iter().map(FolderLine::waits);
        let readers = waits().map(|(reader, _)| PollFd::new(reader, PollFlags::IN));
        let mut fds: Vec<_> = sockets.chain(readers).collect();
        let look = waits().map(|(_, pause)| Instant::now() + pause).min();
        let until = look.map_or(deadline, |look| look.min(deadline));
        poll_until(&mut fds, Some(until)).map(|_| ()).map_err(LineError::Wait)
    }

    /// A folder in which a message was found.
    fn folder_with_message(&mut self) -> Option<usize> {
        self.folders.iter_mut().position(FolderLine::take)
    }
}

/// The addresses of a host.
fn resolve(host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
        Host::Name(name) => {
            Ok((name.as_str(), port).to_socket_addrs()?.take(ADDRESSES_MAX).collect())
        }
    }
}

fn any_ipv6() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
}

fn udp_socket(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_datagram_goes_to_all_places_and_comes_back_from_one() {
        let inviters = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let url = |socket: &UdpSocket| format!("udp://{}", socket.local_addr().unwrap());
        let endpoints = [url(&inviters[0]), "udp://nowhere.invalid:1".into(), url(&inviters[1])];
        let mut line = Line::open(&endpoints, Side::default(), Side::default()).unwrap();
        line.send(None, b"hello");
        let mut from = None;
        for inviter in &inviters {
            inviter.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (count, source) = inviter.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(count, 5);
            from = Some(source);
        }
        inviters[1].send_to(b"answer", from.unwrap()).unwrap();
        let (path, datagram) = line.receive(Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(datagram, b"answer");
        assert_eq!(line.endpoint(&path), Some(2));
        assert!(line.receive(Duration::ZERO).unwrap().is_none());
    }

    #[test]
    fn endpoints_of_which_none_can_be_used_are_an_error() {
        let of = |endpoint: &str| {
            Line::open(&[endpoint.to_owned()], Side::default(), Side::default()).err().unwrap()
        };
        assert!(matches!(of("quic://a:1"), LineError::Endpoint(_)));
    }

    #[test]
    fn messages_go_through_a_folder_to_the_inviter_and_back() {
        let scratch = Scratch::new("line");
        let folder = scratch.path("share");
        std::fs::create_dir(&folder).unwrap();
        let endpoint = format!("spool://{}", folder.display());
        let [joiner, inviter] = [7, 9].map(|label| Side { label: label | 1 << 63, run: 0 });
        let open = |own, other| Line::open(std::slice::from_ref(&endpoint), own, other).unwrap();
        let (mut here, mut there) = (open(joiner, inviter), open(inviter, joiner));
        here.send(None, b"hello");
        let (path, message) = there.receive(Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(message, b"hello");
        there.send(Some(&path), b"answer");
        let (path, message) = here.receive(Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(message, b"answer");
        assert_eq!(here.endpoint(&path), Some(0));
        assert!(here.receive(Duration::ZERO).unwrap().is_none());
    }
}
