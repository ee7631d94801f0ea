//! Routes (ip-route(8)).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{
    DecodeError, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NlaBuffer, NlasIterator, parse_ip,
    parse_u16, parse_u32,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::address::{family, prefix};
use crate::error::Error;
use crate::link::LinkIndex;
use crate::message::Message;
use crate::socket::Socket;

/// The table that is used unless a rule says otherwise (`RT_TABLE_MAIN`).
pub const TABLE_MAIN: u32 = 254;

/// The origin of routes that ip(8) adds (`RTPROT_BOOT`).
pub const PROTOCOL_BOOT: u8 = 3;

/// The origin of routes that an administrator wants (`RTPROT_STATIC`).
pub const PROTOCOL_STATIC: u8 = 4;

/// The metric of an IPv6 route that has none given (`IP6_RT_PRIO_USER` in include/net/ip6_route.h).
const DEFAULT_METRIC_IPV6: u32 = 1024;

/// The octets of `struct rtmsg` (rtnetlink(7)) before the attributes.
const HEADER: usize = 12;

/// The octets of `struct rtvia`'s family, before the address (include/uapi/linux/rtnetlink.h).
const VIA_FAMILY: usize = 2;

/// `RTAX_MTU` of include/uapi/linux/rtnetlink.h.
const RTAX_MTU: u16 = 2;

/// A unicast route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The addresses that it leads to.
    pub destination: IpNet,
    /// The next router; none if the destination is on the link itself.
    pub via: Option<IpAddr>,
    /// The link to leave by. A route with several next hops has neither this nor `via` in a listing.
    pub link: Option<LinkIndex>,
    /// The source address that sockets take for it (`src` in ip-route(8)).
    pub source: Option<IpAddr>,
    /// Of equal destinations the lowest metric wins. None is 0 for IPv4 and 1024 for IPv6; listings
    /// of IPv6 always name it.
    pub metric: Option<u32>,
    /// The table that holds it; [`TABLE_MAIN`] is used unless a rule says otherwise.
    pub table: u32,
    /// The largest packet that passes along it, in octets, if less than the link's.
    pub mtu: Option<u32>,
    /// Who added it (`RTPROT_*`), such as [`PROTOCOL_STATIC`]; 0 matches any when deleting.
    pub protocol: u8,
}

impl Route {
    /// A route in the main table of protocol [`PROTOCOL_STATIC`], without anything else.
    ///
    /// It still needs a `link` or a `via`.
    pub fn new(destination: IpNet) -> Self {
        Self {
            destination,
            via: None,
            link: None,
            source: None,
            metric: None,
            table: TABLE_MAIN,
            mtu: None,
            protocol: PROTOCOL_STATIC,
        }
    }

    /// The metric that the kernel uses: what `metric` says, or the default of the family.
    pub fn effective_metric(&self) -> u32 {
        match (self.metric, self.destination) {
            (None | Some(0), IpNet::V6(_)) => DEFAULT_METRIC_IPV6,
            (metric, _) => metric.unwrap_or(0),
        }
    }
}

