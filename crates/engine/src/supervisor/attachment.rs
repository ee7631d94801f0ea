//! The device that a tunnel has at the moment, with the worker that carries its packets.
//!
//! Sockets and peers live as long as the tunnel. A device can vanish and come back, a worker can die. The supervisor keeps
//! the descriptors of the device, so that it stays as it is while one worker follows the other.

use std::io;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use device::{Builder, Device, DeviceName, Observed, OpenError, Presence};
use netlink::Socket as Netlink;
use proto::{InnerMtu, Side};
use rustix::fs::{Mode, OFlags, Stat};
use thiserror::Error;
use transport::udp::UdpSocket;
use wire::offload::Accepts;

use super::carrier::{Carrier, Death, Report, StartError};
use super::keys::Keys;
use super::members::Members;
use super::restart::Restarts;
use crate::channel::message::{FolderSetup, Setup, SocketSetup, ToSupervisor, ToWorker};
use crate::config::{Config, InterfaceAddress};
use crate::invitations::Invitations;
use crate::metrics::Totals;
use crate::with_causes::WithCauses;

/// How long a worker may take to say what it has carried, and to end.
const ANSWER: Duration = Duration::from_secs(2);

/// The device cannot be opened, or its worker cannot be started.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The device cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A folder cannot be opened.
    #[error("open folder {}", .folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The worker cannot be started.
    #[error("start the worker of device {device:?}")]
    Start {
        /// The device's name.
        device: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// What of the tunnel outlives a device.
pub(crate) struct Lasting<'a> {
    pub(crate) config: &'a Config,
    pub(crate) sockets: &'a [UdpSocket],
    pub(crate) folders: &'a [PathBuf],
    pub(crate) peers: &'a Members,
    pub(crate) keys: Option<&'a Keys>,
    pub(crate) invitations: &'a Invitations,
    pub(crate) mtu: InnerMtu,
}

/// An open device and its worker.
pub(crate) struct Attachment {
    device: Device,
    state: State,
    restarts: Restarts,
    /// Which folders the worker has, by the device and inode of each.
    folders: Vec<Identity>,
    /// What workers have carried that are gone.
    past: Totals,
}

/// Device and inode of a folder.
type Identity = (u64, u64);

enum State {
    Carried(Box<Carrier>),
    /// The last worker has died; when the next one starts.
    Waits(Instant),
}

impl Attachment {
    /// Starts a worker for `device`.
    pub(crate) fn start(device: Device, lasting: &Lasting<'_>) -> Result<Self, AttachError> {
        let started = start(&device, lasting, false);
        let (carrier, folders) = started.map_err(|error| AttachError::Start {
            device: device.name().to_string(),
            cause: io::Error::other(error),
        })?;
        tell_confinement(&carrier);
        let (state, restarts) = (State::Carried(Box::new(carrier)), Restarts::default());
        Ok(Self { device, state, restarts, folders, past: Totals::default() })
    }

    /// Whether the tunnel has made the device, rather than attached to it.
    pub(crate) fn created(&self) -> bool {
        self.device.created()
    }

