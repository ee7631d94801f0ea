//! Where peers are: one transport to one peer.

use std::fmt;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::str::FromStr;

use wire::flow::FiveTuple;
use wire::{ip, udp};

use crate::key::PublicKey;
use crate::noise::hash;

/// What is hashed before a public key, for the label of its side.
const LABEL: &[u8] = b"adit spool side 1";

/// Which of the tunnel's transports of one kind: of its sockets, or of its folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportIndex(pub usize);

/// One of this host's addresses, as a datagram was addressed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddr {
    /// The address.
    pub ip: IpAddr,
    /// The interface that has it, which matters for link-local addresses; 0 is any.
    pub interface: u32,
}

/// Where a peer is, as a transport says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemoteAddr {
    /// An address and port of UDP.
    Udp(SocketAddr),
    /// A side of a shared folder.
    Side(Side),
}

/// Who shares a folder with us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side {
    /// What the side is found by, the same over all its lives; 0 is whoever else is there.
    pub label: u64,
    /// One of its lives; 0 is the present one.
    pub run: u64,
}

/// One way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The transport to send by.
    pub transport: TransportIndex,
    /// Where the peer is.
    pub remote: RemoteAddr,
    /// The address to send from: the one that the peer talks to, if it has spoken. Folders have none.
    pub local: Option<LocalAddr>,
}

impl Side {
    /// The side of a peer, in its present run.
    pub fn of(key: &PublicKey) -> Self {
        Self::labelled(key.as_bytes())
    }

    /// The side of somebody without a key, who has these addresses inside the tunnel.
    pub fn of_addresses(addresses: impl Iterator<Item = IpAddr>) -> Self {
        let text: Vec<_> = addresses.map(|address| address.to_string()).collect();
        Self::labelled(text.join(" ").as_bytes())
    }

    fn labelled(name: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = hash(&[LABEL, name]);
        // Never 0, which is nobody in particular.
        Self { label: u64::from_be_bytes([a | 0x80, b, c, d, e, f, g, h]), run: 0 }
    }
}

impl RemoteAddr {
    /// The address and port, if it is one of UDP.
    #[inline]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(remote) => Some(*remote),
            Self::Side(_) => None,
        }
    }

    /// Whether `other` may be who is meant by this: the same sender, or anybody in the folder if nobody in particular is
    /// meant.
    pub(crate) fn means(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Side(Side { label: 0, .. }), Self::Side(_)) => true,
            _ => self.sender() == other.sender(),
        }
    }

    /// What stays the same as long as it is the same sender.
    pub(crate) fn sender(&self) -> Self {
        match self {
            Self::Udp(_) => *self,
            Self::Side(side) => Self::Side(Side { run: 0, ..*side }),
        }
    }
}

impl Path {
    /// Whether an inner packet is a datagram that was sent on this path itself, from `port`: it came back
    /// because the remote address is routed into the tunnel, and would go round, longer each time.
    #[inline]
    pub fn is_own(&self, packet: &[u8], port: u16) -> bool {
        let RemoteAddr::Udp(remote) = self.remote else { return false };
        ip::destination(packet) == Some(remote.ip())
            && FiveTuple::of(packet).is_some_and(|flow| is_flow(&flow, port, remote.port()))
    }
}

#[cold]
fn is_flow(flow: &FiveTuple, from: u16, to: u16) -> bool {
    let ports = (flow.source_port, flow.destination_port);
    // A fragment tells no ports; who sends one to where the tunnel itself sends is most likely the tunnel.
    flow.protocol == udp::PROTOCOL && [(from, to), (0, 0)].contains(&ports)
}

impl From<SocketAddr> for RemoteAddr {
    fn from(remote: SocketAddr) -> Self {
        Self::Udp(remote)
    }
}

impl From<([u8; 4], u16)> for RemoteAddr {
    fn from(remote: ([u8; 4], u16)) -> Self {
        Self::Udp(remote.into())
    }
}

impl FromStr for RemoteAddr {
    type Err = AddrParseError;

    /// Reads an address and port.
    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        text.parse().map(Self::Udp)
    }
}

impl fmt::Display for RemoteAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(remote) => remote.fmt(formatter),
            Self::Side(Side { label: 0, .. }) => {
                formatter.write_str("the other side of the folder")
            }
            Self::Side(Side { label, run: 0 }) => write!(formatter, "side {label:016x}"),
            Self::Side(Side { label, run }) => {
                write!(formatter, "side {label:016x} in its run {run:016x}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP datagram in IPv4 from 10.0.0.1; `fragment` is the field of that name with its flags.
    fn datagram(to: [u8; 4], ports: (u16, u16), fragment: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, udp::PROTOCOL, 0, 0, 10, 0, 0, 1];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend(to);
        packet.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat());
        packet.extend([0, 8, 0, 0]);
        packet
    }

    #[test]
    fn a_datagram_of_the_path_itself_is_known_by_address_and_ports() {
        let remote = "10.0.0.2:4740".parse().unwrap();
        let path = Path { transport: TransportIndex(0), remote, local: None };
        let is_own = |to, ports, fragment| path.is_own(&datagram(to, ports, fragment), 4741);
        assert!(is_own([10, 0, 0, 2], (4741, 4740), 0));
        assert!(is_own([10, 0, 0, 2], (4741, 4740), 0x2000));
        assert!(!is_own([10, 0, 0, 3], (4741, 4740), 0));
        assert!(!is_own([10, 0, 0, 2], (4742, 4740), 0));
        assert!(!is_own([10, 0, 0, 2], (4741, 53), 0));
        assert!(!path.is_own(&[0x45], 4741));
    }
}
