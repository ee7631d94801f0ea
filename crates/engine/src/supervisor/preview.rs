//! What bringing a tunnel up would change, without changing it.

use std::net::IpAddr;

use device::Mode;
use netlink::journal::Journal;
use netlink::plan::{self, Obstacle, Operation};
use proto::InnerMtu;

use super::desired::{self, Circumstances};
use super::place::Place;
use super::{HostError, TunnelError, underlay};
use crate::config::Config;
use crate::runtime;
use crate::worker::lane::content;

/// The changes that bringing a tunnel up would make now.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The changes, in order.
    pub steps: Vec<Step>,
    /// What would still stop packets, and is someone else's.
    pub obstacles: Vec<Obstacle>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What a person would type to the same effect, line by line.
    pub commands: Vec<String>,
    /// What it is good for.
    pub why: String,
}

/// Finds out what bringing the tunnel of `config` up would change.
///
/// # Errors
///
/// Those of [`up`](super::up) that show before anything is changed.
pub fn preview(config: &Config) -> Result<Preview, TunnelError> {
    let tunnel = || config.name.clone();
    let host = |cause: HostError| TunnelError::Host { tunnel: tunnel(), cause };
    let underlay = |cause| TunnelError::Underlay { tunnel: tunnel(), cause };
    let mut network = plan::Host::open().map_err(|error| host(error.into()))?;
    let places = underlay::places(config).map_err(underlay)?;
    let device = config.device.name.as_str();
    let exists = network.socket().link(device)?.is_some();
    let mtu = match config.device.mtu {
        Some(mtu) => InnerMtu(mtu),
        None => underlay::inner_mtu(
            network.socket(),
            &underlay::listen(config),
            &places,
            content(config.device.mode),
            super::encapsulation(config),
            device,
        )?,
    };
    let circumstances = Circumstances {
        made_by_us: true,
        mtu,
        endpoints: endpoints(&places),
        ipv6: desired::has_ipv6(),
        running: false,
    };
    let desired = desired::desired(config, &circumstances);
    let mut actual = network.read(&desired, &[]).map_err(|error| host(error.into()))?;
    let running = is_running(&config.name);
    if running {
        // The table of our name is the tunnel's own.
        actual.filter.foreign.retain(|table| table.name != desired.table);
    }
    let mut operations = plan::plan(&desired, &actual).map_err(|error| host(error.into()))?;
    // Whose they are shows only to who has them.
    let own = |operation: &Operation| {
        matches!(operation, Operation::InstallTable { .. } | Operation::ChangeNames(_))
    };
    operations.retain(|operation| !running || !own(operation));
    let made = if exists { Vec::new() } else { making(config) };
    let steps = made.into_iter().chain(operations.iter().map(Step::of)).collect();
    Ok(Preview { steps, obstacles: plan::obstacles(&desired, &actual) })
}

/// Whether a tunnel of that name is up, as far as this user may know.
fn is_running(name: &str) -> bool {
    runtime::directory()
        .is_ok_and(|directory| matches!(Journal::holder(&directory, name), Ok(Some(_))))
}

impl Step {
    fn of(operation: &Operation) -> Self {
        Self { commands: operation.commands(), why: operation.why() }
    }
}

/// How the device is made, which is no change of anything that was there.
fn making(config: &Config) -> Vec<Step> {
    let (name, mode) = (&config.device.name, config.device.mode);
    let queues = if config.device.queues > 1 { " multi_queue" } else { "" };
    let kind = if mode == Mode::Tun { "tun" } else { "tap" };
    let mut steps = vec![Step {
        commands: vec![format!("ip tuntap add dev {name} mode {kind}{queues}")],
        why: "packets enter and leave the tunnel here".to_owned(),
    }];
    if mode == Mode::Tun {
        steps.push(Step {
            commands: vec![format!("ip link set dev {name} addrgenmode none")],
            why: "the kernel sends no router solicitations into the tunnel".to_owned(),
        });
    }
    steps
}

fn endpoints(places: &[Option<Place>]) -> Vec<IpAddr> {
    let remotes = places.iter().flatten().filter_map(Place::socket_addr);
    remotes.map(|remote| remote.ip()).collect()
}
