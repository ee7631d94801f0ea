//! The device as a port of a bridge.
//!
//! It joins before it is switched on, so that no frame is taken by the host's own stack first, and
//! after its MTU is set, because a bridge takes the least MTU of its ports for its own.

use crate::{Link, TunMode};

use super::contradiction::kind_of;
use super::{Actual, Desired, Device, Operation, PlanError};

/// The port that the device is not yet.
pub(super) fn operation(
    desired: &Desired,
    actual: &Actual,
    tunnel: &Device,
) -> Result<Option<Operation>, PlanError> {
    let Some(name) = &desired.bridge else { return Ok(None) };
    let bridge = bridge(name, actual)?;
    let device = tunnel.name.clone();
    let link = actual.link(tunnel.index());
    // A device that has yet to be made is a TAP device, or else refused when it is there.
    if link.and_then(|link| link.tun).is_some_and(|tun| tun.mode == TunMode::Tun) {
        return Err(PlanError::TunInBridge { device, bridge: name.clone() });
    }
    match link.and_then(|link| link.master) {
        Some(master) if master == bridge.index => Ok(None),
        Some(master) => Err(PlanError::PortTaken { device, master: actual.name_of(master) }),
        None => Ok(Some(Operation::SetMaster {
            device: tunnel.clone(),
            bridge: Device { index: bridge.index.0, name: name.clone() },
        })),
    }
}

fn bridge<'a>(name: &str, actual: &'a Actual) -> Result<&'a Link, PlanError> {
    let bridge = name.to_owned();
    match actual.link_named(name) {
        Some(link) if link.kind.as_deref() == Some("bridge") => Ok(link),
        Some(link) => Err(PlanError::NotBridge { bridge, kind: kind_of(link) }),
        None => Err(PlanError::NoBridge { bridge }),
    }
}
