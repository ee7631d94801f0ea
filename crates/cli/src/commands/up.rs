//! `adit up`: a tunnel in the foreground.

use std::path::PathBuf;

use clap::Args;
use engine::config;
use engine::signal::Signals;
use engine::tunnel;

use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The tunnel's configuration; the file's stem is the tunnel's name.
    file: PathBuf,
}

pub(crate) fn run(args: &UpArgs) -> Result<Exit, Failure> {
    let config = config::load(&args.file)?;
    // From here on a signal does not kill but asks to stop, so that everything is undone.
    let mut signals = Signals::catch()?;
    tunnel::up(config, &mut signals)?;
    Ok(Exit::Done)
}
