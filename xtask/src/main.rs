//! What developers run: `cargo xtask ci`, `setup`, `fuzz` and `bench`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what these commands have to say goes to the terminal")]

mod adit;
mod bench;
mod ci;
mod deps;
mod failure;
mod fuzz;
mod program;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The tasks of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Checks everything that must hold before a change is accepted.
    Ci(ci::CiArgs),
    /// Installs the programs that tests and measurements run.
    Setup,
    /// Looks for input that breaks a parser, and keeps what it learns.
    Fuzz(fuzz::FuzzArgs),
    /// Measures adit against the bare wire and against VXLAN of the kernel.
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Ci(args) => return ci::run(&args),
        Task::Setup => setup::run(),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Bench(args) => bench::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