impl Socket {
    /// Lists the unicast routes of IPv4 and IPv6 in all tables.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let listed = self
                .connection
                .dump(&RouteNetlinkMessage::GetRoute(message), Route::parse_unicast)
                .map_err(|cause| Error::new("show routes", cause))?;
            routes.extend(listed);
        }
        Ok(routes)
    }

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] if its table has one of the same destination and metric.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewRoute(route.message());
        self.change_route("add", request, NLM_F_CREATE | NLM_F_EXCL, route)
    }

    /// Adds a route or changes the one of the same destination, metric and table.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewRoute(route.message());
        self.change_route("replace", request, NLM_F_CREATE | NLM_F_REPLACE, route)
    }

    /// Removes the route of this destination and table that has everything else that is given.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] if there is none.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let mut message = route.message();
        // Any scope: the kernel then compares only what is given.
        message.header.scope = RouteScope::NoWhere;
        self.change_route("delete", RouteNetlinkMessage::DelRoute(message), 0, route)
    }

    /// Finds out how a packet to `destination` would go: link, next router, source address, MTU.
    ///
    /// The answer's `destination` is the address alone, as a /32 or /128. A local address is answered
    /// with the loopback link.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Route, Error> {
        let target = IpNet::from(destination);
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = target.prefix_len();
        if destination.is_ipv4() {
            // IPv6 always answers with the table, and refuses the flag.
            message.header.flags = RouteFlags::LookupTable;
        }
        message.attributes = vec![RouteAttribute::Destination(destination.into())];
        self.connection
            .query(RouteNetlinkMessage::GetRoute(message), Route::parse)
            .map_err(|cause| Error::new(format!("get route {destination}"), cause))
    }

    fn change_route(
        &mut self,
        verb: &str,
        request: RouteNetlinkMessage,
        flags: u16,
        route: &Route,
    ) -> Result<(), Error> {
        let result = self.connection.change(request, flags);
        result.map_err(|cause| {
            Error::new(format!("{verb} route {}", self.words_of_route(route)), cause)
        })
    }

    fn words_of_route(&mut self, route: &Route) -> String {
        let mut words = route.destination.to_string();
        let mut add = |keyword: &str, value: Option<String>| {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(words, " {keyword} {value}");
            }
        };
        add("via", route.via.map(|via| via.to_string()));
        add("dev", route.link.map(|link| self.name_of(link)));
        add("src", route.source.map(|source| source.to_string()));
        add("metric", route.metric.map(|metric| metric.to_string()));
        add("table", (route.table != TABLE_MAIN).then(|| route.table.to_string()));
        add("mtu", route.mtu.map(|mtu| mtu.to_string()));
        words
    }
}

impl Route {
    /// Decodes an `RTM_NEWROUTE` or `RTM_DELROUTE` of a table's unicast route; `None` for routes of
    /// other types (local, broadcast, blackhole) and for those that a lookup made (`RTM_F_CLONED`).
    pub(crate) fn parse_unicast(message: &Message<'_>) -> Result<Option<Self>, DecodeError> {
        let Some(route) = Self::parse(message)? else {
            return Ok(None);
        };
        let header = RouteHeader::parse(message.payload)?;
        let listed =
            header.kind == RouteType::Unicast && !header.flags.contains(RouteFlags::Cloned);
        Ok(listed.then_some(route))
    }

