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
mod host;
mod keys;
mod members;
mod names;
mod preview;
mod requests;
mod restart;
mod underlay;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use device::{Mode, OpenError, Presence};
use netlink::plan::{self, Operation, PlanError};
use netlink::{Change, Group, LinkIndex, Monitor};
use proto::key::PublicKey;
use proto::mtu::Encapsulation;
use proto::{InnerMtu, Path, PeerIndex};
use rustix::event::{PollFd, PollFlags};
use thiserror::Error;
use transport::udp::UdpSocket;

use crate::channel::key::Key;
use crate::channel::message::{Ending, PathEntry, Peers, ToSupervisor, ToWorker};
use crate::config::{Config, Security};
use crate::control::{ControlError, ControlSockets, uapi_directory};
use crate::keyfile::KeyFileError;
use crate::metrics::Totals;
use crate::poll::poll_until;
use crate::runtime;
use crate::signal::{Request, Signals};
use crate::with_causes::WithCauses;
use crate::worker::lane::content;

pub use self::attachment::{AttachError, observe};
pub use self::host::{CleanUp, HostError, Left, clean_up};
pub use self::preview::{Preview, Step, preview};
pub use self::underlay::UnderlayError;

use self::attachment::{Attachment, Lasting};
use self::candidates::{Candidates, Moved};
use self::desired::Circumstances;
use self::host::HostNetwork;
use self::keys::Keys;
use self::members::Members;
use self::names::Names;

/// How long to wait before a vanished device is opened again, at first and at most.
const REOPEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Changes of the network come in crowds; the plan is made anew when none has come for the first
/// time, and no more often than the second, since a router may have a hundred thousand routes.
const SETTLE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

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
    peers: Members,
    candidates: Candidates,
    keys: Option<Keys>,
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

/// What is to be done later, and when.
#[derive(Default)]
struct Due {
    /// The plan is made anew: when, and when at the latest although changes go on.
    fit: Option<(Instant, Instant)>,
    /// The last time that it was.
    fitted: Option<Instant>,
    /// The device is opened again: when, after which interval, and whether it may be made anew.
    reopen: Option<(Instant, Duration, Presence)>,
}

enum Event {
    Signal(Request),
    Changes(Vec<Change>),
    Worker,
    Found(Vec<names::Found>),
    Asked,
    Deadline,
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
        let monitor = Monitor::open(&[
            Group::Link,
            Group::Ipv4Address,
            Group::Ipv6Address,
            Group::Ipv4Route,
            Group::Ipv6Route,
        ])?;
        let (sockets, peers) = underlay::open(&config)
            .map_err(|cause| TunnelError::Underlay { tunnel: tunnel(), cause })?;
        let mut supervisor = Self {
            control: open_control(&config),
            config,
            file,
            host,
            monitor,
            sockets,
            peers,
            candidates: Candidates::default(),
            keys,
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
        let chosen = supervisor.peers.remotes();
        supervisor.watch_names(&chosen);
        Ok(supervisor)
    }

