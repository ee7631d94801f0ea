//! `wire::offload::segment` and `segment_unchecked`: a super-packet, cut into packets.
//!
//! Input: one octet of choices, ten octets of virtio header, then the packet.
//!
//! ```text
//!  bit 0     the packet is an Ethernet frame
//!  bit 1     lengths, the place of the checksum and the sum of the pseudo-header are put right first,
//!            so that the fuzzer need not guess them
//! ```

use wire::ethernet::Frame;
use wire::frame::{self, Kind, UNCHECKED};
use wire::offload::{LinkLayer, MAX_SEGMENTS, Segments, segment, segment_unchecked};
use wire::tcp::Flags;
use wire::virtio::{Gso, VirtioNetHdr};
use wire::{ipv4, ipv6, tcp, udp};

use crate::{naive, virtio};

/// A packet is refused and stays as it was, or is cut into packets that carry the same payload in the
/// same order under headers that fit.
pub fn check(data: &[u8]) {
    let Some((choices, rest)) = data.split_first() else { return };
    let Some((octets, packet)) = rest.split_at_checked(VirtioNetHdr::LEN) else { return };
    let Ok(mut header) = VirtioNetHdr::parse(&virtio::header(octets)) else { return };
    let link = if choices & 1 == 0 { LinkLayer::Ip } else { LinkLayer::Ethernet };
    let mut packet = packet.to_vec();
    if choices & 2 != 0 {
        put_right(link, &mut header, &mut packet);
    }
    if link == LinkLayer::Ip {
        check_unchecked(header, &packet);
    }
    let mut cut = packet.clone();
    match pieces(link, header, &mut cut) {
        None => assert_eq!(cut, packet, "what is refused stays as it was"),
        Some(pieces) if header.gso == Gso::None => check_single(header, &packet, &pieces),
        Some(pieces) => check_pieces(link, header, &packet, &pieces),
    }
}

/// Unchecked packets, when they are completed, are those of a plain cut; the others are so as they are.
fn check_unchecked(header: VirtioNetHdr, packet: &[u8]) {
    let mut cut = packet.to_vec();
    let unchecked = segment_unchecked(header, &mut cut).ok().map(taken);
    let complete = pieces(LinkLayer::Ip, header, &mut packet.to_vec());
    let Some(unchecked) = unchecked else {
        let is_ip = packet.first().is_some_and(|first| matches!(first >> 4, 4 | 6));
        let is_over_first_octet = (header.csum_start, header.csum_offset) == (0, 0);
        assert!(complete.is_none() || !is_ip || is_over_first_octet);
        return assert_eq!(cut, packet, "what is refused stays as it was");
    };
    let complete = complete.expect("what can be unchecked can be completed");
    assert_eq!(unchecked.len(), complete.len());
    for (mut piece, complete) in unchecked.into_iter().zip(complete) {
        match frame::kind(&piece) {
            Kind::Packet => {}
            Kind::Unchecked => {
                piece[0] &= !UNCHECKED;
                piece = naive::completed(&piece).expect("it has a place for its checksum");
            }
            kind => panic!("{kind:?} from a device"),
        }
        assert_eq!(naive::with_one_zero(0, piece), naive::with_one_zero(0, complete));
    }
}

/// The packets that `packet` is cut into, each copied before the next overwrites it.
pub(crate) fn pieces(
    link: LinkLayer,
    header: VirtioNetHdr,
    packet: &mut [u8],
) -> Option<Vec<Vec<u8>>> {
    segment(link, header, packet).ok().map(taken)
}

fn taken(mut segments: Segments<'_>) -> Vec<Vec<u8>> {
    let (count, len) = (segments.count(), segments.segment_len());
    let mut pieces = Vec::new();
    while let Some(piece) = segments.next() {
        pieces.push(piece.to_vec());
    }
    assert!(segments.next().is_none(), "what is over stays over");
    assert_eq!(pieces.len(), count);
    assert!((1..=MAX_SEGMENTS).contains(&count));
    let (last, others) = pieces.split_last().expect("there is at least one");
    assert!(others.iter().all(|piece| piece.len() == len));
    assert!(last.len() <= len);
    pieces
}

