//! What a tunnel is to be: a file, read once into types that cannot be wrong.
//!
//! # Theory of operation
//!
//! A TOML file becomes a [`Config`] in four steps, and each step sees only what the one before let pass:
//!
//! 1. The text becomes a TOML table in which every key and value knows its position. A syntax error
//!    ends the reading here, since the meaning of a broken file would be guesswork.
//! 2. Every table is held against its schema, the list of its keys and their types (`schema`,
//!    `table`). Unknown keys, wrong types, lists that are too long and what this version cannot do
//!    are reported here.
//! 3. Every value becomes a value of its own type: a prefix, an endpoint, a duration (`section`). Together
//!    they are a draft (`draft`).
//! 4. The rules that tie several values together are checked (`check`), for example that no two peers
//!    have the same key.
//!
//! A file in the format of wg-quick, whose name ends in `.conf`, becomes a draft in a way of its own
//! (`conf`), since its text is made of lines. From there on both are the same.
//!
//! No step stops at its first error: a user sees all errors of a file at once, ordered by position,
//! up to [`MAX_ERRORS`]. A `Config` exists only if there was none, so that no later code asks again
//! whether, say, a prefix has host bits. What is legal but hardly meant comes along as a warning.
//!
//! # Limits
//!
//! A file has at most [`MAX_FILE_SIZE`] octets. Every list has its own limit in `schema`. Messages
//! quote at most the beginning of a long value, and never a value of a key that holds key material.

mod alike;
mod append;
mod check;
mod conf;
mod domain;
mod draft;
mod endpoint;
mod error;
mod key_source;
mod prefix;
mod schema;
mod section;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use device::{DeviceName, Mode};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::plan::Families;
use proto::key::{PresharedKey, PrivateKey, PublicKey};

pub use self::append::{AppendError, NewPeer};
pub(crate) use self::append::{append_peer, list, push, quoted};
pub use self::endpoint::{Endpoint, EndpointError, Host};
pub use self::error::{ConfigError, ConfigErrors, MAX_ERRORS, Problem};
pub use self::key_source::KeySource;
use crate::keyfile::{self, Access};
use crate::regular_file::{self, Contents};

/// The largest configuration file that is read, in octets: enough for as many peers as there can be.
pub const MAX_FILE_SIZE: usize = 16 << 20;

/// After which time WireGuard replaces the keys of a session (whitepaper, section 6.1), and so the longest here.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);

/// How long an idle worker waits before it looks into a shared folder by itself.
pub const POLL_MAX: Duration = Duration::from_millis(20);

/// The longest name of a tunnel or a peer, in characters.
pub const MAX_NAME_LENGTH: usize = 64;

/// Everything a tunnel is told by its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The tunnel's name, which is the stem of the file's name: up to [`MAX_NAME_LENGTH`] of
    /// `A-Z a-z 0-9 _ . -`, of which neither a dot nor a hyphen comes first.
    pub name: String,
    /// The device through which the host reaches the tunnel.
    pub device: DeviceConfig,
    /// This side of the tunnel.
    pub local: Local,
    /// What the host's network is to look like while the tunnel is up.
    pub network: Network,
    /// The other sides in the order of the file. There may be none with security and something to listen on: then peers
    /// come with a ticket.
    pub peers: Vec<Peer>,
    /// What is legal but hardly meant, ordered by position, each as `file:line:column: message` and up to
    /// [`MAX_ERRORS`].
    pub warnings: Vec<String>,
}

impl Config {
    /// The families of which all packets go through the tunnel: those of which the device has an address and
    /// the peers own everything, if there is a default route at all.
    pub fn default_families(&self) -> Families {
        let mut own = self.device.addresses.iter().map(InterfaceAddress::local);
        let wanted = self.network.default_route;
        Families {
            v4: wanted
                && own.clone().any(|ip| ip.is_ipv4())
                && self.owns(Ipv4Net::default().into()),
            v6: wanted && own.any(|ip| ip.is_ipv6()) && self.owns(Ipv6Net::default().into()),
        }
    }

