//! `adit join`: a machine joins a tunnel with a ticket, or by an agreement without security.

mod source;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use engine::config::{self, Security};
use engine::join::{self, JoinError, Wish};
use engine::serve::{self, Outline};
use engine::signal::Signals;
use engine::{keyfile, supervisor};
use ipnet::IpNet;

use super::invite::address;
use super::serve::{refuse_running, security, spool_url};
use crate::output::Output;
use crate::report::{Exit, Failure};

/// The command, as the file names it.
const COMMAND: &str = "adit join";

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The ticket, or "-" to read it from standard input; other users see it in the list of processes for a moment.
    #[arg(conflicts_with = "ticket_file")]
    ticket: Option<String>,

    /// Reads the ticket from a file.
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,

    /// The name of the tunnel, and of its device, here [default: the ticket's, or join]
    #[arg(long)]
    name: Option<String>,

    /// What this machine proposes to be called [default: its host name]
    #[arg(long, value_name = "PEER")]
    own_name: Option<String>,

    /// Where the configuration and the keys go, instead of a directory of the tunnel's own.
    #[arg(long, value_name = "DIRECTORY")]
    config_dir: Option<PathBuf>,

    /// Writes the configuration, and does not bring the tunnel up.
    #[arg(long)]
    no_up: bool,

    /// A folder that both machines have, where it is here, instead of where the ticket says.
    #[arg(long, value_name = "DIRECTORY")]
    spool: Option<PathBuf>,

    /// Where the other machine is, instead of where the ticket says.
    #[arg(long, value_name = "URL")]
    endpoint: Vec<String>,

    /// The address of this machine in the tunnel, of which the ticket must be.
    #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = address)]
    address: Vec<IpNet>,

    /// Sends all traffic of this machine through the tunnel, also if the ticket does not say so.
    #[arg(long)]
    default_route: bool,

    /// Another network that is behind the other machine.
    #[arg(long, value_name = "PREFIX")]
    route: Vec<IpNet>,

    /// The servers that this machine asks for names, instead of the ticket's.
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,

    /// The MTU of the device, instead of the ticket's.
    #[arg(long, value_name = "OCTETS")]
    mtu: Option<u32>,

    /// "none" for no encryption, no keys and no ticket, as the other machine has it.
    #[arg(long, value_name = "SECURITY", default_value = "wireguard", value_parser = security)]
    security: Security,
}

pub(crate) fn run(args: JoinArgs, output: &mut Output) -> Result<Exit, Failure> {
    keyfile::guard_memory();
    let no_up = args.no_up;
    let file = match args.security {
        Security::Wireguard => with_ticket(args)?,
        Security::None => without_security(args)?,
    };
    if no_up {
        output.line(file.display())?;
        return Ok(Exit::Done);
    }
    let config = config::load(&file)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut signals = Signals::catch()?;
    supervisor::up(config, &file, &mut signals)?;
    Ok(Exit::Done)
}

/// Joins with a ticket; the configuration that was written.
fn with_ticket(args: JoinArgs) -> Result<PathBuf, Failure> {
    let ticket = source::ticket(args.ticket.map(Into::into), args.ticket_file.as_deref())?;
    let mut endpoints = args.endpoint;
    endpoints.extend(args.spool.as_deref().map(spool_url).transpose()?);
    let wish = Wish {
        name: args.name,
        directory: args.config_dir.map(std::path::absolute).transpose()?,
        own_name: args.own_name,
        endpoints,
        addresses: args.address,
        mtu: args.mtu,
        default_route: args.default_route,
        routes: args.route,
        dns: args.dns,
    };
    let file = join::join(&ticket, &wish).map_err(helped)?;
    tracing::info!("joined; \"adit up {}\" brings the tunnel up from now on", file.display());
    Ok(file)
}

/// What helps where a ticket does not.
fn helped(error: JoinError) -> Failure {
    let hint = match &error {
        JoinError::Joined { file } => {
            format!("\"adit up {}\" brings the tunnel up", file.display())
        }
        JoinError::Taken { .. } => "--name gives this one another name".to_owned(),
        JoinError::Expired { .. }
        | JoinError::Enrol(join::EnrolError::Used | join::EnrolError::Expired) => {
            "\"adit invite\" on the other machine makes another one".to_owned()
        }
        JoinError::Enrol(join::EnrolError::NoAnswer { .. }) => {
            "the tunnel must be up there, and what is on the way must let its datagrams pass"
                .to_owned()
        }
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

/// Writes the configuration of a tunnel without security, in which the other machine is the only peer.
fn without_security(args: JoinArgs) -> Result<PathBuf, Failure> {
    if args.ticket.is_some() || args.ticket_file.is_some() {
        return Err(Failure::wrong_use("--security none does without a ticket"));
    }
    let mut endpoints = args.endpoint;
    endpoints.extend(args.spool.as_deref().map(spool_url).transpose()?);
    if endpoints.is_empty() || args.address.is_empty() {
        return Err(Failure::wrong_use(
            "--security none needs --address, and --spool or --endpoint",
        ));
    }
    let name = args.name.unwrap_or_else(|| join::NAME.to_owned());
    if !serve::is_name(&name) {
        return Err(Failure::wrong_use(format!("{name:?} cannot name a tunnel")));
    }
    refuse_running(&name)?;
    let outline = Outline {
        command: COMMAND,
        name,
        addresses: args.address,
        mtu: args.mtu,
        listen: Vec::new(),
        security: Security::None,
        masquerade: false,
        default_route: args.default_route,
        routes: args.route,
        dns: args.dns,
        endpoints,
    };
    Ok(serve::write(&outline)?)
}
