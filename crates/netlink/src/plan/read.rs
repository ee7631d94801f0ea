//! Reading the actual state from the kernel.

use std::collections::BTreeMap;

use crate::resolver::{self, Resolver, ResolverError};
use crate::sysctl::{self, SysctlError};
use crate::{Link, LinkIndex, Socket};

use super::{Actual, ChangeError, Desired, Undo};

/// Reads what a plan for `desired` depends on, save the packet filter.
pub(super) fn actual(socket: &mut Socket, desired: &Desired) -> Result<Actual, ChangeError> {
    let links = socket.links()?;
    let sysctls = read_sysctls(desired.sysctls(&links).iter().map(String::as_str))?;
    Ok(Actual {
        addresses: socket.addresses()?,
        routes: socket.routes()?,
        unreachable: socket.unreachable()?,
        resolver: resolver(&links, desired)?,
        links,
        sysctls,
        ..Actual::default()
    })
}

/// Reads what [`Undo::judge`] looks at, save the packet filter.
pub(super) fn for_undo(socket: &mut Socket, undo: &Undo) -> Result<Actual, ChangeError> {
    let mut actual = Actual::default();
    match undo {
        Undo::Mtu { device, .. } | Undo::Down { device } => {
            actual.links.extend(socket.link_at(LinkIndex(device.index))?);
        }
        Undo::Sysctl { key, companions, .. } => {
            let companions = companions.iter().map(|companion| companion.key.as_str());
            actual.sysctls = read_sysctls(companions.chain([key.as_str()]))?;
        }
        Undo::Address(_) => actual.addresses = socket.addresses()?,
        Undo::NoMaster { .. } => actual.links = socket.links()?,
        Undo::Route(_) | Undo::Unreachable { .. } => {
            actual.links = socket.links()?;
            actual.routes = socket.routes()?;
            actual.unreachable = socket.unreachable()?;
        }
        Undo::AcceptForward { .. } | Undo::Names(_) => {}
    }
    Ok(actual)
}

fn resolver(links: &[Link], desired: &Desired) -> Result<Option<Resolver>, ResolverError> {
    if desired.names.is_none() {
        return Ok(None);
    }
    let link = links.iter().find(|link| link.name == desired.device).map(|link| link.index);
    resolver::observe(link).map(Some)
}

/// Reads settings; those that the kernel does not have are missing in the answer.
fn read_sysctls<'a>(
    keys: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, SysctlError> {
    let mut values = BTreeMap::new();
    for key in keys {
        match sysctl::read(key) {
            Ok(value) => _ = values.insert(key.to_owned(), value),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(values)
}
