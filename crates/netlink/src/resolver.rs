//! Who answers names on this host, and how the servers of a tunnel come to do so.
//!
//! # Theory of operation
//!
//! [`observe`] finds out who answers names: *systemd-resolved*, if `/etc/resolv.conf` leads to it and it
//! is on the system bus, else the servers in the *file* `/etc/resolv.conf`. [`plan`] says what has to
//! change so that the servers of [`Names`] answer everything; it is pure, and nothing is to be done a
//! second time. [`Change::undo`] is plain data, to be kept in a journal before [`Change::apply`].
//!
//! | | systemd-resolved | file |
//! |---|---|---|
//! | change | servers, search domains and `~.` of the tunnel's link | another file in its place |
//! | ends with the device | yes | no |
//! | is ours if | the link has the servers that we wrote | it is what we wrote, or torn |
//!
//! [`revert`] takes back only what is ours. While a file that is a mount point is changed, a crash leaves
//! parts of what was written and of what was there before; those are ours, too.
//!
//! # After a reboot
//!
//! The file outlives a reboot, which the device, the service's settings and a journal in `/run` do not. It
//! therefore ends with a *record*, comment lines that say for which tunnel and in which boot it was
//! written, and what was there before (the file `record.rs` says why there and not beside it). Whoever has no
//! journal goes by the record:
//!
//! - [`recover`] brings the former file back, if the file is of an earlier boot and of that tunnel. In the
//!   boot that it was written in, its run may not have ended: the journal is perhaps elsewhere.
//! - [`plan`], for a tunnel that has not [applied](Tunnel::applied) a change, takes the record for what
//!   was there before, and not the file. So the next undo brings back what no tunnel wrote.
//! - A file of another tunnel is refused. To undo what that one did is left to its name.
//!
//! A file that someone has edited since is theirs, whatever its last lines say. So is one that another
//! program wrote: the record is gone with the file that it belonged to, and there is nothing left to do.
//!
//! # Limits
//!
//! Two tunnels cannot both have the file. Access lists and other extended attributes of
//! a file are not kept. Where a link of systemd-resolved had neither servers nor domains before, *all* its
//! settings are reset, since the service cannot unset one alone. If the service is gone when a change
//! is to be taken back, so are its settings for now, and nothing is done.
//!
//! A container that is started anew in one boot of its host, and has lost its journal, is not recovered by
//! [`recover`], but its next tunnel of that name takes over. A journal in a directory that outlives the
//! boot makes no difference: it is not used, and the record is.

mod bus;
mod conf;
mod file;
mod former;
mod record;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::LinkIndex;
use crate::plan::{Device, Reverted};

pub use self::bus::{CALL_TIMEOUT, Domain, Server, Settings};
pub use self::file::Found;
pub use self::former::{Former, Octets};

use self::bus::Resolved;
use self::conf::{Conf, SERVERS_MOST};
use self::record::{Kept, Record, State};

const PATH: &str = "/etc/resolv.conf";

/// Where systemd-resolved keeps the files that `/etc/resolv.conf` may lead to.
const RESOLVED_DIRECTORY: &str = "/run/systemd/resolve";

/// Where systemd-resolved listens (systemd-resolved.service(8)).
const RESOLVED_STUBS: [[u8; 4]; 2] = [[127, 0, 0, 53], [127, 0, 0, 54]];

/// Who shall answer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The servers, which are asked for everything; the first one first.
    pub servers: Vec<IpAddr>,
    /// The domains that complete short names.
    pub domains: Vec<String>,
}

/// The tunnel that a plan is for.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel<'a> {
    /// Its name, by which `adit down` knows it.
    pub name: &'a str,
    /// Its device. One that has yet to be made has number 0; its plan is to be shown and not applied.
    pub device: &'a Device,
    /// Whether its journal has a change of the file that was applied and not taken back.
    pub applied: bool,
}

/// Who answers names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// systemd-resolved, with what it knows of the link.
    Resolved(Settings),
    /// The servers that the file names.
    File(Found),
}

/// What has to be done so that the servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    device: Device,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Resolved { from: Settings, to: Settings },
    File { path: PathBuf, from: Former, before: Former, to: String },
}

