//! Why a desired state cannot be planned.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::resolver::NamesError;

use crate::nftables::RULE_LIMIT;

/// A desired state contradicts itself or the host; nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is no such device, and the tunnel does not make it.
    #[error("device {device:?} is not there")]
    NoDevice {
        /// Its name.
        device: String,
    },
    /// The name belongs to a link of another kind.
    #[error("{device:?} is neither a TUN nor a TAP device but {kind}")]
    NotTunnel {
        /// The name.
        device: String,
        /// What it is.
        kind: String,
    },
    /// The MTU is one that the kernel refuses, or with which it drops a family.
    #[error("mtu {mtu} of device {device:?} is outside {least} to {MTU_MOST}")]
    Mtu {
        /// The device.
        device: String,
        /// The MTU.
        mtu: u32,
        /// The least that the device's families allow.
        least: u32,
    },
    /// Something is asked for twice.
    #[error("{what} {value} is given twice")]
    Duplicate {
        /// What it is: an address, a route, an exclusion.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// A network has bits beyond its prefix length.
    #[error("{what} {network} has host bits set")]
    HostBits {
        /// What it is.
        what: &'static str,
        /// The network.
        network: IpNet,
    },
    /// An address and its other end are of different families.
    #[error("address {local} and its peer {peer} are of different families")]
    PeerFamily {
        /// The address.
        local: IpNet,
        /// The other end.
        peer: IpNet,
    },
    /// The device has this IPv6 address already, with another prefix length or peer.
    #[error("device {device:?} has address {local} in another form")]
    AddressTaken {
        /// The device.
        device: String,
        /// The address.
        local: IpNet,
    },
    /// A route's family has no address on the device, so that nobody could answer.
    #[error(
        "route {destination} goes through device {device:?}, which has no address of its family"
    )]
    NoAddress {
        /// The route's destination.
        destination: IpNet,
        /// The device.
        device: String,
    },
    /// Routes need a device that is up.
    #[error("routes go through device {device:?}, which is down and stays so")]
    Down {
        /// The device.
        device: String,
    },
    /// IPv6 is to be blocked and to go through the tunnel.
    #[error("all IPv6 is to be blocked and to go through the tunnel")]
    BlockedAndRouted,
    /// Someone else's route has the destination, and would win or is in the way.
    #[error("there is a route {destination} already{}", by(.link.as_deref()))]
    RouteTaken {
        /// The destination.
        destination: IpNet,
        /// The link that it leaves by.
        link: Option<String>,
    },
    /// An endpoint is one of the device's own addresses.
    #[error("endpoint {endpoint} is an address of device {device:?}")]
    OwnEndpoint {
        /// The endpoint.
        endpoint: IpAddr,
        /// The device.
        device: String,
    },
    /// The very network that shall keep its way is to go through the tunnel.
    #[error("{network} is to go through the tunnel and to keep its way")]
    KeptAndRouted {
        /// The network.
        network: IpNet,
    },
    /// A prefix takes an endpoint along that has no way of its own to keep.
    #[error("endpoint {endpoint} lies in {capture} and has no route to keep")]
    NoWay {
        /// The endpoint.
        endpoint: IpAddr,
        /// The prefix.
        capture: IpNet,
    },
    /// A way has several next hops, which a single route cannot keep.
    #[error("{network} lies in {capture} and has several next hops")]
    SeveralWays {
        /// What was to keep its way.
        network: IpNet,
        /// The prefix that takes it along.
        capture: IpNet,
    },
    /// Addresses are to be translated although no packet is forwarded.
    #[error("addresses are to be translated, but nothing is forwarded")]
    TranslatedNotForwarded,
    /// Addresses are to be translated to one of a family that is not forwarded.
    #[error("addresses are to be translated to {address}, but its family is not forwarded")]
    FamilyNotForwarded {
        /// The address.
        address: IpAddr,
    },
    /// Addresses are to be translated to one that is not the host's, so that no answer would come.
    #[error("addresses are to be translated to {address}, which the host does not have")]
    ForeignAddress {
        /// The address.
        address: IpAddr,
    },
    /// The networks that addresses are translated of are more than a table may have rules.
    #[error("{count} networks are more than the {RULE_LIMIT} rules of a table translate")]
    TooManySources {
        /// How many there are, neighbours merged.
        count: usize,
    },
    /// This cannot be the name of a table.
    #[error("{table:?} cannot be the name of a table of the packet filter")]
    TableName {
        /// The name.
        table: String,
    },
    /// Someone else has a table of that name.
    #[error("there is a table inet {table} already that this tunnel did not make")]
    TableTaken {
        /// The name.
        table: String,
    },
    /// There is no such bridge.
    #[error("bridge {bridge:?} is not there")]
    NoBridge {
        /// Its name.
        bridge: String,
    },
    /// The name of the bridge belongs to a link of another kind.
    #[error("{bridge:?} is not a bridge but {kind}")]
    NotBridge {
        /// The name.
        bridge: String,
        /// What it is.
        kind: String,
    },
    /// A bridge takes Ethernet frames, which a TUN device does not have.
    #[error(
        "device {device:?} is to be a port of bridge {bridge:?}, but carries packets and not frames"
    )]
    TunInBridge {
        /// The device.
        device: String,
        /// The bridge.
        bridge: String,
    },
    /// The device is a port of another link.
    #[error("device {device:?} is a port of {master:?} already")]
    PortTaken {
        /// The device.
        device: String,
        /// The bridge, bond or VRF.
        master: String,
    },
    /// The servers that shall answer names cannot be had.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// The kernel lacks a setting.
    #[error("the kernel has no setting {key}")]
    NoSysctl {
        /// Its key.
        key: String,
    },
}

/// The largest MTU of a TUN or TAP device (`MAX_MTU` in drivers/net/tun.c without a frame's header).
pub(super) const MTU_MOST: u32 = 65_535;

fn by(link: Option<&str>) -> String {
    link.map_or_else(String::new, |link| format!(" by {link:?}"))
}
