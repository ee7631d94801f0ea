//! A step of a plan in words: the commands that a person would type, and what it is good for.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::nftables;

use super::{Device, DeviceAddress, DeviceRoute, Operation, Purpose};

impl Operation {
    /// The lines that a person would type to the same effect: `ip route add 10.0.0.0/8 dev tun0`.
    pub fn commands(&self) -> Vec<String> {
        let line = match self {
            Self::InstallTable { table } => return table.as_nft(),
            Self::AcceptForward { chain, device } => {
                return nftables::accept_forward_as_nft(chain, device);
            }
            Self::ChangeNames(change) => return change.commands(),
            Self::SetMtu { device, to, .. } => format!("ip link set dev {device} mtu {to}"),
            Self::WriteSysctl { key, to, .. } => format!("sysctl -w {key}={to}"),
            Self::AddAddress(address) => format!("ip address add {address}"),
            Self::SetMaster { device, bridge } => {
                format!("ip link set dev {device} master {bridge}")
            }
            Self::SetUp { device } => format!("ip link set dev {device} up"),
            Self::AddRoute { route, .. } => format!("ip route add {route}"),
            Self::ReplaceRoute { to, .. } => format!("ip route replace {to}"),
            Self::DeleteRoute { route } => format!("ip route delete {route}"),
            Self::AddUnreachable { destination, .. } => {
                format!("ip route add unreachable {destination} proto static")
            }
            Self::DeleteUnreachable { destination } => {
                format!("ip route delete unreachable {destination} proto static")
            }
        };
        vec![line]
    }

    /// What it is good for, in one line.
    pub fn why(&self) -> String {
        match self {
            Self::SetMtu { to, .. } => {
                format!("inner packets of up to {to} octets fit into outer datagrams")
            }
            Self::ChangeNames(change) => change.why(),
            Self::WriteSysctl { key, purpose, .. } => purpose.of(key),
            Self::InstallTable { .. } => {
                "packets of the tunnel pass on, with source addresses and segments that fit"
                    .to_owned()
            }
            Self::AcceptForward { chain, device } => {
                format!("chain {chain}, which drops what is left, lets packets of {device} pass")
            }
            Self::AddAddress(address) => {
                format!("{} answers to {}", address.device, address.local.addr())
            }
            Self::SetMaster { device, bridge } => {
                format!("frames pass between {device} and the other ports of {bridge}")
            }
            Self::SetUp { device } => format!("packets pass through {device}"),
            Self::AddRoute { route, purpose } => purpose.of(&route.destination.to_string()),
            Self::AddUnreachable { destination, purpose: Purpose::Endpoint } => {
                format!("there is no way to {destination}, and the tunnel itself is none")
            }
            Self::AddUnreachable { destination, purpose } => purpose.of(&destination.to_string()),
            Self::ReplaceRoute { to, .. } => {
                format!("{} follows the way that it would go without the tunnel", to.destination)
            }
            Self::DeleteRoute { route } => needless(route.destination),
            Self::DeleteUnreachable { destination } => needless(*destination),
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

fn needless(destination: IpNet) -> String {
    format!("{destination} needs no route of its own to stay outside the tunnel")
}
