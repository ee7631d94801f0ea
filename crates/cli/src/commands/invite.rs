//! `adit invite`: a ticket with which a machine joins a running tunnel.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use engine::control::AskError;
use engine::invite::{self, EXPIRES_MAX, InviteError, Issued};
use ipnet::IpNet;
use serde::Serialize;

use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// The name of the running tunnel.
    name: String,

    /// What the joiner is to be called, instead of by its host name.
    #[arg(long = "name", value_name = "PEER")]
    peer: Option<String>,

    #[command(flatten)]
    told: Told,

    /// An address for the joiner, instead of the next free one.
    #[arg(long, value_name = "ADDRESS[/LENGTH]", value_parser = address)]
    address: Vec<IpNet>,

    /// Has the joiner send all its traffic here.
    #[arg(long)]
    default_route: bool,

    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a joiner is told.
#[derive(Debug, Args)]
pub(crate) struct Told {
    /// How long the ticket may be used.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = expires)]
    pub(crate) expires: Duration,

    /// How the joiner reaches this machine, instead of at the addresses that it listens on.
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Vec<String>,

    /// A network behind this machine that the joiner is to reach.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) route: Vec<IpNet>,

    /// A server of names for the joiner.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<IpAddr>,
}

/// The ticket, for `--json`.
#[derive(Serialize)]
struct Ticket<'a> {
    ticket: &'a str,
    expires: u64,
    peer: Option<&'a str>,
    addresses: &'a [IpNet],
    endpoints: &'a [String],
}

pub(crate) fn run(args: InviteArgs, output: &mut Output) -> Result<Exit, Failure> {
    let wish = invite::Wish {
        name: args.peer,
        expires: args.told.expires,
        addresses: args.address,
        endpoints: args.told.endpoint,
        routes: args.told.route,
        default_route: args.default_route,
        dns: args.told.dns,
    };
    let issued = invite::invite(&args.name, &wish).map_err(helped)?;
    tell(&issued, args.json, output)?;
    Ok(Exit::Done)
}

/// What helps where nobody can be invited.
fn helped(error: InviteError) -> Failure {
    let is_down = matches!(error, InviteError::Ask(AskError::NotRunning { .. }));
    let failure = Failure::from(error);
    match is_down {
        true => failure.hint("\"adit up\" or \"adit serve\" brings a tunnel up that others join"),
        false => failure,
    }
}

/// Prints a ticket, and says what it is good for.
pub(crate) fn tell(issued: &Issued, json: bool, output: &mut Output) -> Result<(), Failure> {
    let Issued { text, expires, endpoints, settings } = issued;
    if json {
        let (peer, addresses) = (settings.joiner.as_deref(), settings.addresses.as_slice());
        output.json(&Ticket { ticket: text, expires: *expires, peer, addresses, endpoints })?;
        return Ok(());
    }
    let addresses: Vec<_> = settings.addresses.iter().map(ToString::to_string).collect();
    tracing::info!(
        "the ticket below lets one machine join, as {} by {}; who has it can join, so give it to nobody else",
        if addresses.is_empty() {
            "a part of the Ethernet".to_owned()
        } else {
            addresses.join(" and ")
        },
        endpoints.join(" or "),
    );
    tracing::info!("on that machine: adit join TICKET");
    output.line(text.as_str())?;
    Ok(())
}

/// An address, with the length of its network or without.
pub(crate) fn address(text: &str) -> Result<IpNet, String> {
    let whole = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| whole()).map_err(|_| "it is no address".to_owned())
}

fn expires(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_secs(1) && time <= EXPIRES_MAX => Ok(time),
        Ok(_) => Err("it is not in 1s..=365days".to_owned()),
        Err(_) => Err("it is no time such as \"1h\" or \"30m\"".to_owned()),
    }
}
