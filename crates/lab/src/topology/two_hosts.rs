//! Two hosts on one wire.

use std::net::Ipv4Addr;

use super::{BuildError, ETH0, Port, await_passage, configure, connect, host, lan_ipv4, lan_ipv6};
use crate::host::Host;

/// Two hosts, A and B, on one Ethernet wire (a veth pair).
#[derive(Debug)]
pub struct TwoHosts {
    /// 10.1.0.1 and fd01::1.
    pub a: Host,
    /// 10.1.0.2 and fd01::2.
    pub b: Host,
}

impl TwoHosts {
    /// The IPv4 address of A's Ethernet device.
    pub const A: Ipv4Addr = lan_ipv4(1);
    /// The IPv4 address of B's Ethernet device.
    pub const B: Ipv4Addr = lan_ipv4(2);

    /// The hosts, their devices and addresses.
    pub const DRAWING: &str = "  host A                          host B
  eth0 10.1.0.1/24 -------------- eth0 10.1.0.2/24
       fd01::1/64    Ethernet,         fd01::2/64
                     MTU 1500
";

    /// Builds both hosts and the wire.
    pub fn build() -> Result<Self, BuildError> {
        let topology = Self { a: host("A")?, b: host("B")? };
        let Self { a, b } = &topology;
        connect(a, ETH0, b, ETH0)?;
        configure(a, Port::lan(1))?;
        configure(b, Port::lan(2))?;
        await_passage(a, b, Self::B.into())?;
        await_passage(b, a, lan_ipv6(1).into())?;
        Ok(topology)
    }

    /// The hosts in the order of their names.
    pub fn hosts(&self) -> [&Host; 2] {
        [&self.a, &self.b]
    }
}
