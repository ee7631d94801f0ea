//! What coalescing needs to know of one packet, read in a handful of nanoseconds.
//!
//! The full parsers say what is wrong with a packet. Here the only question is whether a packet is
//! of the common form that can be merged: TCP or UDP right behind an IP header without options or
//! extension headers, with lengths that fit exactly.

use std::ops::Range;

use super::unchecked::ChecksumPlace;
use super::{Accepts, LinkLayer, length_u16};
use crate::checksum::Sum;
use crate::tcp::Flags;
use crate::{ethernet, flow, ipv4, ipv6, tcp, udp};

/// How a packet stands to the open groups.
#[derive(Debug)]
pub(super) enum Class<'a> {
    /// It belongs to no flow that is ever merged.
    Alone,
    /// It may belong to any flow.
    UnknownFlow,
    /// It belongs to a flow that may be merged.
    Flow(Candidate<'a>),
}

/// A packet of a flow that may be merged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) packet: Located<'a>,
    pub(super) flow: Flow,
    /// Of the flow.
    pub(super) hash: u32,
    /// Nothing if this packet cannot be merged.
    pub(super) mergeable: Option<Mergeable>,
}

/// The five-tuple of a flow in few words, as they stand in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    kind: Kind,
    ports: u32,
    addrs: [u64; 4],
}

/// The fields of a packet that decide which packets it may be merged with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mergeable {
    /// What is the same in all packets of a group.
    pub(super) common: Common,
    /// Octets of payload, not 0.
    pub(super) payload_len: u16,
    /// The TCP sequence number; 0 in UDP.
    pub(super) sequence: u32,
    /// The IPv4 identification where it has a meaning: not with DF, not in IPv6.
    pub(super) id: Option<u16>,
    /// FIN and PSH, which end a group; none in UDP.
    pub(super) last_flags: Flags,
}

/// Header fields that a cut repeats in every packet, besides five-tuple, link header and TCP options.
///
/// They are whole words because what is assembled octet by octet and compared at once must wait for
/// the processor's store buffer, which costs more than all the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) headers: Headers,
    /// IPv4: traffic class, DF, TTL. IPv6: traffic class, flow label, hop limit.
    network: u64,
    /// Acknowledgment, data offset, flags but FIN and PSH, window; 0 in UDP.
    tcp: u64,
}

/// A packet and where its headers are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located<'a> {
    pub(super) octets: &'a [u8],
    pub(super) headers: Headers,
}

/// Where the headers are, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) kind: Kind,
    pub(super) network_at: usize,
    pub(super) transport_at: usize,
    pub(super) payload_at: usize,
}

/// The protocols that can be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    TcpV4,
    TcpV6,
    UdpV4,
    UdpV6,
}

impl<'a> Class<'a> {
    #[inline(always)]
    pub(super) fn of(link: LinkLayer, accepts: Accepts, octets: &'a [u8]) -> Self {
        let network_at = match link {
            LinkLayer::Ip => 0,
            LinkLayer::Ethernet => match ethernet::Frame::parse(octets) {
                Ok(frame) if matches!(frame.ethertype(), ethernet::IPV4 | ethernet::IPV6) => {
                    frame.header_len()
                }
                _ => return Self::Alone,
            },
        };
        let ip = octets.get(network_at..).unwrap_or_default();
        let class = match ip.first().map(|first| first >> 4) {
            Some(4) => Self::of_ipv4(accepts, octets, network_at, ip),
            Some(6) => Self::of_ipv6(accepts, octets, network_at, ip),
            _ => None,
        };
        class.unwrap_or(Self::Alone)
    }

    /// Where the checksum stands in a packet that can be merged, which can be unchecked, too.
    #[inline]
    pub(super) fn checksum_place(&self) -> Option<ChecksumPlace> {
        let Self::Flow(candidate) = self else { return None };
        let headers = candidate.mergeable?.common.headers;
        let start = length_u16(headers.transport_at);
        Some(ChecksumPlace { start, offset: headers.kind.checksum_at() })
    }

    #[inline(always)]
    fn of_ipv4(accepts: Accepts, octets: &'a [u8], network_at: usize, ip: &[u8]) -> Option<Self> {
        let (fixed, rest) = ip.split_first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let kind = match fixed[9] {
            tcp::PROTOCOL if accepts.tso4 => Kind::TcpV4,
            udp::PROTOCOL if accepts.uso => Kind::UdpV4,
            _ => return None,
        };
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        if fixed[0] != 0x45 || fragment & !ipv4::DONT_FRAGMENT != 0 {
            return Some(Self::UnknownFlow);
        }
        let [_, class, l0, l1, id0, id1, df, _, ttl, _, _, _, addrs @ ..] = *fixed;
        let ports = *rest.first_chunk()?;
        let network = Network {
            at: network_at,
            common: u32::from_le_bytes([class, df, ttl, 0]).into(),
            id: (fragment == 0).then_some(u16::from_be_bytes([id0, id1])),
            is_exact: usize::from(u16::from_be_bytes([l0, l1])) == ip.len(),
        };
        Some(Self::Flow(Candidate {
            packet: Located { octets, headers: Headers::new(kind, network_at) },
            flow: Flow {
                kind,
                ports: u32::from_le_bytes(ports),
                addrs: [u64::from_le_bytes(addrs), 0, 0, 0],
            },
            hash: flow::hash_v4(addrs, ports, fixed[9]),
            mergeable: Mergeable::new(octets, kind, &network, rest),
        }))
    }

