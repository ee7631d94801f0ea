//! A configuration becomes a running tunnel, until a signal ends it.
//!
//! # Theory of operation
//!
//! The tunnel itself carries no packet; workers do ([`crate`] says which). It makes everything in
//! order, sockets first and routes last, and then waits for three things: signals, notices of
//! its workers, and changes of its device that the kernel tells by netlink.
//!
//! | event | what happens |
//! |---|---|
//! | SIGINT, SIGTERM, SIGHUP | workers end, changes of the host are undone, the device closes |
//! | SIGUSR1 | what was carried and dropped is said |
//! | the device goes down | it is said; packets are counted drops meanwhile |
//! | the device is up again | addresses and routes that the kernel threw away are made again |
//! | the device is deleted | workers end; it is opened again, at growing intervals, until that works |
//! | a first sender | its way decides the inner MTU |

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use device::{Mode, OpenError, Presence};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::{Change, Group, LinkIndex, Monitor, Socket as Netlink};
use proto::{InnerMtu, Path, Peer, PeerTable};
use rustix::event::{PollFd, PollFlags};
use thiserror::Error;
use transport::udp::UdpSocket;

pub use crate::attachment::AttachError;
use crate::attachment::{self, Attachment, Lasting};
use crate::config::{Config, Endpoint, Host, InterfaceAddress, Security};
pub use crate::host::HostError;
use crate::host::{Desired, HostNetwork};
use crate::lane::{Ended, content};
use crate::metrics::Traffic;
use crate::notice::{Notice, Notices};
use crate::signal::{Request, Signals};
use crate::stop::poll_until;
use crate::underlay;
pub use crate::underlay::UnderlayError;

/// How long to wait before a vanished device is opened again, at first and at most.
const REOPEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

const EVERY_IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
const EVERY_IPV6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);

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
    /// The device cannot be had.
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
    /// The kernel cannot be asked about the network.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Waiting failed.
    #[error("wait for events")]
    Wait(#[source] io::Error),
}

/// Brings the tunnel of `config` up, and keeps it until a signal asks to stop.
///
/// # Errors
///
/// When it cannot be brought up; everything that was changed until then is undone.
pub fn up(config: Config, signals: &mut Signals) -> Result<(), TunnelError> {
    let mut tunnel = Tunnel::new(config)?;
    if let Err(error) = tunnel.attach(Presence::Either) {
        tunnel.undo();
        return Err(error);
    }
    tunnel.announce();
    let outcome = tunnel.run(signals);
    tunnel.undo();
    tunnel.report("is down");
    outcome
}

struct Tunnel {
    config: Config,
    netlink: Netlink,
    monitor: Monitor,
    sockets: Arc<[UdpSocket]>,
    peers: Arc<ArcSwap<PeerTable>>,
    notices: Arc<Notices>,
    host: HostNetwork,
    attachment: Option<Attachment>,
    /// The device's index, which no other device gets while this one lives.
    link: Option<LinkIndex>,
    /// Whether the device was up when it was last looked at.
    device_up: bool,
    /// What was carried over devices that are gone: to the wire, and from it.
    past: (Traffic, Traffic),
    since: Instant,
}

impl Tunnel {
    /// Opens the sockets and finds the peers; nothing of the host is changed.
    fn new(config: Config) -> Result<Self, TunnelError> {
        let netlink = Netlink::open()?;
        let monitor = Monitor::open(&[Group::Link])?;
        let (sockets, peers) = underlay(&config)
            .map_err(|cause| TunnelError::Underlay { tunnel: config.name.clone(), cause })?;
        Ok(Self {
            netlink,
            monitor,
            sockets: sockets.into(),
            peers: Arc::new(ArcSwap::from_pointee(peers)),
            notices: Arc::new(Notices::new().map_err(TunnelError::Wait)?),
            host: HostNetwork::default(),
            attachment: None,
            link: None,
            device_up: false,
            past: Default::default(),
            since: Instant::now(),
            config,
        })
    }

