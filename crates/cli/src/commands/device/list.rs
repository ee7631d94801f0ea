//! `adit device list`.

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::description::{Description, Host};
use super::show::{attached, state, who};
use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct List {
    devices: Vec<Description>,
}

pub(super) fn run(args: &ListArgs, output: &mut Output) -> Result<Exit, Failure> {
    let devices = Host::look()?.devices();
    if args.json {
        output.json(&List { devices })?;
    } else if devices.is_empty() {
        tracing::info!("no TUN or TAP device in this network namespace");
    } else {
        output.line(table(&devices).trim_fmt())?;
    }
    Ok(Exit::Done)
}

fn table(devices: &[Description]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["NAME", "MODE", "STATE", "MTU", "FOR", "ATTACHED", "ADDRESSES"]);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for device in devices {
        table.add_row([
            device.name.clone(),
            device.mode.to_owned(),
            state(device),
            device.mtu.to_string(),
            who(device),
            attached(device),
            device.addresses.join(", "),
        ]);
    }
    table
}
