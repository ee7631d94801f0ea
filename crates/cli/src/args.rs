//! What can be typed: the commands and what is common to all of them.
//!
//! The arguments of a command stand in the file of that command.

use clap::{Parser, Subcommand};

use crate::commands::{
    device, doctor, down, invite, join, key, lab, probe, reload, serve, status, up,
};

/// One network of two machines that can exchange bytes in any way.
#[derive(Debug, Parser)]
#[command(name = "adit", version, disable_help_subcommand = true, propagate_version = true)]
pub(crate) struct Cli {
    /// Says more; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Brings a tunnel up in the foreground; Ctrl-C takes it down and undoes all.
    Up(up::UpArgs),
    /// Takes a running tunnel down, or undoes what a killed one left.
    Down(down::DownArgs),
    /// Brings a tunnel up that others join, without a file, and prints a ticket.
    Serve(serve::ServeArgs),
    /// Joins a tunnel with a ticket, and brings it up.
    Join(join::JoinArgs),
    /// Makes a ticket with which one machine joins a running tunnel.
    Invite(invite::InviteArgs),
    /// Tells how running tunnels are: peers, sessions, what was carried and dropped.
    Status(status::StatusArgs),
    /// Has a running tunnel read its configuration again.
    Reload(reload::ReloadArgs),
    /// Tells what keeps packets from passing; changes nothing.
    Doctor(doctor::DoctorArgs),
    /// Makes, deletes and shows TUN and TAP devices.
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Makes keys, in the text format of "wg genkey", "wg pubkey" and "wg genpsk".
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Networks of namespaces to try tunnels in.
    #[command(subcommand)]
    Lab(lab::LabCommand),
    /// A source and a sink of numbered UDP packets.
    #[command(subcommand)]
    Probe(probe::ProbeCommand),
    /// What "adit up" starts to carry packets; nothing to be started by hand.
    #[command(hide = true)]
    Worker,
}
