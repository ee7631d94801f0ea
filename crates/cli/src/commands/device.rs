//! `adit device`: what `ip tuntap` does and shows, and who may attach and who has.

mod add;
mod address;
mod del;
mod description;
mod list;
mod show;

use clap::{Subcommand, ValueEnum};

use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Makes a persistent device, which a user or a group can attach to without privilege.
    Add(add::AddArgs),
    /// Deletes a persistent device that nobody is attached to.
    Del(del::DelArgs),
    /// Lists the TUN and TAP devices of this network namespace.
    List(list::ListArgs),
    /// Shows all that is known of one device.
    Show(show::ShowArgs),
}

pub(crate) fn run(command: DeviceCommand, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        DeviceCommand::Add(args) => add::run(&args),
        DeviceCommand::Del(args) => del::run(args),
        DeviceCommand::List(args) => list::run(&args, output),
        DeviceCommand::Show(args) => show::run(&args, output),
    }
}

/// The kind of device, as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// IP packets.
    Tun,
    /// Ethernet frames.
    Tap,
}

impl From<Mode> for device::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Tun => Self::Tun,
            Mode::Tap => Self::Tap,
        }
    }
}