/// A packet that is not cut keeps every octet but those of the checksum that it asked for.
fn check_single(header: VirtioNetHdr, packet: &[u8], pieces: &[Vec<u8>]) {
    let [piece] = pieces else { panic!("{} pieces of one packet", pieces.len()) };
    if !header.needs_checksum() {
        return assert_eq!(piece, packet);
    }
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    assert_eq!(piece[..at], packet[..at]);
    assert_eq!(piece[at + 2..], packet[at + 2..]);
    if header.csum_offset.is_multiple_of(2) {
        // What stood there was the pseudo-header's sum, which is part of what must sum to nothing.
        let total = naive::add(naive::sum(&piece[start..]), u16_at(packet, at));
        assert!(naive::is_same(total, 0), "the checksum sums to {total:#06x}");
    }
}

fn check_pieces(link: LinkLayer, header: VirtioNetHdr, packet: &[u8], pieces: &[Vec<u8>]) {
    let whole = Layout::of(link, packet).expect("only what can be read is cut");
    let payloads: Vec<_> = pieces.iter().flat_map(|piece| &piece[whole.payload_at..]).collect();
    assert!(payloads.into_iter().eq(&packet[whole.payload_at..]), "the payload is another");
    let had_right_sum =
        naive::is_same(u16_at(packet, whole.checksum_at()), whole.pseudo_header_sum(packet));
    for (index, piece) in pieces.iter().enumerate() {
        let layout = Layout::of(link, piece).expect("a piece can be read");
        assert_eq!(layout, whole);
        check_network(index, &layout, packet, piece);
        if whole.is_tcp {
            let is_last = index + 1 == pieces.len();
            check_tcp(index, is_last, header.gso_size, &layout, packet, piece);
        } else {
            let said = u16_at(piece, layout.transport_at + udp::LEN_AT);
            assert_eq!(usize::from(said), piece.len() - layout.transport_at);
        }
        if had_right_sum {
            let sum = naive::sum(&piece[layout.transport_at..]);
            let sum = naive::add(sum, layout.pseudo_header_sum(piece));
            assert!(naive::is_same(sum, 0), "piece {index} sums to {sum:#06x}");
        }
    }
}

/// Link and network header: all as in the super-packet but length, identification and checksum.
fn check_network(index: usize, layout: &Layout, packet: &[u8], piece: &[u8]) {
    let ip_len = piece.len() - layout.network_at;
    let (at, less) = length_of(layout.is_v4);
    assert_eq!(usize::from(u16_at(piece, layout.network_at + at)) + less, ip_len);
    let network = layout.network_at..layout.transport_at;
    assert_eq!(piece[..network.start], packet[..network.start]);
    let (mut before, mut after) = (packet[network.clone()].to_vec(), piece[network].to_vec());
    if layout.is_v4 {
        assert!(naive::is_same(naive::sum(&after), 0), "the IPv4 header has a wrong checksum");
        let index = u16::try_from(index).expect("there are at most MAX_SEGMENTS pieces");
        let id = u16_at(&before, ipv4::ID_AT).wrapping_add(index);
        assert_eq!(after[4..6], id.to_be_bytes());
    }
    let varying: &[usize] = if layout.is_v4 { &[2, 3, 4, 5, 10, 11] } else { &[4, 5] };
    for &at in varying {
        (before[at], after[at]) = (0, 0);
    }
    assert_eq!(before, after);
}

/// The TCP header: all as in the super-packet but sequence number, some flags and checksum.
fn check_tcp(
    index: usize,
    is_last: bool,
    gso_size: u16,
    layout: &Layout,
    packet: &[u8],
    piece: &[u8],
) {
    let transport = layout.transport_at..layout.payload_at;
    let (mut before, mut after) = (packet[transport.clone()].to_vec(), piece[transport].to_vec());
    let sequence = |header: &[u8]| u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let distance = sequence(&after).wrapping_sub(sequence(&before));
    assert_eq!(u64::from(distance), index as u64 * u64::from(gso_size));
    let mut flags = Flags(before[tcp::FLAGS_AT]);
    if !is_last {
        flags = flags.without(Flags::FIN | Flags::PSH);
    }
    if index > 0 {
        flags = flags.without(Flags::CWR);
    }
    assert_eq!(Flags(after[tcp::FLAGS_AT]), flags);
    for at in [4, 5, 6, 7, tcp::FLAGS_AT, tcp::CHECKSUM_AT, tcp::CHECKSUM_AT + 1] {
        (before[at], after[at]) = (0, 0);
    }
    assert_eq!(before, after);
}