    /// Whether the peers together own all addresses of a family.
    fn owns(&self, everything: IpNet) -> bool {
        owns(everything, self.peers.iter().flat_map(|peer| &peer.allowed_ips).copied())
    }

    /// Whether a secret key stands in the file itself.
    fn has_inline_keys(&self) -> bool {
        let is_inline = |peer: &Peer| matches!(peer.preshared_key, Some(KeySource::Inline(_)));
        matches!(self.local.private_key, Some(KeySource::Inline(_)))
            || self.peers.iter().any(is_inline)
    }
}

/// Whether prefixes together make up everything of a family.
fn owns(everything: IpNet, prefixes: impl Iterator<Item = IpNet>) -> bool {
    let of_family = |prefix: &IpNet| prefix.addr().is_ipv4() == everything.addr().is_ipv4();
    IpNet::aggregate(&prefixes.filter(of_family).collect()).contains(&everything)
}

/// The TUN or TAP device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The name of the interface; the tunnel's name unless the file says otherwise.
    pub name: DeviceName,
    /// Whether it carries IP packets or Ethernet frames.
    pub mode: Mode,
    /// The addresses of the interface, without duplicates.
    pub addresses: Vec<InterfaceAddress>,
    /// The MTU of the interface in octets, 68..=65535, and at least 1280 with an IPv6 address;
    /// `None` to derive it from the transports.
    pub mtu: Option<u32>,
    /// How many queues the device has, 1..=16.
    pub queues: u16,
    /// Whether the device hands over segments larger than the MTU (TSO, USO).
    pub offload: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InterfaceAddress {
    /// An address and the prefix of its subnet, in which host bits are the address.
    Prefix(IpNet),
    /// Both ends of a point-to-point link, of one family (`ip address add LOCAL peer PEER`).
    PointToPoint {
        /// The address of this side.
        local: IpAddr,
        /// The address of the other side and the prefix that is reached through it.
        peer: IpNet,
    },
}

impl InterfaceAddress {
    /// The address of this side.
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Prefix(net) => net.addr(),
            Self::PointToPoint { local, .. } => *local,
        }
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "{prefix}"),
            Self::PointToPoint { local, peer } => write!(f, "{local} peer {peer}"),
        }
    }
}

impl InterfaceAddress {
    /// The address of this side.
    pub fn local(&self) -> IpAddr {
        match self {
            Self::Prefix(prefix) => prefix.addr(),
            Self::PointToPoint { local, .. } => *local,
        }
    }
}

/// This side of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Where datagrams are received; hosts are IP addresses, and port 0 is any port. Empty for a free port
    /// of each family that the peers' addresses turn out to have.
    pub listen: Vec<Endpoint>,
    /// How peers prove who they are, and whether packets are encrypted.
    pub security: Security,
    /// The key by which this side proves who it is; always with the security of WireGuard, never without.
    pub private_key: Option<KeySource<PrivateKey>>,
    /// With which ciphers data may be sealed.
    pub ciphers: CipherPolicy,
    /// Whether peers that are adit, too, may use more than WireGuard has; without, nobody can tell this side
    /// from a stock WireGuard peer.
    pub extensions: bool,
    /// After which time the keys of a session are replaced, 5 s to [`REKEY_AFTER`].
    pub rekey_after: Duration,
    /// The mark of outer datagrams, by which rules of the host know them (`SO_MARK` of socket(7)); not 0.
    pub fwmark: Option<u32>,
    /// How long a worker polls before it sleeps, up to 10 ms; `None` for not at all.
    pub busy_poll: Option<Duration>,
    /// The longest pause between two looks into a shared folder while it may be that nobody announces what comes,
    /// 50 µs to 500 ms.
    pub poll_max: Duration,
}

/// How peers prove who they are, and whether packets are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// The handshake and the encryption of WireGuard.
    Wireguard,
    /// None at all: one bare IP packet or Ethernet frame a datagram, for links that are trusted.
    None,
}

