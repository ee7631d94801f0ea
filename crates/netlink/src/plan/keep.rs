//! Endpoints and networks that keep today's way although a prefix of the tunnel takes them along.
//!
//! Today's way is the longest route of the main table that holds the whole network, not counting what
//! the tunnel added before and what leads into it. It is copied as a route of the network's own if it
//! is no longer than the tunnel's prefix; if it is longer, it wins by itself and needs no copy.
//!
//! A copy that the tunnel made before and that still stands is compared with the way as it is today:
//!
//! | the copy | and the way today | operations |
//! |---|---|---|
//! | a route | another route | replace, at one moment |
//! | a route, or unreachable | the other of both | delete, then add |
//! | either | longer by itself, or the network is not kept any more | delete |
//! | of an endpoint | none, while the tunnel waits for its uplink | none |
//! | either | the same | none |
//!
//! An endpoint that has neither a copy nor a way while the tunnel waits for its uplink is unreachable: the
//! tunnel's own datagrams would go into the tunnel otherwise, and come out of it as new ones, without end.
//!
//! The copies of shorter prefixes are changed first, so that an endpoint inside an excluded network
//! has its own until the network's is right.

use ipnet::IpNet;

use crate::Route;

use super::actual::Way;
use super::{Actual, Desired, Device, DeviceRoute, Operation, PlanError, Purpose, Undo};

/// The operations that make the kept ways those of today.
pub(super) fn operations(
    desired: &Desired,
    actual: &Actual,
    tunnel: &Device,
) -> Result<Vec<Operation>, PlanError> {
    let keep = Keep {
        desired,
        actual,
        tunnel,
        captures: desired.captures(),
        blocked: desired.blocked_halves(),
    };
    let wanted = keep.wanted()?;
    let standing = keep.standing();
    let mut operations: Vec<_> =
        standing.iter().flat_map(|(network, copy)| change(copy, find(&wanted, *network))).collect();
    let missing = wanted
        .iter()
        .filter(|wanted| !standing.iter().any(|(network, _)| *network == wanted.network));
    operations.extend(missing.filter_map(Wanted::add));
    Ok(operations)
}

struct Keep<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    tunnel: &'a Device,
    captures: Vec<IpNet>,
    blocked: Vec<IpNet>,
}

/// A network and the copy that it needs today.
struct Wanted {
    network: IpNet,
    purpose: Purpose,
    copy: Copy,
}

enum Copy {
    /// None.
    Needless,
    /// The one that is there, and a refusal if there is none.
    AsItIs,
    /// A route.
    Route(DeviceRoute),
    /// A refusal.
    Unreachable,
}

