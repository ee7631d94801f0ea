//! `adit serve`: a tunnel that others join, without a file.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::config::{self, Security};
use engine::invite::{Offer, Wish};
use engine::serve::{self, LISTEN, Outline};
use engine::signal::Signals;
use engine::{control, keyfile, supervisor};
use ipnet::IpNet;

use super::invite::{self, Told};
use crate::output::Output;
use crate::report::{Exit, Failure};

/// The command, as the file names it.
const COMMAND: &str = "adit serve";

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The name of the tunnel, and of its device.
    #[arg(long, default_value = serve::NAME)]
    name: String,

    /// The address of this machine in the tunnel; needed at the first start.
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    address: Vec<IpNet>,

    /// Where to listen; by default at port 4740 of UDP, on all addresses.
    #[arg(
        long,
        value_name = "URL",
        help = "Where to listen [default: udp://0.0.0.0:4740 and udp://[::]:4740]"
    )]
    listen: Vec<String>,

    /// A folder that both machines have, instead of a network.
    #[arg(long, value_name = "DIRECTORY")]
    spool: Option<PathBuf>,

    /// Lets joiners use this machine's way to the internet: forwards and masquerades, and takes their default route.
    #[arg(long)]
    share_internet: bool,

    #[command(flatten)]
    told: Told,

    /// The MTU of both devices.
    #[arg(long, value_name = "OCTETS")]
    mtu: Option<u32>,

    /// "none" for no encryption, no keys and no tickets, on a link that is trusted.
    #[arg(long, value_name = "SECURITY", default_value = "wireguard", value_parser = security)]
    security: Security,

    /// Prints the ticket as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: ServeArgs, output: &mut Output) -> Result<Exit, Failure> {
    keyfile::guard_memory();
    if !serve::is_name(&args.name) {
        return Err(Failure::wrong_use(format!("{:?} cannot name a tunnel", args.name)));
    }
    refuse_running(&args.name)?;
    let (file, offer) = file(&args)?;
    let config = config::load(&file)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let wish = Wish { expires: args.told.expires, ..Wish::default() };
    let (name, json) = (args.name, args.json);
    let is_open = config.local.security == Security::None;
    let (mut outcome, mut signals) = (Ok(()), Signals::catch()?);
    supervisor::serve(config, &file, offer, &wish, &mut signals, |issued| match issued {
        Some(issued) => outcome = invite::tell(issued, json, output),
        None if is_open => {}
        None => tracing::info!(
            "somebody has joined or is invited already; \"adit invite {name}\" makes another ticket"
        ),
    })?;
    outcome.map(|()| Exit::Done)
}

/// Fails if a tunnel of that name is up, whose file must stay as it is.
pub(crate) fn refuse_running(name: &str) -> Result<(), Failure> {
    match control::running()?.iter().any(|running| running == name) {
        true => Err(Failure::from(Running { name: name.to_owned() })
            .hint(format!("\"adit invite {name}\" lets others join; --name gives another name"))),
        false => Ok(()),
    }
}

/// The tunnel is up.
#[derive(Debug, thiserror::Error)]
#[error("tunnel {name:?} is running")]
struct Running {
    name: String,
}

/// The configuration file, written anew if options say what it is to be, and what joiners are told then.
fn file(args: &ServeArgs) -> Result<(PathBuf, Option<Offer>), Failure> {
    let told = &args.told;
    let says_something = args.share_internet
        || args.security == Security::None
        || !(args.listen.is_empty() && told.endpoint.is_empty() && told.route.is_empty())
        || !(told.dns.is_empty() && args.spool.is_none() && args.mtu.is_none());
    if args.address.is_empty() {
        let file = serve::file_of(&args.name)?;
        if says_something || !file.exists() {
            return Err(Failure::wrong_use("--address is missing")
                .hint("such as --address 192.0.2.1/24, of a network that neither machine is in"));
        }
        return Ok((file, None));
    }
    let offer = Offer {
        endpoints: told.endpoint.clone(),
        routes: told.route.clone(),
        default_route: args.share_internet,
        dns: told.dns.clone(),
    };
    Ok((serve::write(&outline(args)?)?, Some(offer)))
}

fn outline(args: &ServeArgs) -> Result<Outline, Failure> {
    let mut listen = args.listen.clone();
    listen.extend(args.spool.as_deref().map(spool_url).transpose()?);
    if listen.is_empty() {
        listen = LISTEN.map(str::to_owned).to_vec();
    }
    Ok(Outline {
        command: COMMAND,
        name: args.name.clone(),
        addresses: args.address.clone(),
        mtu: args.mtu,
        listen,
        security: args.security,
        masquerade: args.share_internet || !args.told.route.is_empty(),
        default_route: false,
        routes: Vec::new(),
        dns: Vec::new(),
        endpoints: Vec::new(),
    })
}

/// The URL of a folder.
pub(crate) fn spool_url(folder: &Path) -> Result<String, Failure> {
    let folder = std::path::absolute(folder)?;
    match folder.to_str() {
        Some(folder) => Ok(format!("spool://{folder}")),
        None => Err(Failure::wrong_use("the folder's name is not UTF-8")),
    }
}

/// How peers prove who they are.
pub(crate) fn security(text: &str) -> Result<Security, String> {
    match text {
        "wireguard" => Ok(Security::Wireguard),
        "none" => Ok(Security::None),
        _ => Err("it is neither \"wireguard\" nor \"none\"".to_owned()),
    }
}