    /// What of the tunnel outlives a device.
    fn lasting(&self) -> Lasting<'_> {
        let Self { config, sockets, peers, keys, mtu, .. } = self;
        Lasting { config, sockets, peers, keys: keys.as_ref(), mtu: *mtu }
    }

    /// Does something with the device that there is, knowing what outlives it.
    fn with_attachment<T>(
        &mut self,
        work: impl FnOnce(&mut Attachment, &Lasting<'_>) -> T,
    ) -> Option<T> {
        let Self { config, sockets, peers, keys, mtu, attachment, .. } = self;
        let lasting = Lasting { config, sockets, peers, keys: keys.as_ref(), mtu: *mtu };
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

    /// Waits for the next event, or until something is due.
    fn wait(&mut self, signals: &mut Signals) -> Result<Event, TunnelError> {
        loop {
            if self.attachment.as_ref().is_some_and(Attachment::has_messages) {
                return Ok(Event::Worker);
            }
            let worker = self.attachment.as_ref().and_then(Attachment::source);
            let names = self.names.as_ref().map(AsFd::as_fd);
            let sources = [Some(signals.as_fd()), worker, names, Some(self.monitor.as_fd())];
            let mut fds: Vec<_> = sources
                .iter()
                .flatten()
                .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
                .collect();
            let asking = self.control.as_ref().map(ControlSockets::poll_fds).unwrap_or_default();
            let asking = asking.into_iter();
            fds.extend(asking.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
            if poll_until(&mut fds, self.next_due()).map_err(TunnelError::Wait)? == 0 {
                return Ok(Event::Deadline);
            }
            let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
            let [signal, worker, names, change] =
                sources.map(|source| source.is_some() && ready.next() == Some(true));
            let asked = ready.any(|ready| ready);
            if signal && let Some(request) = signals.take() {
                return Ok(Event::Signal(request));
            }
            if worker {
                return Ok(Event::Worker);
            }
            if let Some(names) = self.names.as_ref().filter(|_| names) {
                return Ok(Event::Found(names.take()));
            }
            if asked {
                return Ok(Event::Asked);
            }
            if change {
                // What cannot be read is as good as missed.
                let changes = self.monitor.changes().unwrap_or_else(|_| vec![Change::Missed]);
                return Ok(Event::Changes(changes));
            }
        }
    }

    /// When something is due next.
    fn next_due(&self) -> Option<Instant> {
        let worker = self.attachment.as_ref().and_then(Attachment::deadline);
        let reopen = self.due.reopen.map(|(at, ..)| at);
        let fit = self.due.fit.map(|(at, _)| at);
        let asked = self.control.as_ref().and_then(ControlSockets::deadline);
        [fit, reopen, worker, asked].into_iter().flatten().min()
    }

    /// Does what is due by now.
    fn handle_due(&mut self) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.due.reopen.map(|(at, ..)| at)) {
            self.reopen();
        }
        self.with_attachment(|attachment, lasting| attachment.handle_deadline(now, lasting));
        if is_due(self.due.fit.map(|(at, _)| at)) {
            self.fit();
        }
        if is_due(self.control.as_ref().and_then(ControlSockets::deadline)) {
            self.handle_control();
        }
    }

    /// Follows the device, and what lies below it.
    ///
    /// Several changes may have happened since one was told, so what is so now is asked. That the
    /// device was down in between, and lost what the kernel then throws away, only the changes tell.
    fn handle_changes(&mut self, changes: &[Change]) {
        if let Some(link) = self.link {
            if self.is_gone(link, changes) {
                return self.lose_device();
            }
            self.follow_device(link, changes);
        }
        if changes.iter().any(|change| !matches!(change, Change::LinkChanged(_)))
            || self.carries_tunnel(changes)
        {
            self.settle();
        }
        if let Some(names) = &self.names
            && changes.iter().any(|change| matches!(change, Change::AddressAdded(_)))
        {
            names.look_at_all();
        }
    }

    /// Whether a link other than the tunnel's own has changed.
    fn carries_tunnel(&self, changes: &[Change]) -> bool {
        changes.iter().any(
            |change| matches!(change, Change::LinkChanged(link) if Some(link.index) != self.link),
        )
    }

    /// Whether the device was deleted.
    ///
    /// A worker that is busy notices that by itself. One that sleeps may not: the kernel wakes it before the
    /// queue is detached (`tun_detach_all` in drivers/net/tun.c), and what it then finds is a queue without packets.
    fn is_gone(&mut self, device: LinkIndex, changes: &[Change]) -> bool {
        changes.iter().any(|change| match change {
            Change::LinkGone(link, _) => *link == device,
            Change::Missed => matches!(self.host.netlink().link_at(device), Ok(None)),
            _ => false,
        })
    }

    fn follow_device(&mut self, device: LinkIndex, changes: &[Change]) {
        let mut states = changes.iter().filter_map(|change| match change {
            Change::LinkChanged(link) if link.index == device => Some(link.up),
            Change::Missed => Some(false),
            _ => None,
        });
        let Some(first) = states.next() else { return };
        let was_up = self.device_up && first && states.all(|up| up);
        // What was missed may have been that it was down, or anything else.
        let is_sure = !self.device_up || !changes.contains(&Change::Missed);
        let Ok(Some(link)) = self.host.netlink().link_at(device) else { return };
        if link.up && !was_up && is_sure {
            tracing::info!("device {} is up again", link.name);
        } else if !link.up && self.device_up {
            tracing::warn!("device {} is down; packets are dropped until it is up", link.name);
        }
        self.device_up = link.up;
        if !was_up {
            self.settle();
        }
    }

    /// Has the plan made anew, when the present crowd of changes is over.
    fn settle(&mut self) {
        let (quiet, interval) = SETTLE;
        let now = Instant::now();
        // A crowd that does not end is not waited for.
        let latest = self.due.fit.map_or(now + interval, |(_, latest)| latest);
        let earliest = self.due.fitted.map_or(now, |fitted| fitted + interval);
        self.due.fit = Some(((now + quiet).min(latest).max(earliest), latest));
    }

    /// Makes the host's network fit again, after something that it depends on has changed.
    ///
    /// A device that someone has switched off stays off, and is made to fit when it is up again.
    fn fit(&mut self) {
        self.due.fit = None;
        self.due.fitted = Some(Instant::now());
        if self.link.is_none() || !self.device_up {
            return;
        }
        let desired = self.desired(true);
        if let Ok(desired) = &desired
            && desired.mtu != self.mtu.0
        {
            self.mtu = InnerMtu(desired.mtu);
            self.tell(&ToWorker::Mtu(desired.mtu));
        }
        match desired.and_then(|desired| self.fit_to(&desired)) {
            Ok(done) => {
                self.complaint = None;
                for operation in done {
                    tracing::info!(
                        "mended: {} ({})",
                        operation.commands().join("; "),
                        operation.why()
                    );
                }
            }
            Err(error) => {
                let complaint = WithCauses(&error).to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!("{complaint}");
                    self.complaint = Some(complaint);
                }
            }
        }
    }

    fn fit_to(&mut self, desired: &plan::Desired) -> Result<Vec<Operation>, TunnelError> {
        let tunnel = self.config.name.clone();
        self.host.fit(desired).map_err(|cause| TunnelError::Host { tunnel, cause })
    }

    /// The largest inner packet that reaches every peer in one piece, or what the configuration says.
    fn inner_mtu(&mut self) -> Result<InnerMtu, TunnelError> {
        let device = &self.config.device;
        if let Some(mtu) = device.mtu {
            return Ok(InnerMtu(mtu));
        }
        let listening: Vec<_> = self.sockets.iter().map(UdpSocket::local_addr).collect();
        Ok(underlay::inner_mtu(
            self.host.netlink(),
            &listening,
            &self.peers.remotes(),
            content(device.mode),
            encapsulation(&self.config),
            device.name.as_str(),
        )?)
    }

    /// What the host's network shall be like now; `running` if the tunnel was up already.
    fn desired(&mut self, running: bool) -> Result<plan::Desired, TunnelError> {
        let circumstances = Circumstances {
            // Before it is opened, nobody knows.
            made_by_us: self.attachment.as_ref().is_none_or(Attachment::created),
            mtu: self.inner_mtu()?,
            endpoints: self.peers.remotes().iter().flatten().map(SocketAddr::ip).collect(),
            ipv6: desired::has_ipv6(),
            running,
        };
        Ok(desired::desired(&self.config, &circumstances))
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
                ToSupervisor::Ended(Ending::DeviceGone) => return self.lose_device(),
                ToSupervisor::Ended(Ending::Failed { text }) => {
                    tracing::error!("device {}: {text}", self.config.device.name);
                }
                ToSupervisor::Confined(_)
                | ToSupervisor::Started
                | ToSupervisor::Sessions(_)
                | ToSupervisor::Handshakes(_)
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

    /// Remembers where a peer was heard of, for the next worker and for the plan; whether that is news.
    fn learn(&mut self, peer: PeerIndex, path: Path) -> bool {
        !desired::is_inside(&self.config, path.remote.ip()) && self.peers.set_path(peer, path)
    }

    /// Peers with sessions have spoken from elsewhere; whether that is news.
    fn handle_roamed(&mut self, roamed: &[(Key, PathEntry)]) -> bool {
        let mut learned = false;
        for (key, path) in roamed {
            // Who was removed meanwhile has no place.
            let Some(place) = self.peers.place(&key.0) else { continue };
            let path = Path::from(*path);
            let before = self.peers.peer(place).and_then(|peer| peer.path);
            learned |= self.learn(place, path);
            self.candidates.handle_heard(place, path.remote);
            if before.is_none_or(|before| before.remote != path.remote)
                && let Some(peer) = self.peers.peer(place)
            {
                tracing::info!("peer {:?} is at {}", peer.name, path.remote);
            }
        }
        learned
    }

    /// Peers do not answer: their names may lead elsewhere by now, or they are at another of their endpoints. Whether
    /// they are looked for elsewhere.
    fn handle_unanswered(&mut self, peers: &[Key]) -> bool {
        tracing::debug!("{} peers do not answer", peers.len());
        let places: Vec<_> = peers.iter().filter_map(|key| self.peers.place(&key.0)).collect();
        if let Some(names) = &self.names {
            names.look(places.iter().flat_map(|&place| self.candidates.names_of(place)));
        }
        let mut learned = false;
        for place in places {
            let current = self.peers.peer(place).and_then(|peer| peer.path);
            let current = current.map(|path| path.remote);
            let Some(moved) = self.candidates.handle_unanswered(place, current) else { continue };
            if let Some(path) = self.move_to(moved) {
                tracing::debug!("peer {} is looked for at {}", place.0, moved.remote);
                learned = true;
                self.tell_of(place, |key| ToWorker::Try { key, path: path.into() });
            }
        }
        learned
    }

    /// Remembers that a peer is looked for elsewhere; the way to it, if there is one.
    fn move_to(&mut self, Moved { peer: place, remote }: Moved) -> Option<Path> {
        let name = &self.peers.peer(place)?.name;
        let path = underlay::way(&self.sockets, name, remote).ok()?;
        self.peers.set_path(place, path);
        Some(path)
    }

    /// The names of peers were looked up.
    fn handle_found(&mut self, found: Vec<names::Found>) {
        let moved = self.candidates.handle_found(found);
        let moved: Vec<_> =
            moved.into_iter().filter(|moved| self.move_to(*moved).is_some()).collect();
        for Moved { peer, remote } in &moved {
            let name = self.peers.peer(*peer).map(|peer| peer.name.as_str()).unwrap_or_default();
            tracing::info!("peer {name:?} is at {remote} now");
        }
        if moved.is_empty() {
            return;
        }
        // The way first: what is sent to the new address must not go into the tunnel.
        self.fit();
        match &self.keys {
            None => self.tell_peers(&HashSet::new()),
            Some(_) => {
                for Moved { peer, .. } in moved {
                    self.tell_path(peer);
                }
            }
        }
    }

    /// Tells the worker who the peers are. It knows better than anybody where those are that are `staying`.
    fn tell_peers(&mut self, staying: &HashSet<PublicKey>) {
        let mut peers = self.peers.entries(&self.config, self.keys.as_ref());
        if let Peers::Sealed(entries) = &mut peers {
            let staying = entries.iter_mut().filter(|entry| staying.contains(&entry.key.0));
            staying.for_each(|entry| entry.path = None);
        }
        self.tell(&ToWorker::Peers(peers));
    }

    /// Tells the worker where a peer is.
    fn tell_path(&mut self, place: PeerIndex) {
        if let Some(path) = self.peers.peer(place).and_then(|peer| peer.path) {
            self.tell_of(place, |key| ToWorker::Path { key, path: path.into() });
        }
    }

    /// Tells the worker something of the peer that has a key.
    fn tell_of(&mut self, place: PeerIndex, message: impl FnOnce(Key) -> ToWorker) {
        let peer = self.config.peers.get(usize::from(place.0));
        if let Some(key) = peer.and_then(|peer| peer.public_key) {
            self.tell(&message(Key(key)));
        }
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

    /// Says what is up, and what is remarkable about it.
    fn announce(&mut self) {
        let name = &self.config.name;
        let device = &self.config.device;
        let link = self.host.netlink().link(device.name.as_str()).ok().flatten();
        let mtu = link.map_or(0, |link| link.mtu);
        if self.config.local.security == Security::None {
            tracing::warn!(
                "tunnel {name:?} has security \"none\": packets travel in clear, and whoever can \
                 forge a peer's address can inject packets"
            );
        }
        desired::warn_of_leaks(&self.config);
        for peer in self.peers.peers() {
            match &peer.path {
                Some(path) => tracing::debug!("peer {:?} is at {}", peer.name, path.remote),
                None if self.keys.is_none() => tracing::info!(
                    "peer {:?} has no endpoint: it will be the first sender",
                    peer.name
                ),
                None => tracing::debug!("peer {:?} has no endpoint: it has to begin", peer.name),
            }
        }
        if let Some(keys) = &self.keys {
            tracing::debug!("tunnel {name:?} has the public key {}", keys.public());
        }
        let sockets: Vec<_> =
            self.sockets.iter().map(|socket| format!("udp://{}", socket.local_addr())).collect();
        tracing::info!(
            "tunnel {name:?} is up: device {} ({}), MTU {mtu}, listening on {}",
            device.name,
            device.mode,
            sockets.join(", "),
        );
    }

    fn report(&mut self, what: &str) {
        let mut totals = self.past.clone();
        if let Some(attachment) = &mut self.attachment {
            totals += &attachment.report().totals;
        }
        let name = &self.config.name;
        tracing::info!("tunnel {name:?} {what}, after {:.1} s", self.since.elapsed().as_secs_f64());
        tracing::info!("to the peers: {}", totals.out);
        tracing::info!("from the peers: {}", totals.back);
    }
}

/// Listens for questions. A tunnel that cannot be asked is one all the same.
fn open_control(config: &Config) -> Option<ControlSockets> {
    let directory = runtime::directory().ok()?;
    let told = |error: ControlError| tracing::warn!("{}", WithCauses(&error));
    let mut control = ControlSockets::open(&directory, &config.name).map_err(told).ok()?;
    if config.local.security == Security::Wireguard {
        let directory = uapi_directory(&directory);
        // Another program may have a tunnel of that name elsewhere.
        let _ = control.open_uapi(&directory, config.device.name.as_str()).map_err(told);
    }
    Some(control)
}

/// How datagrams hold packets.
pub(crate) fn encapsulation(config: &Config) -> Encapsulation {
    match config.local.security {
        Security::Wireguard => Encapsulation::Sealed,
        Security::None => Encapsulation::Plain,
    }
}
