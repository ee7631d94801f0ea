//! Cuts what a device with `IFF_VNET_HDR` handed out into complete packets, in place.
//!
//! A super-packet is one run of headers and a payload of several segments:
//!
//! ```text
//!  headers | payload 0 | payload 1 | payload 2
//! ```
//!
//! The segments are handed out in order, each contiguous, and no payload moves: the headers of
//! segment *i* are written directly before payload *i*, over the tail of payload *i - 1*. That is
//! sound because the iterator lends: who asks for segment *i* has let go of segment *i - 1*.
//!
//! ```text
//!  headers | payload 0 |                            first
//!                headers | payload 1 |              second
//!                            headers | payload 2    third
//! ```
//!
//! The headers are kept in a small array, with the fields that differ between segments set to zero,
//! and the sum of the rest is taken once. So the checksum of a segment costs one pass over its payload.
//!
//! A checksum that is to be completed holds the sum of the pseudo-header, over the length of the whole
//! super-packet. It is taken from there and not from the addresses, because with an IPv6 routing header
//! only the sender knows the address that counts.
//!
//! Unchecked segments ([`segment_unchecked`]) keep the sum of the pseudo-header in place, over their own
//! length, and nothing else is summed: they cost the same whatever their payload.
//!
//! What differs between segments: IPv4 total length, identification (one more each) and checksum, or
//! IPv6 payload length; the TCP sequence number; FIN and PSH (last only), CWR (first only); the UDP
//! length; the transport's checksum. This is what `tcp_gso_segment` and `__udp_gso_segment` of Linux do.
//!
//! The kernel does not promise that `hdr_len` is right, so it is not used. Everything else in the
//! virtio header must agree with the headers in the packet.

use super::network::{Network, Version};
use super::unchecked::ChecksumPlace;
use super::{LinkLayer, length_u16, put_u16};
use crate::checksum::Sum;
use crate::frame::UNCHECKED;
use crate::parse_error::ParseError;
use crate::tcp::Flags;
use crate::virtio::{Gso, VirtioNetHdr};
use crate::{ethernet, ipv4, ipv6, tcp, udp};

/// Octets of IPv6 extension headers or IPv4 options for which there is room besides the other headers.
const MAX_EXTENSIONS: usize = 64;

/// The longest headers of a super-packet in octets, from the link layer to TCP options.
pub const MAX_HEADERS: usize = ethernet::HEADER_LEN
    + ethernet::MAX_TAGS * ethernet::TAG_LEN
    + ipv6::HEADER_LEN
    + MAX_EXTENSIONS
    + tcp::MAX_HEADER_LEN;

/// The most segments that one super-packet is cut into; a payload of 64 octets each fills 64 KiB.
pub const MAX_SEGMENTS: usize = 1024;

/// Why a packet cannot be completed or cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The headers cannot be read.
    #[error("headers of a super-packet")]
    Headers(#[from] ParseError),
    /// A packet that may be unchecked has neither IP version in its first octet.
    #[error("packet that starts with {0:#04x}, which is no IP version's")]
    NotIp(u8),
    /// The checksum would stand beyond the end of the packet, or over the first octet of one that may be
    /// unchecked.
    #[error("checksum of octets from {start}, stored {offset} octets later, in {len} octets")]
    ChecksumPlace {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
        /// Octets of the packet.
        len: usize,
    },
    /// A super-packet has no complete checksum, so it must say that it needs one.
    #[error("super-packet without NEEDS_CSUM")]
    NoChecksum,
    /// The virtio header announces another protocol than the packet has.
    #[error("{gso:?} super-packet with IP version {version} and protocol {protocol}")]
    Protocol {
        /// What the virtio header announces.
        gso: Gso,
        /// The IP version in the packet, 0 if there is no IP.
        version: u8,
        /// The protocol above IP in the packet, 0 if there is no IP.
        protocol: u8,
    },
    /// A part of a datagram cannot be a super-packet.
    #[error("super-packet that is an IP fragment")]
    Fragment,
    /// The IP length is not the length of the packet.
    #[error("super-packet of {has} octets from its IP header on, which says {says}")]
    TotalLength {
        /// Octets that the IP header claims.
        says: usize,
        /// Octets that are there.
        has: usize,
    },
    /// The virtio header has the transport header or its checksum in another place than the packet.
    #[error(
        "checksum of octets from {start} at {offset}, where the headers have {transport_at} and {checksum_at}"
    )]
    ChecksumDisagrees {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
        /// Where the transport header is.
        transport_at: usize,
        /// Where the checksum is in the transport header.
        checksum_at: usize,
    },
    /// The headers are longer than [`MAX_HEADERS`].
    #[error("super-packet with {0} octets of headers")]
    HeadersTooLong(usize),
    /// There is no payload of even one segment.
    #[error("segments of {gso_size} octets from a payload of {payload}")]
    SegmentSize {
        /// Octets of payload that each segment should have.
        gso_size: u16,
        /// Octets of payload in all.
        payload: usize,
    },
    /// There are more segments than [`MAX_SEGMENTS`].
    #[error("super-packet of {0} segments")]
    TooManySegments(usize),
}

