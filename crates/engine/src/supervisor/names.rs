//! Endpoints that are names, looked up again and again.
//!
//! # Theory of operation
//!
//! A lookup may take many seconds, and the supervisor must not wait. So a thread does it, every
//! [`INTERVAL`] and whenever it is asked to, and tells when a peer is no longer where it was. A
//! name that cannot be looked up changes nothing: the peer is best looked for where it was.
//!
//! A name with several addresses stands for all of them, so as long as the one in use is among them,
//! it stays: servers that answer in turn would otherwise move the tunnel without need.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use proto::PeerIndex;
use rustix::event::{EventfdFlags, eventfd};

use super::underlay;
use crate::config::{Config, Endpoint, Host};
use crate::with_causes::WithCauses;

/// How long a looked-up address is taken for granted: what is usual for names of hosts that move.
const INTERVAL: Duration = Duration::from_secs(60);

/// Where a peer is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// The peer.
    pub(super) peer: PeerIndex,
    /// Its address and port.
    pub(super) remote: SocketAddr,
}

/// The thread that looks names up.
pub(super) struct Names {
    ask: Sender<()>,
    moved: Receiver<Moved>,
    event: Arc<OwnedFd>,
}

/// An endpoint that is a name.
struct Name {
    peer: PeerIndex,
    called: String,
    endpoint: Endpoint,
    found: Option<SocketAddr>,
}

impl Names {
    /// Begins to look after the names of `config`, which were found at `remotes`; `None` if it has none.
    pub(super) fn watch(
        config: &Config,
        remotes: &[Option<SocketAddr>],
    ) -> io::Result<Option<Self>> {
        let names = names(config, remotes);
        if names.is_empty() {
            return Ok(None);
        }
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (ask, asked) = channel();
        let (tell, moved) = channel();
        let wake = Arc::clone(&event);
        thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || look_after(names, &asked, &tell, &wake))?;
        Ok(Some(Self { ask, moved, event }))
    }

    /// Looks now, because the network has changed.
    pub(super) fn look(&self) {
        // The thread ends only with this sender.
        let _ = self.ask.send(());
    }

    /// Who has moved.
    pub(super) fn take(&self) -> Vec<Moved> {
        let _ = rustix::io::read(&*self.event, &mut [0; 8]);
        self.moved.try_iter().collect()
    }
}

impl AsFd for Names {
    /// Readable when someone has moved.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

fn names(config: &Config, remotes: &[Option<SocketAddr>]) -> Vec<Name> {
    let first = |peer: &crate::config::Peer| peer.endpoints.first().cloned();
    let peers = (0..).map(PeerIndex).zip(config.peers.iter().zip(remotes));
    let named = peers.filter_map(|(place, (peer, &found))| {
        let endpoint = first(peer)?;
        let Endpoint::Udp { host, .. } = &endpoint;
        matches!(host, Host::Name(_)).then(|| Name {
            peer: place,
            called: peer.name.clone(),
            endpoint,
            found,
        })
    });
    named.collect()
}

fn look_after(mut names: Vec<Name>, asked: &Receiver<()>, tell: &Sender<Moved>, wake: &OwnedFd) {
    loop {
        match asked.recv_timeout(INTERVAL) {
            Ok(()) => while asked.try_recv().is_ok() {},
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for name in &mut names {
            let found = underlay::resolve(&name.called, &name.endpoint);
            let found = found.inspect_err(|error| tracing::debug!("{}", WithCauses(error)));
            let Some(remote) = elsewhere(name.found, &found.unwrap_or_default()) else { continue };
            name.found = Some(remote);
            if tell.send(Moved { peer: name.peer, remote }).is_err() {
                return;
            }
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }
}

/// Where a name leads that was `known` to lead elsewhere; `None` if it still may.
fn elsewhere(known: Option<SocketAddr>, found: &[SocketAddr]) -> Option<SocketAddr> {
    let same_family =
        |remote: &&SocketAddr| known.is_none_or(|known| known.is_ipv4() == remote.is_ipv4());
    match known {
        Some(known) if found.contains(&known) => None,
        _ => found.iter().find(same_family).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<const N: usize>(texts: [&str; N]) -> [SocketAddr; N] {
        texts.map(|text| text.parse().unwrap())
    }

    #[test]
    fn an_address_that_is_still_among_those_of_the_name_stays() {
        let [first, second, other] = addresses(["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
        assert_eq!(elsewhere(Some(second), &[first, second]), None);
        assert_eq!(elsewhere(Some(other), &[first, second]), Some(first));
        assert_eq!(elsewhere(None, &[first]), Some(first));
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_leaves_the_peer_where_it_was() {
        let [first] = addresses(["10.0.0.1:1"]);
        assert_eq!(elsewhere(Some(first), &[]), None);
    }

    #[test]
    fn a_peer_does_not_move_to_a_family_that_its_socket_does_not_speak() {
        let [v4, v6] = addresses(["10.0.0.1:1", "[fd00::1]:1"]);
        assert_eq!(elsewhere(Some(v4), &[v6]), None);
    }
}
