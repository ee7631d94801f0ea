//! How long the addresses of a name are good, which getaddrinfo(3) does not tell.
//!
//! The servers of `/etc/resolv.conf` are asked for the same addresses. Only if what they say includes all addresses
//! that the resolver found is their word taken: a name may be in `/etc/hosts`, be completed with a search domain
//! or have moved in between. So nobody who answers here can send a peer anywhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use netlink::resolver;
use rustix::rand::{GetRandomFlags, getrandom};

use super::message::{self, ANSWER_MOST, Kind, Reply};
use crate::regular_file;

/// Where the resolver reads its servers (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The longest such file that is read, in octets.
const RESOLV_CONF_MOST: usize = 1 << 16;

/// How long one server's answer is waited for. The resolver has just had the same answer, so that a server that
/// keeps names for others has it at hand.
const ANSWER: Duration = Duration::from_secs(1);

/// The port of the domain name system.
const PORT: u16 = 53;

/// How long `found`, the addresses of `name`, are good; none if no server tells.
pub(super) fn lifetime(name: &str, found: &[IpAddr]) -> Option<Duration> {
    let servers = servers();
    let mut shortest = None;
    for kind in [Kind::A, Kind::Aaaa] {
        let mut found = found.iter().filter(|address| address.is_ipv4() == (kind == Kind::A));
        if found.clone().next().is_none() {
            continue;
        }
        let (told, life) = servers.iter().find_map(|&server| ask(server, name, kind).ok()?)?;
        if !found.all(|address| told.contains(address)) {
            return None;
        }
        shortest = shortest.into_iter().chain([life]).min();
    }
    shortest
}

fn servers() -> Vec<IpAddr> {
    let contents = regular_file::read(Path::new(RESOLV_CONF), RESOLV_CONF_MOST);
    let servers = match contents {
        Ok(Some(contents)) => resolver::servers(&contents.octets),
        _ => Vec::new(),
    };
    // Without any, the resolver asks this host.
    if servers.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { servers }
}

/// What `server` says; none if it has no such addresses.
fn ask(server: IpAddr, name: &str, kind: Kind) -> io::Result<Option<(Vec<IpAddr>, Duration)>> {
    let mut id = [0; 2];
    getrandom(&mut id, GetRandomFlags::empty())?;
    let Some(question) = message::question(u16::from_be_bytes(id), name, kind) else {
        return Ok(None);
    };
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connected, so that the kernel drops what others send; the port is any, which they have to guess.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(server, PORT))?;
    socket.send(&question)?;
    let deadline = Instant::now() + ANSWER;
    let mut answer = [0; ANSWER_MOST];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of 0 would be none.
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let count = socket.recv(&mut answer)?;
        match message::reply(&question, kind, answer.get(..count).unwrap_or_default()) {
            Reply::Foreign => {}
            Reply::Nothing => return Ok(None),
            Reply::Addresses(addresses, life) => return Ok(Some((addresses, life))),
        }
    }
}
