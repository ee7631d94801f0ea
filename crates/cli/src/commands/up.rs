//! `adit up`: a tunnel in the foreground, or the plan of one.

use std::path::PathBuf;

use clap::Args;
use engine::config::{self, Config};
use engine::keyfile;
use engine::signal::Signals;
use engine::supervisor::{self, Preview};
use serde::Serialize;

use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Prints what would be changed, as commands, and changes nothing.
    #[arg(long)]
    plan: bool,

    /// Prints the plan as one JSON object.
    #[arg(long, requires = "plan")]
    json: bool,

    /// The tunnel's configuration; the file's stem is the tunnel's name.
    file: PathBuf,
}

pub(crate) fn run(args: &UpArgs, output: &mut Output) -> Result<Exit, Failure> {
    keyfile::guard_memory();
    let config = config::load(&args.file)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if args.plan {
        return plan(&config, args.json, output);
    }
    // From here on a signal does not kill but asks to stop, so that everything is undone.
    let mut signals = Signals::catch()?;
    supervisor::up(config, &args.file, &mut signals)?;
    Ok(Exit::Done)
}

/// The plan, for `--json`.
#[derive(Serialize)]
struct Plan<'a> {
    tunnel: &'a str,
    operations: Vec<Operation<'a>>,
    obstacles: Vec<String>,
}

#[derive(Serialize)]
struct Operation<'a> {
    commands: &'a [String],
    why: &'a str,
}

fn plan(config: &Config, json: bool, output: &mut Output) -> Result<Exit, Failure> {
    let preview = supervisor::preview(config)?;
    if json {
        output.json(&as_json(config, &preview))?;
        return Ok(Exit::Done);
    }
    for step in &preview.steps {
        output.line(format_args!("# {}", step.why))?;
        for command in &step.commands {
            output.line(command)?;
        }
    }
    if preview.steps.is_empty() {
        output.line("# nothing would be changed")?;
    }
    for obstacle in &preview.obstacles {
        tracing::warn!("{obstacle}");
    }
    Ok(Exit::Done)
}

fn as_json<'a>(config: &'a Config, preview: &'a Preview) -> Plan<'a> {
    let operations = preview
        .steps
        .iter()
        .map(|step| Operation { commands: &step.commands, why: &step.why })
        .collect();
    let obstacles = preview.obstacles.iter().map(ToString::to_string).collect();
    Plan { tunnel: &config.name, operations, obstacles }
}
