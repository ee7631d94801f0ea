//! What is asked of a running tunnel: how it is, and to be another one.
//!
//! # Theory of operation
//!
//! Commands and `wg` ask over sockets ([`crate::control`]), an administrator by SIGHUP. Whatever the way, it ends in
//! one of two things: a description, for which the worker is asked, or other peers, of which the worker is told. Who
//! stays, stays undisturbed. What cannot be changed while packets are carried, the device and the host's network,
//! is said to wait for the next start.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use proto::key::PublicKey;
use proto::{Path, Peer};
use transport::udp::UdpSocket;

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
        changes.extend(peer_changes(&self.config.peers, &config.peers));
        changes.extend(self.adopt(config.peers, keys, &HashMap::new()));
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
        let known = std::mem::take(&mut self.peers);
        let sockets = &self.sockets;
        let known: HashMap<_, _> = before.iter().zip(known.peers()).map(known_by).collect();
        let path = |peer: &config::Peer| {
            let told = peer.public_key.and_then(|key| moved.get(&key).copied());
            let stays = known
                .get(&identity(peer))
                .filter(|(before, _)| told.is_none() && before.endpoints == peer.endpoints);
            if let Some((_, path)) = stays {
                return *path;
            }
            let remote = told.or_else(|| peer.endpoints.first().and_then(address))?;
            let way = underlay::way(sockets, &peer.name, remote);
            way.inspect_err(|error| tracing::warn!("{}", WithCauses(error))).ok()
        };
        let Ok(members) = Members::new::<Infallible>(&self.config, |_, peer| Ok(path(peer)));
        self.peers = members;
        let other_key = keys.as_ref().map(Keys::public) != self.keys.as_ref().map(Keys::public);
        self.keys = keys.or_else(|| self.keys.take());
        self.watch_names();
        if other_key {
            // All sessions end, since all of them are with the key of before.
            self.with_attachment(super::Attachment::restart);
        } else {
            self.tell_peers();
        }
        self.fit();
        other_key.then(|| "this side has another private key".to_owned())
    }

    /// Looks after the names of the peers that there are now.
    fn watch_names(&mut self) {
        match Names::watch(&self.config, &self.peers.remotes()) {
            Ok(names) => {
                self.names = names;
                if let Some(names) = &self.names {
                    names.look();
                }
            }
            Err(error) => tracing::warn!("names of peers are not looked up: {error}"),
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
        if after.fwmark != before.fwmark {
            self.set_mark(after.fwmark)?;
        }
        let rebound = after.listen_port != before.listen_port;
        if rebound {
            self.rebind(after.listen_port)?;
        }
        let mut moved = HashMap::new();
        let mut preshared = HashMap::new();
        let mut peers = Vec::new();
        for peer in after.peers {
            let was = before.peers.iter().find(|was| was.public_key == peer.public_key);
            if let Some(endpoint) = peer.endpoint
                && was.is_none_or(|was| was.endpoint != Some(endpoint))
            {
                moved.insert(peer.public_key, endpoint);
            }
            if !peer.preshared_key.is_zero() {
                preshared.insert(peer.public_key, peer.preshared_key.clone());
            }
            peers.push(self.configured(peer));
        }
        self.adopt(peers, Some(Keys { private, preshared }), &moved);
        if rebound {
            self.with_attachment(super::Attachment::restart);
        }
        Ok(())
    }

    /// A peer of the configuration as `peer` says that it is.
    fn configured(&self, peer: RosterPeer) -> config::Peer {
        let key = Some(peer.public_key);
        let known = self.config.peers.iter().find(|known| known.public_key == key);
        let short: String = peer.public_key.to_string().chars().take(SHORT_KEY).collect();
        let keepalive = std::time::Duration::from_secs(peer.keepalive.into());
        let mut configured = known.cloned().unwrap_or_else(|| config::Peer {
            name: peer.name.unwrap_or_else(|| format!("peer-{short}")),
            public_key: key,
            preshared_key: None,
            endpoints: Vec::new(),
            allowed_ips: Vec::new(),
            keepalive: None,
        });
        configured.allowed_ips = peer.allowed_ips;
        configured.keepalive = (!keepalive.is_zero()).then_some(keepalive);
        let secret = Some(peer.preshared_key).filter(|key| !key.is_zero());
        configured.preshared_key = secret.map(KeySource::Inline);
        configured
    }

    fn set_mark(&mut self, mark: Option<u32>) -> Result<(), Refusal> {
        for socket in &self.sockets {
            socket.set_mark(mark.unwrap_or(0)).map_err(|error| {
                tracing::warn!("mark datagrams: {error}");
                Refusal::Failed
            })?;
        }
        self.config.local.fwmark = mark;
        Ok(())
    }

    /// Listens on another port, at the same addresses.
    fn rebind(&mut self, port: u16) -> Result<(), Refusal> {
        let mut addresses: Vec<_> = self.sockets.iter().map(UdpSocket::local_addr).collect();
        addresses.iter_mut().for_each(|address| address.set_port(port));
        let sockets = underlay::bind_all(addresses, self.config.local.fwmark);
        self.sockets = sockets.map_err(|error| {
            tracing::warn!("{}", WithCauses(&error));
            Refusal::PortInUse
        })?;
        Ok(())
    }
}

/// By what a peer is known: its key, or its name without security.
fn identity(peer: &config::Peer) -> Result<PublicKey, String> {
    peer.public_key.ok_or_else(|| peer.name.clone())
}

type Known<'a> = (Result<PublicKey, String>, (&'a config::Peer, Option<Path>));

fn known_by<'a>((peer, member): (&'a config::Peer, &Peer)) -> Known<'a> {
    (identity(peer), (peer, member.path))
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
