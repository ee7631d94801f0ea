//! Three hosts on one LAN.

use std::net::Ipv4Addr;

use super::{BuildError, Port, await_passage, configure, host, lan_ipv4, lan_ipv6, plug, switch};
use crate::host::Host;

/// Three hosts, A, B and C, on one Ethernet switch.
///
/// The switch is a bridge in a fourth namespace, with one veth pair to each host.
#[derive(Debug)]
pub struct ThreeHosts {
    /// 10.1.0.1 and fd01::1.
    pub a: Host,
    /// 10.1.0.2 and fd01::2.
    pub b: Host,
    /// 10.1.0.3 and fd01::3.
    pub c: Host,
    /// The switch.
    pub lan: Host,
}

impl ThreeHosts {
    /// The IPv4 address of A's Ethernet device.
    pub const A: Ipv4Addr = lan_ipv4(1);
    /// The IPv4 address of B's Ethernet device.
    pub const B: Ipv4Addr = lan_ipv4(2);
    /// The IPv4 address of C's Ethernet device.
    pub const C: Ipv4Addr = lan_ipv4(3);

    /// The hosts, their devices and addresses.
    pub const DRAWING: &str = "  host A                host B                host C
  eth0 10.1.0.1/24      eth0 10.1.0.2/24      eth0 10.1.0.3/24
   |   fd01::1/64        |   fd01::2/64        |   fd01::3/64
   |                     |                     |
 --+---------------------+---------------------+--  lan: Ethernet, MTU 1500
";

    /// Builds the three hosts and the LAN.
    pub fn build() -> Result<Self, BuildError> {
        let topology = Self { a: host("A")?, b: host("B")?, c: host("C")?, lan: switch("lan")? };
        let Self { a, b, c, lan } = &topology;
        for (number, port, host) in [(1, "a", a), (2, "b", b), (3, "c", c)] {
            plug(lan, port, host)?;
            configure(host, Port::lan(number))?;
        }
        await_passage(a, b, Self::B.into())?;
        await_passage(b, c, Self::C.into())?;
        await_passage(c, b, lan_ipv6(2).into())?;
        Ok(topology)
    }

    /// The hosts in the order of their names, without the switch.
    pub fn hosts(&self) -> [&Host; 3] {
        [&self.a, &self.b, &self.c]
    }
}
