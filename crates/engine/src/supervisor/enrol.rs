//! Who holds a ticket becomes a peer.
//!
//! # Theory of operation
//!
//! The worker has each invitation as a peer that carries no data, and tells when the holder of a ticket wants to be a peer.
//! The decision is made here, in an order in which a crash at any moment does no harm:
//!
//! 1. the preshared key is written to a file of its own, `TUNNEL.PEER.psk` beside the configuration;
//! 2. the peer is added to the configuration file;
//! 3. the invitation is noted as used (after a crash before that, [`Invitations::reconcile`] finds it out);
//! 4. the worker gets the peer, as if the configuration had been read again;
//! 5. the worker gets the answer.
//!
//! Who was not told asks again, and is accepted again, as it is the same key.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use device::Mode;
use ipnet::IpNet;
use proto::enrol::Answer;
use proto::key::{PresharedKey, PublicKey};
use proto::ticket::{Invitation, is_name};
use thiserror::Error;

use super::Supervisor;
use super::keys::Keys;
use crate::channel::message::{AnswerEntry, EnrolEntry, ToWorker};
use crate::config::{self, AppendError, Config, KeySource, MAX_NAME_LENGTH, NewPeer};
use crate::durable;
use crate::invitations::{self, Invitations, Invited};
use crate::keyfile;
use crate::with_causes::WithCauses;

/// So many names are tried for a peer, and for the file of its key.
const NAMES_MAX: usize = 1000;

/// What a peer is called of which nobody has said a name.
const NAMELESS: &str = "peer";

