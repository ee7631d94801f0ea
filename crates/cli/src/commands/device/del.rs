//! `adit device del`.

use clap::Args;
use device::{Builder, DeviceName, OpenError, persist};
use netlink::{Socket, TunMode};

use super::Mode;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct DelArgs {
    /// The device.
    name: DeviceName,
    /// Deletes it only if it is of this kind.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
}

/// A device cannot be deleted.
#[derive(Debug, thiserror::Error)]
#[error("delete device \"{name}\"")]
struct DelError {
    name: DeviceName,
    source: OpenError,
}

pub(super) fn run(args: DelArgs) -> Result<Exit, Failure> {
    let tun = Socket::open()?.link(args.name.as_str())?.and_then(|link| link.tun);
    let actual = match tun.map(|tun| tun.mode) {
        Some(TunMode::Tap) => device::Mode::Tap,
        Some(TunMode::Tun) | None => device::Mode::Tun,
    };
    let mode = args.mode.map_or(actual, device::Mode::from);
    let multi_queue = tun.is_some_and(|tun| tun.multi_queue);
    let builder =
        Builder::new(args.name.clone(), mode).multi_queue(multi_queue).observe(engine::observe);
    persist::delete(&builder).map_err(|source| DelError { name: args.name, source })?;
    Ok(Exit::Done)
}
