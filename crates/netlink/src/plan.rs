//! What has to change on the host so that a tunnel works, and how it is taken back.
//!
//! # Theory of operation
//!
//! [`plan`] compares what shall be ([`Desired`]) with what is ([`Actual`]) and returns the difference as
//! [`Operation`]s, in the order of their [`Stage`]s. It changes nothing and asks nobody. Planning again
//! after the operations were applied yields none.
//!
//! An operation knows its [`Undo`], which is plain data and can be kept in a
//! [journal](crate::journal) *before* the operation is [applied](Host::apply). Undoing goes backwards,
//! and may begin after any operation: [`Host::revert`] takes back only what is still as the operation
//! left it, so that neither an operation that never happened nor a change that someone made since is
//! touched. Where the kernel undoes by itself, an operation has no undo: the table of the packet filter
//! dies with the [`Host`].
//!
//! A tunnel that runs plans again when the host's network has changed, with the journal's steps as
//! [`Actual::applied`]. An operation may then [withdraw](Operation::withdraws) an earlier step, which
//! the journal forgets *afterwards*: until then it has both, of which reverting finds one. Routes that
//! went with their link leave steps without an object; [`Actual::due`] is the journal without them.
//!
//! # Ways
//!
//! Nothing of others is replaced. All traffic of a family is redirected by two routes that are longer
//! than the default route, which stays. Endpoints and excluded networks keep *today's way*: the longest
//! route of the main table, copied as a route of their own where the tunnel would take them along.
//! Copies follow the uplink: today's way is looked for without what the tunnel added itself, and a copy
//! that differs is replaced at one moment. An endpoint without any way is refused at first; a tunnel
//! that runs [waits](Desired::wait_for_uplink): its old copy stays as long as the link leaves it, and then the
//! endpoint is unreachable.
//!
//! IPv6 beside a tunnel of IPv4 is blocked by two routes of type `unreachable` and not by routes into the
//! tunnel: a program is told at once, and falls back to IPv4 instead of waiting for a timeout. Networks on
//! a link and other longer routes stay reachable, as they do for IPv4. The routes do not die with the
//! device, so that a crash leaks nothing; the journal removes them.
//!
//! # Packet filter
//!
//! A host that forwards has one table of its own, and accepting rules at the head of those chains of
//! others that drop by their policy. What no plan can change is told by [`obstacles`]. Without
//! forwarding, nf_tables is neither needed nor asked.
//!
//! # Limits
//!
//! Only the main table is looked at: rules that lead elsewhere (ip-rule(8)) are not seen. A router that
//! is not on its link (`onlink`) cannot be copied: the kernel refuses the operation.
//!
//! Of what was applied before, a plan changes only the kept ways, the blocked halves and the table's
//! rules. Whoever wishes for fewer addresses, routes into the tunnel, settings, accepting rules or no
//! bridge, or for no forwarding at all, reverts those steps.
//!
//! Between the moment when an uplink goes and the next plan, datagrams to an endpoint go into the tunnel
//! itself.
//!
//! A chain that drops by a rule of its own, and not by its policy, is not found.

mod actual;
mod bridge;
mod change;
mod contradiction;
mod desired;
mod error;
mod filter;
mod host;
mod keep;
mod operation;
mod read;
mod settings;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod undo;
mod unreachable;
mod words;

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{Address, resolver};

pub use self::actual::{Actual, DroppingChain, Filter};
pub use self::change::ChangeError;
pub use self::desired::{Desired, Families, Translation};
pub use self::error::PlanError;
pub use self::filter::{Obstacle, obstacles};
pub use self::host::Host;
pub use self::operation::{
    Companion, Device, DeviceAddress, DeviceRoute, Operation, Purpose, Stage,
};
pub use self::undo::{Reverted, Undo};

/// The MTU of a TUN or TAP device that was just made (`ETH_DATA_LEN`).
const MTU_OF_NEW_DEVICE: u32 = 1500;

/// Finds out what has to change, in order.
///
/// # Errors
///
/// A [`PlanError`] if the desired state contradicts itself or the actual one.
pub fn plan(desired: &Desired, actual: &Actual) -> Result<Vec<Operation>, PlanError> {
    let device = contradiction::check(desired, actual)?;
    let mut operations = settings::operations(desired, actual, &device)?;
    operations.extend(filter::operations(desired, actual, &device));
    operations.extend(keep::operations(desired, actual, &device)?);
    operations.extend(mtu(desired, actual, &device));
    operations.extend(addresses(desired, actual, &device));
    operations.extend(bridge::operation(desired, actual, &device)?);
    operations.extend(up(desired, actual, &device));
    operations.extend(routes(desired, actual, &device));
    operations.extend(blocked(desired, actual));
    operations.extend(names(desired, actual, &device)?);
    // Stable: within a stage the order is that of above.
    operations.sort_by_key(Operation::stage);
    Ok(operations)
}

