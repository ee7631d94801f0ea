//! Hosts and the links between them.
//!
//! A topology is built from nothing and belongs to the value that is returned: dropping it removes
//! it. Every host has `lo` and Ethernet devices `eth0`, `eth1` with IPv4 and IPv6 addresses, strict
//! reverse path filtering (RFC 3704, 2.2: `rp_filter = 1`) for all devices there and to come, and
//! does not forward. When building returns, every link carries packets. Of the machine's own
//! namespace nothing is read or changed.

mod gateway;
mod shared_folder;
mod three_hosts;
mod two_hosts;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use ipnet::IpNet;
use netlink::{Address, LinkIndex, Route, Socket, SysctlError, sysctl};

pub use gateway::Gateway;
pub use shared_folder::SharedFolder;
pub use three_hosts::ThreeHosts;
pub use two_hosts::TwoHosts;

use crate::deadline::{Deadline, WaitError};
use crate::host::{Host, HostError};

/// How long a link may take from "up" to carrying packets.
const PASSAGE_PATIENCE: Duration = Duration::from_secs(5);

/// The payload of an Ethernet frame, in octets (IEEE 802.3).
const ETHERNET_MTU: u32 = 1500;

/// The bridge inside a switch.
const BRIDGE: &str = "br0";

const ANYWHERE_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANYWHERE_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The first Ethernet device of every host.
pub const ETH0: &str = "eth0";

/// The second Ethernet device of a host that has two.
pub const ETH1: &str = "eth1";

/// A network that can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// See [`TwoHosts`].
    TwoHosts,
    /// See [`ThreeHosts`].
    ThreeHosts,
    /// See [`Gateway`].
    Gateway,
    /// See [`SharedFolder`].
    SharedFolder,
}

/// A topology that was built.
#[derive(Debug)]
pub enum Network {
    /// Two hosts.
    TwoHosts(TwoHosts),
    /// Three hosts.
    ThreeHosts(ThreeHosts),
    /// A client, a gateway and the internet.
    Gateway(Gateway),
    /// A host without a network, one with internet, and the internet.
    SharedFolder(SharedFolder),
}

/// Why a topology could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A host could not be made.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A device, an address, a route or the packet filter could not be set.
    #[error("configure host {host}")]
    Network {
        /// The host's name.
        host: &'static str,
        /// The cause.
        source: netlink::Error,
    },
    /// A sysctl could not be written.
    #[error("prepare host {host}")]
    Sysctl {
        /// The host's name.
        host: &'static str,
        /// The cause.
        source: SysctlError,
    },
    /// There is no folder to share.
    #[error("make a folder to share")]
    Folder(#[source] io::Error),
    /// Packets do not pass from one host to another.
    #[error("wait for a packet from host {from} to host {to}")]
    Passage {
        /// The sender's name.
        from: &'static str,
        /// The receiver's name.
        to: &'static str,
        /// The cause.
        source: PassageError,
    },
}

/// Why no packet arrived.
#[derive(Debug, thiserror::Error)]
pub enum PassageError {
    /// There is no socket to try it with.
    #[error("open a UDP socket")]
    Socket(#[source] io::Error),
    /// None arrived in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

impl Topology {
    /// Every topology, the smallest first.
    pub const ALL: [Self; 4] =
        [Self::TwoHosts, Self::ThreeHosts, Self::Gateway, Self::SharedFolder];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoHosts => "two-hosts",
            Self::ThreeHosts => "three-hosts",
            Self::Gateway => "gateway",
            Self::SharedFolder => "shared-folder",
        }
    }

    /// The topology with that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topology| topology.name() == name)
    }

    /// What it is for, in one line.
    pub fn summary(self) -> &'static str {
        match self {
            Self::TwoHosts => "A and B on one wire, with a tunnel between them",
            Self::ThreeHosts => "A, B and C on one LAN: A's packets to C go through a tunnel to B",
            Self::Gateway => {
                "A has no internet but B has: A's default route goes through a tunnel to B"
            }
            Self::SharedFolder => {
                "A has no network, only a folder that B has, too: A's internet comes through the folder"
            }
        }
    }

    /// Builds it.
    pub fn build(self) -> Result<Network, BuildError> {
        match self {
            Self::TwoHosts => TwoHosts::build().map(Network::TwoHosts),
            Self::ThreeHosts => ThreeHosts::build().map(Network::ThreeHosts),
            Self::Gateway => Gateway::build().map(Network::Gateway),
            Self::SharedFolder => SharedFolder::build().map(Network::SharedFolder),
        }
    }
}

