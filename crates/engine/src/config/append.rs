//! One more peer in a file that a person has written.
//!
//! # Theory of operation
//!
//! The text of the file is not made anew: a `[[peer]]` table is put behind it, so that every octet before stays, comments
//! and all. That this means what it shall is not argued but checked: the longer text is read again, and is good only if it
//! is the configuration of before with one peer more. So a file that ends in the middle of something, or has its peers in
//! another notation, is refused and left alone.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use proto::key::PublicKey;
use thiserror::Error;

use super::error::ConfigErrors;
use super::{Config, ConfigError, Origin, Peer, parse};
use crate::durable;

/// A peer that is to stand in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPeer {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub public_key: Option<PublicKey>,
    /// The file with the key that both sides know beforehand, as it is named in the file.
    pub preshared_key_file: Option<String>,
    /// Where it is, as URLs.
    pub endpoints: Vec<String>,
    /// What it owns; empty to say nothing of it.
    pub allowed_ips: Vec<IpNet>,
    /// How often something is sent to it at least.
    pub keepalive: Option<Duration>,
}

/// A peer was not added to a file.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The file is in a format that has no names for peers, and holds its keys itself.
    #[error("add a peer to {file}: only files in TOML can be added to")]
    Format {
        /// The file.
        file: String,
    },
    /// The file cannot be read as it is.
    #[error(transparent)]
    Read(#[from] ConfigError),
    /// With the peer it would be wrong.
    #[error("add peer {peer:?} to {file}")]
    Wrong {
        /// The file.
        file: String,
        /// The peer.
        peer: String,
        /// What would be wrong.
        source: ConfigErrors,
    },
    /// With the peer it would mean something else.
    #[error("add peer {peer:?} to {file}: something else in it would change by that")]
    Differs {
        /// The file.
        file: String,
        /// The peer.
        peer: String,
    },
    /// The file cannot be written.
    #[error("add peer {peer:?} to {file}")]
    Write {
        /// The file.
        file: String,
        /// The peer.
        peer: String,
        /// Why.
        source: io::Error,
    },
}

impl NewPeer {
    /// The table, as it stands in a file.
    pub fn to_toml(&self) -> String {
        let mut text = format!("[[peer]]\nname = {}\n", quoted(&self.name));
        if let Some(key) = &self.public_key {
            push(&mut text, "public-key", &quoted(&key.to_string()));
        }
        if let Some(file) = &self.preshared_key_file {
            push(&mut text, "preshared-key-file", &quoted(file));
        }
        if !self.endpoints.is_empty() {
            push(&mut text, "endpoints", &list(&self.endpoints));
        }
        if !self.allowed_ips.is_empty() {
            push(&mut text, "allowed-ips", &list(&self.allowed_ips));
        }
        if let Some(every) = self.keepalive {
            push(&mut text, "keepalive", &quoted(&format!("{}s", every.as_secs())));
        }
        text
    }
}

/// `key = value` and the end of the line.
pub(crate) fn push(text: &mut String, key: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{key} = {value}");
}

/// A string of TOML.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// An array of strings of TOML.
pub(crate) fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// Adds a peer to the file at `path`; what the file says then. With `write` false the file stays as it is.
pub(crate) fn append_peer(path: &Path, peer: &NewPeer, write: bool) -> Result<Config, AppendError> {
    let file = path.display().to_string();
    if path.extension().is_some_and(|extension| extension == "conf") {
        return Err(AppendError::Format { file });
    }
    let failed =
        |source| AppendError::Write { file: file.clone(), peer: peer.name.clone(), source };
    let mut origin = Origin::from_path(path)?;
    origin.directory = std::path::absolute(origin.directory.join(".")).map_err(failed)?;
    let contents = super::read(path)?;
    let text = std::str::from_utf8(&contents.octets)
        .map_err(|error| ConfigErrors::not_utf8(&file, &contents.octets, error.valid_up_to()))
        .map_err(ConfigError::from)?;
    let (text, config) = with_peer(text, &origin, peer)?;
    if write {
        durable::replace(path, text.as_bytes()).map_err(failed)?;
    }
    Ok(config)
}

/// The text with one peer more, and what it means.
fn with_peer(text: &str, origin: &Origin, peer: &NewPeer) -> Result<(String, Config), AppendError> {
    let before = parse(text, origin).map_err(ConfigError::from)?;
    let (file, name) = (origin.file.clone(), peer.name.clone());
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let text = format!("{text}{end}\n{}", peer.to_toml());
    let after = match parse(&text, origin) {
        Ok(after) => after,
        Err(source) => return Err(AppendError::Wrong { file, peer: name, source }),
    };
    match is_one_more(&before, &after, peer) {
        true => Ok((text, after)),
        false => Err(AppendError::Differs { file, peer: name }),
    }
}