    /// Reacts to what happens until a signal asks to stop.
    fn run(&mut self, signals: &mut Signals) -> Result<(), TunnelError> {
        loop {
            match self.wait(signals, None)? {
                Event::Signal(Request::Stop) => return Ok(()),
                Event::Signal(Request::Report) => self.report("so far"),
                Event::Notices(notices) => {
                    if notices.contains(&Notice::PathLearned) {
                        self.refit();
                    }
                    if let Some(ended) = self.attachment.as_mut().and_then(Attachment::ended)
                        && !self.recover(&ended, signals)?
                    {
                        return Ok(());
                    }
                }
                Event::Changes(changes) if self.is_gone(&changes) => {
                    if !self.recover(&Ended::DeviceGone, signals)? {
                        return Ok(());
                    }
                }
                Event::Changes(changes) => self.handle_changes(&changes),
                Event::Deadline => {}
            }
        }
    }

    /// Opens the device, makes the host's network fit, and starts the workers.
    fn attach(&mut self, presence: Presence) -> Result<(), TunnelError> {
        let tunnel = self.config.name.clone();
        let device = attachment::open(&self.config, presence)
            .map_err(|cause| TunnelError::Attach { tunnel: tunnel.clone(), cause: cause.into() })?;
        tracing::debug!("device {} has {:?}", device.name(), device.offload());
        let desired = self.desired(device.created())?;
        let lasting = Lasting {
            config: &self.config,
            sockets: &self.sockets,
            peers: &self.peers,
            notices: &self.notices,
        };
        // Workers first: from the moment that a route leads to the device, packets are carried.
        self.attachment = Some(
            Attachment::start(device, &lasting)
                .map_err(|cause| TunnelError::Attach { tunnel: tunnel.clone(), cause })?,
        );
        self.host
            .apply(&mut self.netlink, &desired)
            .map_err(|cause| TunnelError::Host { tunnel, cause })?;
        // What is told so far is how the device came up.
        while !self.monitor.changes()?.is_empty() {}
        let link = self.netlink.link(&desired.device)?;
        self.device_up = link.as_ref().is_some_and(|link| link.up);
        self.link = link.map(|link| link.index);
        Ok(())
    }

    /// Says what is up, and what is remarkable about it.
    fn announce(&mut self) {
        let name = &self.config.name;
        let device = &self.config.device;
        let mtu = self.netlink.link(device.name.as_str()).ok().flatten().map_or(0, |link| link.mtu);
        if self.config.local.security == Security::None {
            tracing::warn!(
                "tunnel {name:?} has security \"none\": packets travel in clear, and whoever can \
                 forge a peer's address can inject packets"
            );
        }
        let sockets: Vec<_> =
            self.sockets.iter().map(|socket| format!("udp://{}", socket.local_addr())).collect();
        for peer in self.peers.load().peers() {
            match &peer.path {
                Some(path) => tracing::debug!("peer {:?} is at {}", peer.name, path.remote),
                None => tracing::info!(
                    "peer {:?} has no endpoint: it will be the first sender",
                    peer.name
                ),
            }
        }
        tracing::info!(
            "tunnel {name:?} is up: device {} ({}), MTU {mtu}, listening on {}",
            device.name,
            device.mode,
            sockets.join(", "),
        );
    }

