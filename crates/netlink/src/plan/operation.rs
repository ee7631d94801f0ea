//! A step of a plan: what it changes, in which order, and what takes it back.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::nftables::{ChainId, Table};
use crate::{Address, LinkIndex, Route, resolver};

use super::Undo;

/// A link, known to the kernel by its number and to people by its name.
///
/// The number decides: a link that was deleted and made anew under the same name is another link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its number; 0 is a link that has yet to be made.
    pub index: u32,
    /// Its name at the time of the plan.
    pub name: String,
}

/// An address that a plan adds to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceAddress {
    /// The device that it belongs to.
    pub device: Device,
    /// The address with its prefix length, as in [`Address::local`].
    pub local: IpNet,
    /// The other end of a point-to-point link, as in [`Address::peer`].
    pub peer: Option<IpNet>,
}

/// A route that a plan adds: in the main table, static, without a metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRoute {
    /// The device that it leaves by.
    pub device: Device,
    /// The addresses that it leads to.
    pub destination: IpNet,
    /// The next router.
    pub via: Option<IpAddr>,
    /// The source address that sockets take for it.
    pub source: Option<IpAddr>,
    /// The largest packet that passes along it, in octets, if less than the device's.
    pub mtu: Option<u32>,
}

/// A setting that the kernel resets when another one is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Companion {
    /// Its key.
    pub key: String,
    /// Its value before the operation and after it, which undoing the operation would lose.
    pub value: String,
}

/// What an operation is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The host forwards packets.
    Forward,
    /// A link goes on learning routes from router advertisements although the host forwards.
    Advertised,
    /// A link takes packets although the way back to their source leaves by another.
    Loose,
    /// An endpoint of the tunnel keeps its way.
    Endpoint,
    /// An excluded network keeps its way.
    Excluded,
    /// A network is reached through the tunnel.
    Tunnelled,
    /// All traffic of a family goes through the tunnel.
    Default,
    /// IPv6 does not pass beside the tunnel.
    Blocked,
}

/// The order of operations; they are undone in the opposite order.
///
/// What makes packets flow comes before what redirects them. The packet filter comes before the ways,
/// so that no packet of the tunnel leaves untranslated. The kept ways come before the addresses, since
/// an address brings the route to its prefix along. The device is a port before it is on, so that the
/// host does not take its frames for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Settings of the kernel and of the device.
    Setting,
    /// The packet filter.
    Filter,
    /// Ways that must not change, or must follow the uplink.
    Keep,
    /// Addresses of the device.
    Address,
    /// The device becomes a port.
    Port,
    /// The device is switched on.
    Up,
    /// Networks that go through the device.
    Redirect,
    /// All traffic that is left.
    Default,
    /// Who answers names: the servers may be behind the tunnel.
    Names,
}

/// One change to the host's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets the largest packet of a device, in octets.
    SetMtu {
        /// The device.
        device: Device,
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// Writes a setting of the kernel.
    WriteSysctl {
        /// Its key, as in [`crate::sysctl`].
        key: String,
        /// Before.
        from: String,
        /// After.
        to: String,
        /// What undoing would lose if it wrote this key only.
        companions: Vec<Companion>,
        /// What it is good for.
        purpose: Purpose,
    },
    /// Puts the tunnel's table into force, in the place of the one that is.
    InstallTable {
        /// The table.
        table: Table,
    },
    /// Puts two marked rules at the head of a chain of someone else that drops what is left: what
    /// comes in by a device is accepted, and the answers to it.
    AcceptForward {
        /// The chain.
        chain: ChainId,
        /// The device's name.
        device: String,
    },
    /// Adds an address.
    AddAddress(DeviceAddress),
    /// Makes a device a port of a bridge.
    SetMaster {
        /// The device.
        device: Device,
        /// The bridge.
        bridge: Device,
    },
    /// Switches a device on.
    SetUp {
        /// The device.
        device: Device,
    },
    /// Adds a route.
    AddRoute {
        /// The route.
        route: DeviceRoute,
        /// What it is good for.
        purpose: Purpose,
    },
    /// Puts a route in the place of one that an earlier operation added, at one moment.
    ReplaceRoute {
        /// The route that is there.
        from: DeviceRoute,
        /// The route in its place, with the same destination.
        to: DeviceRoute,
        /// What it is good for.
        purpose: Purpose,
    },
    /// Removes a route that an earlier operation added.
    DeleteRoute {
        /// The route.
        route: DeviceRoute,
    },
    /// Removes an unreachable destination that an earlier operation added.
    DeleteUnreachable {
        /// The network.
        destination: IpNet,
    },
    /// Refuses packets for a network, at once and with an answer to the sender.
    AddUnreachable {
        /// The network.
        destination: IpNet,
        /// What it is good for.
        purpose: Purpose,
    },
    /// Has other servers answer names.
    ChangeNames(resolver::Change),
}

