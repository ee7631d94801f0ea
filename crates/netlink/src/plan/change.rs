//! Applying and reverting single steps.

use ipnet::IpNet;

use crate::sysctl::{self, SysctlError};
use crate::{Address, Error, LinkIndex, Socket};

use super::{Actual, Companion, Operation, Reverted, Undo};

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
}

/// Applies one operation.
///
/// Settings are those of the calling thread's namespace, which has to be the socket's.
pub fn apply(socket: &mut Socket, operation: &Operation) -> Result<(), ChangeError> {
    match operation {
        Operation::SetMtu { device, to, .. } => socket.set_mtu(device.index(), *to)?,
        Operation::WriteSysctl { key, to, .. } => sysctl::write(key, to)?,
        Operation::AddAddress(address) => socket.add_address(&address.address())?,
        Operation::SetUp { device } => socket.set_up(device.index(), true)?,
        Operation::AddRoute { route, .. } => socket.add_route(&route.route())?,
        Operation::AddUnreachable { destination, .. } => socket.add_unreachable(*destination)?,
    }
    Ok(())
}

/// Takes one operation back, if what it left is still there.
///
/// Settings are those of the calling thread's namespace, which has to be the socket's.
pub fn revert(socket: &mut Socket, undo: &Undo) -> Result<Reverted, ChangeError> {
    let actual = Actual::read_for(socket, undo)?;
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
    /// Whether the object of the change is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Netlink(error) => error.is_not_found(),
            Self::Sysctl(error) => error.is_not_found(),
        }
    }
}

fn put_back(socket: &mut Socket, undo: &Undo, actual: &Actual) -> Result<(), ChangeError> {
    match undo {
        Undo::Mtu { device, before, .. } => socket.set_mtu(device.index(), *before)?,
        Undo::Sysctl { key, before, companions, .. } => {
            sysctl::write(key, before)?;
            for Companion { key, value } in undisturbed(companions, actual) {
                sysctl::write(key, value)?;
            }
        }
        Undo::Address(address) => delete_address(socket, &address.address())?,
        Undo::Down { device } => set_down(socket, device.index())?,
        Undo::Route(route) => socket.delete_route(&route.route())?,
        Undo::Unreachable { destination } => socket.delete_unreachable(*destination)?,
    }
    Ok(())
}

/// The companions that nobody has changed since, among them none whose link is gone.
pub(super) fn undisturbed<'a>(
    companions: &'a [Companion],
    actual: &Actual,
) -> impl Iterator<Item = &'a Companion> {
    companions.iter().filter(|Companion { key, value }| actual.sysctl(key) == Some(value))
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
