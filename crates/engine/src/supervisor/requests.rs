//! What is asked of a running tunnel: how it is, and to be another one.
//!
//! # Theory of operation
//!
//! Commands and `wg` ask over sockets ([`crate::control`]), an administrator by SIGHUP. Whatever the way, it ends in
//! one of two things: a description, for which the worker is asked, or other peers, of which the worker is told. Who
//! stays, stays undisturbed. What cannot be changed while packets are carried, the device and the host's network,
//! is said to wait for the next start.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use device::Mode;
use proto::key::PublicKey;
use proto::{Path, Peer, PeerIndex};
use transport::udp::UdpSocket;

use super::candidates::Candidates;
use super::keys::Keys;
use super::members::Members;
use super::names::Names;
use super::{Supervisor, underlay};
use crate::channel::message::SessionEntry;
use crate::config::{self, Config, Endpoint, Host, KeySource};
use crate::control::{Answer, Question, Request, Response};
use crate::status::{Carried, PeerStatus, TunnelStatus};
use crate::uapi::{self, Refusal, Roster, RosterPeer};
use crate::with_causes::WithCauses;

/// Characters of its key that a peer without a name is called by.
const SHORT_KEY: usize = 8;

impl Supervisor {
    /// Answers whoever has asked.
    pub(super) fn handle_control(&mut self) {
        let Some(control) = &mut self.control else { return };
        for (client, question) in control.handle_ready(Instant::now()) {
            let answer = self.answer(question);
            if let Some(control) = &mut self.control {
                control.answer(client, answer, Instant::now());
            }
        }
    }

    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Command(Request::Status) => {
                Answer::Command(Response::Status(Box::new(self.status())))
            }
            Question::Command(Request::Reload) => Answer::Command(match self.reload() {
                Ok(changes) => Response::Reloaded { changes },
                Err(reason) => Response::Failed { reason },
            }),
            Question::Get => {
                let status = self.status();
                Answer::Get(uapi::emit_get(&self.roster(), &status.peers))
            }
            Question::Set(changes) => Answer::Set(self.set(changes)),
        }
    }

    /// Reads the configuration again, because a signal asks for it.
    pub(super) fn handle_reload(&mut self) {
        match self.reload() {
            Ok(changes) if changes.is_empty() => tracing::info!("read again: nothing has changed"),
            Ok(_) => {}
            Err(reason) => tracing::error!("{reason}"),
        }
    }

    /// How the tunnel is.
    fn status(&mut self) -> TunnelStatus {
        let report = self.attachment.as_mut().map(super::Attachment::report).unwrap_or_default();
        let mut traffic = self.past.clone();
        traffic += &report.totals;
        let sessions: HashMap<_, _> =
            report.sessions.into_iter().map(|entry| (entry.key.0, entry)).collect();
        let peers = self.config.peers.iter().zip(self.peers.peers());
        let peers = peers.map(|(peer, member)| {
            let session = peer.public_key.and_then(|key| sessions.get(&key));
            peer_status(peer, member, session, self.keys.as_ref())
        });
        TunnelStatus {
            tunnel: self.config.name.clone(),
            device: self.link.map(|_| self.config.device.name.to_string()),
            mode: self.config.device.mode,
            mtu: self.link.map(|_| self.mtu.0),
            listen: self.sockets.iter().map(UdpSocket::local_addr).collect(),
            fwmark: self.config.local.fwmark,
            security: self.config.local.security,
            public_key: self.keys.as_ref().map(|keys| keys.public().to_string()),
            up_for: self.since.elapsed(),
            peers: peers.collect(),
            traffic,
            handshakes: report.handshakes,
        }
    }

    /// Reads the configuration again; what has changed, line by line.
    fn reload(&mut self) -> Result<Vec<String>, String> {
        let said = |error: &dyn std::error::Error| WithCauses(error).to_string();
        let config = config::load(&self.file).map_err(|error| said(&error))?;
        let keys = Keys::read(&config).map_err(|error| said(&error))?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let mut changes = self.waiting_changes(&config, keys.as_ref());
        // The peers of a tunnel without security have no keys, so they wait with it.
        if config.local.security == self.config.local.security {
            changes.extend(peer_changes(&self.config.peers, &config.peers));
            changes.extend(self.adopt(config.peers, keys, &HashMap::new()));
        }
        for change in &changes {
            tracing::info!("read again: {change}");
        }
        Ok(changes)
    }

    /// The sections of `config` that differ from today's and have to wait.
    fn waiting_changes(&self, config: &Config, keys: Option<&Keys>) -> Vec<String> {
        let now = &self.config;
        // A key may be in another file, or in the same one.
        let mut local = config.local.clone();
        if keys.is_some() == self.keys.is_some() {
            local.private_key.clone_from(&now.local.private_key);
        }
        let sections = [
            ("[device]", now.device == config.device),
            ("[local]", now.local == local),
            ("[network]", now.network == config.network),
        ];
        let differ = sections.into_iter().filter(|(_, same)| !same);
        differ
            .map(|(section, _)| {
                format!("{section} has changed, which waits until the tunnel is started again")
            })
            .collect()
    }

    /// Has other peers and keys from now on; `moved` says where some of them are. What that changes besides peers.
    fn adopt(
        &mut self,
        peers: Vec<config::Peer>,
        keys: Option<Keys>,
        moved: &HashMap<PublicKey, SocketAddr>,
    ) -> Option<String> {
        let keys = keys.filter(|_| self.keys.is_some());
        let before = std::mem::replace(&mut self.config.peers, peers);
        let staying = self.place(&before, moved);
        let other_key = keys.as_ref().map(Keys::public) != self.keys.as_ref().map(Keys::public);
        self.keys = keys.or_else(|| self.keys.take());
        // The ways first: what is sent to another address must not go into the tunnel.
        self.fit();
        if other_key {
            // All sessions end, since all of them are with the key of before.
            self.with_attachment(super::Attachment::restart);
        } else {
            self.tell_peers(&staying);
        }
        other_key.then(|| "this side has another private key".to_owned())
    }

    /// Finds out where the peers are, after those of the configuration were replaced; who stays where it is.
    fn place(
        &mut self,
        before: &[config::Peer],
        moved: &HashMap<PublicKey, SocketAddr>,
    ) -> HashSet<PublicKey> {
        let known = std::mem::take(&mut self.peers);
        let (sockets, config) = (&self.sockets, &self.config);
        let places = (0..).map(PeerIndex).zip(before.iter().zip(known.peers()));
        let known: HashMap<_, _> = places.map(known_by).collect();
        let told = |peer: &config::Peer| moved.get(&peer.public_key?).copied();
        let stays = |peer: &config::Peer| {
            let (place, before, member) = known.get(&identity(peer))?;
            let stays = told(peer).is_none() && before.endpoints == peer.endpoints;
            stays.then_some((*place, *member))
        };
        let path = |peer: &config::Peer| {
            if let Some((_, member)) = stays(peer) {
                return member.path;
            }
            let remote = told(peer).or_else(|| peer.endpoints.first().and_then(address))?;
            let way = underlay::way(sockets, &peer.name, remote);
            way.inspect_err(|error| tracing::warn!("{}", WithCauses(error))).ok()
        };
        let Ok(members) = Members::new::<Infallible>(config, |_, peer| Ok(path(peer)));
        let chosen = config.peers.iter().zip(members.remotes()).map(|(peer, remote)| {
            stays(peer).and_then(|(place, _)| self.candidates.chosen(place)).or(remote)
        });
        let chosen: Vec<_> = chosen.collect();
        let staying = config.peers.iter().filter(|peer| stays(peer).is_some());
        let staying = staying.filter_map(|peer| peer.public_key).collect();
        self.peers = members;
        self.watch_names(&chosen);
        staying
    }

    /// Looks after the places of the peers that there are now, of which these are `chosen`.
    pub(super) fn watch_names(&mut self, chosen: &[Option<SocketAddr>]) {
        let local: Vec<_> = self.sockets.iter().map(UdpSocket::local_addr).collect();
        let before = std::mem::take(&mut self.candidates);
        self.candidates = Candidates::new(&self.config.peers, chosen, &local, before);
        if self.names.is_none() && self.candidates.names().next().is_some() {
            let told = |error: &_| tracing::warn!("names of peers are not looked up: {error}");
            self.names = Names::start().inspect_err(told).ok();
        }
        if let Some(names) = &self.names {
            names.replace(self.candidates.names());
        }
    }

    /// The tunnel as the configuration protocol describes it.
    fn roster(&self) -> Roster {
        let preshared = |key: &PublicKey| {
            self.keys.as_ref().and_then(|keys| keys.preshared.get(key)).cloned().unwrap_or_default()
        };
        let peers = self.config.peers.iter().zip(self.peers.peers());
        let peers = peers.filter_map(|(peer, member)| {
            let public_key = peer.public_key?;
            Some(RosterPeer {
                name: Some(peer.name.clone()),
                public_key,
                preshared_key: preshared(&public_key),
                endpoint: member.path.map(|path| path.remote),
                keepalive: peer
                    .keepalive
                    .map_or(0, |every| u16::try_from(every.as_secs()).unwrap_or(u16::MAX)),
                allowed_ips: peer.allowed_ips.clone(),
            })
        });
        Roster {
            private_key: self.keys.as_ref().map(|keys| keys.private.clone()),
            listen_port: self.sockets.first().map_or(0, |socket| socket.local_addr().port()),
            fwmark: self.config.local.fwmark,
            peers: peers.collect(),
        }
    }

    /// Makes the changes that `wg` asks for: all, or none.
    fn set(&mut self, changes: Vec<uapi::Change>) -> Result<(), Refusal> {
        let before = self.roster();
        let mut after = before.clone();
        after.apply(changes)?;
        let Some(private) = after.private_key.clone() else {
            return Err(Refusal::Unsupported { what: "the private key to none" });
        };
        if self.config.device.mode == Mode::Tap && after.peers.len() > 1 {
            return Err(Refusal::Unsupported { what: "the only peer to several" });
        }
        // What may fail comes before everything else.
        let rebound = self.listen_as(&before, &after)?;
        let secrets = after.peers.iter().filter(|peer| !peer.preshared_key.is_zero());
        let preshared = secrets.map(|peer| (peer.public_key, peer.preshared_key.clone())).collect();
        let moved = moved(&before.peers, &after.peers);
        let peers = configured(&self.config.peers, after.peers, &moved);
        let restarted = self.adopt(peers, Some(Keys { private, preshared }), &moved).is_some();
        if rebound && !restarted {
            self.with_attachment(super::Attachment::restart);
        }
        Ok(())
    }

    /// Has the port and the mark of `after`: both, or none. Whether there are other sockets now.
    fn listen_as(&mut self, before: &Roster, after: &Roster) -> Result<bool, Refusal> {
        let rebinds = after.listen_port != before.listen_port;
        if rebinds {
            self.rebind(after.listen_port, after.fwmark)?;
        } else if after.fwmark != before.fwmark {
            self.mark(after.fwmark)?;
        }
        self.config.local.fwmark = after.fwmark;
        Ok(rebinds)
    }

    fn mark(&self, mark: Option<u32>) -> Result<(), Refusal> {
        self.sockets.iter().try_for_each(|socket| {
            socket.set_mark(mark.unwrap_or(0)).map_err(|error| {
                tracing::warn!("mark datagrams: {error}");
                Refusal::Failed
            })
        })
    }

    /// Listens on another port, the same one at all addresses.
    fn rebind(&mut self, mut port: u16, mark: Option<u32>) -> Result<(), Refusal> {
        let mut sockets: Vec<UdpSocket> = Vec::new();
        for mut address in self.sockets.iter().map(UdpSocket::local_addr) {
            address.set_port(port);
            let bound = underlay::bind_all([address], mark).map_err(|error| {
                tracing::warn!("{}", WithCauses(&error));
                Refusal::PortInUse
            })?;
            port = bound.first().map_or(port, |socket| socket.local_addr().port());
            sockets.extend(bound);
        }
        self.sockets = sockets;
        Ok(())
    }
}

