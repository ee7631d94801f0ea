//! One file a command: its arguments, and what it does with them.

pub(crate) mod device;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod key;
pub(crate) mod lab;
pub(crate) mod probe;
pub(crate) mod reload;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod worker;

use crate::args::Command;
use crate::output::Output;
use crate::report::{Exit, Failure};

/// Runs `command` to its end.
pub(crate) fn run(command: Command, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        Command::Up(args) => up::run(&args, output),
        Command::Down(args) => down::run(&args, output),
        Command::Serve(args) => serve::run(args, output),
        Command::Join(args) => join::run(args, output),
        Command::Invite(args) => invite::run(args, output),
        Command::Status(args) => status::run(&args, output),
        Command::Reload(args) => reload::run(&args, output),
        Command::Doctor(args) => doctor::run(&args, output),
        Command::Device(command) => device::run(command, output),
        Command::Key(command) => key::run(command, output),
        Command::Lab(command) => lab::run(command, output),
        Command::Probe(command) => probe::run(command, output),
        Command::Worker => worker::run(),
    }
}
