//! `adit down`: takes a running tunnel down, or undoes what a killed one left.

use clap::Args;
use engine::down::{Outcome, down};

use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// The tunnel's name.
    name: String,
}

pub(crate) fn run(args: &DownArgs, output: &mut Output) -> Result<Exit, Failure> {
    let name = &args.name;
    match down(name)? {
        Outcome::Ended { pid } => {
            output.line(format_args!("tunnel {name:?} (process {pid}) is down"))?;
        }
        Outcome::CleanedUp(done) => {
            for left in &done.left {
                tracing::warn!("{left}");
            }
            let reverted = done.reverted;
            output.line(format_args!(
                "tunnel {name:?} had been killed; what was left of its changes is taken back ({reverted} steps)"
            ))?;
        }
    }
    Ok(Exit::Done)
}
