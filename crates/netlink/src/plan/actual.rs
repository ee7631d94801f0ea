//! What the host's network is like.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Address, Link, LinkIndex, Route, TABLE_MAIN};

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
    pub(super) fn link(&self, index: LinkIndex) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    pub(super) fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    pub(super) fn sysctl(&self, key: &str) -> Option<&str> {
        self.sysctls.get(key).map(String::as_str)
    }

    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|own| own.local.addr() == address)
    }

    /// The routes of the main table, which are the ones that a plan adds to.
    pub(super) fn main_routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| route.table == TABLE_MAIN)
    }

    /// The way of a whole network by the main table, with neither the routes of the link `without` nor
    /// the unreachable prefixes `blocked`.
    pub(super) fn way(&self, to: IpNet, without: LinkIndex, blocked: &[IpNet]) -> Option<Way<'_>> {
        let routes = self
            .main_routes()
            .filter(|route| route.link != Some(without))
            .map(|route| (Way::Route(route), route.destination, route.effective_metric()));
        let refusals = self
            .unreachable
            .iter()
            .filter(|prefix| !blocked.contains(prefix))
            .map(|&prefix| (Way::Unreachable(prefix), prefix, u32::MAX));
        routes
            .chain(refusals)
            .filter(|(_, destination, _)| destination.contains(&to))
            .max_by_key(|(_, destination, metric)| (destination.prefix_len(), Reverse(*metric)))
            .map(|(way, ..)| way)
    }
}
