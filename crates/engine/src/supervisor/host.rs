//! What a tunnel changes of the host's network: planned, recorded, applied, and taken back.
//!
//! # Theory of operation
//!
//! [`HostNetwork::fit`] reads what is, plans what differs from what shall be, and for each operation
//! writes its undo to the journal before it applies it. It is called when the tunnel comes up and
//! whenever something has changed that the plan depends on; where nothing differs it does nothing.
//!
//! [`HostNetwork::undo`] goes backwards. What someone else has changed since is left alone, and said.
//! What cannot be taken back stays in the journal, so that `adit down` can try again.
//!
//! The journal of a tunnel that was killed is played back before the next one of that name begins:
//! see [`clean_up`]. Where there is none because the host was booted since, all that is left of a tunnel is
//! `/etc/resolv.conf`, which tells by itself what it was before.
//!
//! A process without `CAP_NET_ADMIN` can change nothing, so it needs no journal. It uses a device that
//! someone has set up for it, and says what it would have changed.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use netlink::journal::{self, Header, Journal, JournalError};
use netlink::plan::{self, ChangeError, Desired, Operation, PlanError, Reverted, Undo};
use netlink::resolver::{self, Recovered};
use netlink::{LinkIndex, Socket as Netlink};
use rustix::thread::CapabilitySet;
use thiserror::Error;

use crate::runtime::{self, RuntimeError};
use crate::with_causes::WithCauses;

/// How long the kernel may take to make the IPv6 addresses of a link serve, and how often it is asked.
const ADDRESS_PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(1));

/// More routes than that are not taken back one by one when the kernel does it at once.
const MANY_ROUTES: usize = 256;

/// The host's network could not be made as it shall be, or as it was.
#[derive(Debug, Error)]
pub enum HostError {
    /// What shall be contradicts itself or what is.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refused a change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The journal cannot be had.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// There is no place for the journal.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Another process has a tunnel of this name up.
    #[error("process {pid} has it up")]
    Running {
        /// The tunnel's name.
        tunnel: String,
        /// The process.
        pid: u32,
    },
}

impl HostError {
    /// Whether privilege is missing.
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::Change(error) if error.is_not_permitted())
    }
}

/// What was done for a tunnel that was killed.
#[derive(Debug)]
pub struct CleanUp {
    /// How many changes were taken back.
    pub reverted: usize,
    /// What someone else has changed since, and was left alone.
    pub left: Vec<Left>,
}

/// A change that was not taken back, because someone else has changed the object since.
#[derive(Debug)]
pub struct Left {
    /// What would have been done.
    pub undo: Undo,
    /// What is there.
    pub found: String,
}

impl std::fmt::Display for Left {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} was changed since to {:?}, and is left alone", self.undo, self.found)
    }
}

/// The host's network, as far as a tunnel has changed it.
pub(crate) struct HostNetwork {
    host: plan::Host,
    journal: Option<Journal>,
    /// What takes the changes back, in the order in which they were made.
    applied: Vec<Undo>,
    /// What was said of refused operations and of others' firewalls, so that it is said once.
    said: Vec<String>,
}

impl HostNetwork {
    /// Plays back what a killed tunnel of that name has left, and begins a journal.
    pub(crate) fn open(name: &str, config: Option<&Path>) -> Result<Self, HostError> {
        let mut host = plan::Host::open()?;
        let journal = match runtime::create_directory() {
            Ok(directory) => Some(begin(&mut host, &directory, name, config)?),
            Err(error) if may_change_network() => return Err(error.into()),
            Err(error) => {
                tracing::debug!(
                    "{error}; nothing of the host can be changed, and no journal is kept"
                );
                None
            }
        };
        Ok(Self { host, journal, applied: Vec::new(), said: Vec::new() })
    }

    /// The socket to ask the kernel with.
    pub(crate) fn netlink(&mut self) -> &mut Netlink {
        self.host.socket()
    }

    /// What would have to be changed, and is not.
    pub(crate) fn plan(&mut self, desired: &Desired) -> Result<Vec<Operation>, HostError> {
        let actual = self.host.read(desired, &self.applied)?;
        Ok(plan::plan(desired, &actual)?)
    }

    /// Makes the host's network as `desired`, and returns what was changed.
    pub(crate) fn fit(&mut self, desired: &Desired) -> Result<Vec<Operation>, HostError> {
        let mut done = Vec::new();
        let actual = self.host.read(desired, &self.applied)?;
        self.hold(actual.due())?;
        for obstacle in plan::obstacles(desired, &actual) {
            self.warn_once(&obstacle);
        }
        let outcome =
            plan::plan(desired, &actual).map_err(HostError::from).and_then(|operations| {
                operations.into_iter().try_for_each(|operation| {
                    if self.apply(desired, &operation)? {
                        done.push(operation);
                    }
                    Ok(())
                })
            });
        self.compact(&done)?;
        outcome?;
        await_addresses(self.host.socket(), desired).map_err(ChangeError::from)?;
        Ok(done)
    }

