//! A tunnel without a configuration file that somebody wrote: `adit serve`, and `adit join` without a ticket.
//!
//! # Theory of operation
//!
//! What is said on the command line becomes a file in the state directory, `NAME/NAME.toml`, which is read like any other. The
//! first part of it is written anew at each start that says something; the peers, from the first `[[peer]]` on, stay as
//! they are, so that who has joined has joined for good. The private key is made once, `NAME/NAME.key`. A file that
//! does not begin as these do was written by a person, and is not touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use proto::key::PrivateKey;
use thiserror::Error;

use crate::config::{self, ConfigError, NewPeer, Origin, Security, list, push, quoted};
use crate::statedir::{self, StateError};
use crate::worker::sessions::Entropy;
use crate::{durable, keyfile};

/// The tunnel of `adit serve` unless it is named.
pub const NAME: &str = "serve";

/// Where `adit serve` listens unless it is told.
pub const LISTEN: [&str; 2] = ["udp://0.0.0.0:4740", "udp://[::]:4740"];

/// How a file begins whose first part is written by the program.
const MARK: &str = "# Written by adit";

/// The only peer of a tunnel without security.
const ONLY_PEER: &str = "peer";

/// The table with which the part of the peers begins.
const PEER: &str = "[[peer]]";

/// What a tunnel is to be, as it was said on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The command that is told in the file, such as `adit serve`.
    pub command: &'static str,
    /// The name of the tunnel.
    pub name: String,
    /// The addresses of the device.
    pub addresses: Vec<IpNet>,
    /// The MTU of the device.
    pub mtu: Option<u32>,
    /// The URLs to listen at.
    pub listen: Vec<String>,
    /// Whether there are keys.
    pub security: Security,
    /// Whether packets from the tunnel are forwarded, with an address of this host.
    pub masquerade: bool,
    /// Whether the default route of this host leads into the tunnel.
    pub default_route: bool,
    /// What is routed into the tunnel.
    pub routes: Vec<IpNet>,
    /// The servers that this host asks for names.
    pub dns: Vec<std::net::IpAddr>,
    /// Where the only peer of a tunnel without security is, as URLs.
    pub endpoints: Vec<String>,
}