impl Keep<'_> {
    /// What shall be, each network once. Endpoints come first.
    fn wanted(&self) -> Result<Vec<Wanted>, PlanError> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let endpoints = self.endpoints()?.into_iter().map(|network| (network, Purpose::Endpoint));
        let excluded = self.desired.exclude.iter().map(|&network| (network, Purpose::Excluded));
        for (network, purpose) in endpoints.chain(excluded) {
            if find(&wanted, network).is_none() {
                let copy = self.copy_for(network, purpose)?;
                wanted.push(Wanted { network, purpose, copy });
            }
        }
        Ok(wanted)
    }

    /// The endpoints that are elsewhere.
    fn endpoints(&self) -> Result<Vec<IpNet>, PlanError> {
        let own =
            |endpoint| self.desired.addresses.iter().any(|(local, _)| local.addr() == endpoint);
        if let Some(&endpoint) = self.desired.pinned.iter().find(|&&endpoint| own(endpoint)) {
            return Err(PlanError::OwnEndpoint { endpoint, device: self.tunnel.name.clone() });
        }
        let pinned = self.desired.pinned.iter().copied();
        Ok(pinned.filter(|&endpoint| !self.actual.is_local(endpoint)).map(IpNet::from).collect())
    }

    /// The copies of before that still stand, one a network, shorter prefixes first.
    fn standing(&self) -> Vec<(IpNet, &Undo)> {
        let mut standing: Vec<(IpNet, &Undo)> = Vec::new();
        for undo in self.actual.standing() {
            let network = match undo {
                Undo::Route(route) if route.device.index == self.tunnel.index => continue,
                Undo::Route(route) => route.destination,
                Undo::Unreachable { destination } if self.blocked.contains(destination) => continue,
                Undo::Unreachable { destination } => *destination,
                _ => continue,
            };
            // A journal may tell of a step twice, once for each time that it was applied.
            if !standing.iter().any(|(other, _)| *other == network) {
                standing.push((network, undo));
            }
        }
        standing.sort_by_key(|(network, _)| network.prefix_len());
        standing
    }

    fn copy_for(&self, network: IpNet, purpose: Purpose) -> Result<Copy, PlanError> {
        let captures = self.captures.iter().filter(|capture| capture.contains(&network));
        let Some(&capture) = captures.max_by_key(|capture| capture.prefix_len()) else {
            return Ok(Copy::Needless);
        };
        if capture == network {
            return Err(PlanError::KeptAndRouted { network });
        }
        let endpoint = purpose == Purpose::Endpoint;
        match self.actual.way(network, self.tunnel.index(), &self.blocked) {
            Some(way) if way.prefix_len() > capture.prefix_len() => Ok(Copy::Needless),
            Some(Way::Route(route)) => self.copy_of(route, network, capture).map(Copy::Route),
            _ if endpoint && self.desired.wait_for_uplink => Ok(Copy::AsItIs),
            _ if endpoint => Err(PlanError::NoWay { endpoint: network.addr(), capture }),
            _ => Ok(Copy::Unreachable),
        }
    }

    fn copy_of(
        &self,
        way: &Route,
        network: IpNet,
        capture: IpNet,
    ) -> Result<DeviceRoute, PlanError> {
        let Some(link) = way.link else {
            return Err(PlanError::SeveralWays { network, capture });
        };
        Ok(DeviceRoute {
            device: Device { index: link.0, name: self.actual.name_of(link) },
            destination: network,
            via: way.via,
            source: way.source,
            mtu: way.mtu,
        })
    }
}

impl Wanted {
    fn add(&self) -> Option<Operation> {
        let &Self { network, purpose, .. } = self;
        match &self.copy {
            Copy::Needless => None,
            Copy::Route(route) => Some(Operation::AddRoute { route: route.clone(), purpose }),
            Copy::AsItIs | Copy::Unreachable => {
                Some(Operation::AddUnreachable { destination: network, purpose })
            }
        }
    }
}

fn find(wanted: &[Wanted], network: IpNet) -> Option<&Wanted> {
    wanted.iter().find(|wanted| wanted.network == network)
}

/// What makes a copy that stands the one that is wanted.
fn change(standing: &Undo, wanted: Option<&Wanted>) -> Vec<Operation> {
    let Some(wanted) = wanted else { return delete(standing).into_iter().collect() };
    match (standing, &wanted.copy) {
        (_, Copy::AsItIs) | (Undo::Unreachable { .. }, Copy::Unreachable) => Vec::new(),
        (Undo::Route(from), Copy::Route(to)) if from.route() == to.route() => Vec::new(),
        (Undo::Route(from), Copy::Route(to)) => vec![Operation::ReplaceRoute {
            from: from.clone(),
            to: to.clone(),
            purpose: wanted.purpose,
        }],
        _ => delete(standing).into_iter().chain(wanted.add()).collect(),
    }
}

fn delete(standing: &Undo) -> Option<Operation> {
    match standing {
        Undo::Route(route) => Some(Operation::DeleteRoute { route: route.clone() }),
        Undo::Unreachable { destination } => {
            Some(Operation::DeleteUnreachable { destination: *destination })
        }
        _ => None,
    }
}