/// What takes a [`Change`] back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Undo {
    /// Gives a link of systemd-resolved its earlier settings.
    Resolved {
        /// The link.
        device: Device,
        /// What the change wrote.
        wrote: Settings,
        /// What was there before.
        before: Settings,
    },
    /// Puts the former `/etc/resolv.conf` back.
    File {
        /// What the change wrote.
        wrote: String,
        /// What was there before.
        before: Former,
    },
}

/// A file of an earlier boot that was brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The device that the tunnel had.
    pub device: String,
}

/// The names cannot be had; nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// There is nobody to ask.
    #[error("no name server is given")]
    NoServers,
    /// The C library asks the first few servers of the file only (`MAXNS` in resolv.h).
    #[error("{count} name servers are more than the {SERVERS_MOST} that are used of {PATH}")]
    TooManyServers {
        /// How many are given.
        count: usize,
    },
    /// This is no domain.
    #[error(
        "search domain {domain:?} is not made of letters, digits, dots, hyphens and underscores"
    )]
    Domain {
        /// What was given.
        domain: String,
    },
    /// The file is in the hands of another tunnel, or was left behind by one.
    #[error(
        "{path} was written for tunnel {tunnel:?} of device {device:?}", path = .path.display()
    )]
    OtherTunnel {
        /// The file.
        path: PathBuf,
        /// The tunnel that it was written for.
        tunnel: String,
        /// That tunnel's device.
        device: String,
    },
    /// The file cannot name this tunnel or its device.
    #[error("{word:?} has blanks or is empty, and cannot be noted in {PATH}")]
    Blank {
        /// The name.
        word: String,
    },
    /// The file is too large to be kept in the one that takes its place.
    #[error("{path} has more than 64 KiB", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// The resolver could not be asked or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolverError {
    /// The file could not be read.
    #[error("read {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file could not be replaced.
    #[error("write {path}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is something else than a regular file, or a link to it.
    #[error("{path} is not a regular file", path = .path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than any that was written here.
    #[error("{path} has more than 256 KiB", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file was changed between plan and application.
    #[error("{path} has changed since it was looked at", path = .path.display())]
    ChangedMeanwhile {
        /// The file.
        path: PathBuf,
    },
    /// The bus or systemd-resolved refused.
    #[error("systemd-resolved: {operation}")]
    Bus {
        /// What was asked.
        operation: &'static str,
        /// What the bus or the service said.
        source: Box<zbus::Error>,
    },
    /// The bus or systemd-resolved did not answer within [`CALL_TIMEOUT`].
    #[error("systemd-resolved: {operation}: no answer within {} s", CALL_TIMEOUT.as_secs())]
    TimedOut {
        /// What was asked.
        operation: &'static str,
    },
    /// The system bus is not on a UNIX socket.
    #[error("the system bus is at {address}, which is not a UNIX socket")]
    BusAddress {
        /// Its address.
        address: String,
    },
    /// systemd-resolved has left the bus between plan and application.
    #[error("systemd-resolved has left the system bus")]
    Gone,
    /// systemd-resolved knows the links of another network namespace.
    #[error("systemd-resolved is in another network namespace")]
    OtherNamespace,
}

/// Finds out who answers names; `link` is the tunnel's, if it is there.
///
/// # Errors
///
/// Besides those of the file and the bus, [`ResolverError::OtherNamespace`] where neither could be
/// changed without changing another namespace.
pub fn observe(link: Option<LinkIndex>) -> Result<Resolver, ResolverError> {
    observe_at(Path::new(PATH), link)
}

fn observe_at(path: &Path, link: Option<LinkIndex>) -> Result<Resolver, ResolverError> {
    let found = file::read(path)?;
    if !leads_to_resolved(&found) {
        return Ok(Resolver::File(found));
    }
    let Some(resolved) = Resolved::find()? else {
        return Ok(Resolver::File(found));
    };
    let settings = link.map_or(Ok(None), |link| resolved.settings(link))?;
    Ok(Resolver::Resolved(settings.unwrap_or_default()))
}

