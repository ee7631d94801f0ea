//! `cargo xtask bench`: adit beside the bare wire, VXLAN of the kernel and wireguard-go, on one machine.
//!
//! Both ends of the load and of the tunnel share the machine's cores, so the figures say what a packet
//! costs and not what a network could carry. They differ from machine to machine and from hour to
//! hour; the ratios differ less. The ways take turns in every round and each figure is the median
//! of all rounds, so that what else the machine does hits all alike.

mod conditions;
mod figures;
mod iperf;
mod ping;
mod report;
mod rig;
mod targets;
mod usage;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::{adit, setup};
use conditions::Conditions;
use figures::{Figures, Metric};
use report::Report;
use rig::{Rig, Track, Way};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// How often everything is measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each load lasts.
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// The only case to measure.
    #[arg(long, value_enum)]
    only: Option<Case>,
    /// The only ways to measure, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    ways: Vec<Way>,
    /// Also measures adit with so many peers, of which one is met.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=65_535))]
    peers: Option<u32>,
    /// Also writes everything as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is measured in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// TCP, one stream, and what it costs.
    Tcp1,
    /// TCP, four streams.
    Tcp4,
    /// TCP, one stream from the server to the client.
    Reverse,
    /// The most UDP messages in IP packets of 64 octets.
    Small,
    /// Round trips while nothing else happens.
    Ping,
    /// Round trips while TCP takes what it gets.
    LoadedPing,
}

impl BenchArgs {
    fn wants(&self, way: Way) -> bool {
        let is_named = self.ways.is_empty() || self.ways.contains(&way);
        is_named && (way != Way::AditPeers || self.peers.is_some())
    }
}

/// Measures and reports; slow figures are no failure.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    setup::run()?;
    let adit = adit::build()?;
    // First of all, since the load of the machine is one of the conditions.
    let conditions = Conditions::observe(&adit, args.rounds, args.seconds)?;
    let rig = Rig::build(adit, args.peers.unwrap_or(1))?;
    let mut figures = Figures::default();
    for round in 1..=args.rounds {
        println!("=== round {round} of {}", args.rounds);
        for way in Way::ALL.into_iter().filter(|way| args.wants(*way)) {
            measure(&rig, way, args, &mut figures)?;
        }
    }
    let report = Report::new(conditions, &figures);
    print!("\n{report}");
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(file, text)
            .map_err(|error| Failure::of(format!("write {}", file.display()), error))?;
    }
    Ok(())
}

/// Takes one way's turn.
fn measure(rig: &Rig, way: Way, args: &BenchArgs, figures: &mut Figures) -> Result<(), Failure> {
    let cases: Vec<_> = Case::value_variants()
        .iter()
        .filter(|case| args.only.is_none_or(|only| only == **case))
        .filter(|case| way != Way::AditPolling || case.is_ping())
        .collect();
    if cases.is_empty() {
        return Ok(());
    }
    println!("{}", way.name());
    let track = rig.open(way)?;
    for case in cases {
        case.measure(&track, Duration::from_secs(args.seconds.into()), figures)?;
    }
    if let Some(octets) = track.peak_memory()? {
        figures.add(Metric::PeakMemory, way, octets as f64 / f64::from(1 << 20));
    }
    Ok(())
}

impl Case {
    fn is_ping(self) -> bool {
        matches!(self, Self::Ping | Self::LoadedPing)
    }

    fn measure(
        self,
        track: &Track<'_>,
        duration: Duration,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let way = track.way();
        match self {
            Self::Tcp1 => {
                let (received, spent) = track.spent(|| iperf::tcp(track, duration, &[]))?;
                figures.add(Metric::Tcp1, way, received.rate() / 1e9);
                if let Some((spent, gigabits)) = spent.zip(received.gigabits()) {
                    figures.add(Metric::CpuPerGigabit, way, spent.as_secs_f64() / gigabits);
                }
            }
            Self::Tcp4 => {
                let received = iperf::tcp(track, duration, &["-P", "4"])?;
                figures.add(Metric::Tcp4, way, received.rate() / 1e9);
            }
            Self::Reverse => {
                let received = iperf::tcp(track, duration, &["-R"])?;
                figures.add(Metric::Reverse, way, received.rate() / 1e9);
            }
            Self::Small => {
                let (datagrams, spent) = track.spent(|| iperf::small_packets(track, duration))?;
                figures.add(Metric::Small, way, datagrams.rate() / 1e3);
                if let Some(spent) = spent.filter(|_| datagrams.arrived() > 0.0) {
                    let cost = spent.as_secs_f64() * 1e6 / datagrams.arrived();
                    figures.add(Metric::CpuPerPacket, way, cost);
                }
            }
            Self::Ping => {
                let round_trips = ping::idle(track)?;
                figures.add(Metric::PingMedian, way, round_trips.median);
                figures.add(Metric::PingP99, way, round_trips.p99);
            }
            Self::LoadedPing => {
                let round_trips = ping::under_load(track)?;
                figures.add(Metric::LoadedPingMedian, way, round_trips.median);
                figures.add(Metric::LoadedPingP99, way, round_trips.p99);
            }
        }
        Ok(())
    }
}
