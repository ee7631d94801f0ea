//! The scenario of a gateway: A's default route goes through a tunnel to B, which shares its internet.
//!
//! A's inner packet for C (1) leaves by `adit0`, since two halves of everything outrank both of A's
//! default routes without touching them, (2) travels sealed to B over the LAN, (3) enters B's
//! kernel by `adit0`, passes B's packet filter, which drops all else, and (4) leaves B for C with B's
//! address. Answers go the same way in reverse.
//!
//! Then things go wrong: A's worker is killed, and the tunnel goes on; A's supervisor is killed, and
//! `adit down` takes back what it left.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use netlink::nftables::{self, ChainId};
use netlink::{Route, Socket};
use wire::message;
use wire::offload::LinkLayer;
use wire::{ethernet, ipv4, udp};

use super::follow::Place;
use super::inspection::look_at;
use super::reach::{Echo, arrives};
use super::steps::{Site, Stretch};
use super::traffic::Traffic;
use super::{RunError, Scenario};
use crate::capture::{Capture, Witness};
use crate::filter::Filter;
use crate::host::Host;
use crate::probe::message::DEFAULT_TEXT;
use crate::process::Process;
use crate::snapshot::{SnapshotError, route_line};
use crate::topology::{ETH0, ETH1, Gateway};
use crate::tunnel::{DEVICE, End, PORT, Tunnel, program};

/// The hosts, the tunnel and the routes.
pub(super) const DRAWING: &str =
    "  host A                       host B                          host C
  adit0 10.9.0.1/24 ========== adit0 10.9.0.2/24
    |   fd09::1/64               |   fd09::2/64
    all but 192.0.2.0/24         forwards as if it were B's own
    |                            |
  eth0 10.1.0.1/24 ----------- eth0 10.1.0.2/24
       fd01::1/64                   fd01::2/64
  eth1 10.2.0.1/24 --- nobody  eth1 198.51.100.2/24 ---------- eth0 198.51.100.3/24
       fd02::1/64                   2001:db8:100::2/64              2001:db8:100::3/64
  default via B, metric 100    default via C                   no route back
  default via nobody, 200      FORWARD drops
";

/// A's address inside the tunnel.
const INNER_A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// The addresses of C, and those of B that C is to see.
const C: [IpAddr; 2] = [IpAddr::V4(Gateway::C), IpAddr::V6(Gateway::C_IPV6)];
const UPLINK: [IpAddr; 2] = [IpAddr::V4(Gateway::UPLINK), IpAddr::V6(Gateway::UPLINK_IPV6)];

/// How long a packet may take from one host to the next.
const HOP_PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing may be answered after a worker was killed.
const GAP: Duration = Duration::from_secs(1);

/// How long it is waited for that something is answered, to say how long it took.
const GAP_PATIENCE: Duration = Duration::from_secs(10);

/// How long `adit down` may take, and a killed process until it is gone.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A sends everything through the tunnel but for one network, whose route outlives the device.
///
/// The keys are known to everybody who has this file. They protect nothing: what is behind them never leaves the lab.
const END_A: End = End {
    name: "lab-a",
    config: Cow::Borrowed(
        r#"[device]
name = "adit0"
addresses = ["10.9.0.1/24", "fd09::1/64"]

[local]
listen = ["udp://10.1.0.1:4740"]
private-key-file = "lab-a.key"

[network]
default-route = true
exclude = ["192.0.2.0/24"]

[[peer]]
name = "b"
public-key = "Jw22sADkQz7LYTs9mD/gsX0Fu6u96xMYS2JFmLQ2XlU="
endpoints = ["udp://10.1.0.2:4740"]
"#,
    ),
    private_key: Some("QMPx0iZRwL8pnOiaf2i3VmJTVZM13vgH9Cr2v3xKFGg="),
};

/// B shares its internet, and learns where A is from its first datagram.
const END_B: End = End {
    name: "lab-b",
    config: Cow::Borrowed(
        r#"[device]
name = "adit0"
addresses = ["10.9.0.2/24", "fd09::2/64"]

[local]
listen = ["udp://0.0.0.0:4740"]
private-key-file = "lab-b.key"

[network]
forward = true
masquerade = true

[[peer]]
name = "a"
public-key = "GdTbMHmDt+i7lWzjLsBqAJ2+GRyHaawu3dI6rBjChho="
allowed-ips = ["10.9.0.1/32", "fd09::1/128"]
"#,
    ),
    private_key: Some("aGhIS0GJjY8IDWCwGRNwWTKDG1lTv5w4LgoIxZY9ZFs="),
};

/// Where the tunnel's ends are.
pub(super) fn ends(Gateway { a, b, .. }: &Gateway) -> [(End, &Host); 2] {
    [(END_B, b), (END_A, a)]
}