/// Who is told to be elsewhere than it is, and where.
fn moved(before: &[RosterPeer], after: &[RosterPeer]) -> HashMap<PublicKey, SocketAddr> {
    let known: HashMap<_, _> = before.iter().map(|peer| (peer.public_key, peer.endpoint)).collect();
    let told = after.iter().filter_map(|peer| Some((peer.public_key, peer.endpoint?)));
    told.filter(|(key, endpoint)| known.get(key) != Some(&Some(*endpoint))).collect()
}

/// Peers of the configuration as `peers` say that they are. Who has `moved` has no other endpoint any more: a name would
/// lead it back.
fn configured(
    known: &[config::Peer],
    peers: Vec<RosterPeer>,
    moved: &HashMap<PublicKey, SocketAddr>,
) -> Vec<config::Peer> {
    let known: HashMap<_, _> =
        known.iter().filter_map(|peer| Some((peer.public_key?, peer))).collect();
    let configured = |peer: RosterPeer| {
        let key = peer.public_key;
        let secret = Some(peer.preshared_key).filter(|key| !key.is_zero());
        let keepalive = Duration::from_secs(peer.keepalive.into());
        let was = known.get(&key).copied();
        let endpoints = match moved.get(&key) {
            Some(&remote) => vec![endpoint(remote)],
            None => was.map(|was| was.endpoints.clone()).unwrap_or_default(),
        };
        config::Peer {
            name: was.map_or_else(|| short_name(&key), |was| was.name.clone()),
            public_key: Some(key),
            preshared_key: secret.map(KeySource::Inline),
            endpoints,
            allowed_ips: peer.allowed_ips,
            keepalive: (!keepalive.is_zero()).then_some(keepalive),
        }
    };
    peers.into_iter().map(configured).collect()
}