    /// Waits for the next event, until `deadline`.
    fn wait(
        &mut self,
        signals: &mut Signals,
        deadline: Option<Instant>,
    ) -> Result<Event, TunnelError> {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.monitor.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.notices.event.as_fd(), PollFlags::IN),
            ];
            if poll_until(&mut fds, deadline).map_err(TunnelError::Wait)? == 0 {
                return Ok(Event::Deadline);
            }
            let [signal, change, notice] = fds.map(|fd| !fd.revents().is_empty());
            if signal && let Some(request) = signals.take() {
                return Ok(Event::Signal(request));
            }
            if notice {
                return Ok(Event::Notices(self.notices.take()));
            }
            if change {
                return Ok(Event::Changes(self.monitor.changes()?));
            }
        }
    }

    /// Whether the device was deleted.
    ///
    /// A worker that is busy notices that by itself. One that sleeps may not: the kernel wakes it before the
    /// queue is detached (`tun_detach_all` in drivers/net/tun.c), and what it then finds is a queue without packets.
    fn is_gone(&mut self, changes: &[Change]) -> bool {
        let Some(device) = self.link.filter(|_| self.attachment.is_some()) else { return false };
        changes.iter().any(|change| match change {
            Change::LinkGone(link, _) => *link == device,
            Change::Missed => matches!(self.netlink.link_at(device), Ok(None)),
            _ => false,
        })
    }

    /// Follows the device down and up.
    ///
    /// Several changes may have happened since one was told, so what is so now is asked. That the
    /// device was down in between, and lost what the kernel then throws away, only the changes tell.
    fn handle_changes(&mut self, changes: &[Change]) {
        let device = self.config.device.name.as_str();
        let mut states = changes.iter().filter_map(|change| match change {
            Change::LinkChanged(link) if link.name == device => Some(link.up),
            Change::Missed => Some(false),
            _ => None,
        });
        let Some(first) = states.next().filter(|_| self.attachment.is_some()) else { return };
        let was_up = self.device_up && first && states.all(|up| up);
        let Ok(Some(link)) = self.netlink.link(device) else { return };
        if link.up && !was_up {
            tracing::info!("device {device} is up again");
        } else if !link.up && self.device_up {
            tracing::warn!("device {device} is down; packets are dropped until it is up");
        }
        self.device_up = link.up;
        if !was_up {
            self.refit();
        }
    }

    /// Makes the host's network fit again, after the way to a peer or the device has changed.
    ///
    /// A device that someone has switched off stays off, and is made to fit when it is up again.
    fn refit(&mut self) {
        if !self.device_up {
            return;
        }
        let Some(created) = self.attachment.as_ref().map(Attachment::created) else {
            return;
        };
        let fit = self.desired(created).and_then(|desired| {
            self.host
                .apply(&mut self.netlink, &desired)
                .map_err(|cause| TunnelError::Host { tunnel: self.config.name.clone(), cause })
        });
        if let Err(error) = fit {
            tracing::warn!("{}", WithCauses(&error));
        }
    }

    /// Gets the device back after a worker has ended; false if a signal asks to stop meanwhile.
    fn recover(&mut self, ended: &Ended, signals: &mut Signals) -> Result<bool, TunnelError> {
        let device = self.config.device.name.clone();
        match ended {
            Ended::Stopped => return Ok(true),
            Ended::DeviceGone => tracing::warn!("device {device} is gone"),
            Ended::Failed(error) => tracing::error!("device {device}: {error}"),
        }
        let Some(created) = self.detach() else { return Ok(true) };
        self.host.device_gone();
        // What an administrator made, an administrator makes again.
        let presence = if created { Presence::Either } else { Presence::Attach };
        let mut interval = REOPEN.0;
        loop {
            let deadline = Instant::now() + interval;
            while Instant::now() < deadline {
                if let Event::Signal(Request::Stop) = self.wait(signals, Some(deadline))? {
                    return Ok(false);
                }
            }
            match self.attach(presence) {
                Ok(()) => {
                    tracing::info!("device {device} is back");
                    return Ok(true);
                }
                Err(TunnelError::Attach {
                    cause: AttachError::Open(OpenError::Missing { .. }),
                    ..
                }) => {}
                Err(error) if interval == REOPEN.0 => tracing::warn!("{}", WithCauses(&error)),
                Err(error) => tracing::debug!("{}", WithCauses(&error)),
            }
            self.detach();
            interval = (interval * 2).min(REOPEN.1);
        }
    }

    /// Ends the workers and closes the device; says whether the tunnel had made it.
    fn detach(&mut self) -> Option<bool> {
        let attachment = self.attachment.take()?;
        let created = attachment.created();
        let (out, back) = attachment.end();
        self.past.0 += &out;
        self.past.1 += &back;
        Some(created)
    }

    fn desired(&mut self, created: bool) -> Result<Desired, TunnelError> {
        let device = &self.config.device;
        Ok(Desired {
            device: device.name.to_string(),
            created,
            tun: device.mode == Mode::Tun,
            addresses: device.addresses.clone(),
            mtu: match device.mtu {
                Some(mtu) => InnerMtu(mtu),
                None => underlay::inner_mtu(
                    &mut self.netlink,
                    &self.sockets,
                    &self.peers.load(),
                    content(device.mode),
                    device.name.as_str(),
                )?,
            },
            routes: routes(&self.config),
            forward: self.config.network.forward,
        })
    }

    /// Takes back what was changed of the host, then closes the device.
    fn undo(&mut self) {
        for error in self.host.undo(&mut self.netlink) {
            tracing::warn!("undo: {}", WithCauses(&error));
        }
        self.detach();
    }

    fn report(&self, what: &str) {
        let (mut out, mut back) = self.past.clone();
        if let Some(attachment) = &self.attachment {
            let (more_out, more_back) = attachment.traffic();
            out += &more_out;
            back += &more_back;
        }
        let name = &self.config.name;
        tracing::info!("tunnel {name:?} {what}, after {:.1} s", self.since.elapsed().as_secs_f64());
        tracing::info!("to the peers: {out}");
        tracing::info!("from the peers: {back}");
    }
}

