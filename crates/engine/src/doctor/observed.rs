//! What was read of a host, without any judgement.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use device::Holder;
use ipnet::IpNet;
use netlink::nftables::{BaseChain, FoundTable};
use netlink::{Address, Link, LinkIndex, Route, TABLE_MAIN};

use crate::config::{Config, Endpoint, InterfaceAddress};

/// A host at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The node of the tun driver.
    pub node: Node,
    /// The release of the kernel, as `uname -r` prints it.
    pub kernel: String,
    /// The packet filter.
    pub filter: Filter,
    /// Whether legacy iptables has rules for IPv4, and for IPv6.
    pub legacy: (bool, bool),
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// The unicast routes of all tables.
    pub routes: Vec<Route>,
    /// Settings by their keys, as far as the kernel has them.
    pub sysctls: BTreeMap<String, String>,
    /// Who answers the host's questions for names.
    pub resolver: Resolver,
    /// The tunnel that was asked for.
    pub tunnel: Option<ObservedTunnel>,
}

/// What becomes of opening the node of the tun driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// It opens.
    Usable,
    /// It is not there, or no driver is behind it; what the system says.
    Missing(String),
    /// It may not be opened; what the system says.
    Forbidden(String),
    /// There is something else in its place.
    Foreign,
    /// It cannot be opened for another reason; what the system says.
    Failed(String),
}

/// The packet filter of the kernel.
#[derive(Clone, Debug)]
pub enum Filter {
    /// It can be read.
    Known {
        /// The chains that packets come to by themselves.
        chains: Vec<Chain>,
        /// All tables.
        tables: Vec<FoundTable>,
    },
    /// The kernel has no nf_tables; what it says.
    Missing(String),
    /// It cannot be read; what the kernel says.
    Unknown(String),
}

/// A base chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The chain.
    pub chain: BaseChain,
    /// Whether the rules are there by which it accepts what the tunnel's device forwards.
    pub accepts: bool,
}

/// Who answers the host's questions for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// systemd-resolved.
    Resolved,
    /// The servers that `/etc/resolv.conf` names.
    File(Vec<IpAddr>),
}

/// What concerns one tunnel.
#[derive(Clone, Debug)]
pub struct ObservedTunnel {
    /// What it is to be.
    pub config: Config,
    /// The process that has it up, if one has.
    pub running: Option<u32>,
    /// That process and its children.
    pub own: Vec<u32>,
    /// The processes that are attached to the device, as far as they are visible.
    pub holders: Vec<Holder>,
    /// The peers' endpoints, in the order of the configuration.
    pub endpoints: Vec<ObservedEndpoint>,
    /// How a packet to an address of each inner network would go, or why it cannot.
    pub ways: Vec<(IpNet, Result<Route, String>)>,
    /// The UDP sockets of this host that have a port that the tunnel listens on.
    pub listeners: Vec<Listener>,
}

/// Where a peer is.
#[derive(Clone, Debug)]
pub struct ObservedEndpoint {
    /// The peer's name.
    pub peer: String,
    /// The endpoint as configured.
    pub endpoint: Endpoint,
    /// Whether it is the peer's first, which is the one that is used.
    pub first: bool,
    /// Its address, or why its name has none.
    pub remote: Result<SocketAddr, String>,
    /// How a datagram to the address would go, or why it cannot.
    pub way: Result<Route, String>,
}

/// A UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it is bound.
    pub local: SocketAddr,
    /// Whose it is, if that is visible: process and command.
    pub process: Option<(u32, String)>,
}

impl Observed {
    /// The link with a name.
    pub(super) fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// A link's name for a message.
    pub(super) fn link_name(&self, index: Option<LinkIndex>) -> String {
        let link = index.and_then(|index| self.links.iter().find(|link| link.index == index));
        match (link, index) {
            (Some(link), _) => link.name.clone(),
            (None, Some(LinkIndex(index))) => format!("if{index}"),
            (None, None) => "several links".to_owned(),
        }
    }

    /// The routes of the table that is used unless a rule says otherwise.
    pub(super) fn main_routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| route.table == TABLE_MAIN)
    }

    /// A setting's value; `None` if the kernel has no such setting.
    pub(super) fn sysctl(&self, key: &str) -> Option<&str> {
        self.sysctls.get(key).map(String::as_str)
    }
}

impl ObservedTunnel {
    /// The name of the device.
    pub(super) fn device(&self) -> &str {
        self.config.device.name.as_str()
    }

    /// Whether the tunnel carries packets of a family, as far as its addresses and routes tell.
    pub(super) fn carries(&self, v4: bool) -> bool {
        let addresses = self.config.device.addresses.iter().map(InterfaceAddress::local);
        let routes = self.config.network.routes.iter().map(IpNet::addr);
        addresses.chain(routes).any(|ip| ip.is_ipv4() == v4)
    }
}

/// The networks that a configuration routes through its device, each on its own. A peer that owns
/// everything is no reason for a route.
pub(super) fn inner_networks(config: &Config) -> Vec<IpNet> {
    let allowed = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
    let mut networks: Vec<_> = config
        .network
        .routes
        .iter()
        .chain(allowed)
        .copied()
        .filter(|network| network.prefix_len() > 0)
        .collect();
    networks.sort();
    networks.dedup();
    networks
}