/// The packets of one super-packet, handed out one after the other.
#[derive(Debug)]
pub struct Segments<'a> {
    packet: &'a mut [u8],
    /// Nothing for a packet that is handed out as it is.
    cut: Option<Cut>,
    segment_len: usize,
    count: usize,
    handed_out: usize,
}

/// Completes one packet, or prepares to cut a super-packet into complete packets.
///
/// A packet that is not to be cut and needs no checksum is not even looked at.
///
/// # Errors
///
/// [`SegmentError`] if the virtio header and the packet do not fit together; the packet is unchanged.
#[inline]
pub fn segment<'a>(
    link: LinkLayer,
    header: VirtioNetHdr,
    packet: &'a mut [u8],
) -> Result<Segments<'a>, SegmentError> {
    if header.gso != Gso::None {
        return cut(link, header, packet, Checksums::Complete);
    }
    if header.needs_checksum() {
        complete_checksum(header, packet)?;
    }
    Ok(Segments::whole(packet))
}

/// Does as [`segment()`] for a device of IP packets, but leaves undone what the kernel left undone of TCP
/// and UDP: such a segment is handed out *unchecked*, with [`UNCHECKED`] set in its first octet and the
/// pseudo-header's sum over the segment's own length in the place of its checksum.
///
/// Packets that were complete, and those whose checksum is not that of a TCP or UDP header directly
/// behind an IPv4 header that is no fragment's or the fixed IPv6 header, are handed out as by
/// [`segment()`]. So whatever a device hands out, each segment is a packet or an unchecked packet to
/// [`frame::kind`](crate::frame::kind), and never another frame.
///
/// # Errors
///
/// [`SegmentError`] if the virtio header and the packet do not fit together or the packet is not IP; the
/// packet is unchanged.
#[inline]
pub fn segment_unchecked(
    header: VirtioNetHdr,
    packet: &mut [u8],
) -> Result<Segments<'_>, SegmentError> {
    match packet.first().copied().unwrap_or_default() {
        first if !matches!(first >> 4, 4 | 6) => return Err(SegmentError::NotIp(first)),
        _ if header.gso != Gso::None => {
            return cut(LinkLayer::Ip, header, packet, Checksums::Undone);
        }
        _ if header.needs_checksum() => leave_checksum(header, packet)?,
        _ => {}
    }
    Ok(Segments::whole(packet))
}

impl<'a> Segments<'a> {
    fn whole(packet: &'a mut [u8]) -> Self {
        let segment_len = packet.len();
        Self { packet, cut: None, segment_len, count: 1, handed_out: 0 }
    }

    /// The next packet, which is overwritten by the call after.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "an Iterator cannot lend from itself")]
    pub fn next(&mut self) -> Option<&mut [u8]> {
        if self.handed_out == self.count {
            return None;
        }
        let index = self.handed_out;
        self.handed_out += 1;
        let Some(cut) = &mut self.cut else { return Some(self.packet) };
        let start = index * usize::from(cut.gso_size);
        let end = self.packet.len().min(start + self.segment_len);
        let segment = self.packet.get_mut(start..end)?;
        cut.write(segment, self.handed_out == self.count);
        Some(segment)
    }

    /// Octets of every packet but the last, which may be shorter.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        self.segment_len
    }

    /// How many packets there are in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Does what `skb_checksum_help` of Linux does for any protocol: a result of 0 becomes 0xffff, which