impl Network {
    /// The hosts in the order of their names.
    pub fn hosts(&self) -> Vec<&Host> {
        match self {
            Self::TwoHosts(topology) => topology.hosts().into(),
            Self::ThreeHosts(topology) => topology.hosts().into(),
            Self::Gateway(topology) => topology.hosts().into(),
            Self::SharedFolder(topology) => topology.hosts().into(),
        }
    }
}

/// An Ethernet device of a host.
#[derive(Debug)]
struct Port {
    device: &'static str,
    /// The same in every run.
    mac: [u8; 6],
    addresses: Vec<IpNet>,
}

impl Port {
    /// The device of the host with `number` on the Ethernet number `segment` of a topology.
    ///
    /// The link-local address is one of its own because the kernel would make one later, at any time.
    fn new(device: &'static str, segment: u8, number: u8, ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Self {
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(number));
        let addresses =
            vec![net(ipv4.into(), 24), net(ipv6.into(), 64), net(link_local.into(), 64)];
        // Locally administered.
        Self { device, mac: [0x02, 0xad, 0x17, 0x00, segment, number], addresses }
    }

    /// The device of the host with `number` on the first Ethernet of a topology.
    fn lan(number: u8) -> Self {
        Self::new(ETH0, 0, number, lan_ipv4(number), lan_ipv6(number))
    }
}

/// The IPv4 address of the host with `number` on the first Ethernet of a topology.
pub(crate) const fn lan_ipv4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, number)
}

/// The IPv6 address of the host with `number` on the first Ethernet of a topology.
pub(crate) const fn lan_ipv6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, number as u16)
}

/// The number of the Ethernet between B and the internet.
const UPLINK: u8 = 2;

/// The IPv4 address of the host with `number` on that Ethernet.
const fn uplink_ipv4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

/// The IPv6 address of the host with `number` on that Ethernet.
const fn uplink_ipv6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, number as u16)
}

fn net(address: IpAddr, prefix_len: u8) -> IpNet {
    IpNet::new(address, prefix_len).expect("the prefix length fits the family")
}

/// Runs `change` with a netlink socket inside `host`.
fn change<T: Send + 'static>(
    host: &Host,
    change: impl FnOnce(&mut Socket) -> Result<T, netlink::Error> + Send + 'static,
) -> Result<T, BuildError> {
    host.run(|| change(&mut Socket::open()?))
        .map_err(|source| BuildError::Network { host: host.name(), source })
}

/// The link of that name, which the caller has just made.
fn link(socket: &mut Socket, name: &str) -> Result<LinkIndex, netlink::Error> {
    let link = socket.link(name)?;
    Ok(link.expect("the namespace is this lab's own and nobody else removes links").index)
}

/// Makes a host with its loopback device up and the rules of this module, before it has a link.
fn host(name: &'static str) -> Result<Host, BuildError> {
    let host = Host::new(name)?;
    write_sysctls(
        &host,
        &[
            ("net.ipv4.ip_forward", "0"),
            ("net.ipv6.conf.all.forwarding", "0"),
            ("net.ipv4.conf.all.rp_filter", "1"),
            ("net.ipv4.conf.default.rp_filter", "1"),
            ("net.ipv4.conf.lo.rp_filter", "1"),
            // Addresses are known to be unique and serve at once, without duplicate detection.
            ("net.ipv6.conf.default.accept_dad", "0"),
            // No router is there to be asked.
            ("net.ipv6.conf.default.router_solicitations", "0"),
        ],
    )?;
    change(&host, |socket| {
        let loopback = link(socket, "lo")?;
        socket.set_up(loopback, true)
    })?;
    Ok(host)
}

