//! `adit reload`: has a running tunnel read its configuration again.

use clap::Args;
use engine::control;

use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// The tunnel's name.
    name: String,
}

pub(crate) fn run(args: &ReloadArgs, output: &mut Output) -> Result<Exit, Failure> {
    let name = &args.name;
    let changes = control::reload(name)?;
    if changes.is_empty() {
        output.line(format_args!("tunnel {name:?}: nothing has changed"))?;
    }
    for change in changes {
        output.line(format_args!("tunnel {name:?}: {change}"))?;
    }
    Ok(Exit::Done)
}
