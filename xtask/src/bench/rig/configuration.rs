//! What adit is told: files in a folder that the next turn overwrites.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::WIREGUARD_PORT;
use super::keys::Keys;
use crate::failure::Failure;

/// The first inner address of peers that are never met.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);

/// The configuration of host `number`, whose peer is the other one.
pub(super) struct Configuration<'a> {
    pub(super) number: u8,
    pub(super) security: Security<'a>,
    /// The folder that packets go through, in place of UDP.
    pub(super) spool: Option<&'a Path>,
}

/// How packets are protected.
#[derive(Clone, Copy)]
pub(super) enum Security<'a> {
    None {
        /// How long workers poll before they sleep.
        busy_poll: Option<&'static str>,
    },
    Wireguard {
        keys: &'a [Keys; 2],
        /// Whether to do more than WireGuard does where the other side can, too.
        extensions: bool,
        /// How many peers there are in all.
        peers: u32,
    },
}

impl Configuration<'_> {
    /// Writes everything that `adit up` needs and returns the file that it is to be given.
    pub(super) fn write(&self, folder: &Path, name: &str) -> Result<PathBuf, Failure> {
        let file = folder.join(format!("{name}.toml"));
        let failed = |error| Failure::of(format!("write {}", file.display()), error);
        fs::create_dir_all(folder).map_err(failed)?;
        if let Security::Wireguard { keys, .. } = self.security {
            let [own, _] = Keys::own_first(keys, self.number);
            write_secret(&folder.join(self.key_file()), &own.private).map_err(failed)?;
        }
        fs::write(&file, self.text()).map_err(failed)?;
        Ok(file)
    }

    fn key_file(&self) -> String {
        format!("{}.key", self.number)
    }

    fn text(&self) -> String {
        let Self { number, security, .. } = self;
        let (port, local, peers) = match security {
            Security::None { busy_poll } => {
                let polling = busy_poll.map(|time| format!("busy-poll = \"{time}\"\n"));
                let local = format!("security = \"none\"\n{}", polling.unwrap_or_default());
                (4740, local, self.other_peer(4740, ""))
            }
            Security::Wireguard { keys, extensions, peers } => {
                let [_, others] = Keys::own_first(keys, *number);
                let key = format!("public-key = \"{}\"\n", others.public);
                let local = format!(
                    "private-key-file = {:?}\nextensions = {extensions}\n",
                    self.key_file()
                );
                let peers = self.other_peer(WIREGUARD_PORT, &key) + &nobodies(*peers);
                (WIREGUARD_PORT, local, peers)
            }
        };
        format!(
            "[device]
name = \"adit0\"
# What nobody owns is on this link, so that it takes no route for each.
addresses = [\"10.9.0.{number}/24\", \"10.127.255.{number}/10\"]

[local]
listen = [\"{}\"]
{local}
{peers}",
            self.endpoint(*number, port)
        )
    }

    /// Where the host `number` is.
    fn endpoint(&self, number: u8, port: u16) -> String {
        match self.spool {
            Some(folder) => format!("spool://{}", folder.display()),
            None => format!("udp://10.1.0.{number}:{port}"),
        }
    }

    fn other_peer(&self, port: u16, key: &str) -> String {
        let other = 3 - self.number;
        let endpoint = self.endpoint(other, port);
        format!(
            "[[peer]]
name = \"other\"
{key}endpoints = [\"{endpoint}\"]
allowed-ips = [\"10.9.0.{other}/32\"]
"
        )
    }
}

/// All `peers` but the first, whom nobody ever meets.
fn nobodies(peers: u32) -> String {
    let mut text = String::new();
    for number in 1..peers {
        let (key, address) = (Keys::of_nobody(number), Ipv4Addr::from(u32::from(NOBODY) + number));
        let _ = writeln!(
            text,
            "[[peer]]\nname = \"{number}\"\npublic-key = \"{key}\"\nallowed-ips = [\"{address}/32\"]"
        );
    }
    text
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_peers_is_the_other_host() {
        let keys = [("a", "A"), ("b", "B")].map(|(private, public)| Keys {
            private: private.to_owned(),
            public: public.to_owned(),
        });
        let security = Security::Wireguard { keys: &keys, extensions: true, peers: 300 };
        let text = Configuration { number: 2, security, spool: None }.text();
        assert_eq!(text.matches("[[peer]]").count(), 300);
        assert_eq!(text.matches("endpoints = [\"udp://10.1.0.1:51820\"]").count(), 1);
        assert_eq!(text.matches("public-key = \"A\"").count(), 1);
        assert_eq!(text.matches("allowed-ips = [\"10.64.1.43/32\"]").count(), 1);
        assert!(!text.contains("\"B\""), "{text}");
    }
}