/// What a peer is called that has no name.
fn short_name(key: &PublicKey) -> String {
    format!("peer-{}", key.to_string().chars().take(SHORT_KEY).collect::<String>())
}

fn endpoint(remote: SocketAddr) -> Endpoint {
    Endpoint::Udp { host: Host::Ip(remote.ip()), port: remote.port() }
}

/// By what a peer is known: its key, or its name without security.
fn identity(peer: &config::Peer) -> Result<PublicKey, String> {
    peer.public_key.ok_or_else(|| peer.name.clone())
}

type Known<'a> = (Result<PublicKey, String>, (PeerIndex, &'a config::Peer, &'a Peer));

fn known_by<'a>((place, (peer, member)): (PeerIndex, (&'a config::Peer, &'a Peer))) -> Known<'a> {
    (identity(peer), (place, peer, member))
}

/// Where an endpoint is that is no name.
fn address(endpoint: &Endpoint) -> Option<SocketAddr> {
    match endpoint {
        Endpoint::Udp { host: Host::Ip(ip), port } => Some(SocketAddr::new(*ip, *port)),
        Endpoint::Udp { host: Host::Name(_), .. } => None,
    }
}

/// Who came, who went, and who is another.
fn peer_changes(before: &[config::Peer], after: &[config::Peer]) -> Vec<String> {
    let by_identity = |peers: &[config::Peer]| -> HashMap<_, _> {
        peers.iter().map(|peer| (identity(peer), peer.clone())).collect()
    };
    let (known, wanted) = (by_identity(before), by_identity(after));
    let gone = before.iter().filter(|peer| !wanted.contains_key(&identity(peer)));
    let gone = gone.map(|peer| format!("peer {:?} is removed", peer.name));
    let other = after.iter().filter_map(|peer| match known.get(&identity(peer)) {
        None => Some(format!("peer {:?} is added", peer.name)),
        Some(known) if known != peer => Some(format!("peer {:?} is changed", peer.name)),
        Some(_) => None,
    });
    gone.chain(other).collect()
}

