//! The steps that scenarios have in common.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitStatus;
use std::time::Duration;

use super::follow::Place;
use super::inspection::Before;
use super::traffic::{Probes, Traffic};
use super::{Measurement, RunError, Scenario};
use crate::capture::NextError;
use crate::host::Host;
use crate::throughput;
use crate::tunnel::{End, Tunnel};

/// How long a message may take from one hop to the next.
const HOP_PATIENCE: Duration = Duration::from_secs(5);

/// What following the first message should show.
const FOLLOWED: &str = "the first message is seen at every hop, in order";

/// How long `adit up` may take until its tunnel is up.
const UP_PATIENCE: Duration = Duration::from_secs(10);

/// A host with its end of a tunnel.
#[derive(Debug)]
pub(super) struct Site<'h> {
    pub(super) tunnel: Tunnel,
    pub(super) before: Before<'h>,
}

/// Hosts between which throughput is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch<'h> {
    sender: &'h Host,
    receiver: &'h Host,
    /// The receiver's address.
    address: IpAddr,
    tunnel: bool,
}

impl<'h> Stretch<'h> {
    /// Through the tunnel.
    pub(super) fn inside(sender: &'h Host, receiver: &'h Host, address: Ipv4Addr) -> Self {
        Self { sender, receiver, address: address.into(), tunnel: true }
    }

    /// Beside the tunnel.
    pub(super) fn beside(sender: &'h Host, receiver: &'h Host, address: Ipv4Addr) -> Self {
        Self { sender, receiver, address: address.into(), tunnel: false }
    }
}

impl Scenario<'_> {
    /// Starts both ends of the tunnel. The one that learns where the other is comes first, so that the
    /// other's first datagram is not lost.
    pub(super) fn bring_up<'h>(
        &mut self,
        [first, second]: [(End, &'h Host); 2],
    ) -> Result<[Site<'h>; 2], RunError> {
        let (one, other) = (first.1.name(), second.1.name());
        self.step(&format!("bring the tunnel up: adit up in {one} and in {other}"))?;
        Ok([self.site(first)?, self.site(second)?])
    }

    fn site<'h>(&self, (end, host): (End, &'h Host)) -> Result<Site<'h>, RunError> {
        let before = Before::look(host)?;
        let deadline = self.deadline(UP_PATIENCE);
        let tunnel = end.start(&self.options.adit, host, self.scratch.path(), deadline)?;
        Ok(Site { tunnel, before })
    }

    /// Sends messages from one host to an address of another, and follows the first of them through
    /// all places on its way, and its answer back.
    pub(super) fn send_messages(
        &mut self,
        from: &Host,
        to: &Host,
        address: Ipv4Addr,
        mut places: Vec<Place>,
    ) -> Result<Traffic, RunError> {
        let (one, other) = (from.name(), to.name());
        self.step(&format!("follow the first message from {one} to {other} and its answer back"))?;
        let probes = Probes::start(self, from, to, address)?;
        self.follow(&mut places);
        self.step("send the other messages")?;
        Ok(probes.finish(self)?)
    }

    /// A message that gets lost on the way fails the check, and the scenario goes on.
    fn follow(&mut self, places: &mut [Place]) {
        match self.follow_there_and_back(places) {
            Ok(()) => {
                let ordered = self.hops.is_sorted_by(|one, next| one.offset_us <= next.offset_us);
                let last = self.hops.last().map_or(0.0, |hop| hop.offset_us / 1e3);
                let evidence = format!("{} sightings in {last:.3} ms", self.hops.len());
                self.check(FOLLOWED, ordered, evidence);
            }
            Err(error) => {
                let seen = self.hops.len();
                self.check(FOLLOWED, false, format!("{seen} sightings, then failed: {error}"));
            }
        }
    }

    fn follow_there_and_back(&mut self, places: &mut [Place]) -> Result<(), NextError> {
        let Some((first, others)) = places.split_first_mut() else { return Ok(()) };
        let (message, hop) = first.first(self.deadline(HOP_PATIENCE))?;
        self.hop(hop);
        for place in others {
            let hop = place.find(&message, false, self.deadline(HOP_PATIENCE))?;
            self.hop(hop);
        }
        for place in places.iter_mut().rev() {
            let hop = place.find(&message, true, self.deadline(HOP_PATIENCE))?;
            self.hop(hop);
        }
        Ok(())
    }

    /// Measures TCP throughput, one stretch after the other.
    pub(super) fn measure(&mut self, stretches: &[Stretch<'_>]) -> Result<(), RunError> {
        self.step("measure TCP throughput through the tunnel and beside it")?;
        for &Stretch { sender, receiver, address, tunnel } in stretches {
            let duration = self.options.duration;
            let interrupt = Some(self.interrupt);
            let throughput = throughput::measure(sender, receiver, address, duration, interrupt)?;
            let direction = format!("{} > {}", sender.name(), receiver.name());
            self.throughput.push(Measurement { direction, tunnel, throughput });
        }
        Ok(())
    }

    /// Ends both ends of the tunnel as SIGTERM does; both hosts are then as they were.
    pub(super) fn take_down(&mut self, sites: [Site<'_>; 2]) -> Result<(), RunError> {
        let mut ends = Vec::with_capacity(sites.len());
        let mut hosts = Vec::with_capacity(sites.len());
        for Site { mut tunnel, before } in sites {
            ends.push(tunnel.stop()?);
            hosts.push(before);
        }
        self.check_ended("both tunnels end on SIGTERM", &ends);
        hosts.iter().rev().try_for_each(|before| self.check_restored(before))
    }

    /// Ends one end of the tunnel as SIGTERM does; its host is then as it was.
    pub(super) fn end(&mut self, Site { mut tunnel, before }: Site<'_>) -> Result<(), RunError> {
        let ended = tunnel.stop()?;
        self.check_ended("the tunnel ends on SIGTERM", &[ended]);
        self.check_restored(&before)
    }

    /// Tunnels ended and said that all went well.
    fn check_ended(&mut self, name: &str, ends: &[ExitStatus]) {
        let passed = ends.iter().all(ExitStatus::success);
        let evidence: Vec<_> = ends.iter().map(ToString::to_string).collect();
        self.check(name, passed, evidence.join(", "));
    }
}