/// Plays the scenario.
pub(super) fn play(scenario: &mut Scenario<'_>) -> Result<Traffic, RunError> {
    let topology = Gateway::build()?;
    let Gateway { a, b, c, dead_end: _ } = &topology;
    scenario.step("try to reach C from A without a tunnel")?;
    scenario.check_unreachable(&topology)?;

    let defaults = look_at(a, default_routes)?;
    let witness = Witness::start(a, ETH0, &Filter::leaving_for(&C))?;
    let outer = Capture::start(a, ETH0, &Filter::udp_port(PORT))?;
    let [at_b, at_a] = scenario.bring_up(ends(&topology))?;
    let traffic = scenario.send_messages(a, c, Gateway::C, watch(&topology)?)?;
    scenario.check_sealed(outer)?;
    scenario.measure(&[Stretch::inside(a, c, Gateway::C), Stretch::beside(a, b, Gateway::B)])?;

    scenario.step("look at what held")?;
    scenario.check_traffic(&traffic);
    scenario.check_source("messages arrive with B's address", &traffic, Gateway::UPLINK);
    scenario.check_translated([a, c], C, UPLINK)?;
    scenario.check_default_routes(a, &defaults)?;
    scenario.check_admitted(b)?;

    scenario.step("kill A's worker (kill -9), and see the tunnel go on")?;
    scenario.check_survives(&at_a.tunnel, a, c)?;
    scenario.check_witness(&witness.testify()?);

    scenario.step("kill A's supervisor (kill -9), and undo what it left: adit down lab-a")?;
    scenario.undo_killed(at_a, a)?;

    scenario.step("end the tunnel in B")?;
    scenario.end(at_b)?;
    scenario.check_withdrawn(b)?;
    Ok(traffic)
}

/// The places that messages pass, from A to C.
fn watch(topology: &Gateway) -> Result<Vec<Place>, RunError> {
    let Gateway { a, b, c, dead_end: _ } = topology;
    let inner = Filter::between(INNER_A, Gateway::C);
    let translated = Filter::between(Gateway::UPLINK, Gateway::C);
    Ok(vec![
        Place::watch(a, DEVICE, LinkLayer::Ip, true, &inner)?,
        Place::watch(b, DEVICE, LinkLayer::Ip, false, &inner)?,
        Place::watch(b, ETH1, LinkLayer::Ethernet, true, &translated)?,
        Place::watch(c, ETH0, LinkLayer::Ethernet, false, &translated)?,
    ])
}