fn peer_status(
    peer: &config::Peer,
    member: &Peer,
    session: Option<&SessionEntry>,
    keys: Option<&Keys>,
) -> PeerStatus {
    let preshared =
        keys.zip(peer.public_key).is_some_and(|(keys, key)| keys.preshared.contains_key(&key));
    let carried = |carried: crate::channel::message::Carried| Carried {
        packets: carried.messages,
        octets: carried.octets,
    };
    let exchange = if preshared { "x25519+psk" } else { "x25519" };
    let path = session.and_then(|session| session.path).map(Path::from).or(member.path);
    PeerStatus {
        name: peer.name.clone(),
        public_key: peer.public_key.map(|key| key.to_string()),
        preshared,
        endpoint: path.map(|path| path.remote),
        allowed_ips: peer.allowed_ips.clone(),
        latest_handshake: session.and_then(|session| session.handshake).map(Into::into),
        cipher: session.and_then(|session| session.cipher).map(|cipher| cipher.to_string()),
        key_exchange: keys.map(|_| exchange.to_owned()),
        is_adit: session.is_some_and(|session| session.extensions),
        keepalive: peer.keepalive,
        received: session.map(|session| carried(session.received)),
        sent: session.map(|session| carried(session.sent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(key: u8, name: &str) -> config::Peer {
        config::Peer {
            name: "b".to_owned(),
            public_key: Some([key; 32].into()),
            preshared_key: None,
            endpoints: vec![Endpoint::Udp { host: Host::Name(name.to_owned()), port: 1 }],
            allowed_ips: Vec::new(),
            keepalive: None,
        }
    }

    fn at(key: u8, endpoint: &str) -> RosterPeer {
        RosterPeer { endpoint: endpoint.parse().ok(), ..RosterPeer::new([key; 32].into()) }
    }

    #[test]
    fn a_peer_that_is_told_to_be_elsewhere_is_not_looked_for_by_its_name() {
        let known = [named(1, "b.example"), named(2, "c.example")];
        let before = [at(1, "10.0.0.1:1"), at(2, "10.0.0.2:1")];
        let after = vec![at(1, "10.0.0.1:1"), at(2, "10.0.0.9:1"), at(3, "")];
        let moved = moved(&before, &after);
        assert_eq!(moved, HashMap::from([([2; 32].into(), "10.0.0.9:1".parse().unwrap())]));
        let endpoints = configured(&known, after, &moved).into_iter().map(|peer| peer.endpoints);
        let other = Endpoint::Udp { host: Host::Ip([10, 0, 0, 9].into()), port: 1 };
        assert_eq!(
            endpoints.collect::<Vec<_>>(),
            [known[0].endpoints.clone(), vec![other], vec![]]
        );
    }
}