/// means the same except to UDP, where 0 says that there is no checksum.
fn complete_checksum(header: VirtioNetHdr, packet: &mut [u8]) -> Result<(), SegmentError> {
    let (start, offset) = (header.csum_start, header.csum_offset);
    let place = SegmentError::ChecksumPlace { start, offset, len: packet.len() };
    let covered = packet.get_mut(usize::from(start)..).ok_or(place)?;
    let mut sum = Sum::new();
    sum.add(covered);
    let checksum =
        covered.get_mut(usize::from(offset)..).and_then(|octets| octets.first_chunk_mut());
    *checksum.ok_or(place)? = sum.finish_udp().to_be_bytes();
    Ok(())
}

/// Makes a packet unchecked if it can be, and completes it otherwise.
fn leave_checksum(header: VirtioNetHdr, packet: &mut [u8]) -> Result<(), SegmentError> {
    let (start, offset) = (header.csum_start, header.csum_offset);
    let is_undone = ChecksumPlace::of(packet) == Some(ChecksumPlace { start, offset });
    match packet.first_mut() {
        Some(first) if is_undone => *first |= UNCHECKED,
        _ if (start, offset) != (0, 0) => complete_checksum(header, packet)?,
        _ => return Err(SegmentError::ChecksumPlace { start, offset, len: packet.len() }),
    }
    Ok(())
}

fn cut(
    link: LinkLayer,
    header: VirtioNetHdr,
    packet: &mut [u8],
    checksums: Checksums,
) -> Result<Segments<'_>, SegmentError> {
    let layout = Layout::of(link, header, packet)?;
    let payload = packet.len() - layout.headers_len;
    let gso_size = usize::from(header.gso_size);
    if gso_size == 0 || gso_size > payload {
        return Err(SegmentError::SegmentSize { gso_size: header.gso_size, payload });
    }
    let count = payload.div_ceil(gso_size);
    if count > MAX_SEGMENTS {
        return Err(SegmentError::TooManySegments(count));
    }
    let checksums = if layout.is_plain { checksums } else { Checksums::Complete };
    let cut = Cut::new(layout, header.gso_size, packet, checksums)?;
    let segment_len = layout.headers_len + gso_size;
    Ok(Segments { packet, cut: Some(cut), segment_len, count, handed_out: 0 })
}

/// What becomes of the transport's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksums {
    Complete,
    Undone,
}

/// Where the headers of a super-packet are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    version: Version,
    transport: Transport,
    network_at: usize,
    transport_at: usize,
    headers_len: usize,
    /// Whether nothing stands between IP header and transport header.
    is_plain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// Where the checksum stands in the header.
    fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => tcp::CHECKSUM_AT,
            Self::Udp => udp::CHECKSUM_AT,
        }
    }

    /// The checksum as it is written.
    fn finish(self, sum: Sum) -> u16 {
        match self {
            Self::Tcp => sum.finish(),
            Self::Udp => sum.finish_udp(),
        }
    }
}

impl Layout {
    /// Reads the headers and holds them against what the virtio header says of them.
    pub(super) fn of(
        link: LinkLayer,
        header: VirtioNetHdr,
        packet: &[u8],
    ) -> Result<Self, SegmentError> {
        let gso = header.gso;
        let not_ip = SegmentError::Protocol { gso, version: 0, protocol: 0 };
        let ip = ip_octets(link, packet).ok_or(not_ip)?;
        let network = Network::parse(ip)?;
        let transport = transport(gso, &network)?;
        if network.is_fragment {
            return Err(SegmentError::Fragment);
        }
        if network.total_len != ip.len() {
            return Err(SegmentError::TotalLength { says: network.total_len, has: ip.len() });
        }
        let transport_header_len = match transport {
            Transport::Tcp => tcp::Packet::parse(&ip[network.header_len..])?.header_len(),
            Transport::Udp => {
                udp::Packet::parse(&ip[network.header_len..])?;
                udp::HEADER_LEN
            }
        };
        let network_at = packet.len() - ip.len();
        let transport_at = network_at + network.header_len;
        check_checksum(header, transport_at, transport.checksum_at())?;
        let headers_len = transport_at + transport_header_len;
        let (version, is_plain) = (network.version, network.is_followed_by_transport());
        Ok(Self { version, transport, network_at, transport_at, headers_len, is_plain })
    }

