//! The scenario of two hosts: a tunnel over one wire, and nothing else.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use wire::offload::LinkLayer;

use super::follow::Place;
use super::steps::Stretch;
use super::traffic::Traffic;
use super::{RunError, Scenario};
use crate::filter::Filter;
use crate::host::Host;
use crate::topology::{ETH0, TwoHosts};
use crate::tunnel::{DEVICE, End, PORT};

/// The hosts and the tunnel.
pub(super) const DRAWING: &str = "  host A                     host B
  adit0 10.9.0.1/24 ======== adit0 10.9.0.2/24
    |                          |
  eth0 10.1.0.1/24 --------- eth0 10.1.0.2/24
       fd01::1/64  Ethernet,      fd01::2/64
                   MTU 1500
";

/// A's and B's addresses inside the tunnel.
const INNER_A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const INNER_B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// A knows where B is.
const END_A: End = End {
    name: "lab-a",
    config: Cow::Borrowed(
        r#"[device]
name = "adit0"
addresses = ["10.9.0.1/24"]

[local]
listen = ["udp://10.1.0.1:4740"]
security = "none"

[[peer]]
name = "b"
endpoints = ["udp://10.1.0.2:4740"]
"#,
    ),
    private_key: None,
};

/// B learns where A is from its first datagram.
const END_B: End = End {
    name: "lab-b",
    config: Cow::Borrowed(
        r#"[device]
name = "adit0"
addresses = ["10.9.0.2/24"]

[local]
listen = ["udp://10.1.0.2:4740"]
security = "none"

[[peer]]
name = "a"
"#,
    ),
    private_key: None,
};

/// Where the tunnel's ends are.
pub(super) fn ends(TwoHosts { a, b }: &TwoHosts) -> [(End, &Host); 2] {
    [(END_B, b), (END_A, a)]
}

/// Plays the scenario.
pub(super) fn play(scenario: &mut Scenario<'_>) -> Result<Traffic, RunError> {
    let topology = TwoHosts::build()?;
    let TwoHosts { a, b } = &topology;
    let sites = scenario.bring_up(ends(&topology))?;
    let traffic = scenario.send_messages(a, b, INNER_B, watch(&topology)?)?;
    scenario.measure(&[
        Stretch::inside(a, b, INNER_B),
        Stretch::inside(b, a, INNER_A),
        Stretch::beside(a, b, TwoHosts::B),
    ])?;
    scenario.step("look at what held")?;
    scenario.check_traffic(&traffic);
    scenario.check_source("messages arrive with A's address in the tunnel", &traffic, INNER_A);
    scenario.check_strict(&[a, b])?;
    scenario.take_down(sites)?;
    Ok(traffic)
}

/// The places that messages pass, from A to B.
fn watch(TwoHosts { a, b }: &TwoHosts) -> Result<Vec<Place>, RunError> {
    let inner = Filter::between(INNER_A, INNER_B);
    let outer = Filter::udp_port(PORT);
    Ok(vec![
        Place::watch(a, DEVICE, LinkLayer::Ip, true, &inner)?,
        Place::watch(a, ETH0, LinkLayer::Ethernet, true, &outer)?,
        Place::watch(b, ETH0, LinkLayer::Ethernet, false, &outer)?,
        Place::watch(b, DEVICE, LinkLayer::Ip, false, &inner)?,
    ])
}
