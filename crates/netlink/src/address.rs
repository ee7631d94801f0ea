//! Addresses of links (ip-address(8)).

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL, parse_ip};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Error;
use crate::link::LinkIndex;
use crate::message::Message;
use crate::socket::Socket;

/// The octets of `struct ifaddrmsg` (rtnetlink(7)) before the attributes.
const HEADER: usize = 8;

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The link that has it.
    pub link: LinkIndex,
    /// The address with its prefix length as given, host bits included: `192.0.2.1/24`.
    pub local: IpNet,
    /// The other end of a point-to-point link. `local` is then a /32 or /128, and this carries the
    /// prefix length.
    pub peer: Option<IpNet>,
}

impl Socket {
    /// Lists the IPv4 and IPv6 addresses of all links.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.connection
            .dump(&request, Address::parse)
            .map_err(|cause| Error::new("show addresses", cause))
    }

    /// Adds an address, and with it the route to its prefix.
    ///
    /// An IPv6 address is added with `IFA_F_NODAD`: it is usable at once, and nobody asks whether a
    /// neighbour has it too.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] if the link has it already.
    pub fn add_address(&mut self, address: &Address) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewAddress(address.message());
        let result = self.connection.change(request, NLM_F_CREATE | NLM_F_EXCL);
        result.map_err(|cause| {
            Error::new(format!("add address {}", self.words_of_address(address)), cause)
        })
    }

    /// Removes an address.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] if the link does not have it.
    pub fn delete_address(&mut self, address: &Address) -> Result<(), Error> {
        let result = self.connection.change(RouteNetlinkMessage::DelAddress(address.message()), 0);
        result.map_err(|cause| {
            Error::new(format!("delete address {}", self.words_of_address(address)), cause)
        })
    }

    fn words_of_address(&mut self, address: &Address) -> String {
        let device = self.name_of(address.link);
        match address.peer {
            Some(peer) => format!("{} peer {peer} dev {device}", address.local.addr()),
            None => format!("{} dev {device}", address.local),
        }
    }
}

impl Address {
    /// Decodes an `RTM_NEWADDR` or `RTM_DELADDR` of IPv4 or IPv6; `None` for other messages.
    ///
    /// With a peer, `IFA_LOCAL` is the address and `IFA_ADDRESS` the peer. Without, IPv4 repeats the
    /// address in both and IPv6 has `IFA_ADDRESS` only.
    pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Self>, DecodeError> {
        if !matches!(message.kind, libc::RTM_NEWADDR | libc::RTM_DELADDR) {
            return Ok(None);
        }
        let header = AddressHeader::parse(message.payload)?;
        if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
            return Ok(None);
        }
        let (mut address, mut local) = (None, None);
        for attribute in message.attributes(HEADER)? {
            let attribute = attribute?;
            match attribute.kind() {
                libc::IFA_ADDRESS => address = Some(parse_ip(attribute.value())?),
                libc::IFA_LOCAL => local = Some(parse_ip(attribute.value())?),
                _ => {}
            }
        }
        Self::assemble(&header, local, address).map(Some)
    }

    fn assemble(
        header: &AddressHeader,
        local: Option<IpAddr>,
        address: Option<IpAddr>,
    ) -> Result<Self, DecodeError> {
        let Some(remote) = address.or(local) else {
            return Err(DecodeError::from("an address message without an address"));
        };
        let prefix = prefix(remote, header.prefix_len)?;
        let link = LinkIndex(header.index);
        Ok(match local.filter(|local| *local != remote) {
            Some(local) => Self { link, local: IpNet::from(local), peer: Some(prefix) },
            None => Self { link, local: prefix, peer: None },
        })
    }

    fn message(&self) -> AddressMessage {
        let local = self.local.addr();
        let remote = self.peer.unwrap_or(self.local);
        let mut message = AddressMessage::default();
        message.header.family = family(local);
        message.header.prefix_len = remote.prefix_len();
        message.header.index = self.link.0;
        message.attributes =
            vec![AddressAttribute::Local(local), AddressAttribute::Address(remote.addr())];
        if local.is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        message
    }
}

/// The family of an address, as netlink writes it.
pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// An address with the prefix length of a message's header.
pub(crate) fn prefix(address: IpAddr, length: u8) -> Result<IpNet, DecodeError> {
    IpNet::new(address, length)
        .map_err(|_| DecodeError::from(format!("{address} with a prefix of {length} bits")))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::captured::{IPV6_ADDRESS, PEER_ADDRESS};
    use crate::message::messages;

    fn parse(octets: &[u8]) -> Result<Option<Address>, DecodeError> {
        Address::parse(&messages(octets).next().unwrap()?)
    }

    #[test]
    fn a_peer_carries_the_prefix_and_the_local_address_none() {
        let expected = Address {
            link: LinkIndex(2),
            local: "10.1.1.1/32".parse().unwrap(),
            peer: Some("10.1.1.2/30".parse().unwrap()),
        };
        assert_eq!(parse(&PEER_ADDRESS).unwrap(), Some(expected));
    }

    #[test]
    fn an_address_keeps_its_host_bits() {
        let local = "fd00:7::1/64".parse().unwrap();
        let expected = Address { link: LinkIndex(2), local, peer: None };
        assert_eq!(parse(&IPV6_ADDRESS).unwrap(), Some(expected));
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_malformed() {
        let mut octets = PEER_ADDRESS;
        octets[17] = 33;
        assert!(parse(&octets).is_err());
    }

    #[test]
    fn an_address_message_without_an_address_is_malformed() {
        let mut octets = PEER_ADDRESS[..24].to_vec();
        octets[0] = 24;
        assert!(parse(&octets).is_err());
    }
}
