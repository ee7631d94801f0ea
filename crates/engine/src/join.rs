//! A machine joins a tunnel with a ticket.
//!
//! # Theory of operation
//!
//! 1. The ticket is read, and what can be found out of it without asking anybody is (`Ticket`, its time).
//! 2. A private key is made and written, before anybody hears of it: who asks again, asks with the same one.
//! 3. The holder of the ticket asks the inviter to make that key a peer (`enrolment`), without a device and without
//!    changing anything of this host.
//! 4. What the inviter says becomes a configuration, which is checked like one that a person has written, and then is a file
//!    from which `adit up` brings the tunnel up, now and later.
//!
//! A crash at any moment is harmless: there is a configuration if and only if the machine is a peer and knows it.

mod enrolment;
mod line;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proto::key::{PresharedKey, PrivateKey};
use proto::ticket::{Invitation, Settings, Ticket};
use thiserror::Error;
use wire::frame::Mode;

use crate::config::{self, ConfigErrors, KeySource, NewPeer, Origin, list, push, quoted};
use crate::keyfile::{self, KeyFileError};
use crate::serve::{self, FilesError};
use crate::statedir::{self, StateError};
use crate::worker::clock;
use crate::{durable, hostname};

pub use self::enrolment::EnrolError;
pub use self::line::LineError;

/// The tunnel of `adit join` unless the ticket or somebody names it.
pub const NAME: &str = "join";

/// What the inviter is called here, unless it says.
const INVITER: &str = "inviter";

/// How often the inviter hears of a joiner, so that it knows where it is behind NAT.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// How a machine joins, as it was said on the command line.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The name of the tunnel here; that of the ticket if this is none.
    pub name: Option<String>,
    /// The directory for the files; one of their own in the state directory if this is none.
    pub directory: Option<PathBuf>,
    /// What this machine proposes to be called; its host name if this is none.
    pub own_name: Option<String>,
    /// Where the inviter is, as URLs; as the ticket says if this is empty.
    pub endpoints: Vec<String>,
    /// The addresses of the device; those of the ticket if this is empty.
    pub addresses: Vec<IpNet>,
    /// The MTU of the device.
    pub mtu: Option<u32>,
    /// Whether the default route leads into the tunnel, even if the ticket does not say so.
    pub default_route: bool,
    /// What is routed into the tunnel besides what the ticket says.
    pub routes: Vec<IpNet>,
    /// The servers of names; those of the ticket if this is empty.
    pub dns: Vec<IpAddr>,
}

