//! Reading the actual state from the kernel.

use std::collections::BTreeMap;

use crate::sysctl::{self, SysctlError};
use crate::{LinkIndex, Socket};

use super::{Actual, ChangeError, Desired, Undo};

impl Actual {
    /// Reads all that a plan for `desired` depends on.
    ///
    /// Settings are those of the calling thread's namespace, which has to be the socket's.
    pub fn read(socket: &mut Socket, desired: &Desired) -> Result<Self, ChangeError> {
        let links = socket.links()?;
        let sysctls = read_sysctls(desired.sysctls(&links).iter().map(String::as_str))?;
        Ok(Self {
            addresses: socket.addresses()?,
            routes: socket.routes()?,
            unreachable: socket.unreachable()?,
            links,
            sysctls,
        })
    }

    /// Reads what [`Undo::judge`] looks at.
    pub(super) fn read_for(socket: &mut Socket, undo: &Undo) -> Result<Self, ChangeError> {
        let mut actual = Self::default();
        match undo {
            Undo::Mtu { device, .. } | Undo::Down { device } => {
                actual.links.extend(socket.link_at(LinkIndex(device.index))?);
            }
            Undo::Sysctl { key, companions, .. } => {
                let companions = companions.iter().map(|companion| companion.key.as_str());
                actual.sysctls = read_sysctls(companions.chain([key.as_str()]))?;
            }
            Undo::Address(_) => actual.addresses = socket.addresses()?,
            Undo::Route(_) | Undo::Unreachable { .. } => {
                actual.links = socket.links()?;
                actual.routes = socket.routes()?;
                actual.unreachable = socket.unreachable()?;
            }
        }
        Ok(actual)
    }
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