/// With which ciphers data may be sealed. Handshakes are WireGuard's in any case, and so is all data to and
/// from peers that are not adit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CipherPolicy {
    /// AES-256-GCM between peers that both are adit and have it in hardware, ChaCha20-Poly1305 otherwise.
    #[default]
    Auto,
    /// AES-256-GCM only: no data for peers that cannot open it.
    Aes256Gcm,
    /// ChaCha20-Poly1305 only.
    ChaCha20Poly1305,
}

/// What the host's network is to look like while the tunnel is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Prefixes that are routed through the device besides the peers' allowed IPs; no host bits,
    /// no duplicates, and on a TUN device only families of which it has an address.
    pub routes: Vec<IpNet>,
    /// Whether the peers' allowed IPs are routed through the device; only then can there be a default route.
    pub allowed_ips_routed: bool,
    /// Whether all traffic goes through the device, of the families in [`Config::default_families`]; only
    /// on a TUN device, which then has an address.
    pub default_route: bool,
    /// Prefixes that stay on the route that they have without the tunnel: no host bits, no
    /// duplicates, and each a part of what the tunnel takes.
    pub exclude: Vec<IpNet>,
    /// Whether IPv6 stays as it is beside a default route of IPv4 only; otherwise it is blocked.
    pub ipv6_beside: bool,
    /// Whether the host forwards packets between the device and its other interfaces; always with a
    /// translation, never on a bridge's port.
    pub forward: bool,
    /// Behind which address packets from the tunnel are hidden when they are forwarded.
    pub translate: Option<Translate>,
    /// The name of the bridge that the device is a port of; only a TAP device, which then has neither addresses
    /// nor routes.
    pub bridge: Option<String>,
    /// The servers that answer the host's questions for names, without duplicates; empty to leave
    /// that as it is.
    pub dns: Vec<IpAddr>,
    /// The domains in which names without a dot are looked up, in small letters and without a final
    /// dot; no duplicates.
    pub dns_search: Vec<String>,
}

impl Default for Network {
    /// What an empty `[network]` asks for.
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            allowed_ips_routed: true,
            default_route: false,
            exclude: Vec::new(),
            ipv6_beside: false,
            forward: false,
            translate: None,
            bridge: None,
            dns: Vec::new(),
            dns_search: Vec::new(),
        }
    }
}

/// Behind which address forwarded packets are hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translate {
    /// Behind the address of the interface by which they leave.
    Masquerade,
    /// Behind these addresses: one, or one of each family, and on a TUN device only families of which
    /// it has an address.
    SourceNat(Vec<IpAddr>),
}

/// One other side of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name, unique in the file and made as the tunnel's name is.
    pub name: String,
    /// Its public key, unique in the file; always with the security of WireGuard.
    pub public_key: Option<PublicKey>,
    /// The key that both sides know beforehand; never without the security of WireGuard.
    pub preshared_key: Option<KeySource<PresharedKey>>,
    /// Where it is, in order of preference, with ports from 1. Without security only one peer may have
    /// none: the first sender becomes it.
    pub endpoints: Vec<Endpoint>,
    /// The inner addresses that it owns, unique in the file, without host bits; everything
    /// (`0.0.0.0/0` and `::/0`) for a TUN device's only peer that does not say in TOML, empty for a TAP
    /// device.
    pub allowed_ips: Vec<IpNet>,
    /// How often something is sent to it at least, up to 65535 s; `None` for never.
    pub keepalive: Option<Duration>,
}

/// Where a text came from: what its errors and its relative paths refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    file: String,
    tunnel: String,
    directory: PathBuf,
}

impl Origin {
    /// An origin with `file` as it stands in messages, the name of the `tunnel`, and the `directory`
    /// that relative paths start from.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Name`] if `tunnel` is not the name of a tunnel (see [`Config::name`]).
    pub fn new(file: &str, tunnel: &str, directory: &Path) -> Result<Self, ConfigError> {
        if !is_name(tunnel) {
            return Err(ConfigError::Name { name: tunnel.to_owned(), file: file.to_owned() });
        }
        Ok(Self {
            file: file.to_owned(),
            tunnel: tunnel.to_owned(),
            directory: directory.to_owned(),
        })
    }

