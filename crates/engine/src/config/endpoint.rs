//! Where a peer is, or where this side listens, as a URL: `udp://b.example:4740`,
//! `udp://[2001:db8::1]:4740`, `spool:///share`.
//!
//! What follows `spool://` is the path of a folder as it is, with nothing encoded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::domain::is_domain_name;
use super::error::Quoted;
use super::schema;

/// A transport and the address that it uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// UDP, with one outer datagram each.
    Udp {
        /// The host.
        host: Host,
        /// The port; 0 only where this side listens, for any port.
        port: u16,
    },
    /// A folder that all sides share.
    Spool {
        /// Its absolute path on this host.
        folder: PathBuf,
    },
}

/// The host of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address, never an IPv4 address in the clothes of an IPv6 one.
    Ip(IpAddr),
    /// A name to resolve, in small letters, without a final dot.
    Name(String),
}

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {reason}", Quoted(text))]
pub struct EndpointError {
    text: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("names no transport; did you mean {}?", Quoted(.0))]
    NoTransport(String),
    #[error("has the unknown transport {}; known are udp, spool, {}", Quoted(.0), schema::LATER_TRANSPORTS.join(", "))]
    UnknownTransport(String),
    #[error("has the transport {}, which {}", .0, schema::NOT_SUPPORTED)]
    LaterTransport(&'static str),
    #[error("has the folder {}, which is not an absolute path; write \"spool:///FOLDER\"", Quoted(.0))]
    NotAbsolute(String),
    #[error("has a folder with a control character")]
    ControlCharacter,
    #[error("has no port")]
    NoPort,
    #[error("has the port {}, which is not in 0..=65535", Quoted(.0))]
    Port(String),
    #[error("has port 0, which no peer can have")]
    PortZero,
    #[error("has no host")]
    NoHost,
    #[error("has {} in brackets, which is not an IPv6 address", Quoted(.0))]
    NotIpv6(String),
    #[error("has an IPv6 address without brackets; write \"udp://[ADDRESS]:PORT\"")]
    NoBrackets,
    #[error("has the scope id {}, which {}", Quoted(.0), schema::NOT_SUPPORTED)]
    Scope(String),
    #[error("has a link-local address, which needs a scope id, which {}", schema::NOT_SUPPORTED)]
    LinkLocal,
    #[error("has an IPv4 address in IPv6 form; did you mean \"udp://{0}:{1}\"?")]
    Mapped(Ipv4Addr, u16),
    #[error("has the host {}, which is neither an IP address nor a host name", Quoted(.0))]
    Host(String),
    #[error("has the host name {}, but this side listens on IP addresses only", Quoted(.0))]
    NameListens(String),
    #[error("has the multicast address {0}, which is not supported")]
    Multicast(IpAddr),
    #[error("has the unspecified address {0}, which no peer can have")]
    Unspecified(IpAddr),
}

impl Endpoint {
    /// An endpoint at which this side listens: an IP address and any port, also 0.
    pub(super) fn parse_listen(text: &str) -> Result<Self, EndpointError> {
        let listen = |text| match parse(text)? {
            Self::Udp { host: Host::Name(name), .. } => Err(Reason::NameListens(name)),
            Self::Udp { host: Host::Ip(ip), port } => {
                unicast(ip).map(|()| Self::Udp { host: Host::Ip(ip), port })
            }
            spool @ Self::Spool { .. } => Ok(spool),
        };
        listen(text).map_err(|reason| EndpointError { text: text.to_owned(), reason })
    }

