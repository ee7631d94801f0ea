//! `adit device show`, and the words in which devices are described.

use clap::Args;
use device::DeviceName;

use super::description::{Account, Description, Host, Process};
use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The device.
    name: DeviceName,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// Why a device cannot be shown.
#[derive(Debug, thiserror::Error)]
enum ShowError {
    #[error("show device \"{0}\": there is no such interface")]
    Missing(DeviceName),
    #[error("show device \"{0}\": it is neither a TUN nor a TAP device")]
    NotTun(DeviceName),
}

pub(super) fn run(args: &ShowArgs, output: &mut Output) -> Result<Exit, Failure> {
    let host = Host::look()?;
    let link = host.link(&args.name).ok_or_else(|| ShowError::Missing(args.name.clone()))?;
    let tun = link.tun.ok_or_else(|| ShowError::NotTun(args.name.clone()))?;
    let device = host.describe(link, tun);
    if args.json {
        output.json(&device)?;
    } else {
        for (key, value) in lines(&device) {
            output.line(format_args!("{key:<12}{value}"))?;
        }
    }
    Ok(Exit::Done)
}

fn lines(device: &Description) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("name", device.name.clone()),
        ("mode", device.mode.to_owned()),
        ("state", state(device)),
        ("mtu", device.mtu.to_string()),
    ];
    lines.extend(device.mac.clone().map(|mac| ("mac", mac)));
    lines.extend([
        ("persistent", yes_or_no(device.persistent).to_owned()),
        ("for", who(device)),
        ("attached", attached(device)),
        ("queues", queues(device)),
        ("headers", headers(device)),
        ("offload", offload(device)),
    ]);
    lines.extend(device.addresses.iter().map(|address| ("address", address.clone())));
    lines
}

/// Whether the device is switched on and connected.
pub(super) fn state(device: &Description) -> String {
    match (device.up, device.carrier) {
        (false, _) => "down".to_owned(),
        (true, false) => "up, no carrier".to_owned(),
        (true, true) => "up".to_owned(),
    }
}

/// Who may attach without privilege, if there is a queue to have. The kernel takes a device without
/// user and group for everyone's.
pub(super) fn who(device: &Description) -> String {
    match (&device.user, &device.group) {
        (Some(user), Some(group)) => format!("user {} in group {}", named(user), named(group)),
        (Some(user), None) => format!("user {}", named(user)),
        (None, Some(group)) => format!("group {}", named(group)),
        (None, None) => "everyone".to_owned(),
    }
}

/// Whether and by whom the device is used.
pub(super) fn attached(device: &Description) -> String {
    if !device.processes.is_empty() {
        let process = |p: &Process| format!("{} ({})", p.pid, p.command);
        return device.processes.iter().map(process).collect::<Vec<_>>().join(", ");
    }
    match device.attached {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
    .to_owned()
}

fn queues(device: &Description) -> String {
    match &device.queues {
        None => "one".to_owned(),
        Some(queues) if queues.disabled == 0 => format!("several, {} attached", queues.enabled),
        Some(queues) => {
            let attached = queues.enabled.saturating_add(queues.disabled);
            format!("several, {attached} attached, {} of them disabled", queues.disabled)
        }
    }
}

fn headers(device: &Description) -> String {
    let named =
        [(device.packet_information, "packet information"), (device.vnet_header, "virtio-net")];
    let present: Vec<&str> =
        named.into_iter().filter_map(|(present, name)| present.then_some(name)).collect();
    listed(&present)
}

fn offload(device: &Description) -> String {
    device.offload.as_deref().map_or_else(|| "unknown".to_owned(), listed)
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn named(account: &Account) -> String {
    account.name.clone().unwrap_or_else(|| account.id.to_string())
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