    /// Takes all changes back, the last one first; says what could not be, and keeps that in the journal.
    ///
    /// If `vanishing` is a device that is about to be closed for good, the kernel removes its routes with it; many
    /// are left to that.
    pub(crate) fn undo(&mut self, vanishing: Option<LinkIndex>) {
        let mut applied = std::mem::take(&mut self.applied);
        let vanishes = |undo: &Undo| matches!(undo, Undo::Route(_)) && undo.link() == vanishing;
        if applied.iter().filter(|undo| vanishes(undo)).count() > MANY_ROUTES {
            applied.retain(|undo| !vanishes(undo));
        }
        let (mut remaining, left) = revert_all(&mut self.host, &applied);
        for left in left {
            tracing::warn!("{left}");
        }
        for (undo, error) in &remaining {
            tracing::warn!("{undo} could not be taken back: {}", WithCauses(error));
        }
        remaining.reverse();
        let remaining: Vec<_> = remaining.into_iter().map(|(undo, _)| undo).collect();
        let Some(journal) = self.journal.take() else { return };
        if let Err(error) = close(journal, &remaining) {
            tracing::warn!("{}", WithCauses(&error));
        }
    }

    /// Whether the operation was applied; it may be refused on a device that someone else has set up.
    fn apply(&mut self, desired: &Desired, operation: &Operation) -> Result<bool, HostError> {
        let undo = operation.undo();
        if let (Some(journal), Some(undo)) = (&mut self.journal, &undo) {
            journal.record(undo)?;
        }
        match self.host.apply(operation) {
            Ok(()) => {
                tracing::debug!("{}", operation.commands().join("; "));
                self.applied.extend(undo);
                Ok(true)
            }
            Err(error) => {
                if let (Some(journal), Some(_)) = (&mut self.journal, &undo) {
                    journal.strike()?;
                }
                self.tolerate(desired, error)
            }
        }
    }

    /// A device that someone prepared for an unprivileged tunnel is used as it is; what could not be
    /// set up is said.
    fn tolerate(&mut self, desired: &Desired, error: ChangeError) -> Result<bool, HostError> {
        if desired.device_made_by_us || !error.is_not_permitted() {
            return Err(error.into());
        }
        self.warn_once(&format_args!(
            "device {} is used as it is: {}",
            desired.device,
            WithCauses(&error)
        ));
        Ok(false)
    }

    fn warn_once(&mut self, what: &dyn std::fmt::Display) {
        let text = what.to_string();
        if !self.said.contains(&text) {
            tracing::warn!("{text}");
            self.said.push(text);
        }
    }

    /// Forgets what died with a link.
    pub(crate) fn forget_link(&mut self, link: LinkIndex) {
        let others = self.applied.iter().filter(|undo| undo.link() != Some(link));
        if let Err(error) = self.hold(others.cloned().collect()) {
            tracing::warn!("{}", WithCauses(&error));
        }
    }

    /// Forgets the undo of what was itself withdrawn.
    fn compact(&mut self, done: &[Operation]) -> Result<(), HostError> {
        let void: Vec<Undo> = done.iter().filter_map(Operation::withdraws).collect();
        let others = self.applied.iter().filter(|undo| !void.contains(undo));
        self.hold(others.cloned().collect())
    }

    /// Has the journal hold these steps and no others.
    fn hold(&mut self, steps: Vec<Undo>) -> Result<(), HostError> {
        if steps == self.applied {
            return Ok(());
        }
        self.applied = steps;
        if let Some(journal) = &mut self.journal {
            journal.rewrite(&self.applied)?;
        }
        Ok(())
    }
}

impl Drop for HostNetwork {
    /// However the supervisor ends while it still can do something, nothing is left.
    fn drop(&mut self) {
        self.undo(None);
    }
}

/// Takes back what a tunnel of that name has left when it was killed or its host went down; `None` if it
/// has left nothing.
///
/// # Errors
///
/// [`HostError::Running`] if the tunnel is up. What could not be taken back stays in the journal.
pub fn clean_up(name: &str) -> Result<Option<CleanUp>, HostError> {
    clean_up_with(&mut plan::Host::open()?, &runtime::directory()?, name)
}