fn mtu(desired: &Desired, actual: &Actual, device: &Device) -> Option<Operation> {
    let from = actual.link(device.index()).map_or(MTU_OF_NEW_DEVICE, |link| link.mtu);
    (from != desired.mtu).then(|| Operation::SetMtu {
        device: device.clone(),
        from,
        to: desired.mtu,
    })
}

fn addresses(desired: &Desired, actual: &Actual, device: &Device) -> Vec<Operation> {
    desired
        .addresses_on(device.index())
        .filter(|address| !actual.addresses.contains(address))
        .map(|Address { local, peer, .. }| {
            Operation::AddAddress(DeviceAddress { device: device.clone(), local, peer })
        })
        .collect()
}

fn up(desired: &Desired, actual: &Actual, device: &Device) -> Option<Operation> {
    let due = desired.up && !is_up(actual, device);
    due.then(|| Operation::SetUp { device: device.clone() })
}

fn routes(desired: &Desired, actual: &Actual, device: &Device) -> Vec<Operation> {
    let routes = desired.routes.iter().map(|&route| (route, Purpose::Tunnelled));
    let halves = desired.default_halves().into_iter().map(|half| (half, Purpose::Default));
    let ends = far_ends(desired, device).into_iter().map(|end| (end, Purpose::Tunnelled));
    let brought = brought_along(desired, actual, device);
    routes
        .chain(halves)
        .chain(ends)
        .filter(|(destination, _)| {
            let stands = actual.main_routes().any(|route| {
                route.destination == *destination
                    && route.link == Some(device.index())
                    && route.via.is_none()
            });
            !stands && !brought.contains(destination)
        })
        .map(|(destination, purpose)| Operation::AddRoute {
            route: DeviceRoute::through(device, destination),
            purpose,
        })
        .collect()
}

/// The far ends of IPv6 addresses that have two.
fn far_ends(desired: &Desired, device: &Device) -> BTreeSet<IpNet> {
    let ends = desired.addresses_on(device.index()).filter_map(|address| address.peer);
    let ends = ends.filter(|end| end.addr().is_ipv6()).map(|end| end.trunc());
    ends.filter(|end| !desired.routes.contains(end)).collect()
}

/// The prefixes that the kernel will route to the device by itself: those of addresses that are added,
/// and of all its addresses if it is switched on.
///
/// Of an IPv6 address with two ends the way to the far one comes only with an address that is added to a
/// device that is up (`fixup_permanent_addr` in net/ipv6/addrconf.c makes that to the near one).
fn brought_along(desired: &Desired, actual: &Actual, device: &Device) -> Vec<IpNet> {
    let present = actual.addresses.iter().filter(|address| address.link == device.index());
    let present: Vec<_> = present.cloned().collect();
    let added = desired.addresses_on(device.index()).filter(|address| !present.contains(address));
    let mut bringing: Vec<Address> = added.collect();
    if !is_up(actual, device) {
        bringing.extend(present);
        bringing.retain(|address| address.peer.is_none_or(|end| end.addr().is_ipv4()));
    }
    bringing.iter().filter_map(desired::connected).collect()
}

fn blocked(desired: &Desired, actual: &Actual) -> Vec<Operation> {
    let halves = desired.blocked_halves().into_iter();
    halves
        .filter(|half| !actual.unreachable.contains(half))
        .map(|destination| Operation::AddUnreachable { destination, purpose: Purpose::Blocked })
        .collect()
}

fn names(
    desired: &Desired,
    actual: &Actual,
    device: &Device,
) -> Result<Option<Operation>, PlanError> {
    let (Some(names), Some(resolver)) = (&desired.names, &actual.resolver) else { return Ok(None) };
    let is_file = |undo: &Undo| matches!(undo, Undo::Names(resolver::Undo::File { .. }));
    let applied = actual.applied.iter().any(is_file);
    let tunnel = resolver::Tunnel { name: &desired.tunnel, device, applied };
    Ok(resolver::plan(names, tunnel, resolver)?.map(Operation::ChangeNames))
}

fn is_up(actual: &Actual, device: &Device) -> bool {
    actual.link(device.index()).is_some_and(|link| link.up)
}