    /// Octets before the payload.
    pub(super) fn headers_len(&self) -> usize {
        self.headers_len
    }
}

/// The IP packet within what the device carries; nothing if it carries something else.
pub(super) fn ip_octets(link: LinkLayer, packet: &[u8]) -> Option<&[u8]> {
    match link {
        LinkLayer::Ip => Some(packet),
        LinkLayer::Ethernet => {
            let frame = ethernet::Frame::parse(packet).ok()?;
            let version = match frame.ethertype() {
                ethernet::IPV4 => 4,
                ethernet::IPV6 => 6,
                _ => return None,
            };
            Some(frame.payload()).filter(|ip| ip.first().is_some_and(|first| first >> 4 == version))
        }
    }
}

fn transport(gso: Gso, network: &Network) -> Result<Transport, SegmentError> {
    match (gso, network.version, network.protocol) {
        (Gso::TcpV4, Version::V4, tcp::PROTOCOL) | (Gso::TcpV6, Version::V6, tcp::PROTOCOL) => {
            Ok(Transport::Tcp)
        }
        (Gso::UdpL4, _, udp::PROTOCOL) => Ok(Transport::Udp),
        (_, Version::V4, protocol) => Err(SegmentError::Protocol { gso, version: 4, protocol }),
        (_, Version::V6, protocol) => Err(SegmentError::Protocol { gso, version: 6, protocol }),
    }
}

fn check_checksum(
    header: VirtioNetHdr,
    transport_at: usize,
    checksum_at: usize,
) -> Result<(), SegmentError> {
    let (start, offset) = (header.csum_start, header.csum_offset);
    if !header.needs_checksum() {
        return Err(SegmentError::NoChecksum);
    }
    if usize::from(start) != transport_at || usize::from(offset) != checksum_at {
        return Err(SegmentError::ChecksumDisagrees { start, offset, transport_at, checksum_at });
    }
    Ok(())
}

/// What it takes to write the headers of the next segment.
#[derive(Debug)]
struct Cut {
    layout: Layout,
    checksums: Checksums,
    gso_size: u16,
    /// The headers, zero where segments differ.
    headers: [u8; MAX_HEADERS],
    /// The IPv4 header's sum.
    network_sum: Sum,
    /// The pseudo-header's sum, without length.
    pseudo_sum: Sum,
    /// The transport header's sum.
    transport_sum: Sum,
    /// Of the next segment, as are the fields below.
    id: u16,
    sequence: u32,
    flags: Flags,
}

impl Cut {
    fn new(
        layout: Layout,
        gso_size: u16,
        packet: &[u8],
        checksums: Checksums,
    ) -> Result<Self, SegmentError> {
        let mut headers = [0; MAX_HEADERS];
        let too_long = SegmentError::HeadersTooLong(layout.headers_len);
        let kept = headers.get_mut(..layout.headers_len).ok_or(too_long)?;
        kept.copy_from_slice(&packet[..layout.headers_len]);
        let (network, transport) = kept.split_at_mut(layout.transport_at);
        let network = &mut network[layout.network_at..];

        let (id, network_sum) = take_network(layout.version, network);
        let mut pseudo_sum = Sum::new();
        pseudo_sum.add_u16(!length_u16(packet.len() - layout.transport_at));
        pseudo_sum.add_u16(take_u16(transport, layout.transport.checksum_at()));
        let (sequence, flags) = take_transport(layout.transport, transport);
        let mut transport_sum = Sum::new();
        transport_sum.add(transport);
        if let (Checksums::Undone, Some(first)) = (checksums, network.first_mut()) {
            *first |= UNCHECKED;
        }
        Ok(Self {
            layout,
            checksums,
            gso_size,
            headers,
            network_sum,
            pseudo_sum,
            transport_sum,
            id,
            sequence,
            flags,
        })
    }

