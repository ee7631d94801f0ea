//! `adit status`: how running tunnels are.

mod quantity;
mod text;

use std::time::{Duration, SystemTime};

use clap::Args;
use engine::control::{self, AskError};
use engine::status::TunnelStatus;
use rustix::process::geteuid;
use thiserror::Error;

use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The tunnel's name; without it all that are running.
    name: Option<String>,

    /// Prints one JSON object a tunnel, each on a line.
    #[arg(long)]
    json: bool,
}

/// There is nothing to tell.
#[derive(Debug, Error)]
#[error("no tunnel is running")]
struct NoTunnel;

pub(crate) fn run(args: &StatusArgs, output: &mut Output) -> Result<Exit, Failure> {
    if let Some(name) = &args.name {
        let status = control::status(name).map_err(of_another_user)?;
        tell(&status, args.json, output)?;
        return Ok(Exit::Done);
    }
    let (mut told, mut failed) = (0, 0);
    for name in control::running()? {
        match control::status(&name) {
            Ok(status) => {
                if told > 0 && !args.json {
                    output.line("")?;
                }
                tell(&status, args.json, output)?;
                told += 1;
            }
            // It has ended meanwhile.
            Err(AskError::NotRunning { .. }) => {}
            Err(error) => {
                Failure::from(error).report();
                failed += 1;
            }
        }
    }
    match (told, failed) {
        (0, 0) => Err(of_another_user(NoTunnel)),
        (_, 0) => Ok(Exit::Done),
        _ => Ok(Exit::Failed),
    }
}

fn tell(status: &TunnelStatus, json: bool, output: &mut Output) -> Result<(), Failure> {
    if json {
        output.json(status)?;
    } else {
        output.line(text::render(status, now(), output.verbosity() > 0))?;
    }
    Ok(())
}

/// The time since 1970 began.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A failure that may be one only because other users' tunnels cannot be seen.
fn of_another_user(error: impl Into<Failure>) -> Failure {
    match geteuid().is_root() {
        true => error.into(),
        false => error.into().hint("tunnels that root has brought up answer to root only"),
    }
}
