//! `adit lab`: networks of namespaces to try tunnels in.

mod story;

use std::env;
use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use lab::rootless::{self, RootlessError};
use lab::run::{Options, RunError};
use lab::standing::{Registry, Standing, StandingError};
use lab::{Interrupt, Topology};
use serde::Serialize;

use self::story::Story;
use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Lists the topologies.
    List(ListArgs),
    /// Builds a topology, runs a tunnel through it, and checks what a tunnel must do.
    Run(RunArgs),
    /// Builds a topology with a running tunnel and leaves it standing.
    Up(NameArgs),
    /// Takes down what `up` built.
    Down(NameArgs),
    /// Runs a command, or a shell, inside a host of a topology that stands.
    Enter(EnterArgs),
    /// Is the process that `up` leaves behind.
    #[command(hide = true)]
    Hold(NameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The topology.
    #[arg(value_parser = names())]
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    topology: NameArgs,

    /// How many numbered messages to send through the tunnel.
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,

    /// The time from one message to the next.
    #[arg(short, long, default_value = "10ms", value_parser = humantime::parse_duration)]
    interval: Duration,

    /// How long to measure each throughput.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// Prints the report as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnterArgs {
    #[command(flatten)]
    topology: NameArgs,

    /// The host, such as A.
    host: String,

    /// The command and its arguments [default: $SHELL].
    #[arg(last = true)]
    command: Vec<OsString>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(Topology::ALL.map(Topology::name))
}

impl NameArgs {
    fn topology(&self) -> Topology {
        Topology::named(&self.name).expect("clap lets only the names of topologies pass")
    }
}

pub(crate) fn run(command: LabCommand, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        LabCommand::List(args) => list(&args, output),
        LabCommand::Run(args) => play(&args, output),
        LabCommand::Up(args) => up(args.topology(), output),
        LabCommand::Down(args) => down(args.topology(), output),
        LabCommand::Enter(args) => enter(&args),
        LabCommand::Hold(args) => hold(args.topology()),
    }
}

fn list(args: &ListArgs, output: &mut Output) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Topologies {
        topologies: [Line; Topology::ALL.len()],
    }
    #[derive(Serialize)]
    struct Line {
        name: &'static str,
        summary: &'static str,
    }
    let topologies =
        Topology::ALL.map(|topology| Line { name: topology.name(), summary: topology.summary() });
    if args.json {
        output.json(&Topologies { topologies })?;
        return Ok(Exit::Done);
    }
    for Line { name, summary } in topologies {
        output.line(format_args!("{name:<13}  {summary}"))?;
    }
    Ok(Exit::Done)
}

fn play(args: &RunArgs, output: &mut Output) -> Result<Exit, Failure> {
    // While there is one thread only: user namespaces are for whole processes.
    rootless::enter().map_err(without_root)?;
    let interrupt = Interrupt::on_signals()?;
    let options = Options {
        adit: env::current_exe()?,
        count: args.count,
        interval: args.interval,
        duration: args.duration,
    };
    let topology = args.topology.topology();
    let report = if args.json {
        let report = lab::run::run(topology, &options, &interrupt, &mut |_| {});
        let report = report.map_err(not_played)?;
        output.json(&report)?;
        report
    } else {
        let mut story = Story::begin(topology, output)?;
        let report = lab::run::run(topology, &options, &interrupt, &mut |event| story.tell(event));
        let report = report.map_err(not_played)?;
        story.end(&report)?;
        report
    };
    Ok(if report.passed { Exit::Done } else { Exit::Failed })
}

fn up(topology: Topology, output: &mut Output) -> Result<Exit, Failure> {
    if !rustix::process::geteuid().is_root() {
        // The holder would find the same, but its words would be all that is left of it.
        rootless::check().map_err(without_root)?;
    }
    let interrupt = Interrupt::on_signals()?;
    let mut holder = Command::new(env::current_exe()?);
    holder.args(["lab", "hold", topology.name()]);
    let standing =
        Registry::of_user()?.up(topology, &mut holder, &interrupt).map_err(not_standing)?;
    describe(topology, &standing, output)
}

/// What stands, and how to get in.
fn describe(topology: Topology, standing: &Standing, output: &mut Output) -> Result<Exit, Failure> {
    let name = topology.name();
    output.line(format_args!("{name} stands, with a tunnel between A and B (adit0).\n"))?;
    output.line(lab::run::drawing(topology))?;
    output.line("To enter a host (or, with nsenter):")?;
    for place in &standing.hosts {
        let host = &place.name;
        output.line(format_args!(
            "  adit lab enter {name} {host}    ({})",
            standing.nsenter(place)
        ))?;
    }
    output.line(format_args!("\nTo take it down:\n  adit lab down {name}"))?;
    Ok(Exit::Done)
}

fn down(topology: Topology, output: &mut Output) -> Result<Exit, Failure> {
    Registry::of_user()?.down(topology).map_err(not_standing)?;
    output.line(format_args!("{} is gone.", topology.name()))?;
    Ok(Exit::Done)
}

fn enter(args: &EnterArgs) -> Result<Exit, Failure> {
    let topology = args.topology.topology();
    let standing = Registry::of_user()?.standing(topology).map_err(not_standing)?;
    let shell = || env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut words = args.command.iter().cloned();
    let mut command = Command::new(words.next().unwrap_or_else(shell));
    command.args(words);
    Err(standing.enter(&args.host, &mut command).into())
}

fn hold(topology: Topology) -> Result<Exit, Failure> {
    Registry::of_user()?.hold(topology, &env::current_exe()?).map_err(not_standing)?;
    Ok(Exit::Done)
}

fn not_played(error: RunError) -> Failure {
    match error {
        RunError::Build(_) => Failure::from(error).hint(BUILD_HINT),
        _ => error.into(),
    }
}

fn not_standing(error: StandingError) -> Failure {
    match error {
        StandingError::Stands { topology, .. } => {
            Failure::from(error).hint(format!("take it down with `adit lab down {topology}`"))
        }
        StandingError::DoesNotStand { topology } => {
            Failure::from(error).hint(format!("build it with `adit lab up {topology}`"))
        }
        StandingError::Build(_) => Failure::from(error).hint(BUILD_HINT),
        StandingError::Rootless(error) => without_root(error),
        _ => error.into(),
    }
}

const BUILD_HINT: &str = "network namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN; inside a \
    container, give it both, or run as an ordinary user who may create user namespaces";

fn without_root(error: RootlessError) -> Failure {
    let hint = match error {
        RootlessError::TunNode { .. } => {
            "run as root, or let everybody open the node, as most distributions do: \
             `chmod 666 /dev/net/tun` (only who may configure a network can make a device with it)"
        }
        RootlessError::NoUserNamespaces => {
            "run as root, or allow user namespaces: `sysctl user.max_user_namespaces=10000`"
        }
        RootlessError::PrivilegedOnly => {
            "run as root, or allow user namespaces: `sysctl kernel.unprivileged_userns_clone=1`"
        }
        RootlessError::AppArmor => {
            "run as root, or allow user namespaces: \
             `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
        }
        RootlessError::Unshare { .. } | RootlessError::Map { .. } => "run as root",
    };
    Failure::from(error).hint(hint)
}
