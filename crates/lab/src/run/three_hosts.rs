//! The scenario of three hosts: A's packets for C are caught by a host route and go through B.
//!
//! A's inner packet for C (1) leaves by `adit0`, (2) travels in a datagram to B over the LAN,
//! (3) enters B's kernel by `adit0`, and (4) reaches C with A's inner address as its source. C has a
//! route back through B, so answers go the same way in reverse, which is what lets all hosts keep
//! strict reverse path filtering.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use netlink::{Route, Socket};
use wire::offload::LinkLayer;

use super::follow::Place;
use super::inspection::Before;
use super::traffic::Probes;
use super::{Report, RunError, Scenario};
use crate::capture::Witness;
use crate::filter::Filter;
use crate::host::Host;
use crate::scratch::Scratch;
use crate::topology::{BuildError, ETH0, ThreeHosts, lan_ipv6};
use crate::tunnel::{DEVICE, End};

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

/// The port that tunnels listen on.
const PORT: u16 = 4740;

/// A's and B's addresses inside the tunnel.
const INNER_A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const INNER_NET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 9, 0, 0), 24);

/// A sends what is for C through the tunnel.
pub(crate) const END_A: End = End {
    name: "lab-a",
    config: r#"[device]
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
};

/// B forwards, and learns where A is from its first datagram.
pub(crate) const END_B: End = End {
    name: "lab-b",
    config: r#"[device]
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
};

/// Plays the scenario. B starts before A, so that A's first datagram is not lost.
pub(super) fn play(scenario: &mut Scenario<'_>) -> Result<Report, RunError> {
    let topology = ThreeHosts::build()?;
    let ThreeHosts { a, b, c, lan: _ } = &topology;
    route_back(c)?;
    let to_c = [ThreeHosts::C.into(), lan_ipv6(3).into()];
    let witness = Witness::start(a, ETH0, &Filter::leaving_for(&to_c))?;
    let (a_before, b_before) = (Before::look(a)?, Before::look(b)?);

    scenario.step("bring the tunnel up: adit up in B and in A")?;
    let scratch = Scratch::create().map_err(RunError::Scratch)?;
    let tunnels = scenario.start_tunnels(&[(END_B, b), (END_A, a)], &scratch)?;

    scenario.step("follow the first message from A to C and its answer back")?;
    let mut places = watch(&topology)?;
    let probes = Probes::start(scenario, a, c, ThreeHosts::C)?;
    scenario.follow(&mut places);

    scenario.step("send the other messages")?;
    let traffic = probes.finish(scenario)?;
    drop(places);

    scenario.step("measure TCP throughput through the tunnel and beside it")?;
    scenario.measure(true, a, c, ThreeHosts::C)?;
    scenario.measure(true, c, a, INNER_A)?;
    scenario.measure(false, a, b, ThreeHosts::B)?;

    scenario.step("look at what held")?;
    scenario.check_traffic(&traffic);
    scenario.check_source(&traffic, INNER_A);
    scenario.check_strict(&[a, b])?;
    scenario.check_forwarding("B forwards while the tunnel is up", b, "1")?;
    scenario.stop_tunnels(tunnels)?;
    scenario.check_forwarding("B does not forward afterwards", b, "0")?;
    scenario.check_restored("A is as before", &a_before)?;
    scenario.check_restored("B is as before", &b_before)?;
    scenario.check_witness(&witness.testify()?);
    Ok(scenario.report(traffic))
}

/// Gives C the route to the tunnel's addresses.
pub(crate) fn route_back(c: &Host) -> Result<(), BuildError> {
    let mut route = Route::new(IpNet::V4(INNER_NET));
    route.via = Some(ThreeHosts::B.into());
    c.run(move || Socket::open()?.add_route(&route))
        .map_err(|source| BuildError::Network { host: c.name(), source })
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