    /// The origin that the file at `path` is: its path, its stem and its directory.
    ///
    /// # Errors
    ///
    /// As [`Origin::new`].
    pub fn from_path(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::new(&file, &stem, path.parent().unwrap_or_else(|| Path::new("")))
    }

    /// The name of the tunnel.
    pub fn tunnel(&self) -> &str {
        &self.tunnel
    }
}

/// Reads the configuration at `path`, which must be a regular file: in the format of wg-quick if its name
/// ends in `.conf`, in TOML otherwise. Its relative paths become absolute.
///
/// # Errors
///
/// See [`ConfigError`]: the file cannot be read, is too large, shows its keys to everybody, or is wrong.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let mut origin = Origin::from_path(path)?;
    let contents = read(path)?;
    let absolute = std::path::absolute(origin.directory.join("."));
    origin.directory =
        absolute.map_err(|source| ConfigError::Read { file: origin.file.clone(), source })?;
    let text = std::str::from_utf8(&contents.octets).map_err(|error| {
        ConfigErrors::not_utf8(&origin.file, &contents.octets, error.valid_up_to())
    })?;
    let is_conf = path.extension().is_some_and(|extension| extension == "conf");
    let parse = if is_conf { parse_conf } else { parse };
    let mut config = parse(text, &origin)?;
    if config.has_inline_keys() {
        check_access(&contents, &origin.file, &mut config.warnings)?;
    }
    Ok(config)
}

/// Reads a configuration from its text in TOML. Nothing else is read: key files are only named.
///
/// # Errors
///
/// All errors of the text, ordered by position, up to [`MAX_ERRORS`].
pub fn parse(text: &str, origin: &Origin) -> Result<Config, ConfigErrors> {
    let mut problems = error::Problems::new(&origin.file, text);
    let draft = table::document(text, &mut problems)
        .and_then(|document| section::read(&document, origin, &mut problems));
    finish(draft, origin, problems)
}

/// Reads a configuration from its text in the format of wg-quick(8), which holds its keys itself.
///
/// # Errors
///
/// All errors of the text, ordered by position, up to [`MAX_ERRORS`].
pub fn parse_conf(text: &str, origin: &Origin) -> Result<Config, ConfigErrors> {
    let mut problems = error::Problems::new(&origin.file, text);
    let draft = conf::read(text, origin, &mut problems);
    finish(draft, origin, problems)
}

fn finish(
    draft: Option<draft::Draft>,
    origin: &Origin,
    mut problems: error::Problems<'_>,
) -> Result<Config, ConfigErrors> {
    let config = draft.and_then(|draft| check::finish(draft, origin, &mut problems));
    match config {
        Some(config) if problems.is_empty() => {
            Ok(Config { warnings: problems.into_warnings(), ..config })
        }
        _ => Err(problems.into_errors()),
    }
}

/// Whether `name` may name a tunnel or a peer. It becomes part of file names and stands among the
/// arguments of a command, so it neither begins with a dot nor looks like an option.
fn is_name(name: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"_.-".contains(&octet);
    (1..=MAX_NAME_LENGTH).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with(['.', '-'])
}

fn read(path: &Path) -> Result<Contents, ConfigError> {
    let file = path.display().to_string();
    match regular_file::read(path, MAX_FILE_SIZE) {
        Ok(Some(contents)) if contents.octets.len() > MAX_FILE_SIZE => {
            Err(ConfigError::TooLarge { file })
        }
        Ok(Some(contents)) => Ok(contents),
        Ok(None) => Err(ConfigError::NotAFile { file }),
        Err(source) => Err(ConfigError::Read { file, source }),
    }
}

/// A file with keys in it is held to what a key file is held to.
fn check_access(
    contents: &Contents,
    file: &str,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let mode = contents.mode;
    match keyfile::access(mode, contents.group) {
        Access::Owner => Ok(()),
        Access::Group => {
            warnings.push(format!(
                "{file}: it holds secret keys, but its mode {mode:04o} lets its group at it"
            ));
            Ok(())
        }
        Access::Everybody => Err(ConfigError::Exposed { file: file.to_owned(), mode }),
    }
}