/// The servers that a resolver asks whose file (resolv.conf(5)) holds `contents`: at most three, in that order.
pub fn servers(contents: &[u8]) -> Vec<IpAddr> {
    let mut servers = Conf::parse(contents).servers;
    servers.truncate(SERVERS_MOST);
    servers
}

fn leads_to_resolved(found: &Found) -> bool {
    let there = found.leads_to.as_ref().is_some_and(|end| end.starts_with(RESOLVED_DIRECTORY));
    let servers = Conf::parse(&found.contents).servers;
    there || matches!(servers[..], [IpAddr::V4(stub)] if RESOLVED_STUBS.contains(&stub.octets()))
}

/// Finds out what has to change; nothing if it is so already and the tunnel can undo it.
///
/// # Errors
///
/// A [`NamesError`] if the resolver cannot do what is asked.
pub fn plan(
    names: &Names,
    tunnel: Tunnel<'_>,
    resolver: &Resolver,
) -> Result<Option<Change>, NamesError> {
    let names = checked(names)?;
    let step = match resolver {
        Resolver::Resolved(from) => resolved_step(&names, from),
        Resolver::File(found) => file_step(&names, tunnel, found)?,
    };
    Ok(step.map(|step| Change { device: tunnel.device.clone(), step }))
}

fn checked(names: &Names) -> Result<Names, NamesError> {
    if names.servers.is_empty() {
        return Err(NamesError::NoServers);
    }
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    let domains = names.domains.iter().map(|domain| {
        let bare = domain.strip_suffix('.').unwrap_or(domain);
        let good = !bare.is_empty() && bare.bytes().all(allowed);
        if good { Ok(bare.to_owned()) } else { Err(NamesError::Domain { domain: domain.clone() }) }
    });
    Ok(Names { servers: names.servers.clone(), domains: domains.collect::<Result<_, _>>()? })
}

fn resolved_step(names: &Names, from: &Settings) -> Option<Step> {
    let servers = names.servers.iter();
    let everything = Domain { name: ".".to_owned(), route_only: true };
    let search = names.domains.iter().map(|name| Domain { name: name.clone(), route_only: false });
    let to = Settings {
        servers: servers.map(|&address| Server { address, port: 0, name: String::new() }).collect(),
        domains: [everything].into_iter().chain(search).collect(),
        default_route: true,
    };
    (to != *from).then(|| Step::Resolved { from: from.clone(), to })
}

fn file_step(names: &Names, tunnel: Tunnel<'_>, found: &Found) -> Result<Option<Step>, NamesError> {
    let count = names.servers.len();
    if count > SERVERS_MOST {
        return Err(NamesError::TooManyServers { count });
    }
    let Tunnel { name, device, applied } = tunnel;
    for word in [name, &device.name] {
        if word.is_empty()
            || word.contains(|letter: char| letter.is_whitespace() || letter.is_control())
        {
            return Err(NamesError::Blank { word: word.to_owned() });
        }
    }
    let before = before(tunnel, found)?;
    let options = match &before {
        Former::File { contents, .. } => Conf::parse(&contents.0).options,
        // The file that is there has those of the one that the link leads to.
        _ => Conf::parse(&found.contents).options,
    };
    let owner = (name, device.name.as_str());
    let body = conf::emit(names, owner, &options);
    let to = Record::new(owner, &found.boot, &body, before.clone());
    let to = body + &to.emit();
    let stands = found.itself().is_some_and(|contents| contents == to.as_bytes());
    let step = || Step::File { path: found.path.clone(), from: found.former.clone(), before, to };
    Ok((!(stands && applied)).then(step))
}

/// What no tunnel wrote: what is there, or what was there before it.
fn before(tunnel: Tunnel<'_>, found: &Found) -> Result<Former, NamesError> {
    if let Some(Record { tunnel: name, device, former, .. }) = found.ours().map(|kept| kept.record)
    {
        if name != tunnel.name {
            return Err(NamesError::OtherTunnel { path: found.path.clone(), tunnel: name, device });
        }
        if tunnel.applied || found.is_trusted() {
            return Ok(former);
        }
    }
    if found.itself().is_some_and(|contents| contents.len() > file::FORMER_LIMIT) {
        return Err(NamesError::TooLarge { path: found.path.clone() });
    }
    Ok(found.former.clone())
}

