//! The scenario of two hosts: a tunnel over one wire, and nothing else.

use std::net::Ipv4Addr;

use wire::offload::LinkLayer;

use super::follow::Place;
use super::inspection::Before;
use super::traffic::Probes;
use super::{Report, RunError, Scenario};
use crate::filter::Filter;
use crate::scratch::Scratch;
use crate::topology::{ETH0, TwoHosts};
use crate::tunnel::{DEVICE, End};

/// The hosts and the tunnel.
pub(super) const DRAWING: &str = "  host A                     host B
  adit0 10.9.0.1/24 ======== adit0 10.9.0.2/24
    |                          |
  eth0 10.1.0.1/24 --------- eth0 10.1.0.2/24
       fd01::1/64  Ethernet,      fd01::2/64
                   MTU 1500
";

/// The port that tunnels listen on.
const PORT: u16 = 4740;

/// A's and B's addresses inside the tunnel.
const INNER_A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const INNER_B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// A knows where B is.
pub(crate) const END_A: End = End {
    name: "lab-a",
    config: r#"[device]
name = "adit0"
addresses = ["10.9.0.1/24"]

[local]
listen = ["udp://10.1.0.1:4740"]
security = "none"

[[peer]]
name = "b"
endpoints = ["udp://10.1.0.2:4740"]
"#,
};

/// B learns where A is from its first datagram.
pub(crate) const END_B: End = End {
    name: "lab-b",
    config: r#"[device]
name = "adit0"
addresses = ["10.9.0.2/24"]

[local]
listen = ["udp://10.1.0.2:4740"]
security = "none"

[[peer]]
name = "a"
"#,
};

/// Plays the scenario. B starts before A, so that A's first datagram is not lost.
pub(super) fn play(scenario: &mut Scenario<'_>) -> Result<Report, RunError> {
    let topology = TwoHosts::build()?;
    let TwoHosts { a, b } = &topology;
    let (a_before, b_before) = (Before::look(a)?, Before::look(b)?);

    scenario.step("bring the tunnel up: adit up in B and in A")?;
    let scratch = Scratch::create().map_err(RunError::Scratch)?;
    let tunnels = scenario.start_tunnels(&[(END_B, b), (END_A, a)], &scratch)?;

    scenario.step("follow the first message from A to B and its answer back")?;
    let mut places = watch(&topology)?;
    let probes = Probes::start(scenario, a, b, INNER_B)?;
    scenario.follow(&mut places);

    scenario.step("send the other messages")?;
    let traffic = probes.finish(scenario)?;
    drop(places);

    scenario.step("measure TCP throughput through the tunnel and beside it")?;
    scenario.measure(true, a, b, INNER_B)?;
    scenario.measure(true, b, a, INNER_A)?;
    scenario.measure(false, a, b, TwoHosts::B)?;

    scenario.step("look at what held")?;
    scenario.check_traffic(&traffic);
    scenario.check_source(&traffic, INNER_A);
    scenario.check_strict(&[a, b])?;
    scenario.stop_tunnels(tunnels)?;
    scenario.check_restored("A is as before", &a_before)?;
    scenario.check_restored("B is as before", &b_before)?;
    Ok(scenario.report(traffic))
}

/// The places that messages pass, from A to B.
fn watch(topology: &TwoHosts) -> Result<Vec<Place>, RunError> {
    let TwoHosts { a, b } = topology;
    let inner = Filter::between(INNER_A, INNER_B);
    let outer = Filter::udp_port(PORT);
    Ok(vec![
        Place::watch(a, DEVICE, LinkLayer::Ip, true, &inner)?,
        Place::watch(a, ETH0, LinkLayer::Ethernet, true, &outer)?,
        Place::watch(b, ETH0, LinkLayer::Ethernet, false, &outer)?,
        Place::watch(b, DEVICE, LinkLayer::Ip, false, &inner)?,
    ])
}
