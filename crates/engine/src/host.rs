//! What a tunnel needs of the host's network, applied and undone.
//!
//! # Theory of operation
//!
//! [`HostNetwork::apply`] compares what is with what shall be, changes what differs, and remembers for
//! each change how to take it back. Applying twice changes nothing the second time, so it is simply
//! applied again when the device was down and is up: the kernel throws routes and IPv6 addresses away when
//! a link goes down.
//!
//! Order: what makes packets flow (MTU, addresses, up, forwarding) comes before what redirects them
//! (routes). [`HostNetwork::undo`] goes backwards, and leaves alone what someone else has changed since.
//!
//! Most of it dies with the device. It is undone all the same, since a persistent device outlives the
//! tunnel.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink::sysctl::{self, SysctlError};
use netlink::{Address, LinkIndex, Route, Socket as Netlink};
use proto::InnerMtu;
use thiserror::Error;

use crate::config::InterfaceAddress;

/// How long the kernel may take to make the IPv6 addresses of a link serve, and how often it is asked.
const ADDRESS_PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(1));

/// What the host's network shall be like.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    pub(crate) device: String,
    /// Whether the tunnel made the device, so that it may shape it.
    pub(crate) created: bool,
    /// Whether packets of the device are IP packets, not frames.
    pub(crate) tun: bool,
    pub(crate) addresses: Vec<InterfaceAddress>,
    pub(crate) mtu: InnerMtu,
    pub(crate) routes: Vec<IpNet>,
    pub(crate) forward: bool,
}

/// The host's network could not be made as it shall be.
#[derive(Debug, Error)]
pub enum HostError {
    /// The kernel refused a change.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The kernel refused a sysctl.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The device was deleted meanwhile.
    #[error("device {device:?} is not there")]
    NoDevice {
        /// Its name.
        device: String,
    },
}

impl HostError {
    /// Whether privilege is missing.
    pub fn is_not_permitted(&self) -> bool {
        use rustix::io::Errno;
        match self {
            Self::Netlink(error) => matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS)),
            Self::Sysctl(SysctlError::Read { source, .. } | SysctlError::Write { source, .. }) => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Sysctl(_) => false,
            Self::NoDevice { .. } => false,
        }
    }
}

#[derive(Debug)]
enum Undo {
    Address(Address),
    Route(Route),
    Down(LinkIndex),
    Mtu(LinkIndex, u32),
    Sysctl { key: &'static str, before: String },
}

/// The host's network, and how to put it back.
#[derive(Debug, Default)]
pub(crate) struct HostNetwork {
    undo: Vec<Undo>,
}

impl HostNetwork {
    /// Makes the host's network as `desired`; what is so already is left alone.
    pub(crate) fn apply(
        &mut self,
        netlink: &mut Netlink,
        desired: &Desired,
    ) -> Result<(), HostError> {
        let link = netlink
            .link(&desired.device)?
            .ok_or_else(|| HostError::NoDevice { device: desired.device.clone() })?;
        let tolerate = |result: Result<(), HostError>| tolerate(desired, result);

        tolerate(self.apply_mtu(netlink, desired, link.index, link.mtu))?;
        tolerate(self.apply_addresses(netlink, desired, link.index))?;
        if !link.up {
            tolerate(self.apply_up(netlink, link.index))?;
        }
        await_addresses(netlink, desired, link.index)?;
        if desired.forward {
            tolerate(self.apply_forwarding(desired))?;
        }
        tolerate(self.apply_routes(netlink, desired, link.index))
    }

    /// Takes all changes back, the last one first; returns what could not be taken back.
    pub(crate) fn undo(&mut self, netlink: &mut Netlink) -> Vec<HostError> {
        let mut errors = Vec::new();
        while let Some(undo) = self.undo.pop() {
            if let Err(error) = revert(netlink, &undo)
                && !is_gone(&error)
            {
                errors.push(error);
            }
        }
        errors
    }

    /// Forgets the changes that died with the device; sysctls stay to be undone.
    pub(crate) fn device_gone(&mut self) {
        self.undo.retain(|undo| matches!(undo, Undo::Sysctl { .. }));
    }

    fn apply_mtu(
        &mut self,
        netlink: &mut Netlink,
        desired: &Desired,
        link: LinkIndex,
        mtu: u32,
    ) -> Result<(), HostError> {
        if desired.created {
            shape(netlink, desired, link);
        }
        if mtu != desired.mtu.0 {
            netlink.set_mtu(link, desired.mtu.0)?;
            self.undo.push(Undo::Mtu(link, mtu));
        }
        Ok(())
    }

    fn apply_up(&mut self, netlink: &mut Netlink, link: LinkIndex) -> Result<(), HostError> {
        netlink.set_up(link, true)?;
        self.undo.push(Undo::Down(link));
        Ok(())
    }

    fn apply_addresses(
        &mut self,
        netlink: &mut Netlink,
        desired: &Desired,
        link: LinkIndex,
    ) -> Result<(), HostError> {
        let present = netlink.addresses()?;
        for address in desired.addresses.iter().map(|&address| on_link(address, link)) {
            if !present.contains(&address) {
                netlink.add_address(&address)?;
                self.undo.push(Undo::Address(address));
            }
        }
        Ok(())
    }

