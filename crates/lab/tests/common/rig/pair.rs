//! Two hosts, each with its end of one tunnel.
//!
//! ```text
//!   host A                                     host B
//!   adit0 192.0.2.1/24, fd00:7::1/64 ......... adit0 192.0.2.2/24, fd00:7::2/64   the tunnel
//!   eth0  10.1.0.1/24, fd01::1/64 ------------ eth0  10.1.0.2/24, fd01::2/64      the wire
//! ```

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lab::{Host, TwoHosts};

use super::tunnel::{DEVICE, Files, Tunnel, runnable};

/// The port that both ends listen on.
pub(crate) const PORT: u16 = 4740;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The address on the wire of the host with `number`.
    pub(crate) fn outer(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 1, 0, number).into(),
            Self::V6 => Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// The address in the tunnel of the host with `number`.
    pub(crate) fn inner(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(192, 0, 2, number).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }
}

/// `10.1.0.1:4740` or `[fd01::1]:4740`.
pub(crate) fn endpoint(address: IpAddr) -> String {
    std::net::SocketAddr::new(address, PORT).to_string()
}

/// What the configuration of one end of a pair says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    number: u8,
    outer: Family,
    device: &'static str,
    network: &'static str,
    addresses: bool,
}

impl End {
    /// A's end: IPv4 outside, everything else by default.
    pub(crate) const A: Self =
        Self { number: 1, outer: Family::V4, device: "", network: "", addresses: true };
    /// B's end.
    pub(crate) const B: Self = Self { number: 2, ..Self::A };

    /// The same over the other family.
    pub(crate) const fn over(self, outer: Family) -> Self {
        Self { outer, ..self }
    }

    /// The same with more lines in `[device]`.
    pub(crate) const fn device(self, lines: &'static str) -> Self {
        Self { device: lines, ..self }
    }

    /// The same with lines in `[network]`.
    pub(crate) const fn network(self, lines: &'static str) -> Self {
        Self { network: lines, ..self }
    }

    /// The same for a device that has its addresses already.
    pub(crate) const fn without_addresses(self) -> Self {
        Self { addresses: false, ..self }
    }

    /// The tunnel's name.
    pub(crate) fn name(self) -> &'static str {
        if self.number == 1 { "a" } else { "b" }
    }

    /// The configuration.
    pub(crate) fn toml(self) -> String {
        let Self { number, outer, device, network, addresses } = self;
        let other = 3 - number;
        let mut toml = format!("[device]\nname = \"{DEVICE}\"\n{device}\n");
        if addresses {
            let [v4, v6] = Family::BOTH.map(|family| family.inner(number));
            writeln!(toml, "addresses = [\"{v4}/24\", \"{v6}/64\"]").unwrap();
        }
        let (here, there) = (endpoint(outer.outer(number)), endpoint(outer.outer(other)));
        writeln!(toml, "[local]\nsecurity = \"none\"\nlisten = [\"udp://{here}\"]").unwrap();
        writeln!(toml, "[network]\n{network}\n[[peer]]").unwrap();
        writeln!(toml, "name = \"peer\"\nendpoints = [\"udp://{there}\"]").unwrap();
        toml
    }
}

/// A host with its end of the tunnel, which ends first.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) tunnel: Tunnel,
    pub(crate) host: Host,
}

/// Both hosts with a tunnel that is up.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) a: Site,
    pub(crate) b: Site,
    pub(crate) files: Files,
}

impl Pair {
    /// The usual tunnel; none, with a word about why, if this user may not build it.
    pub(crate) fn up() -> Option<Self> {
        Self::with(End::A, End::B)
    }

    /// A tunnel whose ends are as said.
    pub(crate) fn with(a: End, b: End) -> Option<Self> {
        Self::between(hosts()?, a, b)
    }

    /// The same between hosts that were prepared.
    pub(crate) fn between(hosts: TwoHosts, a: End, b: End) -> Option<Self> {
        let files = Files::new();
        let up = |host, end: End| {
            let tunnel = Tunnel::up(&host, &files, end.name(), &end.toml());
            Site { tunnel, host }
        };
        let (a, b) = (up(hosts.a, a), up(hosts.b, b));
        Some(Self { a, b, files })
    }
}

/// The hosts without a tunnel; none, with a word about why, if this user may not build them.
pub(crate) fn hosts() -> Option<TwoHosts> {
    runnable().then(|| TwoHosts::build().unwrap())
}
