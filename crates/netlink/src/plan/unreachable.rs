//! Routes of type `unreachable`, which refuse packets and tell the sender (ip-route(8)).
//!
//! They belong to no link. The kernel lists those of IPv6 with the loopback link, IPv4 with none.

use ipnet::IpNet;
use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL, parse_ip};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::address::{family, prefix};
use crate::error::Error;
use crate::message::Message;
use crate::{Socket, TABLE_MAIN};

/// The octets of `struct rtmsg` (rtnetlink(7)) before the attributes.
const HEADER: usize = 12;

impl Socket {
    /// Lists the unreachable destinations of the main table.
    pub(super) fn unreachable(&mut self) -> Result<Vec<IpNet>, Error> {
        let mut destinations = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let listed = self
                .connection
                .dump(&RouteNetlinkMessage::GetRoute(message), parse)
                .map_err(|cause| Error::new("show unreachable routes", cause))?;
            destinations.extend(listed);
        }
        Ok(destinations)
    }

    /// Makes a destination unreachable.
    pub(super) fn add_unreachable(&mut self, destination: IpNet) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewRoute(message(destination));
        let result = self.connection.change(request, NLM_F_CREATE | NLM_F_EXCL);
        result.map_err(|cause| Error::new(format!("add unreachable route {destination}"), cause))
    }

    /// Removes an unreachable destination.
    pub(super) fn delete_unreachable(&mut self, destination: IpNet) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelRoute(message(destination));
        let result = self.connection.change(request, 0);
        result.map_err(|cause| Error::new(format!("delete unreachable route {destination}"), cause))
    }
}

fn message(destination: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(destination.addr()),
        destination_prefix_length: destination.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unreachable,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(destination.addr().into())];
    message
}

fn parse(message: &Message<'_>) -> Result<Option<IpNet>, DecodeError> {
    if message.kind != libc::RTM_NEWROUTE {
        return Ok(None);
    }
    let header = RouteHeader::parse(message.payload)?;
    let any: std::net::IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    if header.kind != RouteType::Unreachable || u32::from(header.table) != TABLE_MAIN {
        return Ok(None);
    }
    let mut destination = any;
    for attribute in message.attributes(HEADER)? {
        let attribute = attribute?;
        if attribute.kind() == libc::RTA_DST {
            destination = parse_ip(attribute.value())?;
        }
    }
    prefix(destination, header.destination_prefix_length).map(Some)
}