    /// An endpoint at which a peer can be: a port from 1, and an address that one host has.
    pub(super) fn parse_remote(text: &str) -> Result<Self, EndpointError> {
        let remote = |text| {
            let endpoint = parse(text)?;
            if let Self::Udp { host, port } = &endpoint {
                match host {
                    _ if *port == 0 => return Err(Reason::PortZero),
                    Host::Ip(ip) if ip.is_unspecified() => return Err(Reason::Unspecified(*ip)),
                    Host::Ip(ip) => unicast(*ip)?,
                    Host::Name(_) => {}
                }
            }
            Ok(endpoint)
        };
        remote(text).map_err(|reason| EndpointError { text: text.to_owned(), reason })
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads an endpoint, be it a peer's or one to listen at, so that port 0 and every address pass.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        parse(text).map_err(|reason| EndpointError { text: text.to_owned(), reason })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp { host, port } => write!(f, "udp://{host}:{port}"),
            Self::Spool { folder } => write!(f, "spool://{}", folder.display()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn parse(text: &str) -> Result<Endpoint, Reason> {
    match text.split_once("://") {
        Some((scheme, folder)) if scheme.eq_ignore_ascii_case("spool") => parse_spool(folder),
        _ => parse_udp(text),
    }
}

fn parse_spool(folder: &str) -> Result<Endpoint, Reason> {
    if folder.chars().any(char::is_control) {
        return Err(Reason::ControlCharacter);
    }
    match folder.starts_with('/') {
        true => Ok(Endpoint::Spool { folder: folder.into() }),
        false => Err(Reason::NotAbsolute(folder.to_owned())),
    }
}

fn parse_udp(text: &str) -> Result<Endpoint, Reason> {
    let authority = authority(text)?;
    let (host, port) = split(authority)?;
    let port = parse_port(port)?;
    let host = match host {
        Bracketed::Yes(host) => Host::Ip(IpAddr::V6(parse_ipv6(host, port)?)),
        Bracketed::No(host) => parse_host(host)?,
    };
    Ok(Endpoint::Udp { host, port })
}

/// What follows `udp://`.
fn authority(text: &str) -> Result<&str, Reason> {
    let scheme = text.split(':').next().unwrap_or_default();
    let scheme_of = |known: &&&str| known.eq_ignore_ascii_case(scheme);
    if let Some(later) = schema::LATER_TRANSPORTS.iter().find(scheme_of) {
        return Err(Reason::LaterTransport(later));
    }
    match text.split_once("://") {
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("udp") => Ok(authority),
        Some((scheme, _)) => Err(Reason::UnknownTransport(scheme.to_owned())),
        None => Err(Reason::NoTransport(format!("udp://{text}"))),
    }
}

/// A host, and whether it stood in brackets.
enum Bracketed<'a> {
    Yes(&'a str),
    No(&'a str),
}

/// Splits `HOST:PORT` (RFC 3986, section 3.2).
fn split(authority: &str) -> Result<(Bracketed<'_>, &str), Reason> {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = rest.strip_prefix(':').ok_or(Reason::NoPort)?;
        return Ok((Bracketed::Yes(host), port));
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(Reason::NoBrackets);
    }
    let (host, port) = authority.rsplit_once(':').ok_or(Reason::NoPort)?;
    match host {
        "" => Err(Reason::NoHost),
        host if host.parse::<Ipv6Addr>().is_ok() => Err(Reason::NoBrackets),
        host => Ok((Bracketed::No(host), port)),
    }
}

fn parse_port(text: &str) -> Result<u16, Reason> {
    let refused = || Reason::Port(text.to_owned());
    match text {
        "" => Err(Reason::NoPort),
        _ if !text.bytes().all(|octet| octet.is_ascii_digit()) => Err(refused()),
        _ => text.parse().map_err(|_| refused()),
    }
}

fn parse_ipv6(text: &str, port: u16) -> Result<Ipv6Addr, Reason> {
    if let Some((_, scope)) = text.split_once('%') {
        return Err(Reason::Scope(scope.to_owned()));
    }
    let ip: Ipv6Addr = text.parse().map_err(|_| Reason::NotIpv6(text.to_owned()))?;
    match ip.to_ipv4_mapped() {
        Some(ip) => Err(Reason::Mapped(ip, port)),
        None if ip.is_unicast_link_local() => Err(Reason::LinkLocal),
        None => Ok(ip),
    }
}

fn parse_host(text: &str) -> Result<Host, Reason> {
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    match is_host_name(name) {
        true => Ok(Host::Name(name.to_ascii_lowercase())),
        false => Err(Reason::Host(text.to_owned())),
    }
}

/// Whether `name` is a host name (RFC 1123, section 2.1), of which the last label is not a number:
/// otherwise a mistyped IPv4 address would be looked up.
fn is_host_name(name: &str) -> bool {
    let is_number = |label: &str| label.bytes().all(|octet| octet.is_ascii_digit());
    is_domain_name(name) && !name.rsplit('.').next().is_some_and(is_number)
}

fn unicast(ip: IpAddr) -> Result<(), Reason> {
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    match ip.is_multicast() || broadcast {
        true => Err(Reason::Multicast(ip)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Endpoint>().unwrap_err().to_string()
    }

    #[test]
    fn endpoints_are_read_and_written_alike() {
        for text in [
            "udp://b.example:4740",
            "udp://192.0.2.1:1",
            "udp://[2001:db8::1]:65535",
            "udp://0.0.0.0:0",
            "udp://[::]:0",
            "udp://my_host-2:80",
            "spool:///share",
            "spool:///a b/ü?#%20",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_lose_their_capitals_and_their_final_dot() {
        let endpoint: Endpoint = "UDP://B.Example.:4740".parse().unwrap();
        assert_eq!(
            endpoint,
            Endpoint::Udp { host: Host::Name("b.example".to_owned()), port: 4740 }
        );
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        for (text, message) in [
            (
                "b.example:4740",
                r#""b.example:4740" names no transport; did you mean "udp://b.example:4740"?"#,
            ),
            (
                "udpp://b:1",
                r#""udpp://b:1" has the unknown transport "udpp"; known are udp, spool, tcp, exec, unix"#,
            ),
            (
                "tcp://b:1",
                r#""tcp://b:1" has the transport tcp, which is not supported by this version of adit"#,
            ),
            (
                "exec:ssh b adit",
                r#""exec:ssh b adit" has the transport exec, which is not supported by this version of adit"#,
            ),
            (
                "spool://share",
                r#""spool://share" has the folder "share", which is not an absolute path; write "spool:///FOLDER""#,
            ),
            ("spool:///a\n", r#""spool:///a\n" has a folder with a control character"#),
            ("udp://b", r#""udp://b" has no port"#),
            ("udp://b:", r#""udp://b:" has no port"#),
            ("udp://[2001:db8::1]", r#""udp://[2001:db8::1]" has no port"#),
            ("udp://b:65536", r#""udp://b:65536" has the port "65536", which is not in 0..=65535"#),
            ("udp://b:+1", r#""udp://b:+1" has the port "+1", which is not in 0..=65535"#),
            ("udp://b:1/", r#""udp://b:1/" has the port "1/", which is not in 0..=65535"#),
            ("udp://:1", r#""udp://:1" has no host"#),
            ("udp://[b]:1", r#""udp://[b]:1" has "b" in brackets, which is not an IPv6 address"#),
            (
                "udp://2001:db8::1",
                r#""udp://2001:db8::1" has an IPv6 address without brackets; write "udp://[ADDRESS]:PORT""#,
            ),
            (
                "udp://2001:db8::1:4740",
                r#""udp://2001:db8::1:4740" has an IPv6 address without brackets; write "udp://[ADDRESS]:PORT""#,
            ),
            (
                "udp://[fe80::1%eth0]:1",
                r#""udp://[fe80::1%eth0]:1" has the scope id "eth0", which is not supported by this version of adit"#,
            ),
            (
                "udp://[fe80::1]:1",
                r#""udp://[fe80::1]:1" has a link-local address, which needs a scope id, which is not supported by this version of adit"#,
            ),
            (
                "udp://[::ffff:192.0.2.1]:7",
                r#""udp://[::ffff:192.0.2.1]:7" has an IPv4 address in IPv6 form; did you mean "udp://192.0.2.1:7"?"#,
            ),
            (
                "udp://10.0.0.256:1",
                r#""udp://10.0.0.256:1" has the host "10.0.0.256", which is neither an IP address nor a host name"#,
            ),
            (
                "udp://a..b:1",
                r#""udp://a..b:1" has the host "a..b", which is neither an IP address nor a host name"#,
            ),
            (
                "udp://me@b:1",
                r#""udp://me@b:1" has the host "me@b", which is neither an IP address nor a host name"#,
            ),
        ] {
            assert_eq!(refusal(text), message);
        }
    }

    #[test]
    fn only_this_side_has_port_zero_and_unspecified_addresses() {
        let text = "udp://0.0.0.0:0";
        assert!(Endpoint::parse_listen(text).is_ok());
        assert_eq!(
            Endpoint::parse_remote(text).unwrap_err().to_string(),
            r#""udp://0.0.0.0:0" has port 0, which no peer can have"#
        );
        assert_eq!(
            Endpoint::parse_remote("udp://[::]:1").unwrap_err().to_string(),
            r#""udp://[::]:1" has the unspecified address ::, which no peer can have"#
        );
    }

    #[test]
    fn this_side_listens_on_addresses_and_nobody_on_multicast() {
        assert_eq!(
            Endpoint::parse_listen("udp://b.example:1").unwrap_err().to_string(),
            r#""udp://b.example:1" has the host name "b.example", but this side listens on IP addresses only"#
        );
        for parse in [Endpoint::parse_listen, Endpoint::parse_remote] {
            assert_eq!(
                parse("udp://224.0.0.1:1").unwrap_err().to_string(),
                r#""udp://224.0.0.1:1" has the multicast address 224.0.0.1, which is not supported"#
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back_as_itself(text in "(udp://)?[a-z0-9.:%\\[\\]/@-]{0,40}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }
    }
}