    #[inline(always)]
    fn of_ipv6(accepts: Accepts, octets: &'a [u8], network_at: usize, ip: &[u8]) -> Option<Self> {
        let (fixed, rest) = ip.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
        let kind = match fixed[6] {
            tcp::PROTOCOL if accepts.tso6 => Kind::TcpV6,
            udp::PROTOCOL if accepts.uso => Kind::UdpV6,
            ipv6::HOP_BY_HOP
            | ipv6::ROUTING
            | ipv6::FRAGMENT
            | ipv6::AUTHENTICATION
            | ipv6::DESTINATION => return Some(Self::UnknownFlow),
            _ => return None,
        };
        let [v0, v1, v2, v3, l0, l1, _, hop_limit, ..] = *fixed;
        let src: &[u8; 16] = fixed[8..].first_chunk()?;
        let dst: &[u8; 16] = fixed[24..].first_chunk()?;
        let ports = *rest.first_chunk()?;
        let mut addrs = [0; 4];
        for (word, octets) in addrs.iter_mut().zip(fixed[8..].as_chunks().0) {
            *word = u64::from_le_bytes(*octets);
        }
        let network = Network {
            at: network_at,
            common: u64::from_le_bytes([v0, v1, v2, v3, hop_limit, 0, 0, 0]),
            id: None,
            is_exact: usize::from(u16::from_be_bytes([l0, l1])) == rest.len(),
        };
        Some(Self::Flow(Candidate {
            packet: Located { octets, headers: Headers::new(kind, network_at) },
            flow: Flow { kind, ports: u32::from_le_bytes(ports), addrs },
            hash: flow::hash_v6(src, dst, ports, fixed[6]),
            mergeable: Mergeable::new(octets, kind, &network, rest),
        }))
    }
}

/// What an IP header of either version says of a packet that may be merged.
struct Network {
    at: usize,
    common: u64,
    id: Option<u16>,
    /// Whether the IP length is the length of what is there.
    is_exact: bool,
}

impl Mergeable {
    #[inline(always)]
    fn new(octets: &[u8], kind: Kind, network: &Network, transport: &[u8]) -> Option<Self> {
        let len = u16::try_from(octets.len()).ok()?;
        let mut headers = Headers::new(kind, network.at);
        let (mut tcp, mut sequence, mut last_flags) = (0, 0, Flags::default());
        if kind.is_tcp() {
            let fixed = transport.first_chunk()?;
            headers.payload_at += mergeable_tcp_header(fixed)?;
            let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *fixed;
            last_flags = Flags(flags & ENDING);
            tcp = u64::from_le_bytes([a0, a1, a2, a3, offset, flags, w0, w1])
                & !(u64::from(ENDING) << 40);
            sequence = u32::from_be_bytes([s0, s1, s2, s3]);
        } else {
            headers.payload_at += mergeable_udp_header(transport)?;
        }
        let payload_len = len.checked_sub(u16::try_from(headers.payload_at).ok()?)?;
        let common = Common { headers, network: network.common, tcp };
        (network.is_exact && payload_len > 0).then_some(Self {
            common,
            payload_len,
            sequence,
            id: network.id,
            last_flags,
        })
    }
}

/// The flags that end a group, and differ within one.
const ENDING: u8 = Flags::FIN.0 | Flags::PSH.0;

impl Headers {
    /// Headers up to the transport's, whose length is another matter.
    #[inline]
    fn new(kind: Kind, network_at: usize) -> Self {
        let network_len = if kind.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let transport_at = network_at + network_len;
        Self { kind, network_at, transport_at, payload_at: transport_at }
    }
}

/// Length of a TCP header that may be merged: a plain segment of an established connection.
#[inline]
fn mergeable_tcp_header(fixed: &[u8; tcp::HEADER_LEN]) -> Option<usize> {
    let header_len = usize::from(fixed[12] >> 4) * 4;
    let has_reserved_bits = fixed[12] & 0x0f != 0;
    let flags = Flags(fixed[tcp::FLAGS_AT]).without(Flags::PSH | Flags::FIN | Flags::ECE);
    let has_urgent_pointer = fixed[18..] != [0, 0];
    let is_plain = header_len >= tcp::HEADER_LEN
        && !has_reserved_bits
        && !has_urgent_pointer
        && flags == Flags::ACK;
    is_plain.then_some(header_len)
}

