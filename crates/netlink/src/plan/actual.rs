//! What the host's network is like.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::nftables::{ChainId, FoundTable, Table};
use crate::resolver::Resolver;
use crate::{Address, Link, LinkIndex, Route, TABLE_MAIN};

use super::{DeviceRoute, Families, Undo};

/// What the host's network is like, as far as a plan depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Actual {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// The unicast routes of all tables.
    pub routes: Vec<Route>,
    /// The destinations that the main table calls unreachable.
    pub unreachable: Vec<IpNet>,
    /// The settings of [`Desired::sysctls`](super::Desired::sysctls) that the kernel has.
    pub sysctls: BTreeMap<String, String>,
    /// The packet filter; empty if the desired state has nothing to do with it.
    pub filter: Filter,
    /// Who answers names; none if the desired state has nothing to do with it.
    pub resolver: Option<Resolver>,
    /// The steps that this tunnel has applied before and not taken back.
    pub applied: Vec<Undo>,
}

/// The packet filter, as far as a plan depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Filter {
    /// The tunnel's own table.
    pub in_force: Option<Table>,
    /// The tables of others.
    pub foreign: Vec<FoundTable>,
    /// The chains of others that drop what is forwarded unless a rule accepts it.
    pub dropping: Vec<DroppingChain>,
    /// The families for which iptables has a filter table of the old kind.
    pub legacy: Families,
    /// Whether the kernel does not show the packet filter, for want of privilege.
    pub hidden: bool,
}

/// A base chain of hook forward that drops what no rule accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppingChain {
    /// Which it is.
    pub chain: ChainId,
    /// Whether its table belongs to another process, so that nobody else can change it.
    pub owned: bool,
    /// Whether it has the tunnel's rules.
    pub accepts: bool,
}

/// What becomes of the packets for a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way<'a> {
    /// They leave by a route.
    Route(&'a Route),
    /// They are refused.
    Unreachable(IpNet),
}

impl Way<'_> {
    pub(super) fn prefix_len(self) -> u8 {
        match self {
            Self::Route(route) => route.destination.prefix_len(),
            Self::Unreachable(prefix) => prefix.prefix_len(),
        }
    }
}

impl Actual {
    /// The steps of [`Actual::applied`] that a journal still needs: not those whose objects are gone, as
    /// with their link, and one for each object, however often it was changed.
    ///
    /// So a journal does not grow while the tunnel and someone else change the same thing in turn.
    pub fn due(&self) -> Vec<Undo> {
        let mut due: Vec<Undo> = Vec::new();
        let standing: Vec<&Undo> = self.standing().collect();
        for undo in &self.applied {
            let is_way = matches!(undo, Undo::Route(_) | Undo::Unreachable { .. });
            let is_there = undo.link().is_none_or(|link| self.link(link).is_some());
            if !is_there || (is_way && !standing.contains(&undo)) {
                continue;
            }
            match due.iter_mut().find_map(|earlier| Some((undo.after(earlier)?, earlier))) {
                Some((both, earlier)) => *earlier = both,
                None => due.push(undo.clone()),
            }
        }
        due
    }

    pub(super) fn link(&self, index: LinkIndex) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    pub(super) fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    pub(super) fn name_of(&self, index: LinkIndex) -> String {
        self.link(index).map_or_else(|| format!("if{index}"), |link| link.name.clone())
    }

    pub(super) fn sysctl(&self, key: &str) -> Option<&str> {
        self.sysctls.get(key).map(String::as_str)
    }

    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.has_address(address)
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.local.addr() == address)
    }

    /// The routes of the main table, which are the ones that a plan adds to.
    pub(super) fn main_routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| route.table == TABLE_MAIN)
    }

    /// The steps of before that added routes or unreachable destinations which still stand.
    pub(super) fn standing(&self) -> impl Iterator<Item = &Undo> {
        // There may be ten thousand of both.
        let mut listed: HashMap<IpNet, Vec<&Route>> = HashMap::new();
        for route in self.main_routes() {
            listed.entry(route.destination).or_default().push(route);
        }
        self.applied.iter().filter(move |undo| match undo {
            Undo::Route(ours) => {
                let listed = listed.get(&ours.destination);
                listed.is_some_and(|listed| listed.iter().any(|listed| ours.is(listed)))
            }
            Undo::Unreachable { destination } => self.unreachable.contains(destination),
            _ => false,
        })
    }

    /// The routes of the main table that the tunnel did not add.
    pub(super) fn others_routes(&self) -> impl Iterator<Item = &Route> {
        // There may be ten thousand of both.
        let mut ours: HashMap<IpNet, Vec<&DeviceRoute>> = HashMap::new();
        for route in self.applied.iter().filter_map(Undo::as_route) {
            ours.entry(route.destination).or_default().push(route);
        }
        self.main_routes().filter(move |listed| {
            let ours = ours.get(&listed.destination);
            !ours.is_some_and(|ours| ours.iter().any(|ours| ours.is(listed)))
        })
    }

    /// Whether the tunnel has added a route that is listed.
    fn is_ours(&self, listed: &Route) -> bool {
        let mut ours = self.applied.iter().filter_map(Undo::as_route);
        ours.any(|ours| ours.destination == listed.destination && ours.is(listed))
    }

    /// The unreachable destinations that the tunnel did not add.
    pub(super) fn others_unreachable(&self) -> impl Iterator<Item = IpNet> {
        let is_ours = |destination| {
            let mut ours = self.applied.iter().filter_map(Undo::as_unreachable);
            ours.any(|ours| ours == destination)
        };
        self.unreachable.iter().copied().filter(move |&destination| !is_ours(destination))
    }

    /// The way of a whole network by the main table as it would be without the tunnel: with neither
    /// what the tunnel added, nor the routes of its link, nor the unreachable prefixes `blocked`.
    pub(super) fn way(&self, to: IpNet, tunnel: LinkIndex, blocked: &[IpNet]) -> Option<Way<'_>> {
        let routes = self
            .main_routes()
            .filter(|route| route.link != Some(tunnel) && route.destination.contains(&to))
            .filter(|route| !self.is_ours(route))
            .map(|route| (Way::Route(route), route.destination, route.effective_metric()));
        let refusals = self
            .others_unreachable()
            .filter(|prefix| !blocked.contains(prefix))
            .map(|prefix| (Way::Unreachable(prefix), prefix, u32::MAX));
        routes
            .chain(refusals)
            .filter(|(_, destination, _)| destination.contains(&to))
            .max_by_key(|(_, destination, metric)| (destination.prefix_len(), Reverse(*metric)))
            .map(|(way, ..)| way)
    }
}
