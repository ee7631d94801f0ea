//! Endpoints and networks that keep today's way although a prefix of the tunnel takes them along.
//!
//! Today's way is the longest route of the main table that holds the whole network, not counting what
//! leads into the tunnel. It is copied as a route of the network's own if it is no longer than the
//! tunnel's prefix; if it is longer, it wins by itself. So once copied it is left as it is.

use ipnet::IpNet;

use crate::Route;

use super::actual::Way;
use super::{Actual, Desired, Device, DeviceRoute, Operation, PlanError, Purpose};

/// The routes that keep endpoints and excluded networks outside the tunnel.
pub(super) fn operations(
    desired: &Desired,
    actual: &Actual,
    tunnel: &Device,
) -> Result<Vec<Operation>, PlanError> {
    let keep =
        Keep { actual, tunnel, captures: desired.captures(), blocked: desired.blocked_halves() };
    let mut operations = Vec::new();
    for &endpoint in &desired.pinned {
        if desired.addresses.iter().any(|(local, _)| local.addr() == endpoint) {
            return Err(PlanError::OwnEndpoint { endpoint, device: tunnel.name.clone() });
        }
        if !actual.is_local(endpoint) {
            operations.extend(keep.network(IpNet::from(endpoint), Purpose::Endpoint)?);
        }
    }
    for &network in &desired.exclude {
        operations.extend(keep.network(network, Purpose::Excluded)?);
    }
    let mut distinct: Vec<Operation> = Vec::new();
    for operation in operations {
        if !distinct.iter().any(|other| destination(other) == destination(&operation)) {
            distinct.push(operation);
        }
    }
    Ok(distinct)
}

struct Keep<'a> {
    actual: &'a Actual,
    tunnel: &'a Device,
    captures: Vec<IpNet>,
    blocked: Vec<IpNet>,
}

impl Keep<'_> {
    fn network(&self, network: IpNet, purpose: Purpose) -> Result<Option<Operation>, PlanError> {
        let captures = self.captures.iter().filter(|capture| capture.contains(&network));
        let Some(&capture) = captures.max_by_key(|capture| capture.prefix_len()) else {
            return Ok(None);
        };
        if capture == network {
            return Err(PlanError::KeptAndRouted { network });
        }
        let way = self.actual.way(network, self.tunnel.index(), &self.blocked);
        match way {
            Some(way) if way.prefix_len() > capture.prefix_len() => Ok(None),
            Some(Way::Route(route)) => self.copy(route, network, capture, purpose).map(Some),
            _ if purpose == Purpose::Endpoint => {
                Err(PlanError::NoWay { endpoint: network.addr(), capture })
            }
            _ => Ok(Some(Operation::AddUnreachable { destination: network, purpose })),
        }
    }

    fn copy(
        &self,
        way: &Route,
        network: IpNet,
        capture: IpNet,
        purpose: Purpose,
    ) -> Result<Operation, PlanError> {
        let Some(link) = way.link else {
            return Err(PlanError::SeveralWays { network, capture });
        };
        let name =
            self.actual.link(link).map_or_else(|| format!("if{link}"), |link| link.name.clone());
        let route = DeviceRoute {
            device: Device { index: link.0, name },
            destination: network,
            via: way.via,
            source: way.source,
            mtu: way.mtu,
        };
        Ok(Operation::AddRoute { route, purpose })
    }
}

fn destination(operation: &Operation) -> Option<IpNet> {
    match operation {
        Operation::AddRoute { route, .. } => Some(route.destination),
        Operation::AddUnreachable { destination, .. } => Some(*destination),
        _ => None,
    }
}
