//! The binary `adit`.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod hint;
mod messages;
mod output;
mod report;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    messages::install(cli.verbose);
    match commands::run(cli.command, &mut output::Output::new(cli.verbose)) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report().into(),
    }
}
