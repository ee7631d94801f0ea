//! The supervisor: the process that has the privilege, and carries no packet.
//!
//! # Theory of operation
//!
//! The supervisor opens sockets and device, makes the host's network fit (`host`), and starts a
//! worker process that carries the packets ([`crate::worker`]); it hands its descriptors over and keeps
//! them, so that a worker that dies is replaced without the device's notice. Then it waits:
//!
//! | event | what happens |
//! |---|---|
//! | SIGINT, SIGTERM | changes of the host are undone, the worker ends, the device closes |
//! | SIGHUP, or somebody asks | peers are as the configuration says by then (`requests`) |
//! | SIGUSR1 | what was carried and dropped is said |
//! | the worker dies | another takes its place, at once the first time, later after growing intervals |
//! | the device is deleted | the worker ends; the device is opened again, at growing intervals, until that works |
//! | the device goes down, or up | it is said; up again, what the kernel threw away is made again |
//! | links, addresses or routes change | the plan is made anew: endpoints keep the way that they have by then |
//! | a first sender, a peer or an endpoint elsewhere | the inner MTU and the kept ways follow |
//!
//! Everything that has to be done later has its instant in `Due`, and the loop never waits
//! anywhere else. Order at the start: journal, sockets, device, worker, host. So nothing is
//! redirected before packets are carried, and what is wrong is found before anything is changed.

mod attachment;
mod candidates;
mod carrier;
mod desired;
mod enrol;
mod fit;
mod host;
mod invite;
mod keys;
mod members;
mod names;
mod place;
mod preview;
mod requests;
mod restart;
mod said;
mod serve;
mod underlay;
mod wait;
mod whereabouts;

use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use device::{Mode, OpenError, Presence};
use netlink::plan::PlanError;
use netlink::{Group, LinkIndex, Monitor};
use proto::mtu::Encapsulation;
use proto::{InnerMtu, PeerIndex};
use thiserror::Error;
use transport::udp::UdpSocket;

use crate::channel::message::{Ending, ToSupervisor, ToWorker};
use crate::config::{Config, Security};
use crate::control::ControlSockets;
use crate::invitations::Invitations;
use crate::keyfile::KeyFileError;
use crate::metrics::Totals;
use crate::signal::{Request, Signals};
use crate::with_causes::WithCauses;

pub use self::attachment::{AttachError, observe};
pub use self::host::{CleanUp, HostError, Left, clean_up};
pub use self::preview::{Preview, Step, preview};
pub use self::serve::serve;
pub use self::underlay::UnderlayError;

use self::attachment::{Attachment, Lasting};
use self::candidates::Candidates;
use self::fit::SETTLE;
use self::host::HostNetwork;
use self::keys::Keys;
use self::members::Members;
use self::names::Names;
use self::wait::{Due, Event};

/// How long to wait before a vanished device is opened again, at first and at most.
const REOPEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often it is looked whether a folder that is gone is there again.
const LOOK_AT_FOLDERS: Duration = Duration::from_secs(1);

/// What of the network is followed.
const FOLLOWED: [Group; 5] =
    [Group::Link, Group::Ipv4Address, Group::Ipv6Address, Group::Ipv4Route, Group::Ipv6Route];

