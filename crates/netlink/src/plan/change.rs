//! Applying and reverting single steps.

use std::io;

use ipnet::IpNet;
use rustix::io::Errno;

use crate::resolver::{self, ResolverError};
use crate::sysctl::{self, SysctlError};
use crate::{Address, Error, LinkIndex, Socket};

use super::undo::lost;
use super::{Actual, Companion, Operation, Reverted, Undo, read};

/// The host could not be read, changed or put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The kernel refused a change of links, addresses or routes.
    #[error(transparent)]
    Netlink(#[from] Error),
    /// The kernel refused a setting.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// Who answers names could not be found out or changed.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The packet filter is needed and is not there; nothing has been changed.
    #[error("forwarding and the translation of addresses need nf_tables")]
    NoFilter {
        /// What the kernel said.
        source: Error,
    },
}

/// Applies one operation on links, addresses, routes or settings.
pub(super) fn apply(socket: &mut Socket, operation: &Operation) -> Result<(), ChangeError> {
    match operation {
        Operation::SetMtu { device, to, .. } => socket.set_mtu(device.index(), *to)?,
        Operation::WriteSysctl { key, to, .. } => sysctl::write(key, to)?,
        Operation::AddAddress(address) => socket.add_address(&address.address())?,
        Operation::SetUp { device } => socket.set_up(device.index(), true)?,
        Operation::SetMaster { device, bridge } => {
            socket.set_master(device.index(), Some(bridge.index()))?;
        }
        Operation::AddRoute { route, .. } => socket.add_route(&route.route())?,
        Operation::ReplaceRoute { to, .. } => socket.replace_route(&to.route())?,
        Operation::DeleteRoute { route } => gone(socket.delete_route(&route.route()))?,
        Operation::AddUnreachable { destination, .. } => socket.add_unreachable(*destination)?,
        Operation::DeleteUnreachable { destination } => {
            gone(socket.delete_unreachable(*destination))?;
        }
        Operation::ChangeNames(change) => change.apply()?,
        Operation::InstallTable { .. } | Operation::AcceptForward { .. } => {}
    }
    Ok(())
}

/// Takes one operation on links, addresses, routes or settings back, if what it left is still there.
pub(super) fn revert(socket: &mut Socket, undo: &Undo) -> Result<Reverted, ChangeError> {
    if let Undo::Names(undo) = undo {
        return Ok(resolver::revert(undo)?);
    }
    let actual = read::for_undo(socket, undo)?;
    let verdict = undo.judge(&actual);
    if verdict != Reverted::Done {
        return Ok(verdict);
    }
    match put_back(socket, undo, &actual) {
        Ok(()) => Ok(Reverted::Done),
        Err(error) if error.is_not_found() => Ok(Reverted::NotThere),
        Err(error) => Err(error),
    }
}

impl ChangeError {
    /// Whether privilege is missing.
    pub fn is_not_permitted(&self) -> bool {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::Netlink(error) => matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS)),
            Self::Sysctl(SysctlError::Read { source, .. } | SysctlError::Write { source, .. }) => {
                denied(source)
            }
            Self::Resolver(
                ResolverError::Read { source, .. } | ResolverError::Write { source, .. },
            ) => denied(source),
            Self::Sysctl(_) | Self::Resolver(_) | Self::NoFilter { .. } => false,
        }
    }

    /// Whether the object of the change is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Netlink(error) => error.is_not_found(),
            Self::Sysctl(error) => error.is_not_found(),
            Self::Resolver(_) | Self::NoFilter { .. } => false,
        }
    }
}

fn put_back(socket: &mut Socket, undo: &Undo, actual: &Actual) -> Result<(), ChangeError> {
    match undo {
        Undo::Mtu { device, before, .. } => socket.set_mtu(device.index(), *before)?,
        Undo::Sysctl { key, before, companions, .. } => {
            sysctl::write(key, before)?;
            for Companion { key, value } in due_companions(companions, key, before, actual) {
                sysctl::write(key, value)?;
            }
        }
        Undo::Address(address) => delete_address(socket, &address.address())?,
        Undo::Down { device } => set_down(socket, device.index())?,
        Undo::Route(route) => socket.delete_route(&route.route())?,
        Undo::Unreachable { destination } => socket.delete_unreachable(*destination)?,
        Undo::NoMaster { device, .. } => socket.set_master(device.index(), None)?,
        Undo::AcceptForward { .. } | Undo::Names(_) => {}
    }
    Ok(())
}

/// What was to be removed may have gone by itself: routes go with their link.
fn gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// The companions that are to be written after the setting itself: those that nobody has changed since,
/// and those that the kernel has reset already; among them none whose link is gone.
pub(super) fn due_companions<'a>(
    companions: &'a [Companion],
    key: &str,
    before: &str,
    actual: &'a Actual,
) -> impl Iterator<Item = &'a Companion> {
    let undisturbed =
        companions.iter().filter(|Companion { key, value }| actual.sysctl(key) == Some(value));
    undisturbed.chain(lost(companions, key, before, actual))
}

/// Removes an address and leaves the link the others.
///
/// With the first IPv4 address of a prefix the kernel removes the later ones too, unless
/// `promote_secondaries` is set (Documentation/networking/ip-sysctl.rst).
fn delete_address(socket: &mut Socket, address: &Address) -> Result<(), Error> {
    let before = socket.addresses()?;
    socket.delete_address(address)?;
    let others = before.iter().filter(|other| *other != address);
    bring_back(socket, others.filter(|other| other.link == address.link))
}

/// Switches a link off and leaves it the addresses that it has.
///
/// The kernel keeps the IPv4 addresses of a link that goes down, but throws the IPv6 ones away
/// (`keep_addr_on_down` in Documentation/networking/ip-sysctl.rst).
fn set_down(socket: &mut Socket, link: LinkIndex) -> Result<(), Error> {
    let before = socket.addresses()?;
    socket.set_up(link, false)?;
    bring_back(socket, before.iter().filter(|address| address.link == link))
}

/// Adds those of the addresses that are missing, save link-local ones, which the kernel makes itself.
fn bring_back<'a>(
    socket: &mut Socket,
    mut addresses: impl Iterator<Item = &'a Address>,
) -> Result<(), Error> {
    let present = socket.addresses()?;
    addresses.try_for_each(|address| {
        let link_local =
            matches!(address.local, IpNet::V6(net) if net.addr().is_unicast_link_local());
        if link_local || present.contains(address) {
            return Ok(());
        }
        socket.add_address(address)
    })
}
