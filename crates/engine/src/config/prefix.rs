//! Addresses and prefixes of the configuration.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::Quoted;

/// A text that is not the address or the prefix that was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {reason}", Quoted(text))]
pub(super) struct PrefixError {
    text: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("is not an IP address")]
    NotAnAddress,
    #[error("has a prefix length, which does not belong here; did you mean \"{0}\"?")]
    Length(IpAddr),
    #[error("is not an IP address with a prefix length, such as \"192.0.2.0/24\"")]
    NotAPrefix,
    #[error("has no prefix length; did you mean \"{0}\"?")]
    NoLength(IpNet),
    #[error("has a prefix length that is not in 0..={0}")]
    LengthRange(u8),
    #[error("has host bits set; did you mean \"{0}\"?")]
    HostBits(IpNet),
    #[error("is an address that no interface can have")]
    NotUnicast,
}

/// Reads a prefix of which the host bits are zero.
pub(super) fn parse_prefix(text: &str) -> Result<IpNet, PrefixError> {
    located(text, |text| match parse_net(text)? {
        net if net == net.trunc() => Ok(net),
        net => Err(Reason::HostBits(net.trunc())),
    })
}

/// Reads a prefix as `wg` does: host bits are cleared, and a missing length is that of one address.
pub(super) fn parse_loose_prefix(text: &str) -> Result<IpNet, PrefixError> {
    located(text, |text| parse_loose_net(text).map(|net| net.trunc()))
}

/// Reads the address of an interface as `ip address add` does: a missing length is that of one address.
pub(super) fn parse_loose_interface_prefix(text: &str) -> Result<IpNet, PrefixError> {
    located(text, |text| {
        let net = parse_loose_net(text)?;
        unicast(net.addr()).map(|_| net)
    })
}

/// Reads the address of an interface with the prefix length of its subnet.
pub(super) fn parse_interface_prefix(text: &str) -> Result<IpNet, PrefixError> {
    located(text, |text| {
        let net = parse_net(text)?;
        unicast(net.addr()).map(|_| net)
    })
}

/// Reads the address of an interface.
pub(super) fn parse_interface_address(text: &str) -> Result<IpAddr, PrefixError> {
    located(text, |text| match (text.parse(), parse_net(text)) {
        (Ok(ip), _) => unicast(ip),
        (Err(_), Ok(net)) => Err(Reason::Length(net.addr())),
        (Err(_), Err(_)) => Err(Reason::NotAnAddress),
    })
}

fn located<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, Reason>) -> Result<T, PrefixError> {
    parse(text).map_err(|reason| PrefixError { text: text.to_owned(), reason })
}

fn parse_loose_net(text: &str) -> Result<IpNet, Reason> {
    match parse_net(text) {
        Err(Reason::NoLength(address)) => Ok(address),
        net => net,
    }
}

fn parse_net(text: &str) -> Result<IpNet, Reason> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let ip: IpAddr = address.parse().map_err(|_| Reason::NotAPrefix)?;
    if !text.contains('/') {
        return Err(Reason::NoLength(IpNet::from(ip)));
    }
    let bits = IpNet::from(ip).max_prefix_len();
    let is_number = !length.is_empty() && length.bytes().all(|octet| octet.is_ascii_digit());
    let length = length.parse().ok().filter(|_| is_number).ok_or(Reason::LengthRange(bits))?;
    IpNet::new(ip, length).map_err(|_| Reason::LengthRange(bits))
}

fn unicast(ip: IpAddr) -> Result<IpAddr, Reason> {
    match ip.is_unspecified() || ip.is_multicast() {
        true => Err(Reason::NotUnicast),
        false => Ok(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_a_length_and_no_host_bits() {
        assert_eq!(parse_prefix("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse_prefix("::/0").unwrap().to_string(), "::/0");
        for (text, message) in [
            ("10.0.0.1/8", r#""10.0.0.1/8" has host bits set; did you mean "10.0.0.0/8"?"#),
            ("fd00::1/64", r#""fd00::1/64" has host bits set; did you mean "fd00::/64"?"#),
            ("10.0.0.1", r#""10.0.0.1" has no prefix length; did you mean "10.0.0.1/32"?"#),
            ("fd00::1", r#""fd00::1" has no prefix length; did you mean "fd00::1/128"?"#),
            ("10.0.0.0/33", r#""10.0.0.0/33" has a prefix length that is not in 0..=32"#),
            ("::/129", r#""::/129" has a prefix length that is not in 0..=128"#),
            ("::/", r#""::/" has a prefix length that is not in 0..=128"#),
            ("::/+1", r#""::/+1" has a prefix length that is not in 0..=128"#),
            (
                "10.0.0/8",
                r#""10.0.0/8" is not an IP address with a prefix length, such as "192.0.2.0/24""#,
            ),
        ] {
            assert_eq!(parse_prefix(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn wg_quick_wants_neither_lengths_nor_cleared_host_bits() {
        for (text, prefix) in
            [("10.0.0.1/8", "10.0.0.0/8"), ("10.0.0.1", "10.0.0.1/32"), ("fd00::1", "fd00::1/128")]
        {
            assert_eq!(parse_loose_prefix(text).unwrap().to_string(), prefix);
        }
        assert_eq!(parse_loose_interface_prefix("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(parse_loose_interface_prefix("fd00::1/64").unwrap().to_string(), "fd00::1/64");
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.1/255.0.0.0", "+10.0.0.0/8"] {
            assert!(parse_loose_prefix(text).is_err(), "{text}");
        }
        assert!(parse_loose_interface_prefix("0.0.0.0").is_err());
    }

    #[test]
    fn an_interface_address_keeps_its_host_bits_and_is_unicast() {
        assert_eq!(parse_interface_prefix("192.0.2.1/24").unwrap().to_string(), "192.0.2.1/24");
        for text in ["0.0.0.0/24", "224.0.0.1/24", "ff02::1/64"] {
            assert_eq!(
                parse_interface_prefix(text).unwrap_err().to_string(),
                format!("\"{text}\" is an address that no interface can have")
            );
        }
        assert_eq!(
            parse_interface_address("10.1.1.1/32").unwrap_err().to_string(),
            r#""10.1.1.1/32" has a prefix length, which does not belong here; did you mean "10.1.1.1"?"#
        );
        assert_eq!(
            parse_interface_address("x").unwrap_err().to_string(),
            r#""x" is not an IP address"#
        );
    }
}