impl Found {
    /// What is in the file, if there is one itself and not a link to it.
    fn itself(&self) -> Option<&[u8]> {
        if let Former::File { contents, .. } = &self.former { Some(&contents.0) } else { None }
    }

    /// The record of a file that was written here, and that nobody has edited since.
    fn ours(&self) -> Option<Kept> {
        Record::find(self.itself()?).filter(|kept| kept.state != State::Edited)
    }

    /// Whether nobody else than root and the caller could have written the file.
    fn is_trusted(&self) -> bool {
        let caller = rustix::process::geteuid().as_raw();
        match self.former {
            Former::File { mode, owner, .. } => mode & 0o022 == 0 && [0, caller].contains(&owner),
            _ => false,
        }
    }
}

impl Change {
    /// What a person would type to the same effect.
    pub fn commands(&self) -> Vec<String> {
        match &self.step {
            Step::Resolved { to, .. } => {
                let device = quoted(&self.device.name);
                let servers: Vec<_> =
                    to.servers.iter().map(|server| server.address.to_string()).collect();
                let domains: Vec<_> = to.domains.iter().map(domain_word).collect();
                vec![
                    format!("resolvectl dns {device} {}", servers.join(" ")),
                    format!("resolvectl domain {device} {}", domains.join(" ")),
                    format!("resolvectl default-route {device} yes"),
                ]
            }
            Step::File { path, from, to, .. } => {
                let lines = to.lines().filter(|line| !line.starts_with('#'));
                let lines: Vec<_> = lines.map(quoted).collect();
                let path = path.display();
                let print = format!(r"printf '%s\n' {} > {path}", lines.join(" "));
                let link = matches!(from, Former::Symlink { .. });
                link.then(|| format!("rm {path}")).into_iter().chain([print]).collect()
            }
        }
    }

    /// What it is good for, in one line.
    pub fn why(&self) -> String {
        format!("names are asked of the servers behind {}", self.device)
    }