    /// What becomes readable when the worker has something to say.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Carried(carrier) => Some(carrier.as_fd()),
            State::Waits(_) => None,
        }
    }

    /// Whether the worker has said something already.
    pub(crate) fn has_messages(&self) -> bool {
        matches!(&self.state, State::Carried(carrier) if carrier.has_messages())
    }

    /// When [`Self::handle_deadline`] is to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Carried(_) => None,
            State::Waits(until) => Some(until),
        }
    }

    /// What the worker has to say. If it has died, there is another one, now or later.
    pub(crate) fn take(&mut self, lasting: &Lasting<'_>) -> Vec<ToSupervisor> {
        let State::Carried(carrier) = &mut self.state else { return Vec::new() };
        match carrier.take() {
            Ok(messages) => messages,
            Err(death) => {
                self.handle_death(&death, lasting);
                Vec::new()
            }
        }
    }

    /// Starts the next worker when it is time.
    pub(crate) fn handle_deadline(&mut self, now: Instant, lasting: &Lasting<'_>) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match start(&self.device, lasting, true) {
            Ok((carrier, folders)) => {
                self.state = State::Carried(Box::new(carrier));
                self.folders = folders;
            }
            Err(error) => {
                let delay = self.restarts.delay_after(Duration::ZERO);
                self.state = State::Waits(Instant::now() + delay);
                tracing::error!(
                    "device {}: {}; another worker starts in {} ms",
                    self.device.name(),
                    WithCauses(&error),
                    delay.as_millis()
                );
            }
        }
    }

    /// Tells the worker something that the next one will be told anyway.
    pub(crate) fn tell(&mut self, message: &ToWorker) {
        if let State::Carried(carrier) = &mut self.state {
            carrier.tell(message);
        }
    }

    /// What was carried so far, and how it stands with the peers.
    pub(crate) fn report(&mut self) -> Report {
        let mut report = Report::default();
        if let State::Carried(carrier) = &mut self.state {
            let now = carrier.report(Instant::now() + ANSWER);
            report = now.unwrap_or_else(|| Report::of(carrier.totals().clone()));
        }
        report.totals += &self.past;
        report
    }

    /// Whether other folders are at their paths than those that the worker has; none if one is missing.
    pub(crate) fn has_other_folders(&self, lasting: &Lasting<'_>) -> Option<bool> {
        let there = lasting.folders.iter().map(|folder| rustix::fs::stat(folder).ok());
        let there = there.collect::<Option<Vec<_>>>()?;
        Some(there.iter().map(identity).ne(self.folders.iter().copied()))
    }

    /// Replaces the worker by one that is told everything anew.
    pub(crate) fn restart(&mut self, lasting: &Lasting<'_>) {
        let now = Instant::now();
        if let State::Carried(carrier) = std::mem::replace(&mut self.state, State::Waits(now)) {
            self.past += &carrier.stop(now + ANSWER);
        }
        self.handle_deadline(now, lasting);
    }

    /// Ends the worker and closes the device; returns what was carried.
    pub(crate) fn end(self) -> Totals {
        let mut totals = self.past;
        if let State::Carried(carrier) = self.state {
            totals += &carrier.stop(Instant::now() + ANSWER);
        }
        totals
    }

    fn handle_death(&mut self, death: &Death, lasting: &Lasting<'_>) {
        let now = Instant::now();
        let State::Carried(carrier) = &self.state else { return };
        self.past += carrier.totals();
        let delay = self.restarts.delay_after(carrier.life());
        let device = self.device.name();
        if delay.is_zero() {
            tracing::warn!("the worker of device {device} ended ({death}); another one starts");
        } else {
            tracing::warn!(
                "the worker of device {device} ended ({death}); another one starts in {} ms",
                delay.as_millis()
            );
        }
        self.state = State::Waits(now + delay);
        self.handle_deadline(now, lasting);
    }
}

/// Opens the tunnel's device.
pub(crate) fn open(config: &Config, presence: Presence) -> Result<Device, OpenError> {
    let wanted = &config.device;
    let offload = if wanted.offload { device::Offload::ALL } else { device::Offload::NONE };
    let builder = Builder::new(wanted.name.clone(), wanted.mode)
        .queues(NonZeroU16::new(wanted.queues).unwrap_or(NonZeroU16::MIN))
        .multi_queue(is_multi_queue(&wanted.name))
        .presence(presence)
        .observe(observe);
    match builder.clone().vnet_hdr(true).offload(offload).open() {
        // A kernel without virtio-net headers; packets then come and go singly.
        Err(OpenError::KernelRefusedFlags { .. }) => builder.open(),
        result => result,
    }
}