/// Length of a UDP header that may be merged: one with a checksum and a true length.
#[inline]
fn mergeable_udp_header(transport: &[u8]) -> Option<usize> {
    let [_, _, _, _, len_high, len_low, sum_high, sum_low] = *transport.first_chunk()?;
    let is_plain = usize::from(u16::from_be_bytes([len_high, len_low])) == transport.len()
        && [sum_high, sum_low] != [0, 0];
    is_plain.then_some(udp::HEADER_LEN)
}

impl<'a> Located<'a> {
    /// Whether link header and TCP options are those of another packet with headers in the same places.
    #[inline]
    pub(super) fn has_link_and_options_like(self, other: Self) -> bool {
        let headers = self.headers;
        let options_at = headers.transport_at + tcp::HEADER_LEN;
        let options = options_at..headers.payload_at;
        (headers.network_at == 0 || self.link() == other.link())
            && (!headers.kind.is_tcp() || same_words(self.octets, other.octets, options))
    }

    /// Whether the checksums of the IPv4 header and of the transport are right.
    #[inline]
    pub(super) fn is_intact(self) -> bool {
        let mut sum = self.pseudo_header_sum(self.transport().len());
        sum.add(self.transport());
        sum.finish() == 0 && self.has_intact_ipv4_header()
    }

    /// Whether the checksum of the IPv4 header is right, and the pseudo-header's sum stands where the
    /// transport's checksum will.
    #[inline]
    pub(super) fn is_intact_undone(self) -> bool {
        let at = usize::from(self.headers.kind.checksum_at());
        let place = self.transport().get(at..).and_then(<[u8]>::first_chunk);
        let sum = self.pseudo_header_sum(self.transport().len()).fold();
        place == Some(&sum.to_be_bytes()) && self.has_intact_ipv4_header()
    }

    /// The sum of the pseudo-header of a transport header and payload of `len` octets.
    #[inline]
    pub(super) fn pseudo_header_sum(self, len: usize) -> Sum {
        let mut sum = Sum::new();
        if self.headers.kind.is_v4() {
            let fixed: Option<&[u8; ipv4::HEADER_LEN]> = self.network().first_chunk();
            sum.add(fixed.map_or(&[], |fixed| &fixed[12..]));
        } else {
            let fixed: Option<&[u8; ipv6::HEADER_LEN]> = self.network().first_chunk();
            sum.add(fixed.map_or(&[], |fixed| &fixed[8..]));
        }
        let protocol = if self.headers.kind.is_tcp() { tcp::PROTOCOL } else { udp::PROTOCOL };
        sum.add_u16(u16::from(protocol));
        sum.add_u16(u16::try_from(len).unwrap_or(u16::MAX));
        sum
    }

    #[inline]
    fn has_intact_ipv4_header(self) -> bool {
        let mut sum = Sum::new();
        match self.network().first_chunk::<{ ipv4::HEADER_LEN }>() {
            Some(fixed) if self.headers.kind.is_v4() => sum.add(fixed),
            _ => return true,
        }
        sum.finish() == 0
    }

    #[inline]
    fn link(self) -> &'a [u8] {
        self.octets.get(..self.headers.network_at).unwrap_or_default()
    }

    #[inline]
    fn network(self) -> &'a [u8] {
        self.octets.get(self.headers.network_at..).unwrap_or_default()
    }

    #[inline]
    fn transport(self) -> &'a [u8] {
        self.octets.get(self.headers.transport_at..).unwrap_or_default()
    }
}

/// Whether two packets have the same words in a range; for a few words this beats calling `memcmp`.
#[inline]
fn same_words(octets: &[u8], others: &[u8], range: Range<usize>) -> bool {
    let (Some(octets), Some(others)) = (octets.get(range.clone()), others.get(range)) else {
        return false;
    };
    let (words, others) = (octets.as_chunks::<4>().0, others.as_chunks::<4>().0);
    words.iter().zip(others).all(|(word, other)| word == other)
}

impl Kind {
    #[inline]
    pub(super) fn is_v4(self) -> bool {
        matches!(self, Self::TcpV4 | Self::UdpV4)
    }

    /// Where the checksum stands in the transport header.
    pub(super) fn checksum_at(self) -> u16 {
        if self.is_tcp() { 16 } else { 6 }
    }

    #[inline]
    pub(super) fn is_tcp(self) -> bool {
        matches!(self, Self::TcpV4 | Self::TcpV6)
    }
}
