//! `adit probe`: the traffic source and sink of the three-machine demo.

mod address;
mod send;
mod sink;
mod stop;
mod summary;

use clap::Subcommand;

use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum ProbeCommand {
    /// Sends numbered messages, "7 Hello from client@…", to a UDP port; -v prints each.
    Send(send::SendArgs),
    /// Counts the messages that arrive: loss, duplicates, order, latency; -v prints each.
    Sink(sink::SinkArgs),
}

pub(crate) fn run(command: ProbeCommand, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        ProbeCommand::Send(args) => send::run(args, output),
        ProbeCommand::Sink(args) => sink::run(&args, output),
    }
}