/// A tunnel cannot be brought up, or could not go on.
#[derive(Debug, Error)]
pub enum TunnelError {
    /// The network below is not as the configuration needs it.
    #[error("tunnel {tunnel:?}")]
    Underlay {
        /// The tunnel's name.
        tunnel: String,
        /// What is wrong.
        #[source]
        cause: UnderlayError,
    },
    /// The device cannot be had, or nobody to carry its packets.
    #[error("tunnel {tunnel:?}")]
    Attach {
        /// The tunnel's name.
        tunnel: String,
        /// Why.
        #[source]
        cause: AttachError,
    },
    /// The host's network cannot be set up.
    #[error("tunnel {tunnel:?}")]
    Host {
        /// The tunnel's name.
        tunnel: String,
        /// What is refused.
        #[source]
        cause: HostError,
    },
    /// There is no key.
    #[error("tunnel {tunnel:?}")]
    Key {
        /// The tunnel's name.
        tunnel: String,
        /// Why.
        #[source]
        cause: KeyFileError,
    },
    /// The kernel cannot be asked about the network.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Waiting failed.
    #[error("wait for events")]
    Wait(#[source] io::Error),
}

/// Brings the tunnel of `config`, which was read from `file`, up, and keeps it until a signal asks to
/// stop.
///
/// # Errors
///
/// When it cannot be brought up; everything that was changed until then is undone.
pub fn up(config: Config, file: &FilePath, signals: &mut Signals) -> Result<(), TunnelError> {
    let mut supervisor = Supervisor::new(config, file)?;
    let outcome = match supervisor.start() {
        Ok(()) => {
            supervisor.announce();
            supervisor.run(signals)
        }
        Err(error) => {
            supervisor.undo();
            return Err(error);
        }
    };
    supervisor.undo();
    supervisor.report("is down");
    outcome
}

struct Supervisor {
    config: Config,
    /// Where the configuration was read.
    file: PathBuf,
    /// Where questions come in; none if that was not to be had.
    control: Option<ControlSockets>,
    host: HostNetwork,
    monitor: Monitor,
    sockets: Vec<UdpSocket>,
    /// The folders that it shares with peers.
    folders: Vec<PathBuf>,
    peers: Members,
    candidates: Candidates,
    keys: Option<Keys>,
    invitations: Invitations,
    /// The largest inner packet, as the worker was told.
    mtu: InnerMtu,
    /// None until there is a name.
    names: Option<Names>,
    attachment: Option<Attachment>,
    /// The device's index, which no other device gets while this one lives.
    link: Option<LinkIndex>,
    /// Whether the device was up when it was last looked at.
    device_up: bool,
    due: Due,
    /// What was carried over devices that are gone.
    past: Totals,
    since: Instant,
    /// The last complaint about the host's network, which is not repeated.
    complaint: Option<String>,
}

impl Supervisor {
    /// Plays back what a killed tunnel has left, opens the sockets and finds the peers.
    fn new(config: Config, file: &FilePath) -> Result<Self, TunnelError> {
        let tunnel = || config.name.clone();
        let keys =
            Keys::read(&config).map_err(|cause| TunnelError::Key { tunnel: tunnel(), cause })?;
        // Whoever reads the journal may be in another directory.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let host = HostNetwork::open(&config.name, Some(&file))
            .map_err(|cause| TunnelError::Host { tunnel: tunnel(), cause })?;
        // Join first, then look: what changes in between is then told.
        let monitor = Monitor::open(&FOLLOWED)?;
        let (sockets, peers) = underlay::open(&config)
            .map_err(|cause| TunnelError::Underlay { tunnel: tunnel(), cause })?;
        let invitations = enrol::invitations(&config, &file, keys.as_ref());
        let mut supervisor = Self {
            control: requests::open_control(&config),
            folders: place::folders(&config),
            config,
            file,
            host,
            monitor,
            sockets,
            peers,
            candidates: Candidates::default(),
            keys,
            invitations,
            mtu: InnerMtu::SMALLEST_IPV6,
            names: None,
            attachment: None,
            link: None,
            device_up: false,
            due: Due::default(),
            past: Totals::default(),
            since: Instant::now(),
            complaint: None,
        };
        let chosen = supervisor.peers.places();
        supervisor.watch_names(&chosen);
        Ok(supervisor)
    }

    /// What of the tunnel outlives a device.
    fn lasting(&self) -> Lasting<'_> {
        let Self { config, sockets, folders, peers, keys, invitations, mtu, .. } = self;
        let keys = keys.as_ref();
        Lasting { config, sockets, folders, peers, keys, invitations, mtu: *mtu }
    }