impl Scenario<'_> {
    /// Nothing gets from A to C.
    fn check_unreachable(&mut self, topology: &Gateway) -> Result<(), RunError> {
        let name = "without a tunnel A does not reach C";
        let through_b = C.into_iter().zip([Gateway::B.into(), Gateway::B_IPV6.into()]);
        let arrived = through_b
            .map(|(c, b)| arrives(topology, c, b, self.deadline(HOP_PATIENCE)))
            .collect::<io::Result<Vec<_>>>();
        match arrived.map_err(RunError::Sockets)?.as_slice() {
            [false, false] => self.check(name, true, "B passes nothing on, IPv4 or IPv6"),
            _ => self.check(name, false, "a datagram arrived"),
        }
        Ok(())
    }

    /// Nobody on the LAN reads a message: what passes there is data of WireGuard, in which no text of a message is found.
    fn check_sealed(&mut self, mut outer: Capture) -> Result<(), RunError> {
        let text = DEFAULT_TEXT.as_bytes();
        let (mut sealed, mut legible) = (0, 0);
        while let Some(packet) = outer.take()? {
            let datagram = udp_payload(&packet.octets);
            sealed += usize::from(
                datagram
                    .is_some_and(|datagram| message::kind(datagram) == Some(message::Kind::Data)),
            );
            legible += usize::from(packet.octets.windows(text.len()).any(|octets| octets == text));
        }
        let evidence = format!("{sealed} sealed messages on A's Ethernet, {legible} legible ones");
        self.check("nobody on the LAN can read a message", sealed > 0 && legible == 0, evidence);
        Ok(())
    }

    /// A's default routes are there as they were, with their metrics.
    fn check_default_routes(&mut self, a: &Host, before: &[String]) -> Result<(), RunError> {
        let routes = look_at(a, default_routes)?;
        let passed = !routes.is_empty() && routes == before;
        self.check("A's default routes stay as they are", passed, routes.join("; "));
        Ok(())
    }

    /// B's chains that drop what is forwarded let the tunnel's packets through.
    fn check_admitted(&mut self, b: &Host) -> Result<(), RunError> {
        let shut = chains_where(b, |socket, chain| Ok(!socket.accepts_forward(chain, DEVICE)?))?;
        let evidence = match shut.as_slice() {
            [] => format!("two rules for {DEVICE} at the head of each"),
            _ => format!("no rules for {DEVICE} in {}", shut.join(", ")),
        };
        self.check("B's FORWARD chains let the tunnel through", shut.is_empty(), evidence);
        Ok(())
    }

    /// B's chains hold no rule for the tunnel any more, nor a part of its rules.
    fn check_withdrawn(&mut self, b: &Host) -> Result<(), RunError> {
        let left = chains_where(b, |socket, chain| socket.withdraw_forward(chain, DEVICE))?;
        let evidence = match left.as_slice() {
            [] => "no rule of adit in any".to_owned(),
            _ => format!("rules of adit in {}", left.join(", ")),
        };
        self.check("B's FORWARD chains have their own rules only", left.is_empty(), evidence);
        Ok(())
    }

    /// Datagrams from A to C are answered again soon after the worker was killed.
    fn check_survives(&mut self, tunnel: &Tunnel, a: &Host, c: &Host) -> Result<(), RunError> {
        let name = "the tunnel outlives its worker";
        let Some(killed) = tunnel.worker() else {
            self.check(name, false, "adit up has no worker, or several");
            return Ok(());
        };
        let echo = Echo::open(a, c).map_err(RunError::Sockets)?;
        let start = Instant::now();
        let answered = killed
            .kill(self.deadline(END_PATIENCE))
            .and_then(|()| echo.ask_until_answered(self.deadline(GAP_PATIENCE)));
        let gap = start.elapsed();
        let (passed, evidence) = match (answered, tunnel.worker()) {
            (Ok(()), Some(worker)) => {
                let (new, old, gap_ms) = (worker.id(), killed.id(), gap.as_millis());
                (gap < GAP, format!("process {new} carries {gap_ms} ms after {old} was killed"))
            }
            (Ok(()), None) => (false, "packets are carried, but by no worker".to_owned()),
            (Err(error), _) => (false, format!("nothing is answered any more: {error}")),
        };
        self.check(name, passed, evidence);
        Ok(())
    }

    /// Kills the supervisor in A and takes back what it left.
    fn undo_killed(&mut self, site: Site<'_>, a: &Host) -> Result<(), RunError> {
        let Site { mut tunnel, before } = site;
        let worker = tunnel.worker();
        tunnel.kill()?;
        // It is killed with its supervisor, and the device goes with it.
        let ended = worker.map_or(Ok(()), |worker| worker.wait(self.deadline(END_PATIENCE)));
        let evidence = ended.as_ref().map_or_else(ToString::to_string, |()| "it ended".to_owned());
        self.check("a worker dies with its supervisor", ended.is_ok(), evidence);
        let left = before.changes()?;
        self.check(
            "the killed tunnel leaves what outlives its device",
            !left.is_empty(),
            left.join("; "),
        );
        let (status, said) = self.down(END_A.name, a)?;
        self.check("adit down takes it back", status.success(), said);
        self.check_restored(&before)
    }

    /// Runs `adit down`: how it ended, and its last words.
    fn down(&self, name: &str, host: &Host) -> Result<(ExitStatus, String), RunError> {
        let mut command = program(&self.options.adit, self.scratch.path());
        command.args(["down", name]);
        let mut process: Process = host.spawn(command)?;
        let status = process.wait(self.deadline(END_PATIENCE))?;
        let said = [process.stdout(), process.stderr()].concat();
        let last = said.lines().next_back().unwrap_or("it said nothing").to_owned();
        Ok((status, last))
    }
}

/// What is in the UDP datagram in an Ethernet frame.
fn udp_payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = ethernet::Frame::parse(frame).ok()?.payload();
    ipv4::Packet::parse(packet).ok()?.payload().get(udp::HEADER_LEN..)
}

/// The default routes of the calling thread's namespace.
fn default_routes() -> Result<Vec<String>, SnapshotError> {
    let mut socket = Socket::open()?;
    let links = socket.links()?;
    let mut routes: Vec<Route> = socket.routes()?;
    routes.retain(|route| route.destination.prefix_len() == 0);
    Ok(routes.iter().map(|route| route_line(route, &links)).collect())
}

/// The chains of B that drop what is forwarded for which `condition` holds.
fn chains_where(
    b: &Host,
    condition: fn(&mut nftables::Socket, &ChainId) -> Result<bool, netlink::Error>,
) -> Result<Vec<String>, RunError> {
    look_at(b, move || {
        let mut socket = nftables::Socket::open()?;
        let mut found = Vec::new();
        for chain in Gateway::forward_chains() {
            if condition(&mut socket, &chain)? {
                found.push(chain.to_string());
            }
        }
        Ok(found)
    })
}