/// Where the headers of a packet are that can be cut.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    is_v4: bool,
    is_tcp: bool,
    network_at: usize,
    transport_at: usize,
    payload_at: usize,
}

impl Layout {
    fn of(link: LinkLayer, packet: &[u8]) -> Option<Self> {
        let network_at = match link {
            LinkLayer::Ip => 0,
            LinkLayer::Ethernet => Frame::parse(packet).ok()?.header_len(),
        };
        let ip = &packet[network_at..];
        let is_v4 = ip.first()? >> 4 == 4;
        let (header_len, protocol, transport) = if is_v4 {
            let packet = ipv4::Packet::parse(ip).ok()?;
            (packet.header_len(), packet.protocol(), packet.payload())
        } else {
            let packet = ipv6::Packet::parse(ip).ok()?;
            (packet.header_len(), packet.protocol(), packet.payload())
        };
        let transport_len = match protocol {
            tcp::PROTOCOL => tcp::Packet::parse(transport).ok()?.header_len(),
            udp::PROTOCOL => udp::Packet::parse(transport).ok().map(|_| udp::HEADER_LEN)?,
            _ => return None,
        };
        let transport_at = network_at + header_len;
        let payload_at = transport_at + transport_len;
        let is_tcp = protocol == tcp::PROTOCOL;
        Some(Self { is_v4, is_tcp, network_at, transport_at, payload_at })
    }

    fn checksum_at(&self) -> usize {
        self.transport_at + if self.is_tcp { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT }
    }

    fn pseudo_header_sum(&self, packet: &[u8]) -> u16 {
        let protocol = if self.is_tcp { tcp::PROTOCOL } else { udp::PROTOCOL };
        let len = packet.len() - self.transport_at;
        naive::pseudo_header_sum(&packet[self.network_at..], protocol, len)
            .expect("a packet that was read has addresses and a length of 16 bits")
    }
}

/// Makes the lengths that are said those of what is there, and the virtio header fit.
fn put_right(link: LinkLayer, header: &mut VirtioNetHdr, packet: &mut [u8]) {
    let network_at = match link {
        LinkLayer::Ip => 0,
        LinkLayer::Ethernet => Frame::parse(packet).map_or(0, |frame| frame.header_len()),
    };
    put_length_right(&mut packet[network_at..]);
    let Some(layout) = Layout::of(link, packet) else { return };
    let len = packet.len() - layout.transport_at;
    if let (false, Ok(len)) = (layout.is_tcp, u16::try_from(len)) {
        let at = layout.transport_at + udp::LEN_AT;
        packet[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }
    let (at, sum) = (layout.checksum_at(), layout.pseudo_header_sum(packet));
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    header.flags |= VirtioNetHdr::NEEDS_CSUM;
    header.csum_start = u16::try_from(layout.transport_at).unwrap_or(u16::MAX);
    header.csum_offset = u16::try_from(at - layout.transport_at).unwrap_or(u16::MAX);
}

fn put_length_right(ip: &mut [u8]) {
    let (at, less) = length_of(ip.first().is_some_and(|first| first >> 4 == 4));
    let len = ip.len().checked_sub(less).and_then(|len| u16::try_from(len).ok());
    if let (Some(len), Some(place)) = (len, ip.get_mut(at..at + 2)) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

/// Where an IP header says the length, and how many octets that does not count.
fn length_of(is_v4: bool) -> (usize, usize) {
    if is_v4 { (ipv4::TOTAL_LEN_AT, 0) } else { (ipv6::PAYLOAD_LEN_AT, ipv6::HEADER_LEN) }
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}