/// The files of a tunnel cannot be had.
#[derive(Debug, Error)]
pub enum FilesError {
    /// There is no directory for them.
    #[error(transparent)]
    State(#[from] StateError),
    /// One cannot be read or written.
    #[error("{operation} {path}", path = .path.display())]
    Io {
        /// "read" or "write".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was said makes no configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A person has written the configuration.
    #[error("{path} was written by hand, and options would change it", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// The configuration file of the tunnel `name`, in the state directory.
///
/// # Errors
///
/// [`StateError::Unset`].
pub fn file_of(name: &str) -> Result<PathBuf, StateError> {
    Ok(statedir::directory()?.join(name).join(format!("{name}.toml")))
}

/// Writes the file of a tunnel with its key, and keeps the peers that are there.
///
/// # Errors
///
/// See [`FilesError`].
pub fn write(outline: &Outline) -> Result<PathBuf, FilesError> {
    let file = file_of(&outline.name)?;
    let before = match fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(FilesError::Io { operation: "read", path: file, source }),
    };
    if before.as_ref().is_some_and(|text| !text.starts_with(MARK)) {
        return Err(FilesError::Foreign { path: file });
    }
    let text = outline.to_toml(before.as_deref().unwrap_or_default());
    check(&text, &file)?;
    if let Some(directory) = file.parent() {
        statedir::create(directory)?;
    }
    if outline.security == Security::Wireguard {
        key(&file.with_extension("key"))?;
    }
    if before.as_ref() != Some(&text) {
        durable::replace(&file, text.as_bytes()).map_err(|source| FilesError::Io {
            operation: "write",
            path: file.clone(),
            source,
        })?;
    }
    Ok(file)
}

/// Whether a text makes a configuration.
fn check(text: &str, file: &Path) -> Result<(), FilesError> {
    let origin = Origin::from_path(file)?;
    config::parse(text, &origin).map_err(ConfigError::from)?;
    Ok(())
}

/// Makes a private key in a file of its own, unless it is there; whether it was made.
pub(crate) fn key(path: &Path) -> Result<bool, FilesError> {
    let text = PrivateKey::generate(&mut Entropy).to_text();
    match durable::create(path, &keyfile::contents(&text)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(FilesError::Io { operation: "write", path: path.to_owned(), source }),
    }
}

impl Outline {
    /// The file, with the peers of the one `before`.
    fn to_toml(&self, before: &str) -> String {
        let mut text = format!(
            "{MARK}: what stands above the first peer is as the options of \"{}\" said last.\n",
            self.command
        );
        self.push_device(&mut text);
        self.push_local(&mut text);
        self.push_network(&mut text);
        match self.security {
            Security::Wireguard => text.push_str(&peers(before)),
            Security::None => text.push_str(&format!("\n{}", self.only_peer().to_toml())),
        }
        text
    }

    fn push_device(&self, text: &mut String) {
        text.push_str("\n[device]\n");
        push(text, "addresses", &list(&self.addresses));
        if let Some(mtu) = self.mtu {
            push(text, "mtu", &mtu.to_string());
        }
    }

    fn push_local(&self, text: &mut String) {
        text.push_str("\n[local]\n");
        match self.security {
            Security::Wireguard => {
                push(text, "private-key-file", &quoted(&format!("{}.key", self.name)));
            }
            Security::None => push(text, "security", &quoted("none")),
        }
        if !self.listen.is_empty() {
            push(text, "listen", &list(&self.listen));
        }
    }

    fn push_network(&self, text: &mut String) {
        let mut network = String::new();
        if self.masquerade {
            push(&mut network, "masquerade", "true");
        }
        if self.default_route {
            push(&mut network, "default-route", "true");
        }
        if !self.routes.is_empty() {
            push(&mut network, "routes", &list(&self.routes));
        }
        if !self.dns.is_empty() {
            push(&mut network, "dns", &list(&self.dns));
        }
        if !network.is_empty() {
            text.push_str(&format!("\n[network]\n{network}"));
        }
    }

    fn only_peer(&self) -> NewPeer {
        NewPeer {
            name: ONLY_PEER.to_owned(),
            public_key: None,
            preshared_key_file: None,
            endpoints: self.endpoints.clone(),
            allowed_ips: Vec::new(),
            keepalive: None,
        }
    }
}

/// The part of a file that is its peers.
fn peers(text: &str) -> String {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == PEER {
            return format!("\n{}", &text[at..]);
        }
        at += line.len();
    }
    String::new()
}

/// Whether `name` may name a tunnel.
pub fn is_name(name: &str) -> bool {
    proto::ticket::is_name(name) && config::MAX_NAME_LENGTH >= name.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(security: Security) -> Outline {
        Outline {
            command: "adit serve",
            name: "serve".into(),
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
            mtu: Some(1400),
            listen: LISTEN.map(str::to_owned).to_vec(),
            security,
            masquerade: true,
            default_route: false,
            routes: Vec::new(),
            dns: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    const HEAD: &str = r#"# Written by adit: what stands above the first peer is as the options of "adit serve" said last.

[device]
addresses = ["192.0.2.1/24"]
mtu = 1400

[local]
private-key-file = "serve.key"
listen = ["udp://0.0.0.0:4740", "udp://[::]:4740"]

[network]
masquerade = true
"#;

    #[test]
    fn options_become_a_literal_file_that_is_a_configuration() {
        let text = outline(Security::Wireguard).to_toml("");
        assert_eq!(text, HEAD);
        let origin = Origin::new("serve.toml", "serve", Path::new("/x")).unwrap();
        let config = config::parse(&text, &origin).unwrap();
        assert!(config.peers.is_empty() && config.network.forward);
        let none = config::parse(&outline(Security::None).to_toml(""), &origin).unwrap();
        assert_eq!((none.local.security, none.peers.len()), (Security::None, 1));
    }

    #[test]
    fn peers_stay_when_options_change() {
        let peers = "\n[[peer]]\nname = \"b\" # mine\n\n[[peer]]\nname = \"c\"\n";
        let before = outline(Security::Wireguard).to_toml("") + peers;
        assert_eq!(outline(Security::Wireguard).to_toml(&before), before);
        let other = Outline { mtu: None, masquerade: false, ..outline(Security::Wireguard) };
        let after = other.to_toml(&before);
        assert!(after.ends_with(peers) && !after.contains("mtu") && !after.contains("[network]"));
    }
}