    /// What takes it back.
    pub fn undo(&self) -> Undo {
        match &self.step {
            Step::Resolved { from, to } => Undo::Resolved {
                device: self.device.clone(),
                wrote: to.clone(),
                before: from.clone(),
            },
            Step::File { before, to, .. } => {
                Undo::File { wrote: to.clone(), before: before.clone() }
            }
        }
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// What was begun is taken back by the undo.
    pub fn apply(&self) -> Result<(), ResolverError> {
        match &self.step {
            Step::Resolved { to, .. } => match Resolved::find()? {
                Some(resolved) => resolved.set(self.device.index(), to),
                None => Err(ResolverError::Gone),
            },
            Step::File { path, from, to, .. } => {
                if file::read(path)?.former != *from {
                    return Err(ResolverError::ChangedMeanwhile { path: path.clone() });
                }
                file::replace(path, to.as_bytes(), from, &record::spare(to.as_bytes()))
            }
        }
    }
}

/// Takes a change back, if what it wrote is still there.
pub fn revert(undo: &Undo) -> Result<Reverted, ResolverError> {
    match undo {
        Undo::Resolved { device, wrote, before } => revert_resolved(device, wrote, before),
        Undo::File { wrote, before } => revert_file(Path::new(PATH), wrote, before),
    }
}

fn revert_resolved(
    device: &Device,
    wrote: &Settings,
    before: &Settings,
) -> Result<Reverted, ResolverError> {
    let Some(resolved) = Resolved::find()? else { return Ok(Reverted::NotThere) };
    let Some(found) = resolved.settings(device.index())? else { return Ok(Reverted::NotThere) };
    let verdict = judge_settings(wrote, before, &found);
    if verdict == Reverted::Done {
        match before.is_bare() {
            true => resolved.revert(device.index())?,
            false => resolved.set(device.index(), before)?,
        }
    }
    Ok(verdict)
}

fn revert_file(path: &Path, wrote: &str, before: &Former) -> Result<Reverted, ResolverError> {
    let verdict = judge_file(wrote, before, &file::read(path)?);
    if verdict == Reverted::Done {
        file::restore(path, before, &record::spare(wrote.as_bytes()))?;
    }
    Ok(verdict)
}

/// Brings the file back that a tunnel replaced in an earlier boot and left replaced; `None` if it has not.
///
/// Asks nobody but the file, and leaves one alone that was written during this boot.
///
/// # Errors
///
/// [`ResolverError::Read`] and [`ResolverError::Write`].
pub fn recover(tunnel: &str) -> Result<Option<Recovered>, ResolverError> {
    recover_at(Path::new(PATH), tunnel)
}

fn recover_at(path: &Path, tunnel: &str) -> Result<Option<Recovered>, ResolverError> {
    let found = match file::read(path) {
        // Nothing of the kind is written here.
        Err(ResolverError::NotRegular { .. } | ResolverError::TooLarge { .. }) => return Ok(None),
        result => result?,
    };
    let Some(Kept { record, spare, .. }) = found.ours().filter(|_| found.is_trusted()) else {
        return Ok(None);
    };
    if record.tunnel != tunnel || record.boot == found.boot {
        return Ok(None);
    }
    file::restore(path, &record.former, &spare)?;
    Ok(Some(Recovered { device: record.device }))
}

fn judge_settings(wrote: &Settings, before: &Settings, found: &Settings) -> Reverted {
    if found == before {
        Reverted::NotThere
    } else if found.servers == wrote.servers {
        Reverted::Done
    } else if found.is_bare() {
        Reverted::NotThere
    } else {
        let servers: Vec<_> =
            found.servers.iter().map(|server| server.address.to_string()).collect();
        Reverted::ChangedSince { found: format!("name servers {}", servers.join(" ")) }
    }
}

fn judge_file(wrote: &str, before: &Former, found: &Found) -> Reverted {
    let changed = |how| Reverted::ChangedSince { found: format!("{} {how}", found.path.display()) };
    match (&found.former, before) {
        (Former::File { contents, .. }, Former::File { contents: earlier, .. })
            if contents == earlier =>
        {
            Reverted::NotThere
        }
        (Former::File { .. }, earlier) if is_ours(found, wrote, earlier) => Reverted::Done,
        (now, earlier) if now == earlier => Reverted::NotThere,
        (Former::File { .. }, _) => changed("edited"),
        (Former::Symlink { .. }, _) => changed("made a symbolic link"),
        (Former::Missing, _) => changed("removed"),
    }
}

/// Whether this is what was written, or what a crash left of that or of the former contents; or what an
/// earlier run of the tunnel wrote, if the crash came before this one did.
fn is_ours(found: &Found, wrote: &str, before: &Former) -> bool {
    let (Some(contents), wrote) = (found.itself(), wrote.as_bytes()) else { return false };
    let of_same = |earlier: Kept| {
        Record::find(wrote).is_some_and(|ours| {
            (ours.record.tunnel, ours.record.former)
                == (earlier.record.tunnel, earlier.record.former)
        })
    };
    let torn = match before {
        Former::File { contents: former, .. } => {
            file::is_torn(contents, wrote, &former.0, &record::spare(wrote))
        }
        // Only a file can be a mount point that has to be written in place.
        _ => wrote.starts_with(contents),
    };
    torn || found.ours().is_some_and(of_same)
}

impl Settings {
    /// Whether a link without any settings has the same servers and domains: none.
    fn is_bare(&self) -> bool {
        self.servers.is_empty() && self.domains.is_empty()
    }
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolved { device, .. } => write!(f, "name servers of {device}"),
            Self::File { .. } => f.write_str(PATH),
        }
    }
}

/// As resolvectl(1) takes it: a tilde marks a domain that completes no names.
fn domain_word(domain: &Domain) -> String {
    let tilde = if domain.route_only { "~" } else { "" };
    quoted(&format!("{tilde}{}", domain.name))
}

/// As a word for a shell.
fn quoted(text: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.:/".contains(&octet);
    if text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