    /// Does something with the device that there is, knowing what outlives it.
    fn with_attachment<T>(
        &mut self,
        work: impl FnOnce(&mut Attachment, &Lasting<'_>) -> T,
    ) -> Option<T> {
        let Self { config, sockets, folders, peers, keys, invitations, mtu, attachment, .. } = self;
        let keys = keys.as_ref();
        let lasting = Lasting { config, sockets, folders, peers, keys, invitations, mtu: *mtu };
        attachment.as_mut().map(|attachment| work(attachment, &lasting))
    }

    /// Brings everything up for the first time.
    fn start(&mut self) -> Result<(), TunnelError> {
        self.check()?;
        self.attach(Presence::Either, false)
    }

    /// Opens the device, starts the worker, and makes the host's network fit; `again` if the device was
    /// there before.
    fn attach(&mut self, presence: Presence, again: bool) -> Result<(), TunnelError> {
        let tunnel = self.config.name.clone();
        let device = attachment::open(&self.config, presence)
            .map_err(|cause| TunnelError::Attach { tunnel: tunnel.clone(), cause: cause.into() })?;
        tracing::debug!("device {} has {:?}", device.name(), device.offload());
        let made_by_us = device.created();
        self.mtu = self.inner_mtu()?;
        // The worker first: from the moment that a route leads to the device, packets are carried.
        let attachment = Attachment::start(device, &self.lasting());
        self.attachment = Some(attachment.map_err(|cause| TunnelError::Attach { tunnel, cause })?);
        if made_by_us && self.config.device.mode == Mode::Tun {
            self.shape()?;
        }
        let desired = self.desired(again)?;
        self.fit_to(&desired)?;
        // What is told so far is how the device came up.
        while !self.monitor.changes()?.is_empty() {}
        let link = self.host.netlink().link(self.config.device.name.as_str())?;
        self.device_up = link.as_ref().is_some_and(|link| link.up);
        self.link = link.map(|link| link.index);
        // Among it may have been something that the plan depends on.
        self.settle();
        Ok(())
    }

    /// Keeps a TUN device from sending router solicitations of its own. Without that the tunnel works too,
    /// so a refusal is no error.
    fn shape(&mut self) -> Result<(), TunnelError> {
        let netlink = self.host.netlink();
        if let Some(link) = netlink.link(self.config.device.name.as_str())?
            && let Err(error) = netlink.set_addr_gen_mode_none(link.index)
        {
            tracing::debug!("{error}");
        }
        Ok(())
    }

    /// Finds what is wrong with the plan before anything is changed.
    fn check(&mut self) -> Result<(), TunnelError> {
        let refused = |cause| TunnelError::Attach { tunnel: self.config.name.clone(), cause };
        attachment::check_folders(&self.folders).map_err(refused)?;
        let desired = self.desired(false)?;
        match self.host.plan(&desired) {
            // Opening the device tells more about that, and changes nothing either.
            Ok(_) | Err(HostError::Plan(PlanError::NotTunnel { .. })) => Ok(()),
            Err(cause) => Err(TunnelError::Host { tunnel: self.config.name.clone(), cause }),
        }
    }

    /// Reacts to what happens until a signal asks to stop.
    fn run(&mut self, signals: &mut Signals) -> Result<(), TunnelError> {
        loop {
            match self.wait(signals)? {
                Event::Signal(Request::Stop) => return Ok(()),
                Event::Signal(Request::Report) => self.report("so far"),
                Event::Signal(Request::Reload) => self.handle_reload(),
                Event::Asked => self.handle_control(),
                Event::Changes(changes) => self.handle_changes(&changes),
                Event::Worker => self.handle_worker(),
                Event::Found(found) => self.handle_found(found),
                Event::Deadline => {}
            }
            self.handle_due();
        }
    }

    /// Tells the worker something that the next one will be told anyway.
    fn tell(&mut self, message: &ToWorker) {
        if let Some(attachment) = &mut self.attachment {
            attachment.tell(message);
        }
    }

    /// Listens to the worker.
    fn handle_worker(&mut self) {
        let messages = self.with_attachment(Attachment::take).unwrap_or_default();
        let mut learned = false;
        for message in messages {
            match message {
                ToSupervisor::PathLearned { peer, path } => {
                    let is_first =
                        self.peers.peer(PeerIndex(peer)).is_some_and(|peer| peer.path.is_none());
                    learned |= is_first && self.learn(PeerIndex(peer), path.into());
                }
                ToSupervisor::Roamed(roamed) => learned |= self.handle_roamed(&roamed),
                ToSupervisor::Unanswered(peers) => learned |= self.handle_unanswered(&peers),
                ToSupervisor::FolderGone => self.due.folders = Some(Instant::now()),
                ToSupervisor::Enrols(entries) => self.handle_enrols(entries),
                ToSupervisor::Ended(Ending::DeviceGone) => return self.lose_device(),
                ToSupervisor::Ended(Ending::Failed { text }) => {
                    tracing::error!("device {}: {text}", self.config.device.name);
                }
                ToSupervisor::Confined(_)
                | ToSupervisor::Started
                | ToSupervisor::Sessions(_)
                | ToSupervisor::Handshakes(_)
                | ToSupervisor::Folders(_)
                | ToSupervisor::Traffic(_) => {}
            }
        }
        // The first one at once; many are a crowd like any other.
        match self.due.fitted {
            _ if !learned => {}
            Some(fitted) if fitted.elapsed() < SETTLE.1 => self.settle(),
            _ => self.fit(),
        }
    }

    /// Gives the worker the folders that are there, if they are others than it has.
    fn look_at_folders(&mut self) {
        let others =
            self.with_attachment(|attachment, lasting| attachment.has_other_folders(lasting));
        self.due.folders = match others.flatten() {
            Some(true) => {
                tracing::info!("another folder is there; a new worker opens it");
                self.with_attachment(Attachment::restart);
                None
            }
            // The worker says it again if it still does not work.
            Some(false) => None,
            None => Some(Instant::now() + LOOK_AT_FOLDERS),
        };
    }

    /// Ends the worker of a device that is gone, and has the device opened again.
    fn lose_device(&mut self) {
        let Some(attachment) = self.attachment.take() else { return };
        tracing::warn!("device {} is gone", self.config.device.name);
        // What an administrator made, an administrator makes again.
        let presence = if attachment.created() { Presence::Either } else { Presence::Attach };
        self.past += &attachment.end();
        if let Some(link) = self.link.take() {
            self.host.forget_link(link);
        }
        self.due.reopen = Some((Instant::now() + REOPEN.0, REOPEN.0, presence));
    }

    /// Tries to have the device again.
    fn reopen(&mut self) {
        let Some((_, interval, presence)) = self.due.reopen.take() else { return };
        match self.attach(presence, true) {
            Ok(()) => return tracing::info!("device {} is back", self.config.device.name),
            Err(TunnelError::Attach {
                cause: AttachError::Open(OpenError::Missing { .. }),
                ..
            }) => {}
            Err(error) if interval == REOPEN.0 => tracing::warn!("{}", WithCauses(&error)),
            Err(error) => tracing::debug!("{}", WithCauses(&error)),
        }
        self.detach();
        let interval = (interval * 2).min(REOPEN.1);
        self.due.reopen = Some((Instant::now() + interval, interval, presence));
    }

    /// Takes back what was changed of the host, then ends the worker and closes the device.
    fn undo(&mut self) {
        let created = self.attachment.as_ref().is_some_and(Attachment::created);
        self.host.undo(self.link.filter(|_| created));
        self.detach();
    }

    fn detach(&mut self) {
        if let Some(attachment) = self.attachment.take() {
            self.past += &attachment.end();
        }
    }
}

/// How datagrams hold packets.
pub(crate) fn encapsulation(config: &Config) -> Encapsulation {
    match config.local.security {
        Security::Wireguard => Encapsulation::Sealed,
        Security::None => Encapsulation::Plain,
    }
}
