//! What can be wrong with a header, with the values that show it.

use std::fmt;

/// Why octets are not what a `parse` expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The octets end before the header does.
    #[error("{header}, truncated: {has} of {needs} octets")]
    Truncated {
        /// The header that was read.
        header: Header,
        /// Octets that it needs at least.
        needs: usize,
        /// Octets that are there.
        has: usize,
    },
    /// The version field has another value than the protocol's.
    #[error("{header}, version {found}")]
    Version {
        /// The header that was read.
        header: Header,
        /// The version that it claims.
        found: u8,
    },
    /// The header claims to be shorter than it can be.
    #[error("{header}, header length {says} is below {least}")]
    HeaderLength {
        /// The header that was read.
        header: Header,
        /// Octets that it claims to have.
        says: usize,
        /// Octets that it has at least.
        least: usize,
    },
    /// The total length lies: it is shorter than the header or longer than what is there.
    #[error("{header}, total length {says} is not within {least} to {most}")]
    TotalLength {
        /// The header that was read.
        header: Header,
        /// Octets that it claims in all.
        says: usize,
        /// Octets of the header itself.
        least: usize,
        /// Octets that are there.
        most: usize,
    },
    /// An IPv6 packet has more extension headers than anything honest.
    #[error("IPv6, more than {limit} extension headers")]
    ExtensionHeaders {
        /// The most that are walked.
        limit: usize,
    },
}

/// The header that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
#[non_exhaustive]
pub enum Header {
    Ethernet,
    Ipv4,
    Ipv6,
    Tcp,
    Udp,
    Icmp,
    IcmpV6,
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ethernet => "Ethernet",
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
            Self::IcmpV6 => "ICMPv6",
        })
    }
}
