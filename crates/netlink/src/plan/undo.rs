//! What takes an operation back, and whether it still may.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::nftables::ChainId;
use crate::{LinkIndex, resolver};

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
    /// Removes the marked rules from a chain of someone else.
    AcceptForward {
        /// The chain.
        chain: ChainId,
        /// The device's name that they are for.
        device: String,
    },
    /// Takes a device out of a bridge.
    NoMaster {
        /// The device.
        device: Device,
        /// The bridge.
        bridge: Device,
    },
    /// Has the former servers answer names.
    Names(resolver::Undo),
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
            Self::Sysctl { key, wrote, before, companions } => {
                if lost(companions, key, before, actual).next().is_some() {
                    return Reverted::Done;
                }
                compare(actual.sysctls.get(key).cloned(), wrote, before)
            }
            Self::Address(address) => due(actual.addresses.contains(&address.address())),
            Self::Down { device } => due(actual.link(device.index()).is_some_and(|link| link.up)),
            Self::Route(route) => judge_route(route, actual),
            Self::Unreachable { destination } => judge_unreachable(*destination, actual),
            Self::AcceptForward { chain, .. } => {
                let mut dropping = actual.filter.dropping.iter();
                due(dropping.any(|other| other.chain == *chain && other.accepts))
            }
            // What answers names tells by itself whether it is still ours.
            Self::Names(_) => Reverted::Done,
            Self::NoMaster { device, bridge } => {
                match actual.link(device.index()).and_then(|link| link.master) {
                    Some(master) if master == bridge.index() => Reverted::Done,
                    Some(master) => Reverted::ChangedSince { found: actual.name_of(master) },
                    None => Reverted::NotThere,
                }
            }
        }
    }

    /// The link whose end is the end of what the operation has made.
    pub fn link(&self) -> Option<LinkIndex> {
        match self {
            Self::Mtu { device, .. } | Self::Down { device } | Self::NoMaster { device, .. } => {
                Some(device.index())
            }
            Self::Address(address) => Some(address.device.index()),
            Self::Route(route) => Some(route.device.index()),
            Self::Sysctl { .. }
            | Self::Unreachable { .. }
            | Self::AcceptForward { .. }
            | Self::Names(_) => None,
        }
    }

    /// What takes both an `earlier` step and this one back, if one step can.
    ///
    /// What was there before is what was there before the earlier one, unless someone else has written
    /// in between: that is what is wanted then.
    pub(super) fn after(&self, earlier: &Self) -> Option<Self> {
        match (earlier, self) {
            (
                Self::Mtu { device: first, wrote: between, before },
                Self::Mtu { device, wrote, before: found },
            ) if first == device => {
                let before = if found == between { before } else { found };
                Some(Self::Mtu { device: device.clone(), wrote: *wrote, before: *before })
            }
            (Self::Sysctl { key: first, .. }, Self::Sysctl { key, .. }) if first == key => {
                Some(self.clone())
            }
            _ => (self == earlier).then(|| self.clone()),
        }
    }

    /// The route that it removes.
    pub(super) fn as_route(&self) -> Option<&DeviceRoute> {
        if let Self::Route(route) = self { Some(route) } else { None }
    }

    /// The unreachable destination that it removes.
    pub(super) fn as_unreachable(&self) -> Option<IpNet> {
        if let Self::Unreachable { destination } = self { Some(*destination) } else { None }
    }
}

impl fmt::Display for Undo {
    /// Names the object of the change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mtu { device, .. } => write!(f, "the MTU of {device}"),
            Self::Sysctl { key, .. } => write!(f, "{key}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Down { device } => write!(f, "the state of {device}"),
            Self::Route(route) => write!(f, "route {route}"),
            Self::Unreachable { destination } => write!(f, "unreachable route {destination}"),
            Self::AcceptForward { chain, device } => {
                write!(f, "the rules for {device} in chain {chain}")
            }
            Self::NoMaster { device, .. } => write!(f, "the bridge of {device}"),
            Self::Names(undo) => undo.fmt(f),
        }
    }
}

/// The companions of a setting that has its former value again, but that have not: whoever wrote it, as an
/// undo that was interrupted, had the kernel reset them.
pub(super) fn lost<'a>(
    companions: &'a [Companion],
    key: &str,
    before: &str,
    actual: &Actual,
) -> impl Iterator<Item = &'a Companion> {
    let reset = actual.sysctl(key) == Some(before);
    companions.iter().filter(move |Companion { key, value }| {
        reset && actual.sysctl(key).is_some_and(|found| found != value)
    })
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