/// A joiner cannot become a peer.
#[derive(Debug, Error)]
enum Refusal {
    #[error("the key is one that the inviter knows already")]
    Known,
    #[error("the peer was removed")]
    Removed,
    #[error("the inviter has no name left for it")]
    NoName,
    #[error("the inviter cannot add a peer to its configuration")]
    Append(#[from] AppendError),
    #[error("the inviter cannot keep the key of a peer")]
    Key(#[source] io::Error),
}

/// The time since the Unix epoch.
pub(super) fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The invitations of a tunnel whose configuration was read from `file`.
pub(super) fn invitations(config: &Config, file: &Path, keys: Option<&Keys>) -> Invitations {
    let Some(keys) = keys else { return Invitations::default() };
    let mut invitations = match Invitations::load(invitations::file_of(file)) {
        Ok(invitations) => invitations,
        Err(error) => {
            tracing::warn!("nobody can join tunnel {:?}: {}", config.name, WithCauses(&error));
            return Invitations::default();
        }
    };
    invitations.forget(wall());
    invitations.reconcile(&keys.public(), &keys.preshared.iter());
    invitations
}

impl Supervisor {
    /// Who hold tickets want to be peers.
    pub(super) fn handle_enrols(&mut self, entries: Vec<EnrolEntry>) {
        for entry in entries.into_iter().take(Invitation::COUNT_MAX) {
            let answer = self.enrol(&entry);
            self.tell(&ToWorker::Answer { index: entry.index, answer });
        }
    }

    fn enrol(&mut self, entry: &EnrolEntry) -> AnswerEntry {
        let (identity, joiner) = (entry.identity.0, entry.joiner.0);
        let Some(invited) = self.invitations.find(&identity).cloned() else {
            tracing::warn!("invitation {identity}: {joiner} tried one that there is not any more");
            return AnswerEntry::Expired;
        };
        let what = describe(&invited);
        match invited.invitation.answer(wall(), &joiner) {
            Answer::Accepted(_) => match self.accept(&invited, joiner, entry.name.as_deref()) {
                Ok(()) => AnswerEntry::Accepted,
                Err(refusal) => {
                    tracing::error!("{what}: {joiner} is refused: {}", WithCauses(&refusal));
                    AnswerEntry::Refused(refusal.to_string())
                }
            },
            Answer::Used => {
                tracing::warn!("{what}: {joiner} tried it, and it was used already");
                AnswerEntry::Used
            }
            Answer::Expired => {
                tracing::warn!("{what}: {joiner} tried it, and it has expired");
                AnswerEntry::Expired
            }
            Answer::Refused(reason) => AnswerEntry::Refused(reason),
        }
    }

    /// Makes the joiner a peer, unless this invitation has done so.
    fn accept(
        &mut self,
        invited: &Invited,
        joiner: PublicKey,
        proposed: Option<&str>,
    ) -> Result<(), Refusal> {
        let what = describe(invited);
        let is_peer = self.config.peers.iter().any(|peer| peer.public_key == Some(joiner));
        if invited.invitation.joined == Some(joiner) {
            tracing::info!("{what}: {joiner} asks again, and is told again that it has joined");
            return if is_peer { Ok(()) } else { Err(Refusal::Removed) };
        }
        let Some(keys) = self.keys.clone().filter(|keys| keys.public() != joiner && !is_peer)
        else {
            return Err(Refusal::Known);
        };
        let shared = &invited.invitation.preshared_key;
        let secret = Invitation::peer_key(shared, &keys.public(), &joiner);
        let peer = self.write_peer(invited, joiner, proposed, &secret)?;
        // The peer is there in any case: what cannot be noted now is found out at the next start.
        if let Err(error) = self.invitations.note(&invited.invitation.public_key, joiner) {
            tracing::error!("{what}: {}", WithCauses(&error));
        }
        tracing::info!("{what}: peer {:?} ({joiner}) has joined", peer.name);
        let mut keys = keys;
        keys.preshared.insert(joiner, secret);
        let peers = self.config.peers.iter().cloned().chain([peer]).collect();
        self.adopt(peers, Some(keys), &HashMap::new());
        Ok(())
    }

    /// Writes the peer and its key; the peer as the file has it then.
    fn write_peer(
        &self,
        invited: &Invited,
        joiner: PublicKey,
        proposed: Option<&str>,
        secret: &PresharedKey,
    ) -> Result<config::Peer, Refusal> {
        let proposed = invited.name.as_deref().or_else(|| proposed.filter(|name| is_name(name)));
        for name in names(proposed.unwrap_or(NAMELESS)) {
            if self.config.peers.iter().any(|peer| peer.name == name) {
                continue;
            }
            let key_file = format!("{}.{name}.psk", self.config.name);
            if !write_key(&self.file.with_file_name(&key_file), secret).map_err(Refusal::Key)? {
                continue;
            }
            let peer = NewPeer {
                name,
                public_key: Some(joiner),
                preshared_key_file: Some(key_file),
                endpoints: Vec::new(),
                allowed_ips: allowed_ips(&self.config, &invited.addresses),
                keepalive: None,
            };
            let mut written = config::append_peer(&self.file, &peer, true)?;
            return written.peers.pop().ok_or(Refusal::NoName);
        }
        Err(Refusal::NoName)
    }
}

/// What a joiner with these addresses owns. Frames are not routed by address.
pub(super) fn allowed_ips(config: &Config, addresses: &[IpNet]) -> Vec<IpNet> {
    match config.device.mode {
        Mode::Tun => addresses.iter().map(|address| IpNet::from(address.addr())).collect(),
        Mode::Tap => Vec::new(),
    }
}

/// An invitation in a message: by its name, or by its holder's public key.
pub(super) fn describe(invited: &Invited) -> String {
    match &invited.name {
        Some(name) => format!("invitation of {name:?}"),
        None => format!("invitation {}", invited.invitation.public_key),
    }
}

/// `name`, and then the same with a number.
fn names(name: &str) -> impl Iterator<Item = String> {
    let numbered = (2..NAMES_MAX).map(|number| {
        let number = format!("-{number}");
        let room = MAX_NAME_LENGTH.saturating_sub(number.len());
        format!("{}{number}", name.get(..room).unwrap_or(name))
    });
    std::iter::once(name.to_owned()).chain(numbered)
}

/// Writes a key to a file of its own; false if there is another file of that name.
fn write_key(path: &Path, secret: &PresharedKey) -> io::Result<bool> {
    match durable::create(path, &keyfile::contents(&secret.to_text())) {
        // Left by a crash, if it is this key.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = keyfile::read_preshared(&KeySource::File(path.to_owned()));
            Ok(found.is_ok_and(|(key, _)| key == *secret))
        }
        written => written.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn names_are_tried_in_turn_and_stay_names() {
        let tried: Vec<_> = names("laptop").take(3).collect();
        assert_eq!(tried, ["laptop", "laptop-2", "laptop-3"]);
        let long = "x".repeat(MAX_NAME_LENGTH);
        assert!(names(&long).all(|name| is_name(&name)));
        assert_eq!(names(&long).nth(1), Some(format!("{}-2", &long[2..])));
    }

    #[test]
    fn a_key_is_written_beside_others_and_found_again() {
        let scratch = Scratch::new("psk");
        let path = scratch.path("home.laptop.psk");
        let key = |octet| PresharedKey::from_bytes([octet; 32]);
        assert!(write_key(&path, &key(1)).unwrap());
        assert!(write_key(&path, &key(1)).unwrap());
        assert!(!write_key(&path, &key(2)).unwrap());
        let (found, exposed) = keyfile::read_preshared(&KeySource::File(path)).unwrap();
        assert_eq!((found, exposed), (key(1), None));
    }
}