/// Whether `after` is `before` and `peer`, and nothing else.
fn is_one_more(before: &Config, after: &Config, peer: &NewPeer) -> bool {
    let Some((last, others)) = after.peers.split_last() else { return false };
    let Peer { name, public_key, endpoints, allowed_ips, keepalive, preshared_key: _ } = last;
    let urls: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    let is_peer = (name, public_key, keepalive) == (&peer.name, &peer.public_key, &peer.keepalive)
        && urls == peer.endpoints
        && (*allowed_ips == peer.allowed_ips || peer.allowed_ips.is_empty());
    let same =
        Config { peers: others.to_vec(), warnings: before.warnings.clone(), ..after.clone() };
    is_peer && same == *before
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::scratch::Scratch;

    const FILE: &str =
        "# mine\r\n[local]\nprivate-key-file = 'a.key' # here\nlisten = [\"udp://0.0.0.0:1\"]\n";

    fn peer(name: &str, number: u8) -> NewPeer {
        NewPeer {
            name: name.into(),
            public_key: Some([number; 32].into()),
            preshared_key_file: Some(format!("home.{name}.psk")),
            endpoints: Vec::new(),
            allowed_ips: vec![format!("192.0.2.{number}/32").parse().unwrap()],
            keepalive: Some(Duration::from_secs(25)),
        }
    }

    fn append(text: &str, peer: &NewPeer) -> Result<(String, Config), String> {
        let origin = Origin::new("home.toml", "home", Path::new("/etc")).unwrap();
        with_peer(text, &origin, peer).map_err(|error| {
            let source = std::error::Error::source(&error);
            format!("{error}{}", source.map(|it| format!(": {it}")).unwrap_or_default())
        })
    }

    #[test]
    fn a_peer_is_its_literal_text_behind_all_that_was_there() {
        let (text, config) = append(FILE, &peer("laptop", 2)).unwrap();
        let expected = "\n[[peer]]\nname = \"laptop\"\n\
            public-key = \"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\"\n\
            preshared-key-file = \"home.laptop.psk\"\nallowed-ips = [\"192.0.2.2/32\"]\nkeepalive = \"25s\"\n";
        assert_eq!(text, format!("{FILE}{expected}"));
        let source = super::super::KeySource::File("/etc/home.laptop.psk".into());
        assert_eq!(config.peers[0].preshared_key, Some(source));
        let (text, config) = append(&text, &peer("phone", 3)).unwrap();
        assert!(text.starts_with(&format!("{FILE}{expected}")));
        assert_eq!(config.peers.len(), 2);
    }

    #[test]
    fn what_cannot_be_added_to_is_refused() {
        let (one, _) = append(FILE, &peer("laptop", 2)).unwrap();
        let of = |text: &str, peer: &NewPeer| append(text, peer).unwrap_err();
        assert!(of(&one, &peer("laptop", 3)).contains("name is already used"));
        assert!(of(&one, &peer("phone", 2)).contains("public-key is already used"));
        let taken = NewPeer { public_key: Some([9; 32].into()), ..peer("phone", 2) };
        assert!(of(&one, &taken).contains("something else in it would change"));
        let everything = format!("{FILE}[[peer]]\nname = \"b\"\npublic-key = \"{}\"\n", key(7));
        assert!(of(&everything, &peer("phone", 3)).contains("allowed-ips is missing"));
        let inline = format!("{FILE}[local.x]\n");
        assert!(of(&inline, &peer("phone", 3)).contains("unknown key"));
        let array = format!(
            "peer = [{{ name = \"b\", public-key = \"{}\", allowed-ips = [\"192.0.2.9/32\"] }}]\n{FILE}",
            key(7)
        );
        assert!(of(&array, &peer("phone", 3)).starts_with("add peer \"phone\" to home.toml"));
    }

    fn key(octet: u8) -> String {
        PublicKey::from([octet; 32]).to_string()
    }

    #[test]
    fn a_file_of_wg_quick_is_not_added_to_and_a_trial_writes_nothing() {
        let scratch = Scratch::new("append");
        let path = scratch.path("home.conf");
        let error = append_peer(&path, &peer("b", 2), true).unwrap_err().to_string();
        assert!(error.ends_with("only files in TOML can be added to"), "{error}");
        let path = scratch.path("home.toml");
        fs::write(&path, FILE).unwrap();
        append_peer(&path, &peer("b", 2), false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), FILE);
        append_peer(&path, &peer("b", 2), true).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with(FILE));
        assert_eq!(scratch.names(), ["home.toml"]);
    }

    proptest! {
        #[test]
        fn every_octet_before_is_kept(comment in "[ -~]{0,40}", newline in any::<bool>()) {
            let end = if newline { "\n" } else { "" };
            let text = format!("{FILE}# {comment}{end}");
            let (longer, config) = append(&text, &peer("b", 2)).unwrap();
            prop_assert!(longer.starts_with(&text));
            prop_assert_eq!(config.peers.len(), 1);
        }
    }
}
