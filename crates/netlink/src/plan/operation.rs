//! A step of a plan: what it changes, in which order, why, and in a person's words.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Address, LinkIndex, Route};

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
/// What makes packets flow comes before what redirects them. The kept ways come before the addresses,
/// since an address brings the route to its prefix along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Settings of the kernel and of the device.
    Setting,
    /// Ways that must not change.
    Keep,
    /// Addresses of the device.
    Address,
    /// The device is switched on.
    Up,
    /// Networks that go through the device.
    Redirect,
    /// All traffic that is left.
    Default,
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
    /// Adds an address.
    AddAddress(DeviceAddress),
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
    /// Refuses packets for a network, at once and with an answer to the sender.
    AddUnreachable {
        /// The network.
        destination: IpNet,
        /// What it is good for.
        purpose: Purpose,
    },
}

impl Operation {
    /// When it is applied.
    pub fn stage(&self) -> Stage {
        match self {
            Self::SetMtu { .. } | Self::WriteSysctl { .. } => Stage::Setting,
            Self::AddAddress(_) => Stage::Address,
            Self::SetUp { .. } => Stage::Up,
            Self::AddRoute { purpose, .. } | Self::AddUnreachable { purpose, .. } => {
                match purpose {
                    Purpose::Endpoint | Purpose::Excluded => Stage::Keep,
                    Purpose::Default | Purpose::Blocked => Stage::Default,
                    _ => Stage::Redirect,
                }
            }
        }
    }

    /// What takes it back.
    pub fn undo(&self) -> Undo {
        match self {
            Self::SetMtu { device, from, to } => {
                Undo::Mtu { device: device.clone(), wrote: *to, before: *from }
            }
            Self::WriteSysctl { key, from, to, companions, .. } => Undo::Sysctl {
                key: key.clone(),
                wrote: to.clone(),
                before: from.clone(),
                companions: companions.clone(),
            },
            Self::AddAddress(address) => Undo::Address(address.clone()),
            Self::SetUp { device } => Undo::Down { device: device.clone() },
            Self::AddRoute { route, .. } => Undo::Route(route.clone()),
            Self::AddUnreachable { destination, .. } => {
                Undo::Unreachable { destination: *destination }
            }
        }
    }

    /// The line that a person would type to the same effect: `ip route add 10.0.0.0/8 dev tun0`.
    pub fn command(&self) -> String {
        match self {
            Self::SetMtu { device, to, .. } => format!("ip link set dev {device} mtu {to}"),
            Self::WriteSysctl { key, to, .. } => format!("sysctl -w {key}={to}"),
            Self::AddAddress(address) => format!("ip address add {address}"),
            Self::SetUp { device } => format!("ip link set dev {device} up"),
            Self::AddRoute { route, .. } => format!("ip route add {route}"),
            Self::AddUnreachable { destination, .. } => {
                format!("ip route add unreachable {destination} proto static")
            }
        }
    }

    /// What it is good for, in one line.
    pub fn why(&self) -> String {
        match self {
            Self::SetMtu { to, .. } => {
                format!("inner packets of up to {to} octets fit into outer datagrams")
            }
            Self::WriteSysctl { key, purpose, .. } => purpose.of(key),
            Self::AddAddress(address) => {
                format!("{} answers to {}", address.device, address.local.addr())
            }
            Self::SetUp { device } => format!("packets pass through {device}"),
            Self::AddRoute { route, purpose } => purpose.of(&route.destination.to_string()),
            Self::AddUnreachable { destination, purpose } => purpose.of(&destination.to_string()),
        }
    }
}

impl Purpose {
    fn of(self, object: &str) -> String {
        match self {
            Self::Forward => "the host passes packets on".to_owned(),
            Self::Advertised => {
                "router advertisements are still heard while the host forwards".to_owned()
            }
            Self::Loose => {
                "packets may come in here although answers to them leave elsewhere".to_owned()
            }
            Self::Endpoint => format!("the tunnel itself reaches {object} as before"),
            Self::Excluded => format!("{object} stays outside the tunnel"),
            Self::Tunnelled => format!("{object} is reached through the tunnel"),
            Self::Default => format!("{object} outranks the default route, which stays untouched"),
            Self::Blocked => "IPv6 does not pass beside the tunnel".to_owned(),
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

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{} peer {peer} dev {}", self.local.addr(), self.device)?,
            None => write!(f, "{} dev {}", self.local, self.device)?,
        }
        // Duplicate address detection makes no sense on a tunnel, and delays its address.
        if self.local.addr().is_ipv6() { write!(f, " nodad") } else { Ok(()) }
    }
}

impl fmt::Display for DeviceRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        match (self.via, self.destination) {
            (Some(via @ IpAddr::V6(_)), IpNet::V4(_)) => write!(f, " via inet6 {via}")?,
            (Some(via), _) => write!(f, " via {via}")?,
            (None, _) => {}
        }
        write!(f, " dev {}", self.device)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        write!(f, " proto static")
    }
}
