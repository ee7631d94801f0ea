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
//!
//! A scenario is the list of its own steps; what several have in common is in `steps`, and what they
//! look at in `inspection`.

mod eavesdropper;
mod follow;
mod gateway;
mod inspection;
mod internet;
mod reach;
mod shared_folder;
mod steps;
mod three_hosts;
mod traffic;
mod two_hosts;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::capture::{CaptureError, NextError};
use crate::deadline::{Deadline, Interrupt};
use crate::host::Host;
use crate::process::ProcessError;
use crate::scratch::Scratch;
use crate::snapshot::SnapshotError;
use crate::throughput::{Throughput, ThroughputError};
use crate::topology::{BuildError, Network, Topology};
use crate::tunnel::{End, TunnelError};

pub use follow::Hop;
pub use traffic::{RoundTrip, Traffic, TrafficError};

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
    pub name: String,
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
    /// A program of the scenario could not be started, asked or ended.
    #[error(transparent)]
    Program(#[from] ProcessError),
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
    /// Two hosts could not be given sockets to try something with, or what should arrive did not.
    #[error("exchange packets between hosts")]
    Sockets(#[source] io::Error),
    /// The shared folder cannot be read or written.
    #[error("look into the shared folder")]
    Folder(#[source] io::Error),
    /// The user wants to end.
    #[error("interrupted")]
    Interrupted,
}

/// A drawing of `topology` with its tunnel, on several lines.
pub fn drawing(topology: Topology) -> &'static str {
    match topology {
        Topology::TwoHosts => two_hosts::DRAWING,
        Topology::ThreeHosts => three_hosts::DRAWING,
        Topology::Gateway => gateway::DRAWING,
        Topology::SharedFolder => shared_folder::DRAWING,
    }
}

/// Adds to a topology what its scenario needs beside a tunnel, and says where the tunnel's two ends
/// are, in the order in which they have to start.
pub(crate) fn prepare(network: &Network) -> Result<[(End, &Host); 2], BuildError> {
    match network {
        Network::TwoHosts(hosts) => Ok(two_hosts::ends(hosts)),
        Network::ThreeHosts(hosts) => three_hosts::prepare(hosts),
        Network::Gateway(hosts) => Ok(gateway::ends(hosts)),
        Network::SharedFolder(hosts) => Ok(shared_folder::ends(hosts)),
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
    let scratch = Scratch::create().map_err(RunError::Scratch)?;
    let mut scenario = Scenario::new(options, interrupt, observer, scratch);
    let traffic = match topology {
        Topology::TwoHosts => two_hosts::play(&mut scenario),
        Topology::ThreeHosts => three_hosts::play(&mut scenario),
        Topology::Gateway => gateway::play(&mut scenario),
        Topology::SharedFolder => shared_folder::play(&mut scenario),
    };
    match traffic.map(|traffic| scenario.report(topology, traffic)) {
        // Whatever was waited for then, this is why it did not come.
        Err(_) if interrupt.has_arrived() => Err(RunError::Interrupted),
        result => result,
    }
}

/// What all scenarios share: their options, their observer, and the findings so far.
struct Scenario<'a> {
    options: &'a Options,
    interrupt: &'a Interrupt,
    observer: &'a mut dyn FnMut(Event<'_>),
    /// For configuration files and journals.
    scratch: Scratch,
    hops: Vec<Hop>,
    throughput: Vec<Measurement>,
    checks: Vec<Check>,
}

impl<'a> Scenario<'a> {
    fn new(
        options: &'a Options,
        interrupt: &'a Interrupt,
        observer: &'a mut dyn FnMut(Event<'_>),
        scratch: Scratch,
    ) -> Self {
        let (hops, throughput, checks) = Default::default();
        Self { options, interrupt, observer, scratch, hops, throughput, checks }
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

    fn check(&mut self, name: impl Into<String>, passed: bool, evidence: impl Into<String>) {
        let check = Check { name: name.into(), passed, evidence: evidence.into() };
        (self.observer)(Event::Check(&check));
        self.checks.push(check);
    }

    fn hop(&mut self, hop: Hop) {
        (self.observer)(Event::Hop(&hop));
        self.hops.push(hop);
    }

    fn report(self, topology: Topology, traffic: Traffic) -> Report {
        Report {
            topology: topology.name(),
            passed: self.checks.iter().all(|check| check.passed),
            hops: self.hops,
            traffic,
            throughput: self.throughput,
            checks: self.checks,
        }
    }
}
