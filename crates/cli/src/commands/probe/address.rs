//! Addresses and names as they are typed.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use thiserror::Error;

/// A name or an address, and a port: `c.example:8080`, `192.0.2.1:8080`, `[2001:db8::1]:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// All addresses that the name stands for; at least one.
    pub(super) fn resolve(&self) -> Result<Vec<SocketAddr>, AddressError> {
        let name = &self.host;
        let addresses: Vec<_> = (name.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|source| AddressError::Resolve { name: name.clone(), source })?
            .collect();
        if addresses.is_empty() {
            return Err(AddressError::NoAddress { name: name.clone() });
        }
        Ok(addresses)
    }

    /// The first address that can be reached from `bind`.
    pub(super) fn resolve_for(&self, bind: Option<SocketAddr>) -> Result<SocketAddr, AddressError> {
        let is_possible =
            |address: &SocketAddr| bind.is_none_or(|bind| bind.is_ipv4() == address.is_ipv4());
        self.resolve()?.into_iter().find(is_possible).ok_or_else(|| AddressError::Family {
            name: self.host.clone(),
            family: if bind.is_some_and(|bind| bind.is_ipv4()) { "IPv4" } else { "IPv6" },
        })
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || bare.is_none() && host.contains(':') {
            return Err(AddressError::NoPort);
        }
        let port = port.parse().map_err(|_| AddressError::Port { port: port.to_owned() })?;
        Ok(Self { host: bare.unwrap_or(host).to_owned(), port })
    }
}

/// A local address, with or without a port.
pub(super) fn parse_bind(text: &str) -> Result<SocketAddr, AddressError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>()
        .map(|address| SocketAddr::new(address, 0))
        .or_else(|_| text.parse())
        .map_err(|_| AddressError::Bind)
}

/// Why an address is of no use.
#[derive(Debug, Error)]
pub(super) enum AddressError {
    #[error("expected ADDRESS:PORT, with an IPv6 address in brackets")]
    NoPort,
    #[error("port {port:?} is no number from 0 to 65535")]
    Port { port: String },
    #[error("expected an IPv4 or IPv6 address, with or without a port")]
    Bind,
    #[error("resolve {name:?}")]
    Resolve {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{name:?} has no address")]
    NoAddress { name: String },
    #[error("{name:?} has no {family} address, which the local address needs")]
    Family { name: String, family: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, u16), String> {
        let parsed: Result<HostPort, _> = text.parse();
        parsed.map(|HostPort { host, port }| (host, port)).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_both_families_are_read() {
        assert_eq!(parse("c.example:8080"), Ok(("c.example".to_owned(), 8080)));
        assert_eq!(parse("192.0.2.1:0"), Ok(("192.0.2.1".to_owned(), 0)));
        assert_eq!(parse("[2001:db8::1]:1"), Ok(("2001:db8::1".to_owned(), 1)));
    }

    #[test]
    fn whoever_forgets_the_port_is_told() {
        let no_port = "expected ADDRESS:PORT, with an IPv6 address in brackets";
        for text in ["", "c.example", "192.0.2.1", "2001:db8::1", "2001:db8::1:80", ":8080"] {
            assert_eq!(parse(text), Err(no_port.to_owned()), "{text:?}");
        }
        assert_eq!(
            parse("192.0.2.1:65536"),
            Err(r#"port "65536" is no number from 0 to 65535"#.to_owned())
        );
    }

    #[test]
    fn local_addresses_need_no_port() {
        let bind = |text| parse_bind(text).map(|address| address.to_string()).ok();
        assert_eq!(bind("192.0.2.1").as_deref(), Some("192.0.2.1:0"));
        assert_eq!(bind("192.0.2.1:5000").as_deref(), Some("192.0.2.1:5000"));
        assert_eq!(bind("::1").as_deref(), Some("[::1]:0"));
        assert_eq!(bind("[::1]").as_deref(), Some("[::1]:0"));
        assert_eq!(bind("[::1]:5000").as_deref(), Some("[::1]:5000"));
        assert_eq!(bind("eth0"), None);
    }

    #[test]
    fn the_local_address_decides_the_family() {
        let target: HostPort = "127.0.0.1:9".parse().unwrap();
        let from_v4 = target.resolve_for(Some("127.0.0.1:0".parse().unwrap()));
        assert_eq!(from_v4.unwrap().to_string(), "127.0.0.1:9");
        let from_v6 = target.resolve_for(Some("[::1]:0".parse().unwrap()));
        assert_eq!(
            from_v6.unwrap_err().to_string(),
            r#""127.0.0.1" has no IPv6 address, which the local address needs"#
        );
    }
}
