//! An address of a device, as it is typed and shown: `192.0.2.1/24`, or `10.1.1.1 peer 10.1.1.2/32`
//! for a point-to-point device, as in ip-address(8).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use netlink::{Address, LinkIndex};

/// An address, not yet of any link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceAddress {
    local: IpNet,
    peer: Option<IpNet>,
}

/// Why a text is no address of a device.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    /// An address or its prefix length cannot be read.
    #[error("\"{0}\" is not an address such as 192.0.2.1/24")]
    NoAddress(String),
    /// The local address of a pair has a prefix length, which belongs to the peer.
    #[error("the prefix length belongs to the peer: {local} peer {peer}")]
    LocalPrefix { local: IpAddr, peer: IpNet },
    /// IPv4 on one side and IPv6 on the other.
    #[error("{local} and {peer} are not of the same family")]
    Families { local: IpAddr, peer: IpNet },
}

impl DeviceAddress {
    pub(super) fn on(self, link: LinkIndex) -> Address {
        Address { link, local: self.local, peer: self.peer }
    }
}

impl From<&Address> for DeviceAddress {
    fn from(address: &Address) -> Self {
        Self { local: address.local, peer: address.peer }
    }
}

impl FromStr for DeviceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some((local, peer)) = text.split_once(" peer ") else {
            return Ok(Self { local: parse(text)?, peer: None });
        };
        let (local_text, local, peer) = (local, parse(local)?, parse(peer)?);
        if local_text.contains('/') {
            return Err(AddressError::LocalPrefix { local: local.addr(), peer });
        }
        if local.addr().is_ipv4() != peer.addr().is_ipv4() {
            return Err(AddressError::Families { local: local.addr(), peer });
        }
        Ok(Self { local, peer: Some(peer) })
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{} peer {peer}", self.local.addr()),
            None => write!(f, "{}", self.local),
        }
    }
}

/// An address with a prefix length, which is that of a single address if it is not given.
fn parse(text: &str) -> Result<IpNet, AddressError> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| AddressError::NoAddress(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_they_are_typed() {
        for text in ["192.0.2.1/24", "fd00:7::1/64", "10.1.1.1 peer 10.1.1.2/32"] {
            assert_eq!(text.parse::<DeviceAddress>().unwrap().to_string(), text);
        }
        assert_eq!("192.0.2.1".parse::<DeviceAddress>().unwrap().to_string(), "192.0.2.1/32");
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        let error = |text: &str| text.parse::<DeviceAddress>().unwrap_err().to_string();
        assert_eq!(
            error("192.0.2.1/33"),
            "\"192.0.2.1/33\" is not an address such as 192.0.2.1/24"
        );
        assert_eq!(
            error("10.1.1.1/24 peer 10.1.1.2/32"),
            "the prefix length belongs to the peer: 10.1.1.1 peer 10.1.1.2/32"
        );
        assert_eq!(
            error("10.1.1.1 peer fd00::2/128"),
            "10.1.1.1 and fd00::2/128 are not of the same family"
        );
    }
}