    /// Writes the headers of the next segment, whose payload is in place.
    fn write(&mut self, segment: &mut [u8], is_last: bool) {
        let layout = self.layout;
        let (headers, payload) = segment.split_at_mut(layout.headers_len);
        headers.copy_from_slice(&self.headers[..layout.headers_len]);
        let (network, transport) = headers.split_at_mut(layout.transport_at);
        let network = &mut network[layout.network_at..];
        let transport_len = length_u16(transport.len() + payload.len());
        self.write_network(network, transport_len);
        let mut pseudo_sum = self.pseudo_sum;
        pseudo_sum.add_u16(transport_len);
        let mut sum = self.transport_sum;
        match layout.transport {
            Transport::Tcp => self.write_tcp(transport, &mut sum, is_last),
            Transport::Udp => write_udp(transport, &mut sum, transport_len),
        }
        let checksum = match self.checksums {
            Checksums::Undone => pseudo_sum.fold(),
            Checksums::Complete => {
                sum.add_sum(pseudo_sum);
                sum.add(payload);
                layout.transport.finish(sum)
            }
        };
        put_u16(transport, layout.transport.checksum_at(), checksum);
    }

    fn write_network(&mut self, network: &mut [u8], transport_len: u16) {
        match self.layout.version {
            Version::V4 => {
                let total_len = length_u16(network.len()) + transport_len;
                let mut sum = self.network_sum;
                sum.add_u16(total_len);
                sum.add_u16(self.id);
                put_u16(network, ipv4::TOTAL_LEN_AT, total_len);
                put_u16(network, ipv4::ID_AT, self.id);
                put_u16(network, ipv4::CHECKSUM_AT, sum.finish());
                self.id = self.id.wrapping_add(1);
            }
            Version::V6 => {
                let extensions_len = length_u16(network.len() - ipv6::HEADER_LEN);
                put_u16(network, ipv6::PAYLOAD_LEN_AT, extensions_len + transport_len);
            }
        }
    }

    /// Writes the fields that differ, but the checksum, and adds them to `sum`.
    fn write_tcp(&mut self, transport: &mut [u8], sum: &mut Sum, is_last: bool) {
        let flags = if is_last { self.flags } else { self.flags.without(Flags::FIN | Flags::PSH) };
        sum.add_u32(self.sequence);
        sum.add_u16(u16::from(flags.0));
        if let Some(sequence) = transport.get_mut(tcp::SEQUENCE_AT..tcp::SEQUENCE_AT + 4) {
            sequence.copy_from_slice(&self.sequence.to_be_bytes());
        }
        if let Some(octet) = transport.get_mut(tcp::FLAGS_AT) {
            *octet = flags.0;
        }
        self.sequence = self.sequence.wrapping_add(u32::from(self.gso_size));
        self.flags = self.flags.without(Flags::CWR);
    }
}

fn write_udp(transport: &mut [u8], sum: &mut Sum, len: u16) {
    sum.add_u16(len);
    put_u16(transport, udp::LEN_AT, len);
}

/// The identification and the sum of an IPv4 header without what differs between segments.
fn take_network(version: Version, network: &mut [u8]) -> (u16, Sum) {
    let mut sum = Sum::new();
    if version == Version::V6 {
        return (0, sum);
    }
    let id = take_u16(network, ipv4::ID_AT);
    take_u16(network, ipv4::TOTAL_LEN_AT);
    take_u16(network, ipv4::CHECKSUM_AT);
    sum.add(network);
    (id, sum)
}

/// The sequence number and the flags of a TCP header; nothing of either in UDP.
fn take_transport(kind: Transport, transport: &mut [u8]) -> (u32, Flags) {
    if kind == Transport::Udp {
        take_u16(transport, udp::LEN_AT);
        return (0, Flags::default());
    }
    let high = take_u16(transport, tcp::SEQUENCE_AT);
    let low = take_u16(transport, tcp::SEQUENCE_AT + 2);
    let flags = Flags(std::mem::take(&mut transport[tcp::FLAGS_AT]));
    (u32::from(high) << 16 | u32::from(low), flags)
}

/// Reads a word and leaves zero in its place.
fn take_u16(octets: &mut [u8], at: usize) -> u16 {
    let place = octets.get_mut(at..).and_then(|octets| octets.first_chunk_mut());
    place.map_or(0, |word| u16::from_be_bytes(std::mem::take(word)))
}