/// Makes the namespace of an Ethernet switch: a bridge `br0` that hosts are plugged into.
///
/// It has no addresses of its own and therefore never says a word.
fn switch(name: &'static str) -> Result<Host, BuildError> {
    let switch = Host::new(name)?;
    write_sysctls(&switch, &[("net.ipv6.conf.default.disable_ipv6", "1")])?;
    change(&switch, |socket| {
        socket.add_bridge(BRIDGE)?;
        let bridge = link(socket, BRIDGE)?;
        socket.set_up(bridge, true)
    })?;
    Ok(switch)
}

fn write_sysctls(
    host: &Host,
    settings: &'static [(&'static str, &'static str)],
) -> Result<(), BuildError> {
    host.run(|| settings.iter().try_for_each(|(key, value)| sysctl::write(key, value)))
        .map_err(|source| BuildError::Sysctl { host: host.name(), source })
}

/// Connects [`ETH0`] of `host` with a port `port` of `switch`.
fn plug(switch: &Host, port: &'static str, host: &Host) -> Result<(), BuildError> {
    connect(switch, port, host, ETH0)?;
    change(switch, move |socket| {
        let (port, bridge) = (link(socket, port)?, link(socket, BRIDGE)?);
        socket.set_master(port, Some(bridge))?;
        socket.set_up(port, true)
    })
}

/// Makes a veth pair: `device` in `near`, `other` in `far`.
fn connect(
    near: &Host,
    device: &'static str,
    far: &Host,
    other: &'static str,
) -> Result<(), BuildError> {
    let namespace = far.as_fd().try_clone_to_owned();
    let namespace = namespace.map_err(|source| HostError::Enter { host: far.name(), source })?;
    change(near, move |socket| socket.add_veth(device, other, Some(namespace.as_fd())))
}

/// Gives a device of `host` what `port` says and sets it up.
fn configure(host: &Host, port: Port) -> Result<(), BuildError> {
    change(host, move |socket| {
        let link = link(socket, port.device)?;
        socket.set_mac(link, port.mac)?;
        socket.set_mtu(link, ETHERNET_MTU)?;
        socket.set_addr_gen_mode_none(link)?;
        socket.set_up(link, true)?;
        port.addresses
            .into_iter()
            .try_for_each(|local| socket.add_address(&Address { link, local, peer: None }))
    })
}

fn add_default_route(
    host: &Host,
    device: &'static str,
    via: IpAddr,
    metric: Option<u32>,
) -> Result<(), BuildError> {
    let everything: IpNet = net(if via.is_ipv4() { ANYWHERE_IPV4 } else { ANYWHERE_IPV6 }, 0);
    change(host, move |socket| {
        let link = Some(link(socket, device)?);
        socket.add_route(&Route { via: Some(via), link, metric, ..Route::new(everything) })
    })
}

/// Waits until a datagram passes from one host to the other's address.
///
/// A link that is up drops packets until the kernel's link watch has activated its queue, and no
/// flag of the link tells when that is done.
fn await_passage(from: &Host, to: &Host, address: IpAddr) -> Result<(), BuildError> {
    let failed = |source| BuildError::Passage { from: from.name(), to: to.name(), source };
    let receiver = to.run(move || udp_socket(address)).map_err(failed)?;
    let target = receiver.local_addr().map_err(|error| failed(PassageError::Socket(error)))?;
    let anywhere = if address.is_ipv4() { ANYWHERE_IPV4 } else { ANYWHERE_IPV6 };
    let sender = from.run(move || udp_socket(anywhere)).map_err(failed)?;
    let arrived = Deadline::after(PASSAGE_PATIENCE).wait_until(|| {
        // Refused as long as the route or the neighbour is not ready; the next try may pass.
        let _ = sender.send_to(b"ready?", target);
        receiver.recv(&mut [0; 16]).ok()
    });
    arrived.map(|_| ()).map_err(|error| failed(error.into()))
}

fn udp_socket(address: IpAddr) -> Result<UdpSocket, PassageError> {
    let socket = UdpSocket::bind((address, 0)).map_err(PassageError::Socket)?;
    socket.set_nonblocking(true).map_err(PassageError::Socket)?;
    Ok(socket)
}
