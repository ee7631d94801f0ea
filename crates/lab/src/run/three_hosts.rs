//! The scenario of three hosts: A's packets for C are caught by a host route and go through B.
//!
//! A's inner packet for C (1) leaves by `adit0`, (2) travels in a datagram to B over the LAN,
//! (3) enters B's kernel by `adit0`, and (4) reaches C with A's inner address as its source. C has a
//! route back through B, so answers go the same way in reverse.
//!
//! C is A's neighbour on the LAN, and what it sends to A's address there comes in by another device
//! than A's answers leave by. So the tunnel relaxes the check of reverse paths of A's `eth0`, and of
//! nothing else, as long as it is up.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use netlink::{Route, Socket};
use wire::offload::LinkLayer;

use super::follow::Place;
use super::steps::Stretch;
use super::traffic::Traffic;
use super::{RunError, Scenario};
use crate::capture::Witness;
use crate::filter::Filter;
use crate::host::Host;
use crate::topology::{BuildError, ETH0, ThreeHosts, lan_ipv6};
use crate::tunnel::{DEVICE, End, PORT};

/// The hosts, the tunnel and the routes.
pub(super) const DRAWING: &str = "  host A                     host B                     host C
  adit0 10.9.0.1/24 ======== adit0 10.9.0.2/24
    route to 10.1.0.3          forwards                   route to 10.9.0.0/24
    |                          |                          via 10.1.0.2
  eth0 10.1.0.1/24           eth0 10.1.0.2/24           eth0 10.1.0.3/24
    |  fd01::1/64              |  fd01::2/64              |  fd01::3/64
 ---+--------------------------+--------------------------+---
  lan: Ethernet, MTU 1500
";

/// A's and B's addresses inside the tunnel.
const INNER_A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const INNER_NET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 9, 0, 0), 24);

/// A sends what is for C through the tunnel.
const END_A: End = End {
    name: "lab-a",
    config: Cow::Borrowed(
        r#"[device]
name = "adit0"
addresses = ["10.9.0.1/24"]

[local]
listen = ["udp://10.1.0.1:4740"]
security = "none"

[network]
routes = ["10.1.0.3/32"]

[[peer]]
name = "b"
endpoints = ["udp://10.1.0.2:4740"]
"#,
    ),
    private_key: None,
};

/// B forwards, and learns where A is from its first datagram.
const END_B: End = End {
    name: "lab-b",
    config: Cow::Borrowed(
        r#"[device]
name = "adit0"
addresses = ["10.9.0.2/24"]

[local]
listen = ["udp://0.0.0.0:4740"]
security = "none"

[network]
forward = true

[[peer]]
name = "a"
"#,
    ),
    private_key: None,
};

/// Gives C the route to the tunnel's addresses. Where the tunnel's ends are.
pub(super) fn prepare(hosts: &ThreeHosts) -> Result<[(End, &Host); 2], BuildError> {
    let ThreeHosts { a, b, c, lan: _ } = hosts;
    let mut route = Route::new(IpNet::V4(INNER_NET));
    route.via = Some(ThreeHosts::B.into());
    c.run(move || Socket::open()?.add_route(&route))
        .map_err(|source| BuildError::Network { host: c.name(), source })?;
    Ok([(END_B, b), (END_A, a)])
}

/// Plays the scenario.
pub(super) fn play(scenario: &mut Scenario<'_>) -> Result<Traffic, RunError> {
    let topology = ThreeHosts::build()?;
    let ThreeHosts { a, b, c, lan: _ } = &topology;
    let ends = prepare(&topology)?;
    let to_c = [ThreeHosts::C.into(), lan_ipv6(3).into()];
    let witness = Witness::start(a, ETH0, &Filter::leaving_for(&to_c))?;
    let sites = scenario.bring_up(ends)?;
    let traffic = scenario.send_messages(a, c, ThreeHosts::C, watch(&topology)?)?;
    scenario.measure(&[
        Stretch::inside(a, c, ThreeHosts::C),
        Stretch::inside(c, a, INNER_A),
        Stretch::beside(a, b, ThreeHosts::B),
    ])?;
    scenario.step("look at what held")?;
    scenario.check_traffic(&traffic);
    scenario.check_source("messages arrive with A's address in the tunnel", &traffic, INNER_A);
    scenario.check_loose_only(a, ETH0)?;
    scenario.check_strict(&[b])?;
    scenario.check_forwarding("B forwards while the tunnel is up", b, "1")?;
    scenario.take_down(sites)?;
    scenario.check_forwarding("B does not forward afterwards", b, "0")?;
    scenario.check_witness(&witness.testify()?);
    Ok(traffic)
}

/// The places that messages pass, from A to C.
fn watch(topology: &ThreeHosts) -> Result<Vec<Place>, RunError> {
    let ThreeHosts { a, b, c, lan: _ } = topology;
    let inner = Filter::between(INNER_A, ThreeHosts::C);
    let outer = Filter::udp_port(PORT);
    Ok(vec![
        Place::watch(a, DEVICE, LinkLayer::Ip, true, &inner)?,
        Place::watch(a, ETH0, LinkLayer::Ethernet, true, &outer)?,
        Place::watch(b, DEVICE, LinkLayer::Ip, false, &inner)?,
        Place::watch(c, ETH0, LinkLayer::Ethernet, false, &inner)?,
    ])
}