    /// Decodes an `RTM_NEWROUTE` or `RTM_DELROUTE` of IPv4 or IPv6; `None` for other messages.
    fn parse(message: &Message<'_>) -> Result<Option<Self>, DecodeError> {
        if !matches!(message.kind, libc::RTM_NEWROUTE | libc::RTM_DELROUTE) {
            return Ok(None);
        }
        let header = RouteHeader::parse(message.payload)?;
        let any = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return Ok(None),
        };
        let mut route = Self::new(prefix(any, header.destination_prefix_length)?);
        route.table = u32::from(header.table);
        route.protocol = u8::from(header.protocol);
        for attribute in message.attributes(HEADER)? {
            route.take(&attribute?)?;
        }
        Ok(Some(route))
    }

    fn take(&mut self, attribute: &NlaBuffer<&[u8]>) -> Result<(), DecodeError> {
        let value = attribute.value();
        match attribute.kind() {
            libc::RTA_DST => {
                self.destination = prefix(parse_ip(value)?, self.destination.prefix_len())?;
            }
            libc::RTA_GATEWAY => self.via = Some(parse_ip(value)?),
            libc::RTA_VIA => self.via = parse_via(value)?,
            libc::RTA_OIF => self.link = Some(LinkIndex(parse_u32(value)?)),
            libc::RTA_PREFSRC => self.source = Some(parse_ip(value)?),
            libc::RTA_PRIORITY => self.metric = Some(parse_u32(value)?),
            libc::RTA_TABLE => self.table = parse_u32(value)?,
            libc::RTA_METRICS => {
                for metric in NlasIterator::new(value) {
                    let metric = metric?;
                    if metric.kind() == RTAX_MTU {
                        self.mtu = Some(parse_u32(metric.value())?);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(self.destination.addr()),
            destination_prefix_length: self.destination.prefix_len(),
            // Tables beyond 255 are in the attribute only.
            table: u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            protocol: self.protocol.into(),
            scope: self.scope(),
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes = self.attributes();
        message
    }

    fn attributes(&self) -> Vec<RouteAttribute> {
        let mut attributes = vec![
            RouteAttribute::Destination(self.destination.addr().into()),
            RouteAttribute::Table(self.table),
        ];
        attributes.extend(self.via.map(|via| self.via_attribute(via)));
        attributes.extend(self.link.map(|link| RouteAttribute::Oif(link.0)));
        attributes.extend(
            self.source.map(|source| RouteAttribute::PrefSource(RouteAddress::from(source))),
        );
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        attributes.extend(self.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        attributes
    }

    /// A router of the other family needs an attribute that names the family (RFC 5549).
    fn via_attribute(&self, via: IpAddr) -> RouteAttribute {
        match (self.destination, via) {
            (IpNet::V4(_), IpAddr::V6(via)) => RouteAttribute::Via(RouteVia::Inet6(via)),
            (IpNet::V6(_), IpAddr::V4(via)) => RouteAttribute::Via(RouteVia::Inet(via)),
            (_, via) => RouteAttribute::Gateway(via.into()),
        }
    }

    /// How far away the destination is: IPv4 wants to be told that it is on the link.
    fn scope(&self) -> RouteScope {
        match (self.destination, self.via) {
            (IpNet::V4(_), None) => RouteScope::Link,
            _ => RouteScope::Universe,
        }
    }
}

/// Decodes `struct rtvia`; `None` if the router has no IP address.
fn parse_via(value: &[u8]) -> Result<Option<IpAddr>, DecodeError> {
    let Some((family, address)) = value.split_at_checked(VIA_FAMILY) else {
        return Err(DecodeError::buffer_too_small(value.len(), VIA_FAMILY));
    };
    match libc::c_int::from(parse_u16(family)?) {
        libc::AF_INET | libc::AF_INET6 => parse_ip(address).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::captured::ROUTES;
    use crate::message::messages;

    fn parse(octets: &[u8]) -> Vec<Option<Route>> {
        messages(octets).map(|message| Route::parse_unicast(&message.unwrap()).unwrap()).collect()
    }

    #[test]
    fn routes_are_decoded_with_all_that_was_given() {
        let on_link = Route {
            link: Some(LinkIndex(2)),
            source: Some("10.1.1.1".parse().unwrap()),
            protocol: 2,
            ..Route::new("10.1.1.0/30".parse().unwrap())
        };
        let routed = Route {
            via: Some("10.1.1.2".parse().unwrap()),
            metric: Some(77),
            mtu: Some(1300),
            protocol: PROTOCOL_BOOT,
            destination: "10.9.0.0/16".parse().unwrap(),
            ..on_link.clone()
        };
        assert_eq!(parse(&ROUTES), [Some(on_link), Some(routed)]);
    }

    #[test]
    fn only_unicast_routes_of_tables_are_listed() {
        let local = {
            let mut octets = ROUTES;
            octets[16 + 7] = 2;
            octets
        };
        assert!(parse(&local)[0].is_none());
        let cloned = {
            let mut octets = ROUTES;
            octets[16 + 9] = 2;
            octets
        };
        assert!(parse(&cloned)[0].is_none());
    }

    #[test]
    fn a_router_of_the_other_family_is_decoded() {
        let via = [10, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(parse_via(&via).unwrap(), Some("fd00::9".parse().unwrap()));
        assert_eq!(parse_via(&[17, 0, 1, 2, 3, 4, 5, 6]).unwrap(), None);
        assert!(parse_via(&[2, 0, 10, 0, 0]).is_err());
        assert!(parse_via(&[2]).is_err());
    }

    #[test]
    fn an_ipv6_route_without_a_metric_has_1024() {
        let route = Route::new("fd00::/64".parse().unwrap());
        assert_eq!(route.effective_metric(), 1024);
        assert_eq!(Route { metric: Some(7), ..route }.effective_metric(), 7);
        assert_eq!(Route::new("10.0.0.0/8".parse().unwrap()).effective_metric(), 0);
    }
}