enum Event {
    Signal(Request),
    Notices(Vec<Notice>),
    Changes(Vec<Change>),
    Deadline,
}

/// Opens the sockets of `config` and finds the way to each peer.
fn underlay(config: &Config) -> Result<(Vec<UdpSocket>, PeerTable), UnderlayError> {
    let mut remotes: Vec<Option<SocketAddr>> = Vec::new();
    for peer in &config.peers {
        let endpoint = peer.endpoints.first();
        remotes.push(endpoint.map(|endpoint| underlay::resolve(&peer.name, endpoint)).transpose()?);
    }
    let known: Vec<_> = remotes.iter().flatten().copied().collect();
    let sockets = underlay::bind(&listen(config), &known)?;
    let mut peers = Vec::new();
    for (peer, remote) in config.peers.iter().zip(remotes) {
        let path = match remote {
            Some(remote) => {
                let socket = underlay::socket_for(&sockets, &peer.name, remote)?;
                Some(Path { socket, remote, local: None })
            }
            None => None,
        };
        let allowed_ips = match config.device.mode {
            Mode::Tun => peer.allowed_ips.clone(),
            // Frames are not routed by address: the only peer gets all of them.
            Mode::Tap => vec![EVERY_IPV4.into(), EVERY_IPV6.into()],
        };
        peers.push(Peer { name: peer.name.clone(), path, allowed_ips });
    }
    Ok((sockets, PeerTable::new(peers)))
}

fn listen(config: &Config) -> Vec<SocketAddr> {
    let addresses = config.local.listen.iter().filter_map(|endpoint| match endpoint {
        Endpoint::Udp { host: Host::Ip(ip), port } => Some(SocketAddr::new(*ip, *port)),
        Endpoint::Udp { host: Host::Name(_), .. } => None,
    });
    addresses.collect()
}

/// What is routed into the device: what the configuration says, and the peers' allowed IPs.
///
/// A peer that owns everything is no reason to redirect the default route, and what an address of
/// the device makes on-link needs no route of its own.
fn routes(config: &Config) -> Vec<IpNet> {
    let allowed = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
    let mut routes: Vec<IpNet> = Vec::new();
    for &route in
        config.network.routes.iter().chain(allowed.filter(|prefix| prefix.prefix_len() > 0))
    {
        let is_on_link =
            config.device.addresses.iter().any(|address| on_link(address).contains(&route));
        if !is_on_link && !routes.contains(&route) {
            routes.push(route);
        }
    }
    routes
}

/// What an address of a device makes reachable on its link.
fn on_link(address: &InterfaceAddress) -> IpNet {
    match address {
        InterfaceAddress::Prefix(prefix) => *prefix,
        InterfaceAddress::PointToPoint { peer, .. } => *peer,
    }
}

/// An error and its causes, for a message.
struct WithCauses<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for WithCauses<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(formatter, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
