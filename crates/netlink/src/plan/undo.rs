//! What takes an operation back, and whether it still may.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::desired::plain_metric;
use super::{Actual, Companion, Device, DeviceAddress, DeviceRoute};

/// What takes an operation back: plain data, which the [journal](crate::journal) keeps.
///
/// Every step names what the operation wrote. Only that is taken back: whoever has changed it since
/// wanted something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Undo {
    /// Sets an earlier MTU again.
    Mtu {
        /// The device.
        device: Device,
        /// What the operation wrote.
        wrote: u32,
        /// What was there before.
        before: u32,
    },
    /// Writes an earlier setting again.
    Sysctl {
        /// Its key.
        key: String,
        /// What the operation wrote.
        wrote: String,
        /// What was there before.
        before: String,
        /// What is written again afterwards, since the kernel resets it along with the key.
        companions: Vec<Companion>,
    },
    /// Removes an address.
    Address(DeviceAddress),
    /// Switches a device off.
    Down {
        /// The device.
        device: Device,
    },
    /// Removes a route.
    Route(DeviceRoute),
    /// Removes an unreachable destination.
    Unreachable {
        /// The destination.
        destination: IpNet,
    },
}

/// What became of a step that was to be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reverted {
    /// It is taken back.
    Done,
    /// There is nothing to take back: the operation never happened, or its object is gone.
    NotThere,
    /// Someone else has changed it since, so it is left alone.
    ChangedSince {
        /// What is there.
        found: String,
    },
}

impl Undo {
    /// What reverting it has to do in the present state: [`Reverted::Done`] if it is to be done.
    pub fn judge(&self, actual: &Actual) -> Reverted {
        match self {
            Self::Mtu { device, wrote, before } => {
                let mtu = actual.link(device.index()).map(|link| link.mtu);
                compare(mtu, wrote, before)
            }
            Self::Sysctl { key, wrote, before, .. } => {
                compare(actual.sysctls.get(key).cloned(), wrote, before)
            }
            Self::Address(address) => due(actual.addresses.contains(&address.address())),
            Self::Down { device } => due(actual.link(device.index()).is_some_and(|link| link.up)),
            Self::Route(route) => judge_route(route, actual),
            Self::Unreachable { destination } => judge_unreachable(*destination, actual),
        }
    }
}

fn compare<T: PartialEq + ToString>(found: Option<T>, wrote: &T, before: &T) -> Reverted {
    match found {
        Some(found) if found == *wrote => Reverted::Done,
        Some(found) if found != *before => Reverted::ChangedSince { found: found.to_string() },
        _ => Reverted::NotThere,
    }
}

fn due(there: bool) -> Reverted {
    if there { Reverted::Done } else { Reverted::NotThere }
}

fn judge_route(ours: &DeviceRoute, actual: &Actual) -> Reverted {
    if actual.main_routes().any(|listed| ours.is(listed)) {
        return Reverted::Done;
    }
    in_its_place(ours.destination, actual)
}

fn judge_unreachable(destination: IpNet, actual: &Actual) -> Reverted {
    if actual.unreachable.contains(&destination) {
        return Reverted::Done;
    }
    in_its_place(destination, actual)
}

/// A table has one route of a destination and metric, so another one there has replaced ours.
fn in_its_place(destination: IpNet, actual: &Actual) -> Reverted {
    let metric = plain_metric(destination);
    let other = actual
        .main_routes()
        .find(|route| route.destination == destination && route.effective_metric() == metric);
    match other {
        Some(other) => {
            let link = other.link.and_then(|index| actual.link(index));
            let link = link.map_or("several links", |link| link.name.as_str());
            Reverted::ChangedSince { found: format!("{destination} dev {link}") }
        }
        None => Reverted::NotThere,
    }
}