/// What rtnetlink knows of a device, for [`Builder::observe`]; none if it does not answer.
pub fn observe(name: &DeviceName) -> Option<Observed> {
    let tun = Netlink::open().ok()?.link(name.as_str()).ok()??.tun?;
    let queues = tun.queues.saturating_add(tun.disabled_queues);
    Some(Observed { queues, owner: tun.owner, group: tun.group })
}

/// Whether a device that exists already must be opened as a multi-queue device.
fn is_multi_queue(name: &DeviceName) -> bool {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(name.as_str()));
    link.ok().flatten().and_then(|link| link.tun).is_some_and(|tun| tun.multi_queue)
}

/// Starts a worker with everything that it needs.
///
/// `again` says that another one has ended, whose sessions are lost.
fn start(
    device: &Device,
    lasting: &Lasting<'_>,
    again: bool,
) -> Result<(Carrier, Vec<Identity>), StartError> {
    let folders = lasting.folders.iter().map(|folder| open_folder(folder));
    let folders = folders.collect::<Result<Vec<_>, _>>()?;
    let identities = folders.iter().filter_map(|folder| rustix::fs::fstat(folder).ok());
    let identities = identities.map(|stat| identity(&stat)).collect();
    let mut peers = lasting.peers.entries(lasting.config, lasting.keys);
    lasting.invitations.append_to(&mut peers);
    // Who is in a folder is told at once that there is another run.
    let tells = again || !folders.is_empty();
    let setup = Setup {
        mode: device.mode(),
        accepts: accepts(device),
        queues: device.queues().len(),
        sockets: lasting.sockets.iter().map(SocketSetup::of).collect(),
        folders: folder_setups(lasting),
        busy_poll: lasting.config.local.busy_poll,
        mtu: lasting.mtu.0,
        session: lasting.keys.map(|keys| keys.setup(&lasting.config.local, tells)),
        peers,
    };
    let queues = device.queues().iter().map(AsFd::as_fd);
    let sockets = lasting.sockets.iter().map(AsFd::as_fd);
    let folders = folders.iter().map(AsFd::as_fd);
    let descriptors: Vec<_> = queues.chain(sockets).chain(folders).collect();
    Ok((Carrier::start(setup, &descriptors)?, identities))
}

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// How the worker shares the folders. A side without a key is found by whatever addresses it has.
fn folder_setups(lasting: &Lasting<'_>) -> Vec<FolderSetup> {
    let config = lasting.config;
    let side = match lasting.keys {
        Some(keys) => Side::of(&keys.public()),
        None => Side::of_addresses(config.device.addresses.iter().map(InterfaceAddress::ip)),
    };
    let setup = |folder: &PathBuf| FolderSetup {
        name: folder.display().to_string(),
        label: side.label,
        poll_max: config.local.poll_max,
    };
    lasting.folders.iter().map(setup).collect()
}

/// Finds out whether the folders can be opened.
pub(crate) fn check_folders(folders: &[PathBuf]) -> Result<(), AttachError> {
    for folder in folders {
        if let Err(StartError::Folder { folder, cause }) = open_folder(folder) {
            return Err(AttachError::Folder { folder, cause });
        }
    }
    Ok(())
}

/// Opens a folder. It is opened for each worker anew, since another file system may be there by then.
fn open_folder(folder: &Path) -> Result<OwnedFd, StartError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty())
        .map_err(|error| StartError::Folder { folder: folder.to_owned(), cause: error.into() })
}

/// Which super-packets may be written to the device: those that it hands out, too.
fn accepts(device: &Device) -> Accepts {
    let offload = device.offload();
    Accepts { tso4: offload.tso4, tso6: offload.tso6, uso: offload.uso4 && offload.uso6 }
}

/// Says what keeps a worker less apart than it could be.
fn tell_confinement(carrier: &Carrier) {
    let confinement = carrier.confinement();
    if let Some(why) = &confinement.still_root {
        tracing::warn!("the worker faces the network as root, since it cannot change: {why}");
    }
    for missing in &confinement.missing {
        tracing::debug!("the worker is not confined by {missing}");
    }
}
