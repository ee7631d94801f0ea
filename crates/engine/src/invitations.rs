//! What an inviter remembers of its tickets, and for how long.
//!
//! # Theory of operation
//!
//! For each ticket there is an *invitation*: who its holder is, what is shared with it, and what it will be as a peer. The
//! secret itself is not kept, so who reads the file of invitations has no ticket. An invitation is *open* until it has
//! made somebody a peer, or its time is over; then it is *ended*, and kept for [`Invitation::KEPT`], so that who comes
//! too late is told why.
//!
//! The file is JSON, beside the configuration: `home.invitations` for `home.toml`. It is replaced as a whole whenever
//! something changes. A peer is written to the configuration before its invitation is noted as used; if the power fails
//! between the two, [`Invitations::reconcile`] finds the peer by the key that only this invitation can have
//! given it.
//!
//! # Limits
//!
//! [`Invitation::COUNT_MAX`] invitations; for another one the oldest ended one is forgotten. The file has at most
//! [`FILE_MAX`] octets.

mod addresses;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use proto::key::{PresharedKey, PublicKey};
use proto::ticket::Invitation;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::channel::key::{Key, Secret};
use crate::channel::message::{Peers, SealedEntry};
use crate::{durable, regular_file};

pub(crate) use self::addresses::choose;

/// The most octets of a file of invitations.
const FILE_MAX: usize = 1 << 20;

/// The format of the file.
const VERSION: u32 = 1;

/// How the name of the file ends.
const EXTENSION: &str = "invitations";

/// The file of invitations cannot be read or written.
#[derive(Debug, Error)]
pub enum InvitationsError {
    /// The system refuses.
    #[error("{operation} invitations {path}", path = .path.display())]
    Io {
        /// "read" or "write".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else, or was written by a later version.
    #[error("read invitations {path}: this version of adit does not understand the file", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// There are too many.
    #[error("{} invitations are open, and there can be no more", Invitation::COUNT_MAX)]
    Full,
}

/// What joiners are told unless an invitation says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Offer {
    /// Where this side is reached, as URLs; empty for the addresses that it listens on.
    pub endpoints: Vec<String>,
    /// What is behind this side.
    pub routes: Vec<IpNet>,
    /// Whether their default route leads here.
    pub default_route: bool,
    /// Servers of names.
    pub dns: Vec<std::net::IpAddr>,
}

/// A ticket that was given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invited {
    pub(crate) invitation: Invitation,
    /// What the joiner will be called, if that was said.
    pub(crate) name: Option<String>,
    /// The addresses that are kept for it.
    pub(crate) addresses: Vec<IpNet>,
}

/// The invitations of a tunnel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Invitations {
    /// Where they are kept; none if that cannot be read, or nobody can be invited.
    file: Option<PathBuf>,
    pub(crate) offer: Offer,
    /// In the order in which they were made.
    entries: Vec<Invited>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default)]
    offer: Offer,
    #[serde(default)]
    invitations: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Record {
    public_key: Key,
    preshared_key: Secret,
    expires: u64,
    joined: Option<Key>,
    name: Option<String>,
    addresses: Vec<IpNet>,
}

/// Where the invitations of a tunnel are, whose configuration is `config`.
pub(crate) fn file_of(config: &Path) -> PathBuf {
    config.with_extension(EXTENSION)
}

