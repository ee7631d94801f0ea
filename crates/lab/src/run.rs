//! Scenarios: a topology, a tunnel through it, traffic, and a report of what held.
//!
//! A scenario builds its topology, starts the real program `adit` inside it, and looks from outside
//! at what the kernels of the hosts do. Whatever happens on the way is told through [`Event`]s;
//! every statement about the tunnel is a [`Check`] with its evidence. A scenario that cannot go on
//! (the tunnel does not come up, the user interrupts) is a [`RunError`]; one that goes through always
//! yields a [`Report`], which passed only if every check did.
//!
//! Everything belongs to the running scenario: when it returns, for whatever reason, its programs are
//! stopped and its namespaces are gone.

mod follow;
mod inspection;
pub(crate) mod three_hosts;
mod traffic;
pub(crate) mod two_hosts;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::capture::{CaptureError, NextError};
use crate::deadline::{Deadline, Interrupt};
use crate::host::Host;
use crate::process::ProcessError;
use crate::scratch::Scratch;
use crate::snapshot::SnapshotError;
use crate::throughput::{self, Throughput, ThroughputError};
use crate::topology::{BuildError, Topology};
use crate::tunnel::{End, Tunnel, TunnelError};

use follow::Place;

pub use follow::Hop;
pub use traffic::{RoundTrip, Traffic, TrafficError};

/// How long a message may take from one hop to the next.
const HOP_PATIENCE: Duration = Duration::from_secs(5);

/// What following the first message should show.
const FOLLOWED: &str = "the first message is seen at every hop, in order";

/// How long `adit up` may take until its tunnel is up.
const UP_PATIENCE: Duration = Duration::from_secs(10);

/// What a scenario is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program `adit`.
    pub adit: PathBuf,
    /// How many messages are sent through the tunnel.
    pub count: u32,
    /// The time from one message to the next.
    pub interval: Duration,
    /// How long each throughput is measured.
    pub duration: Duration,
}

/// Something that happened in a scenario.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step begins.
    Step(&'a str),
    /// A packet was seen somewhere.
    Hop(&'a Hop),
    /// Something about the tunnel was found to hold, or not.
    Check(&'a Check),
}

/// A statement about the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What should hold.
    pub name: &'static str,
    /// Whether it does.
    pub passed: bool,
    /// What was seen.
    pub evidence: String,
}

/// A throughput that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// The sending and the receiving host: `A > C`.
    pub direction: String,
    /// Whether the data went through the tunnel.
    pub tunnel: bool,
    /// What arrived.
    #[serde(flatten)]
    pub throughput: Throughput,
}

/// The outcome of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The topology's name.
    pub topology: &'static str,
    /// Whether every check passed.
    pub passed: bool,
    /// Where the first message was seen, on its way there and back.
    pub hops: Vec<Hop>,
    /// What became of the messages.
    pub traffic: Traffic,
    /// TCP throughput through the tunnel and beside it.
    pub throughput: Vec<Measurement>,
    /// What was looked at, in order.
    pub checks: Vec<Check>,
}

/// Why a scenario did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The topology could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// There is no place for configuration files.
    #[error("create a private directory")]
    Scratch(#[source] io::Error),
    /// A tunnel did not come up.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// A tunnel could not be ended.
    #[error(transparent)]
    Stop(#[from] ProcessError),
    /// A device could not be watched.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The witness could not testify.
    #[error(transparent)]
    Witness(#[from] NextError),
    /// A host could not be looked at.
    #[error("look at host {host}")]
    Look {
        /// The host's name.
        host: &'static str,
        /// The cause.
        source: SnapshotError,
    },
    /// The messages could not be sent or received.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// Throughput could not be measured.
    #[error(transparent)]
    Throughput(#[from] ThroughputError),
    /// The user wants to end.
    #[error("interrupted")]
    Interrupted,
}

/// A drawing of `topology` with its tunnel, on several lines.
pub fn drawing(topology: Topology) -> &'static str {
    match topology {
        Topology::TwoHosts => two_hosts::DRAWING,
        Topology::ThreeHosts => three_hosts::DRAWING,
    }
}

/// Plays the scenario of `topology` and tells `observer` what happens.
///
/// Ends early, with everything cleaned up, when `interrupt` arrives.
pub fn run(
    topology: Topology,
    options: &Options,
    interrupt: &Interrupt,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Report, RunError> {
    let mut scenario = Scenario::new(topology, options, interrupt, observer);
    let report = match topology {
        Topology::TwoHosts => two_hosts::play(&mut scenario),
        Topology::ThreeHosts => three_hosts::play(&mut scenario),
    };
    match report {
        // Whatever was waited for then, this is why it did not come.
        Err(_) if interrupt.has_arrived() => Err(RunError::Interrupted),
        result => result,
    }
}

/// What all scenarios share: their options, their observer, and the findings so far.
struct Scenario<'a> {
    topology: Topology,
    options: &'a Options,
    interrupt: &'a Interrupt,
    observer: &'a mut dyn FnMut(Event<'_>),
    hops: Vec<Hop>,
    throughput: Vec<Measurement>,
    checks: Vec<Check>,
}

impl<'a> Scenario<'a> {
    fn new(
        topology: Topology,
        options: &'a Options,
        interrupt: &'a Interrupt,
        observer: &'a mut dyn FnMut(Event<'_>),
    ) -> Self {
        let (hops, throughput, checks) = Default::default();
        Self { topology, options, interrupt, observer, hops, throughput, checks }
    }

    /// Says what comes next, unless the user wants no next thing.
    fn step(&mut self, step: &str) -> Result<(), RunError> {
        if self.interrupt.has_arrived() {
            return Err(RunError::Interrupted);
        }
        (self.observer)(Event::Step(step));
        Ok(())
    }

    fn deadline(&self, patience: Duration) -> Deadline<'a> {
        Deadline::after_or(patience, self.interrupt)
    }

    fn check(&mut self, name: &'static str, passed: bool, evidence: impl Into<String>) {
        let check = Check { name, passed, evidence: evidence.into() };
        (self.observer)(Event::Check(&check));
        self.checks.push(check);
    }

    fn hop(&mut self, hop: Hop) {
        (self.observer)(Event::Hop(&hop));
        self.hops.push(hop);
    }

    /// Starts one end of a tunnel after the other.
    fn start_tunnels(
        &self,
        ends: &[(End, &Host)],
        scratch: &Scratch,
    ) -> Result<Vec<Tunnel>, TunnelError> {
        let start = |(end, host): &(End, &Host)| {
            end.start(&self.options.adit, host, scratch.path(), self.deadline(UP_PATIENCE))
        };
        ends.iter().map(start).collect()
    }

    /// Follows the first message through all places, and its answer back through them.
    ///
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

    /// Measures from one host to an address of another.
    fn measure(
        &mut self,
        tunnel: bool,
        sender: &Host,
        receiver: &Host,
        address: Ipv4Addr,
    ) -> Result<(), RunError> {
        let throughput = throughput::measure(
            sender,
            receiver,
            address.into(),
            self.options.duration,
            Some(self.interrupt),
        )?;
        let direction = format!("{} > {}", sender.name(), receiver.name());
        self.throughput.push(Measurement { direction, tunnel, throughput });
        Ok(())
    }

    fn report(&mut self, traffic: Traffic) -> Report {
        Report {
            topology: self.topology.name(),
            passed: self.checks.iter().all(|check| check.passed),
            hops: std::mem::take(&mut self.hops),
            traffic,
            throughput: std::mem::take(&mut self.throughput),
            checks: std::mem::take(&mut self.checks),
        }
    }
}