    fn apply_forwarding(&mut self, desired: &Desired) -> Result<(), HostError> {
        for (v4, key) in [(true, "net.ipv4.ip_forward"), (false, "net.ipv6.conf.all.forwarding")] {
            let concerned = desired.routes.iter().any(|route| route.addr().is_ipv4() == v4)
                || desired.addresses.iter().any(|address| address.local().is_ipv4() == v4);
            let before = if concerned { sysctl::read(key)? } else { continue };
            if before == "0" {
                sysctl::write(key, "1")?;
                self.undo.push(Undo::Sysctl { key, before });
            }
        }
        Ok(())
    }

    fn apply_routes(
        &mut self,
        netlink: &mut Netlink,
        desired: &Desired,
        link: LinkIndex,
    ) -> Result<(), HostError> {
        let present = netlink.routes()?;
        for &destination in &desired.routes {
            let stands = present.iter().any(|route| {
                route.destination == destination && route.link == Some(link) && route.via.is_none()
            });
            if !stands {
                let route = Route { link: Some(link), ..Route::new(destination) };
                netlink.add_route(&route)?;
                self.undo.push(Undo::Route(route));
            }
        }
        Ok(())
    }
}

/// A device that someone prepared for an unprivileged tunnel is used as it is; what could not be
/// set up is said.
fn tolerate(desired: &Desired, result: Result<(), HostError>) -> Result<(), HostError> {
    match result {
        Err(error) if !desired.created && error.is_not_permitted() => {
            tracing::warn!("device {} is used as it is: {error}", desired.device);
            Ok(())
        }
        result => result,
    }
}

/// Keeps a TUN device from sending router solicitations of its own. Without that the tunnel works too,
/// so a refusal is no error.
fn shape(netlink: &mut Netlink, desired: &Desired, link: LinkIndex) {
    if desired.tun
        && let Err(error) = netlink.set_addr_gen_mode_none(link)
    {
        tracing::debug!("{error}");
    }
}

/// Waits until the IPv6 addresses of the device serve, so that packets for them are not lost.
///
/// The kernel acknowledges an address before that: a work queue makes its local route
/// (`addrconf_dad_work` in net/ipv6/addrconf.c).
fn await_addresses(
    netlink: &mut Netlink,
    desired: &Desired,
    link: LinkIndex,
) -> Result<(), netlink::Error> {
    let (patience, interval) = ADDRESS_PATIENCE;
    let deadline = Instant::now() + patience;
    let present = netlink.addresses()?;
    for address in desired.addresses.iter().map(|&address| on_link(address, link)) {
        let local = address.local.addr();
        if local.is_ipv4() || !present.contains(&address) {
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
    let link = link.and_then(|link| netlink.link_at(link).ok().flatten());
    link.is_some_and(|link| link.loopback)
}

fn on_link(address: InterfaceAddress, link: LinkIndex) -> Address {
    match address {
        InterfaceAddress::Prefix(local) => Address { link, local, peer: None },
        InterfaceAddress::PointToPoint { local, peer } => {
            Address { link, local: IpNet::from(local), peer: Some(peer) }
        }
    }
}

fn revert(netlink: &mut Netlink, undo: &Undo) -> Result<(), HostError> {
    match undo {
        Undo::Address(address) => netlink.delete_address(address)?,
        Undo::Route(route) => netlink.delete_route(route)?,
        Undo::Down(link) => set_down(netlink, *link)?,
        Undo::Mtu(link, mtu) => netlink.set_mtu(*link, *mtu)?,
        Undo::Sysctl { key, before } => {
            // Someone who has changed it since knows better.
            if sysctl::read(key)? == "1" {
                sysctl::write(key, before)?;
            }
        }
    }
    Ok(())
}

/// Switches a link off and leaves it the addresses that it has.
///
/// The kernel keeps the IPv4 addresses of a link that goes down, but throws the IPv6 ones away
/// (`keep_addr_on_down` in Documentation/networking/ip-sysctl.rst). It makes link-local ones itself.
fn set_down(netlink: &mut Netlink, link: LinkIndex) -> Result<(), HostError> {
    let before = netlink.addresses()?;
    netlink.set_up(link, false)?;
    let after = netlink.addresses()?;
    for address in before.iter().filter(|address| address.link == link) {
        let link_local =
            matches!(address.local, IpNet::V6(net) if net.addr().is_unicast_link_local());
        if !link_local && !after.contains(address) {
            netlink.add_address(address)?;
        }
    }
    Ok(())
}

/// What shall be undone is not there any more.
fn is_gone(error: &HostError) -> bool {
    use rustix::io::Errno;
    match error {
        HostError::Netlink(error) => {
            error.is_not_found()
                || matches!(error.errno(), Some(Errno::NODEV | Errno::SRCH | Errno::ADDRNOTAVAIL))
        }
        HostError::Sysctl(_) => false,
        HostError::NoDevice { .. } => true,
    }
}