impl Invitations {
    /// Reads the file, of which there need be none.
    pub(crate) fn load(file: PathBuf) -> Result<Self, InvitationsError> {
        let octets = match regular_file::read(&file, FILE_MAX) {
            Ok(Some(contents)) if contents.octets.len() <= FILE_MAX => contents.octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { file: Some(file), ..Self::default() });
            }
            Ok(_) => return Err(InvitationsError::Malformed { path: file }),
            Err(source) => {
                return Err(InvitationsError::Io { operation: "read", path: file, source });
            }
        };
        let document = serde_json::from_slice(&octets).ok();
        let document: Option<Document> = document.filter(|it: &Document| it.version == VERSION);
        let Some(Document { offer, invitations, .. }) = document else {
            return Err(InvitationsError::Malformed { path: file });
        };
        let entries = invitations.into_iter().take(Invitation::COUNT_MAX).map(Invited::from);
        Ok(Self { file: Some(file), offer, entries: entries.collect() })
    }

    /// Whether somebody can be invited.
    pub(crate) fn are_possible(&self) -> bool {
        self.file.is_some()
    }

    /// Writes the file.
    pub(crate) fn save(&self) -> Result<(), InvitationsError> {
        let Some(path) = &self.file else { return Ok(()) };
        let document = Document {
            version: VERSION,
            offer: self.offer.clone(),
            invitations: self.entries.iter().map(Record::from).collect(),
        };
        let failed =
            |source| InvitationsError::Io { operation: "write", path: path.clone(), source };
        // Room for all of it, so that no copy is left behind in memory.
        let mut json = Zeroizing::new(Vec::with_capacity(FILE_MAX));
        serde_json::to_writer_pretty(&mut *json, &document)
            .map_err(|error| failed(error.into()))?;
        json.push(b'\n');
        durable::replace(path, &json).map_err(failed)
    }

    /// Adds an invitation and writes the file; or changes nothing.
    pub(crate) fn add(&mut self, invited: Invited, wall: Duration) -> Result<(), InvitationsError> {
        let before = self.entries.clone();
        self.forget(wall);
        if self.entries.len() >= Invitation::COUNT_MAX {
            let ended = self.entries.iter().position(|entry| !entry.is_open(wall));
            let Some(ended) = ended else { return Err(InvitationsError::Full) };
            self.entries.remove(ended);
        }
        self.entries.push(invited);
        self.save().inspect_err(|_| self.entries = before)
    }

    /// Leaves out what need not be kept any longer.
    pub(crate) fn forget(&mut self, wall: Duration) {
        self.entries.retain(|entry| !entry.invitation.is_forgotten(wall));
    }

    /// Notes as used whose peer is there already: `peers` with what is shared with each, `own` the inviter.
    pub(crate) fn reconcile<'a>(
        &mut self,
        own: &PublicKey,
        peers: &(impl Iterator<Item = (&'a PublicKey, &'a PresharedKey)> + Clone),
    ) {
        for entry in self.entries.iter_mut().filter(|entry| entry.invitation.joined.is_none()) {
            let shared = &entry.invitation.preshared_key;
            let joined =
                peers.clone().find(|(key, psk)| Invitation::peer_key(shared, own, key) == **psk);
            entry.invitation.joined = joined.map(|(key, _)| *key);
        }
    }

    /// The invitation whose holder has this key.
    pub(crate) fn find(&self, identity: &PublicKey) -> Option<&Invited> {
        self.entries.iter().find(|entry| entry.invitation.public_key == *identity)
    }

    /// The invitation whose holder has this key has made `joiner` a peer.
    pub(crate) fn note(
        &mut self,
        identity: &PublicKey,
        joiner: PublicKey,
    ) -> Result<(), InvitationsError> {
        let entry = self.entries.iter_mut().find(|it| it.invitation.public_key == *identity);
        if let Some(entry) = entry {
            entry.invitation.joined = Some(joiner);
        }
        self.save()
    }

    /// Those that can make somebody a peer.
    pub(crate) fn open(&self, wall: Duration) -> impl Iterator<Item = &Invited> {
        self.entries.iter().filter(move |entry| entry.is_open(wall))
    }

    /// Adds them to what a worker has to know.
    pub(crate) fn append_to(&self, peers: &mut Peers) {
        let Peers::Sealed(peers) = peers else { return };
        peers.extend(self.entries.iter().map(|entry| SealedEntry {
            key: Key(entry.invitation.public_key),
            preshared_key: Some((&entry.invitation.preshared_key).into()),
            path: None,
            keepalive: None,
            allowed_ips: Vec::new(),
            invitation: true,
        }));
    }
}

impl Invited {
    fn is_open(&self, wall: Duration) -> bool {
        self.invitation.joined.is_none() && !self.invitation.has_expired(wall)
    }
}

impl From<&Invited> for Record {
    fn from(invited: &Invited) -> Self {
        let Invited { invitation, name, addresses } = invited;
        Self {
            public_key: Key(invitation.public_key),
            preshared_key: (&invitation.preshared_key).into(),
            expires: invitation.expires,
            joined: invitation.joined.map(Key),
            name: name.clone(),
            addresses: addresses.clone(),
        }
    }
}