/// A machine cannot join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The ticket's time is over, by the clock of this machine.
    #[error("the ticket has expired, {} ago by the clock of this machine", humantime::format_duration(*.ago))]
    Expired {
        /// How long ago.
        ago: Duration,
    },
    /// It has joined.
    #[error("this machine has joined with this ticket: {file} has the configuration", file = .file.display())]
    Joined {
        /// The configuration.
        file: PathBuf,
    },
    /// Another tunnel has this name.
    #[error("there is another tunnel {name:?}: {file}", file = .file.display())]
    Taken {
        /// The name.
        name: String,
        /// Its configuration.
        file: PathBuf,
    },
    /// The inviter does not expect packets from this address.
    #[error("the ticket is for {allowed}, not for {asked}")]
    Address {
        /// What the ticket says.
        allowed: String,
        /// What was asked for.
        asked: IpNet,
    },
    /// What was said or the inviter says makes no configuration.
    #[error("make a configuration of what the inviter says")]
    Settings(#[from] ConfigErrors),
    /// The name cannot be one.
    #[error("{name:?} cannot name a tunnel or a peer")]
    Name {
        /// The name.
        name: String,
    },
    /// The inviter does not make this machine a peer.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The files cannot be had.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// There is no directory for them.
    #[error(transparent)]
    State(#[from] StateError),
    /// The private key cannot be read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
}

/// Becomes a peer of who made the ticket; the configuration file, from which the tunnel can be brought up from then on.
///
/// # Errors
///
/// See [`JoinError`].
pub fn join(ticket: &Ticket, wish: &Wish) -> Result<PathBuf, JoinError> {
    let wall = clock::wall();
    if ticket.has_expired(wall) {
        let ago = wall.saturating_sub(Duration::from_secs(ticket.expires));
        return Err(JoinError::Expired { ago: Duration::from_secs(ago.as_secs()) });
    }
    if let Some(name) = wish.own_name.as_ref().filter(|name| !serve::is_name(name)) {
        return Err(JoinError::Name { name: name.clone() });
    }
    let place = Place::of(ticket, wish)?;
    if place.file.exists() {
        return Err(place.occupied(ticket));
    }
    // What would be wrong afterwards is wrong now, while the ticket is still good.
    let settings = with_wishes(&ticket.settings, wish)?;
    let endpoints = if wish.endpoints.is_empty() { &ticket.endpoints } else { &wish.endpoints };
    place.check(&settings, ticket, endpoints)?;
    statedir::create(&place.directory)?;
    let fresh = serve::key(&place.key)?;
    let (private, _) = keyfile::read_private(&KeySource::File(place.key.clone()))?;
    let own = private.public_key();
    let own_name = wish.own_name.clone().or_else(hostname::own);
    let accepted = enrolment::enrol(ticket, endpoints, own, own_name).inspect_err(|error| {
        // Nobody has heard of the key, or will accept it.
        if fresh && !error.may_be_accepted() {
            let _ = fs::remove_file(&place.key);
            // Somebody else's directory stays, and so does one with something in it.
            let _ = wish.directory.is_none().then(|| fs::remove_dir(&place.directory));
        }
    })?;
    let settings = match &accepted.settings {
        Some(settings) => with_wishes(settings, wish)?,
        None => settings,
    };
    let secret = peer_key(ticket, &private);
    place.write(&settings, ticket, &accepted.endpoints, &secret)?;
    Ok(place.file)
}

/// What inviter and joiner share from then on.
fn peer_key(ticket: &Ticket, private: &PrivateKey) -> PresharedKey {
    let shared = ticket.secret.preshared_key();
    Invitation::peer_key(&shared, &ticket.inviter, &private.public_key())
}

/// The settings of a ticket, with what was said on the command line.
fn with_wishes(settings: &Settings, wish: &Wish) -> Result<Settings, JoinError> {
    let mut settings = settings.clone();
    if !wish.addresses.is_empty() {
        let kept = wish.addresses.iter().map(|&asked| kept(asked, &settings.addresses));
        settings.addresses = kept.collect::<Result<_, _>>()?;
    }
    if !wish.dns.is_empty() {
        settings.dns.clone_from(&wish.dns);
    }
    for route in &wish.routes {
        if !settings.routes.contains(route) {
            settings.routes.push(*route);
        }
    }
    settings.default_route |= wish.default_route;
    settings.mtu = wish.mtu.map(proto::InnerMtu).or(settings.mtu);
    Ok(settings)
}

/// The address that is asked for, if it is among those of a ticket, or a ticket has none. One without a network around it
/// gets the ticket's.
fn kept(asked: IpNet, addresses: &[IpNet]) -> Result<IpNet, JoinError> {
    let kept = addresses.iter().find(|kept| kept.addr() == asked.addr());
    match kept {
        Some(kept) if asked.prefix_len() == asked.max_prefix_len() => Ok(*kept),
        None if !addresses.is_empty() => {
            let allowed: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            Err(JoinError::Address { allowed: allowed.join(" and "), asked })
        }
        _ => Ok(asked),
    }
}

/// The files of a tunnel that is joined.
struct Place {
    name: String,
    directory: PathBuf,
    file: PathBuf,
    key: PathBuf,
    secret: PathBuf,
}

impl Place {
    fn of(ticket: &Ticket, wish: &Wish) -> Result<Self, JoinError> {
        let name = wish.name.as_deref().or(ticket.settings.tunnel.as_deref()).unwrap_or(NAME);
        if !serve::is_name(name) {
            return Err(JoinError::Name { name: name.to_owned() });
        }
        let directory = match &wish.directory {
            Some(directory) => directory.clone(),
            None => statedir::directory()?.join(name),
        };
        let file = |extension: &str| directory.join(format!("{name}.{extension}"));
        let (file, key, secret) = (file("toml"), file("key"), file("psk"));
        Ok(Self { name: name.to_owned(), directory, file, key, secret })
    }

    /// Why there is a file already.
    fn occupied(&self, ticket: &Ticket) -> JoinError {
        let private = keyfile::read_private(&KeySource::File(self.key.clone()));
        let secret = keyfile::read_preshared(&KeySource::File(self.secret.clone()));
        let same = match (private, secret) {
            (Ok((private, _)), Ok((secret, _))) => peer_key(ticket, &private) == secret,
            _ => false,
        };
        match same {
            true => JoinError::Joined { file: self.file.clone() },
            false => JoinError::Taken { name: self.name.clone(), file: self.file.clone() },
        }
    }

    /// The configuration that this makes.
    fn check(
        &self,
        settings: &Settings,
        ticket: &Ticket,
        endpoints: &[String],
    ) -> Result<String, JoinError> {
        let text = self.to_toml(settings, ticket, endpoints);
        let file = self.file.display().to_string();
        let origin = Origin::new(&file, &self.name, &self.directory)
            .map_err(|_| JoinError::Name { name: self.name.clone() })?;
        config::parse(&text, &origin)?;
        Ok(text)
    }

    fn write(
        &self,
        settings: &Settings,
        ticket: &Ticket,
        endpoints: &[String],
        secret: &PresharedKey,
    ) -> Result<(), JoinError> {
        let text = self.check(settings, ticket, endpoints)?;
        let key = keyfile::contents(&secret.to_text());
        put(&self.secret, |path| durable::replace(path, &key))?;
        put(&self.file, |path| durable::create(path, text.as_bytes()))?;
        Ok(())
    }

    fn to_toml(&self, settings: &Settings, ticket: &Ticket, endpoints: &[String]) -> String {
        let mut text =
            format!("# Made by \"adit join\"; \"adit up {}.toml\" takes it.\n", self.name);
        text.push_str("\n[device]\n");
        if settings.mode == Mode::Frames {
            push(&mut text, "mode", &quoted("tap"));
        }
        if !settings.addresses.is_empty() {
            push(&mut text, "addresses", &list(&settings.addresses));
        }
        if let Some(mtu) = settings.mtu {
            push(&mut text, "mtu", &mtu.0.to_string());
        }
        text.push_str("\n[local]\n");
        push(&mut text, "private-key-file", &quoted(&format!("{}.key", self.name)));
        let mut network = String::new();
        if settings.default_route {
            push(&mut network, "default-route", "true");
        }
        if !settings.dns.is_empty() {
            push(&mut network, "dns", &list(&settings.dns));
        }
        if !network.is_empty() {
            text.push_str(&format!("\n[network]\n{network}"));
        }
        text.push('\n');
        text.push_str(&self.inviter(settings, ticket, endpoints).to_toml());
        text
    }

    fn inviter(&self, settings: &Settings, ticket: &Ticket, endpoints: &[String]) -> NewPeer {
        NewPeer {
            name: settings.inviter.clone().unwrap_or_else(|| INVITER.to_owned()),
            public_key: Some(ticket.inviter),
            preshared_key_file: Some(format!("{}.psk", self.name)),
            endpoints: endpoints.to_vec(),
            allowed_ips: behind(settings),
            keepalive: Some(KEEPALIVE),
        }
    }
}

/// What the inviter owns: its network with everybody else who has joined, what is behind it, or everything.
fn behind(settings: &Settings) -> Vec<IpNet> {
    if settings.mode == Mode::Frames {
        return Vec::new();
    }
    // An address without a network around it is this machine's alone.
    let networks = settings.addresses.iter().filter(|it| it.prefix_len() < it.max_prefix_len());
    let mut owned: Vec<IpNet> = networks.map(IpNet::trunc).collect();
    owned.extend(settings.inviter_addresses.iter().map(|&address| IpNet::from(address)));
    owned.extend(&settings.routes);
    if settings.default_route {
        let has = |v4| settings.addresses.iter().any(|it| it.addr().is_ipv4() == v4);
        owned.extend(has(true).then(|| IpNet::from(Ipv4Net::default())));
        owned.extend(has(false).then(|| IpNet::from(Ipv6Net::default())));
    }
    // What is within something else says nothing.
    let is_within = |prefix: &IpNet| owned.iter().any(|it| it != prefix && it.contains(prefix));
    let mut kept: Vec<_> = owned.iter().filter(|prefix| !is_within(prefix)).copied().collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}

fn put(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), FilesError> {
    let failed = |source| FilesError::Io { operation: "write", path: path.to_owned(), source };
    write(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use proto::ticket::TicketSecret;

    use super::*;
    use crate::scratch::Scratch;

    fn settings() -> Settings {
        Settings {
            addresses: vec!["192.0.2.2/24".parse().unwrap(), "fd00:7::2/64".parse().unwrap()],
            inviter_addresses: vec!["192.0.2.1".parse().unwrap(), "fd00:7::1".parse().unwrap()],
            inviter: Some("gate".into()),
            ..Settings::default()
        }
    }

    fn ticket(settings: Settings) -> Ticket {
        Ticket {
            inviter: [7; 32].into(),
            secret: TicketSecret::from_bytes([1; 32]),
            expires: u64::MAX,
            endpoints: vec!["udp://198.51.100.2:4740".into()],
            settings,
        }
    }

    fn owned(settings: &Settings) -> Vec<String> {
        behind(settings).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_inviter_owns_its_network_what_is_behind_it_or_everything() {
        let mut settings = settings();
        assert_eq!(owned(&settings), ["192.0.2.0/24", "fd00:7::/64"]);
        settings.routes = vec!["203.0.113.0/24".parse().unwrap()];
        settings.addresses = vec!["10.0.0.2/32".parse().unwrap()];
        settings.inviter_addresses.truncate(1);
        assert_eq!(owned(&settings), ["192.0.2.1/32", "203.0.113.0/24"]);
        settings.default_route = true;
        assert_eq!(owned(&settings), ["0.0.0.0/0"]);
        settings.mode = Mode::Frames;
        assert!(behind(&settings).is_empty());
    }

    #[test]
    fn what_a_ticket_says_becomes_a_literal_file() {
        let scratch = Scratch::new("joined");
        let wish = Wish { directory: Some(scratch.path("dir")), ..Wish::default() };
        let settings =
            Settings { default_route: true, mtu: Some(proto::InnerMtu(1400)), ..settings() };
        let ticket = ticket(settings);
        let place = Place::of(&ticket, &wish).unwrap();
        let text = place.check(&ticket.settings, &ticket, &ticket.endpoints).unwrap();
        let expected = r#"# Made by "adit join"; "adit up join.toml" takes it.

[device]
addresses = ["192.0.2.2/24", "fd00:7::2/64"]
mtu = 1400

[local]
private-key-file = "join.key"

[network]
default-route = true

[[peer]]
name = "gate"
public-key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
preshared-key-file = "join.psk"
endpoints = ["udp://198.51.100.2:4740"]
allowed-ips = ["0.0.0.0/0", "::/0"]
keepalive = "25s"
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn settings_that_make_no_configuration_are_refused_before_anybody_is_asked() {
        let scratch = Scratch::new("nonsense");
        let wish = Wish { directory: Some(scratch.path("dir")), ..Wish::default() };
        let nonsense = [
            Settings { addresses: vec!["224.0.0.1/24".parse().unwrap()], ..settings() },
            Settings { mtu: Some(proto::InnerMtu(5)), ..settings() },
            Settings { default_route: true, addresses: Vec::new(), ..settings() },
        ];
        for settings in nonsense {
            let error = join(&ticket(settings), &wish).unwrap_err();
            assert!(matches!(error, JoinError::Settings(_)), "{error}");
        }
        let expired = Ticket { expires: 5, ..ticket(settings()) };
        assert!(matches!(join(&expired, &wish), Err(JoinError::Expired { .. })));
        let wish = Wish { own_name: Some("a b".into()), ..wish };
        assert!(matches!(join(&ticket(settings()), &wish), Err(JoinError::Name { .. })));
    }

    #[test]
    fn an_address_is_the_tickets_or_nobodys() {
        let with = |settings: Settings, address: &str| {
            let wish = Wish { addresses: vec![address.parse().unwrap()], ..Wish::default() };
            with_wishes(&settings, &wish)
        };
        let other = with(settings(), "192.0.2.2/28").unwrap().addresses;
        assert_eq!(other, ["192.0.2.2/28".parse().unwrap()]);
        let bare = with(settings(), "192.0.2.2/32").unwrap().addresses;
        assert_eq!(bare, ["192.0.2.2/24".parse().unwrap()]);
        assert!(matches!(with(settings(), "192.0.2.3/24"), Err(JoinError::Address { .. })));
        assert!(with(Settings::default(), "192.0.2.3/24").is_ok());
    }
}
