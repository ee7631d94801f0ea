//! What is asked of a running tunnel: how it is, and to be another one.
//!
//! # Theory of operation
//!
//! Commands and `wg` ask over sockets ([`crate::control`]), an administrator by SIGHUP. Whatever the way, it ends in
//! one of two things: a description, for which the worker is asked, or other peers, of which the worker is told. Who
//! stays, stays undisturbed. What cannot be changed while packets are carried, the device and the host's network,
//! is said to wait for the next start.

mod reload;
mod roster;

use std::collections::HashMap;
use std::time::Instant;

use proto::{Path, Peer};
use transport::udp::UdpSocket;

use super::Supervisor;
use super::attachment::Attachment;
use super::keys::Keys;
use crate::channel::message::SessionEntry;
use crate::config::{self, Config, Security};
use crate::control::{
    Answer, ControlError, ControlSockets, Question, Request, Response, uapi_directory,
};
use crate::runtime;
use crate::status::{Carried, PeerStatus, TunnelStatus};
use crate::uapi;
use crate::with_causes::WithCauses;

/// Listens for questions. A tunnel that cannot be asked is one all the same.
pub(super) fn open_control(config: &Config) -> Option<ControlSockets> {
    let directory = runtime::directory().ok()?;
    let told = |error: ControlError| tracing::warn!("{}", WithCauses(&error));
    let mut control = ControlSockets::open(&directory, &config.name).map_err(told).ok()?;
    if config.local.security == Security::Wireguard {
        let directory = uapi_directory(&directory);
        // Another program may have a tunnel of that name elsewhere.
        let _ = control.open_uapi(&directory, config.device.name.as_str()).map_err(told);
    }
    Some(control)
}

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
            Question::Command(Request::Invite(request)) => {
                Answer::Command(match self.invite(&request) {
                    Ok(granted) => Response::Invited(Box::new(granted)),
                    Err(reason) => Response::Failed { reason },
                })
            }
            Question::Get => {
                let status = self.status();
                Answer::Get(uapi::emit_get(&self.roster(), &status.peers))
            }
            Question::Set(changes) => Answer::Set(self.set(changes)),
        }
    }

    /// How the tunnel is.
    fn status(&mut self) -> TunnelStatus {
        let report = self.attachment.as_mut().map(Attachment::report).unwrap_or_default();
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
            folders: report.folders,
            fwmark: self.config.local.fwmark,
            security: self.config.local.security,
            public_key: self.keys.as_ref().map(|keys| keys.public().to_string()),
            up_for: self.since.elapsed(),
            peers: peers.collect(),
            traffic,
            handshakes: report.handshakes,
        }
    }
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
        endpoint: path.map(|path| path.remote.to_string()),
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