impl From<Record> for Invited {
    fn from(record: Record) -> Self {
        let invitation = Invitation {
            public_key: record.public_key.0,
            preshared_key: (&record.preshared_key).into(),
            expires: record.expires,
            joined: record.joined.map(|key| key.0),
        };
        Self { invitation, name: record.name, addresses: record.addresses }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proto::ticket::TicketSecret;

    use super::*;
    use crate::scratch::Scratch;

    const NOW: Duration = Duration::from_secs(1000);

    fn invited(octet: u8, expires: u64) -> Invited {
        let secret = TicketSecret::from_bytes([octet; 32]);
        let addresses = vec![format!("192.0.2.{octet}/24").parse().unwrap()];
        Invited { invitation: Invitation::new(&secret, expires), name: None, addresses }
    }

    fn open(scratch: &Scratch) -> Invitations {
        Invitations::load(scratch.path("home.invitations")).unwrap()
    }

    #[test]
    fn invitations_are_there_again_and_without_their_secret() {
        let scratch = Scratch::new("invitations");
        let mut invitations = open(&scratch);
        invitations.offer.default_route = true;
        invitations.add(invited(2, 2000), NOW).unwrap();
        let identity = invited(2, 0).invitation.public_key;
        invitations.note(&identity, [9; 32].into()).unwrap();
        let again = open(&scratch);
        assert_eq!(again.entries, invitations.entries);
        assert_eq!(again.offer, invitations.offer);
        assert_eq!(again.find(&identity).unwrap().invitation.joined, Some([9; 32].into()));
        assert_eq!(again.open(NOW).count(), 0);
        let text = fs::read_to_string(scratch.path("home.invitations")).unwrap();
        let identity = TicketSecret::from_bytes([2; 32]).identity().to_text();
        assert!(!text.contains(&*identity) && !text.contains("AgICAgICAgICAg"), "{text}");
    }

    #[test]
    fn there_is_room_for_another_while_one_has_ended() {
        let scratch = Scratch::new("room");
        let mut invitations = open(&scratch);
        let count = u8::try_from(Invitation::COUNT_MAX).unwrap();
        for octet in 1..=count {
            invitations.add(invited(octet, 1000 + u64::from(octet == 7)), NOW).unwrap();
        }
        // All but one have ended, and the first of these is forgotten.
        invitations.add(invited(100, 2000), NOW).unwrap();
        assert_eq!(invitations.entries.len(), Invitation::COUNT_MAX);
        assert_eq!(invitations.find(&invited(1, 0).invitation.public_key), None);
        for octet in 101..=100 + count - 2 {
            invitations.add(invited(octet, 2000), NOW).unwrap();
        }
        assert!(invitations.find(&invited(7, 0).invitation.public_key).is_some());
        let refused = invitations.add(invited(200, 2000), NOW);
        assert!(matches!(refused, Err(InvitationsError::Full)), "{refused:?}");
        assert_eq!(open(&scratch).entries, invitations.entries);
    }

    #[test]
    fn a_peer_that_was_written_uses_up_its_invitation() {
        let scratch = Scratch::new("reconcile");
        let mut invitations = open(&scratch);
        invitations.add(invited(2, 2000), NOW).unwrap();
        invitations.add(invited(3, 2000), NOW).unwrap();
        let (own, joiner) = ([8; 32].into(), [9; 32].into());
        let shared = invited(3, 0).invitation.preshared_key;
        let psk = Invitation::peer_key(&shared, &own, &joiner);
        let other = PresharedKey::from_bytes([1; 32]);
        let peers = [(&joiner, &psk), (&own, &other)];
        invitations.reconcile(&own, &peers.into_iter());
        let joined: Vec<_> = invitations.entries.iter().map(|it| it.invitation.joined).collect();
        assert_eq!(joined, [None, Some(joiner)]);
    }

    #[test]
    fn a_file_that_is_something_else_is_not_overwritten() {
        let scratch = Scratch::new("malformed");
        let path = scratch.path("home.invitations");
        for text in ["", "[]", "{\"version\":2}", "{\"version\":1,\"x\":2}"] {
            fs::write(&path, text).unwrap();
            let error = Invitations::load(path.clone()).unwrap_err();
            assert!(matches!(error, InvitationsError::Malformed { .. }), "{error}");
        }
        assert_eq!(file_of(Path::new("/etc/a.b.toml")), Path::new("/etc/a.b.invitations"));
    }
}