impl Operation {
    /// When it is applied.
    pub fn stage(&self) -> Stage {
        match self {
            Self::SetMtu { .. } | Self::WriteSysctl { .. } => Stage::Setting,
            Self::InstallTable { .. } | Self::AcceptForward { .. } => Stage::Filter,
            Self::ReplaceRoute { .. }
            | Self::DeleteRoute { .. }
            | Self::DeleteUnreachable { .. } => Stage::Keep,
            Self::AddAddress(_) => Stage::Address,
            Self::SetMaster { .. } => Stage::Port,
            Self::SetUp { .. } => Stage::Up,
            Self::ChangeNames(_) => Stage::Names,
            Self::AddRoute { purpose, .. } | Self::AddUnreachable { purpose, .. } => {
                match purpose {
                    Purpose::Endpoint | Purpose::Excluded => Stage::Keep,
                    Purpose::Default | Purpose::Blocked => Stage::Default,
                    _ => Stage::Redirect,
                }
            }
        }
    }

    /// What takes it back; none if the kernel does, as with a table that has an owner, or if the
    /// operation takes back itself.
    pub fn undo(&self) -> Option<Undo> {
        let undo = match self {
            Self::SetMtu { device, from, to } => {
                Undo::Mtu { device: device.clone(), wrote: *to, before: *from }
            }
            Self::WriteSysctl { key, from, to, companions, .. } => Undo::Sysctl {
                key: key.clone(),
                wrote: to.clone(),
                before: from.clone(),
                companions: companions.clone(),
            },
            Self::AcceptForward { chain, device } => {
                Undo::AcceptForward { chain: chain.clone(), device: device.clone() }
            }
            Self::AddAddress(address) => Undo::Address(address.clone()),
            Self::SetMaster { device, bridge } => {
                Undo::NoMaster { device: device.clone(), bridge: bridge.clone() }
            }
            Self::SetUp { device } => Undo::Down { device: device.clone() },
            Self::AddRoute { route, .. } | Self::ReplaceRoute { to: route, .. } => {
                Undo::Route(route.clone())
            }
            Self::AddUnreachable { destination, .. } => {
                Undo::Unreachable { destination: *destination }
            }
            Self::ChangeNames(change) => Undo::Names(change.undo()),
            Self::InstallTable { .. }
            | Self::DeleteRoute { .. }
            | Self::DeleteUnreachable { .. } => return None,
        };
        Some(undo)
    }

    /// The earlier step that there is nothing left of once this operation is applied. The journal may
    /// forget it then, and not before.
    pub fn withdraws(&self) -> Option<Undo> {
        match self {
            Self::ReplaceRoute { from: route, .. } | Self::DeleteRoute { route } => {
                Some(Undo::Route(route.clone()))
            }
            Self::DeleteUnreachable { destination } => {
                Some(Undo::Unreachable { destination: *destination })
            }
            _ => None,
        }
    }
}

impl Device {
    /// The number as a type.
    pub fn index(&self) -> LinkIndex {
        LinkIndex(self.index)
    }
}

impl DeviceAddress {
    /// The address as the kernel lists it.
    pub fn address(&self) -> Address {
        Address { link: self.device.index(), local: self.local, peer: self.peer }
    }
}

impl DeviceRoute {
    /// A route to what is on the device itself.
    pub(super) fn through(device: &Device, destination: IpNet) -> Self {
        Self { device: device.clone(), destination, via: None, source: None, mtu: None }
    }

    /// The route to be added.
    pub fn route(&self) -> Route {
        Route {
            via: self.via,
            link: Some(self.device.index()),
            source: self.source,
            mtu: self.mtu,
            ..Route::new(self.destination)
        }
    }

    /// Whether a listed route is this one. Listings of IPv6 name the metric that goes without saying.
    pub(super) fn is(&self, listed: &Route) -> bool {
        let route = self.route();
        listed.effective_metric() == route.effective_metric()
            && Route { metric: None, ..listed.clone() } == route
    }
}
