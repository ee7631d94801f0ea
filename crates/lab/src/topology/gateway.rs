//! A client without internet, a gateway that has it, and the internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink::nftables::{self, ChainId, Family};

use super::{
    BuildError, ETH0, ETH1, Port, UPLINK, add_default_route, await_passage, change, configure,
    connect, host, lan_ipv4, lan_ipv6, link, uplink_ipv4, uplink_ipv6, write_sysctls,
};
use crate::host::Host;

/// The number of the Ethernet to the dead end.
const DEAD_END: u8 = 1;

/// A metric that is a default route's first choice, and one that is its second.
const FIRST: u32 = 100;
const SECOND: u32 = 200;

/// A client A, a gateway B and C, which stands for the internet.
///
/// A knows two ways to the internet and neither works. B, its first choice, does not forward, and its
/// packet filter drops whatever is forwarded, as on a host where Docker runs or ufw is on: by a base
/// chain `FORWARD` of the table `filter`, the names of iptables-nft(8), of each IP family. Its second
/// choice is a router that is not there: the namespace at the other end of the wire has no address.
/// C knows only its own link, so what reaches C must come from an address of B.
#[derive(Debug)]
pub struct Gateway {
    /// The client: 10.1.0.1 and fd01::1 towards B, 10.2.0.1 and fd02::1 towards nobody.
    pub a: Host,
    /// The gateway: 10.1.0.2 and fd01::2 towards A, 198.51.100.2 and 2001:db8:100::2 towards C.
    pub b: Host,
    /// The internet: 198.51.100.3 and 2001:db8:100::3.
    pub c: Host,
    /// The other end of A's `eth1`.
    pub dead_end: Host,
}

impl Gateway {
    /// B's IPv4 address towards A.
    pub const B: Ipv4Addr = lan_ipv4(2);
    /// B's IPv6 address towards A.
    pub const B_IPV6: Ipv6Addr = lan_ipv6(2);
    /// B's IPv4 address towards C.
    pub const UPLINK: Ipv4Addr = uplink_ipv4(2);
    /// B's IPv6 address towards C.
    pub const UPLINK_IPV6: Ipv6Addr = uplink_ipv6(2);
    /// C's IPv4 address.
    pub const C: Ipv4Addr = uplink_ipv4(3);
    /// C's IPv6 address.
    pub const C_IPV6: Ipv6Addr = uplink_ipv6(3);

    /// The routers of A's second default routes, which do not exist.
    const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 254);
    const NOBODY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 0x254);

    /// The hosts, their devices, addresses and default routes.
    pub const DRAWING: &str =
        "  host A                       host B                          host C
  eth0 10.1.0.1/24 ----------- eth0 10.1.0.2/24
       fd01::1/64                   fd01::2/64
  eth1 10.2.0.1/24 --- nobody  eth1 198.51.100.2/24 ---------- eth0 198.51.100.3/24
       fd02::1/64                   2001:db8:100::2/64              2001:db8:100::3/64
  default via B, metric 100    default via C                   no route back
  default via nobody, 200      forwards nothing, and FORWARD drops
";

    /// Builds the hosts and the wires between them.
    pub fn build() -> Result<Self, BuildError> {
        let dead_end = Host::new("dead end")?;
        let topology = Self { a: host("A")?, b: host("B")?, c: host("C")?, dead_end };
        topology.connect()?;
        topology.add_default_routes()?;
        drop_forwarded(&topology.b)?;
        let Self { a, b, c, dead_end: _ } = &topology;
        for (from, to, addresses) in [
            (a, b, [IpAddr::from(Self::B), Self::B_IPV6.into()]),
            (b, c, [IpAddr::from(Self::C), Self::C_IPV6.into()]),
        ] {
            addresses.into_iter().try_for_each(|address| await_passage(from, to, address))?;
        }
        Ok(topology)
    }

    /// The hosts in the order of their names, without the dead end.
    pub fn hosts(&self) -> [&Host; 3] {
        [&self.a, &self.b, &self.c]
    }

    /// The base chains of B that drop what is forwarded, of IPv4 and of IPv6.
    pub fn forward_chains() -> [ChainId; 2] {
        let chain = |family| ChainId { family, table: "filter".into(), chain: "FORWARD".into() };
        [Family::Ipv4, Family::Ipv6].map(chain)
    }

    fn connect(&self) -> Result<(), BuildError> {
        let Self { a, b, c, dead_end } = self;
        connect(a, ETH0, b, ETH0)?;
        configure(a, Port::lan(1))?;
        configure(b, Port::lan(2))?;
        connect(b, ETH1, c, ETH0)?;
        for (host, device, number) in [(b, ETH1, 2), (c, ETH0, 3)] {
            let (ipv4, ipv6) = (uplink_ipv4(number), uplink_ipv6(number));
            configure(host, Port::new(device, UPLINK, number, ipv4, ipv6))?;
        }
        write_sysctls(dead_end, &[("net.ipv6.conf.default.disable_ipv6", "1")])?;
        connect(a, ETH1, dead_end, ETH0)?;
        change(dead_end, |socket| {
            let eth0 = link(socket, ETH0)?;
            socket.set_up(eth0, true)
        })?;
        let ipv4 = Ipv4Addr::new(10, 2, 0, 1);
        let ipv6 = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1);
        configure(a, Port::new(ETH1, DEAD_END, 1, ipv4, ipv6))
    }

    fn add_default_routes(&self) -> Result<(), BuildError> {
        let Self { a, b, .. } = self;
        for via in [IpAddr::from(Self::B), Self::B_IPV6.into()] {
            add_default_route(a, ETH0, via, Some(FIRST))?;
        }
        for via in [IpAddr::from(Self::NOBODY), Self::NOBODY_IPV6.into()] {
            add_default_route(a, ETH1, via, Some(SECOND))?;
        }
        for via in [IpAddr::from(Self::C), Self::C_IPV6.into()] {
            add_default_route(b, ETH1, via, None)?;
        }
        Ok(())
    }
}

/// Makes the chains that drop whatever `host` forwards.
fn drop_forwarded(host: &Host) -> Result<(), BuildError> {
    let add = || {
        let mut socket = nftables::Socket::open()?;
        Gateway::forward_chains().iter().try_for_each(|chain| socket.add_drop_chain(chain))
    };
    host.run(add).map_err(|source| BuildError::Network { host: host.name(), source })
}