fn clean_up_with(
    host: &mut plan::Host,
    directory: &Path,
    name: &str,
) -> Result<Option<CleanUp>, HostError> {
    let recovered = match Journal::load(directory, name, &runtime::place()?) {
        Ok(Some(recovered)) => recovered,
        Ok(None) => return recover(name),
        Err(JournalError::InUse { .. }) => return Err(running(directory, name)),
        Err(JournalError::OtherBoot { path }) => {
            let recovered = recover(name)?;
            // All else that it would take back ended with that boot.
            fs::remove_file(&path).map_err(|source| JournalError::Io {
                call: "remove",
                path,
                source,
            })?;
            return Ok(recovered);
        }
        Err(error) => return Err(error.into()),
    };
    let journal::Recovered { steps, journal, .. } = recovered;
    let (mut remaining, left) = revert_all(host, &steps);
    let reverted = steps.len() - left.len() - remaining.len();
    remaining.reverse();
    let (undos, mut errors): (Vec<_>, Vec<_>) = remaining.into_iter().unzip();
    close(journal, &undos)?;
    match errors.pop() {
        Some(error) => Err(error.into()),
        None => Ok(Some(CleanUp { reverted, left })),
    }
}

/// Takes back what outlives a boot.
fn recover(name: &str) -> Result<Option<CleanUp>, HostError> {
    if !may_change_network() {
        return Ok(None);
    }
    let recovered = resolver::recover(name).map_err(ChangeError::from)?;
    Ok(recovered.map(|Recovered { device }| {
        tracing::debug!("/etc/resolv.conf was written for device {device} in an earlier boot");
        CleanUp { reverted: 1, left: Vec::new() }
    }))
}

/// Begins the journal of a tunnel, after that of a killed one was played back.
fn begin(
    host: &mut plan::Host,
    directory: &Path,
    name: &str,
    config: Option<&Path>,
) -> Result<Journal, HostError> {
    if let Some(CleanUp { reverted, left }) = clean_up_with(host, directory, name)? {
        tracing::info!(
            "an earlier tunnel {name:?} was killed; of its changes to this host {reverted} are taken back"
        );
        for left in left {
            tracing::warn!("{left}");
        }
    }
    let header = Header {
        pid: std::process::id(),
        config: config.map(Path::to_owned),
        place: runtime::place()?,
    };
    match Journal::create(directory, name, &header) {
        // Another tunnel of that name came first.
        Err(JournalError::Exists { .. } | JournalError::InUse { .. }) => {
            Err(running(directory, name))
        }
        result => Ok(result?),
    }
}

fn running(directory: &Path, name: &str) -> HostError {
    match Journal::holder(directory, name) {
        Ok(holder) => HostError::Running {
            tunnel: name.to_owned(),
            pid: holder.map_or(0, |holder| holder.pid),
        },
        Err(error) => error.into(),
    }
}

/// Removes a journal of which nothing is left to be done, or leaves in it what is.
fn close(mut journal: Journal, remaining: &[Undo]) -> Result<(), JournalError> {
    if remaining.is_empty() { journal.forget_all() } else { journal.rewrite(remaining) }
}

/// Takes back what can be, the last first: what could not be, with the reason, and what was left alone.
fn revert_all(host: &mut plan::Host, steps: &[Undo]) -> (Vec<(Undo, ChangeError)>, Vec<Left>) {
    let (mut remaining, mut left) = (Vec::new(), Vec::new());
    for undo in steps.iter().rev() {
        match host.revert(undo) {
            Ok(Reverted::ChangedSince { found }) => left.push(Left { undo: undo.clone(), found }),
            Ok(_) => {}
            Err(error) => remaining.push((undo.clone(), error)),
        }
    }
    (remaining, left)
}

/// Whether this process may change the host's network at all.
fn may_change_network() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|capabilities| capabilities.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Waits until the IPv6 addresses of the device serve, so that packets for them are not lost.
///
/// The kernel acknowledges an address before that: a work queue makes its local route
/// (`addrconf_dad_work` in net/ipv6/addrconf.c).
fn await_addresses(netlink: &mut Netlink, desired: &Desired) -> Result<(), netlink::Error> {
    let (patience, interval) = ADDRESS_PATIENCE;
    let deadline = Instant::now() + patience;
    let Some(link) = netlink.link(&desired.device)? else { return Ok(()) };
    let present = netlink.addresses()?;
    for (local, _) in desired.addresses.iter().filter(|(local, _)| local.addr().is_ipv6()) {
        let local = local.addr();
        if !present
            .iter()
            .any(|address| address.link == link.index && address.local.addr() == local)
        {
            continue;
        }
        while !is_local(netlink, local) {
            if Instant::now() >= deadline {
                tracing::warn!("device {}: address {local} does not serve yet", desired.device);
                return Ok(());
            }
            thread::sleep(interval);
        }
    }
    Ok(())
}

/// Whether packets for `address` stay on this host.
fn is_local(netlink: &mut Netlink, address: IpAddr) -> bool {
    let link = netlink.route_to(address).ok().and_then(|route| route.link);
    let link = link.and_then(|link: LinkIndex| netlink.link_at(link).ok().flatten());
    link.is_some_and(|link| link.loopback)
}
