//! `wire::offload::Coalescer`: packets, complete or unchecked, merged, and cut again by
//! `wire::offload::segment`.
//!
//! Input: one octet for the device, then eight octets for each packet, at most [`MAX_PACKETS`]. The
//! packets are built from that, since no fuzzer would guess the checksums of two packets in a row.
//!
//! ```text
//!  device    bit 0     it carries Ethernet frames
//!            bits 1-3  it takes TCP in IPv4, TCP in IPv6, UDP
//!
//!  packet 0  bits 0-1  TCP in IPv4, TCP in IPv6, UDP in IPv4, UDP in IPv6
//!            bits 2-3  its flow, which has its own sequence numbers
//!            bit 4     without DF
//!            bit 5     with TCP options
//!            bit 6     with a VLAN tag
//!            bit 7     unchecked, where the device carries no frames
//!         1-2          octets of payload, modulo 1500
//!         3            TCP flags that differ from ACK
//!         4            how much is missing in the sequence numbers before it
//!         5            likewise, in the IPv4 identification
//!         6-7          an octet of the finished packet, and the bits of it that are damaged
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use wire::ethernet::{self, Frame};
use wire::flow::FiveTuple;
use wire::offload::{Accepts, Coalescer, LinkLayer, MAX_PACKETS_PER_GROUP};
use wire::tcp::{self, Flags};
use wire::virtio::{Gso, VirtioNetHdr};
use wire::{ipv4, ipv6, udp};

use crate::{naive, segment};

/// The most packets of one input.
pub const MAX_PACKETS: usize = 128;

/// Octets of input for each packet.
const RECIPE_LEN: usize = 8;
/// Octets between two packets in the arena.
const GAP: usize = 3;
/// The largest total length that IP can say.
const MAX_IP_LEN: usize = 65_535;

/// What is merged, cut again and completed is what came, octet for octet, in each flow's order; an
/// unchecked packet is refused only if it cannot be one.
pub fn check(data: &[u8]) {
    let Some((device, recipes)) = data.split_first() else { return };
    let link = if device & 1 == 0 { LinkLayer::Ip } else { LinkLayer::Ethernet };
    let accepts = Accepts { tso4: device & 2 != 0, tso6: device & 4 != 0, uso: device & 8 != 0 };
    let mut senders = Senders::default();
    let arrivals: Vec<_> = recipes
        .chunks_exact(RECIPE_LEN)
        .take(MAX_PACKETS)
        .map(|recipe| senders.build(link, &Recipe::read(recipe)))
        .collect();
    let delivered = pass(link, accepts, &arrivals);
    let expected: Vec<_> = arrivals.iter().filter_map(Arrival::completed).collect();
    assert_eq!(delivered.len(), expected.len(), "of {} packets", arrivals.len());
    assert_eq!(by_flow(link, &delivered), by_flow(link, &expected));
}

/// A packet as it comes out of the tunnel.
struct Arrival {
    is_unchecked: bool,
    packet: Vec<u8>,
}

impl Arrival {
    /// The packet with its checksum; nothing if it has no place for it.
    fn completed(&self) -> Option<Vec<u8>> {
        match self.is_unchecked {
            true => naive::completed(&self.packet),
            false => Some(self.packet.clone()),
        }
    }
}

/// Merges the packets, and cuts and completes what is delivered.
fn pass(link: LinkLayer, accepts: Accepts, arrivals: &[Arrival]) -> Vec<Vec<u8>> {
    let (mut arena, ranges) = lay_out(arrivals);
    let mut coalescer = Coalescer::new(link, accepts);
    for (arrival, range) in arrivals.iter().zip(ranges) {
        if arrival.is_unchecked {
            let is_taken = coalescer.push_unchecked(&arena, range).is_ok();
            assert_eq!(is_taken, arrival.completed().is_some());
        } else {
            coalescer.push(&arena, range);
        }
    }
    let mut delivered = Vec::new();
    coalescer.drain(&mut arena, |header, slices| {
        assert!((1..=MAX_PACKETS_PER_GROUP).contains(&slices.len()));
        let mut whole: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        if slices.len() == 1 {
            return delivered.push(one_completed(*header, whole));
        }
        assert!(takes(accepts, header.gso, ip_of(link, &whole)), "the device takes no {header:?}");
        assert!(ip_of(link, &whole).len() <= MAX_IP_LEN);
        let pieces = segment::pieces(link, *header, &mut whole).expect("what is merged can be cut");
        assert_eq!(pieces.len(), slices.len());
        delivered.extend(pieces);
    });
    coalescer.drain(&mut arena, |header, _| panic!("{header:?} is delivered twice"));
    delivered
}

/// One packet goes out as it is, or asks for the checksum in its transport header.
fn one_completed(header: VirtioNetHdr, packet: Vec<u8>) -> Vec<u8> {
    if header == VirtioNetHdr::default() {
        return packet;
    }
    let place = naive::ChecksumPlace::of(&packet).expect("only TCP and UDP lack a checksum");
    let (start, at) = (usize::from(header.csum_start), usize::from(header.csum_offset));
    assert_eq!((start, start + at), (place.covered_from, place.at));
    assert_eq!((header.flags, header.gso), (VirtioNetHdr::NEEDS_CSUM, Gso::None));
    naive::completed(&packet).expect("the place was found")
}

/// Puts the packets one after the other, with something else between them.
fn lay_out(arrivals: &[Arrival]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut arena = Vec::new();
    let mut ranges = Vec::new();
    for Arrival { packet, .. } in arrivals {
        let start = arena.len();
        arena.extend(packet);
        ranges.push(start..arena.len());
        arena.extend([0xa5; GAP]);
    }
    (arena, ranges)
}

fn takes(accepts: Accepts, gso: Gso, ip: &[u8]) -> bool {
    let is_v4 = ip.first().is_some_and(|first| first >> 4 == 4);
    match gso {
        Gso::None => false,
        Gso::TcpV4 => accepts.tso4 && is_v4,
        Gso::TcpV6 => accepts.tso6 && !is_v4,
        Gso::UdpL4 => accepts.uso,
    }
}

/// The packets of each flow in their order, without what a cut may choose; packets without a flow
/// are a flow.
fn by_flow(link: LinkLayer, packets: &[Vec<u8>]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for packet in packets {
        let flow = FiveTuple::of(ip_of(link, packet));
        let flow = flow.map_or_else(String::new, |flow| format!("{flow:?}"));
        let at = packet.len() - ip_of(link, packet).len();
        let packet = without_atomic_id(at, packet);
        flows.entry(flow).or_default().push(naive::with_one_zero(at, packet));
    }
    flows
}

/// Packets with DF may get any identification (RFC 6864, section 4.1), and with it another checksum.
fn without_atomic_id(ip_at: usize, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let is_atomic = ipv4::Packet::parse(&packet[ip_at..])
        .is_ok_and(|packet| packet.dont_fragment() && packet.checksum_is_valid());
    if is_atomic {
        for at in [ipv4::ID_AT, ipv4::ID_AT + 1, ipv4::CHECKSUM_AT, ipv4::CHECKSUM_AT + 1] {
            packet[ip_at + at] = 0;
        }
    }
    packet
}

/// The IP packet in what the device carries; empty if it carries something else.
fn ip_of(link: LinkLayer, packet: &[u8]) -> &[u8] {
    match (link, Frame::parse(packet)) {
        (LinkLayer::Ip, _) => packet,
        (LinkLayer::Ethernet, Ok(frame)) if is_ip(frame.ethertype()) => frame.payload(),
        (LinkLayer::Ethernet, _) => &[],
    }
}

fn is_ip(ethertype: u16) -> bool {
    matches!(ethertype, ethernet::IPV4 | ethernet::IPV6)
}

/// How one packet is made; see the top of this file.
struct Recipe {
    is_v4: bool,
    is_tcp: bool,
    flow: u8,
    may_fragment: bool,
    has_options: bool,
    has_tag: bool,
    is_unchecked: bool,
    payload_len: usize,
    flags: Flags,
    missing_octets: u8,
    missing_ids: u8,
    damage_at: usize,
    damage: u8,
}

impl Recipe {
    fn read(octets: &[u8]) -> Self {
        let bit = |number: u8| octets[0] >> number & 1 != 0;
        Self {
            is_v4: !bit(0),
            is_tcp: !bit(1),
            flow: octets[0] >> 2 & 3,
            may_fragment: bit(4),
            has_options: bit(5),
            has_tag: bit(6),
            is_unchecked: bit(7),
            payload_len: usize::from(u16::from_be_bytes([octets[1], octets[2]])) % 1500,
            flags: Flags(Flags::ACK.0 ^ octets[3]),
            missing_octets: octets[4],
            missing_ids: octets[5],
            damage_at: octets[6].into(),
            damage: octets[7],
        }
    }
}

/// Who sends the packets: what each of four senders sends next, in all its protocols.
#[derive(Default)]
struct Senders {
    sequences: [u32; 4],
    ids: [u16; 4],
    payload: u8,
}

impl Senders {
    fn build(&mut self, link: LinkLayer, recipe: &Recipe) -> Arrival {
        let is_unchecked = recipe.is_unchecked && link == LinkLayer::Ip;
        let transport = self.transport(recipe);
        let mut packet = match link {
            LinkLayer::Ip => Vec::new(),
            LinkLayer::Ethernet => ethernet_header(recipe),
        };
        packet.extend(self.network(recipe, is_unchecked, &transport));
        if let Some(octet) = packet.get_mut(recipe.damage_at) {
            *octet ^= recipe.damage;
        }
        Arrival { is_unchecked, packet }
    }

    /// The IP packet, with its checksums or what an unchecked packet has there.
    fn network(&mut self, recipe: &Recipe, is_unchecked: bool, transport: &[u8]) -> Vec<u8> {
        let protocol = if recipe.is_tcp { tcp::PROTOCOL } else { udp::PROTOCOL };
        let mut packet = if recipe.is_v4 {
            let id = &mut self.ids[usize::from(recipe.flow)];
            *id = id.wrapping_add(recipe.missing_ids.into());
            let header = ipv4_header(recipe, protocol, *id, transport.len());
            *id = id.wrapping_add(1);
            header
        } else {
            ipv6_header(protocol, transport.len())
        };
        let pseudo = naive::pseudo_header_sum(&packet, protocol, transport.len());
        let pseudo = pseudo.expect("the header has addresses and the length has 16 bits");
        let at = packet.len() + if recipe.is_tcp { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT };
        let checksum = match !naive::add(naive::sum(transport), pseudo) {
            _ if is_unchecked => pseudo,
            0 if !recipe.is_tcp => 0xffff,
            checksum => checksum,
        };
        packet.extend(transport);
        packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// Transport header, without checksum, and payload.
    fn transport(&mut self, recipe: &Recipe) -> Vec<u8> {
        let mut octets = vec![0x9c, 0x40 | recipe.flow, 0x1f, 0x90];
        if recipe.is_tcp {
            let sequence = &mut self.sequences[usize::from(recipe.flow)];
            *sequence = sequence.wrapping_add(recipe.missing_octets.into());
            octets.extend(sequence.to_be_bytes());
            *sequence = sequence.wrapping_add(u32::try_from(recipe.payload_len).unwrap_or(0));
            let words = if recipe.has_options { 8 } else { 5 };
            octets.extend([0, 0, 0, 7, words << 4, recipe.flags.0, 0x01, 0xf5, 0, 0, 0, 0]);
            if recipe.has_options {
                octets.extend([1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]);
            }
        } else {
            let len = u16::try_from(udp::HEADER_LEN + recipe.payload_len).unwrap_or(0);
            octets.extend(len.to_be_bytes());
            octets.extend([0, 0]);
        }
        for _ in 0..recipe.payload_len {
            self.payload = self.payload.wrapping_add(1);
            octets.push(self.payload);
        }
        octets
    }
}

fn ethernet_header(recipe: &Recipe) -> Vec<u8> {
    let mut octets = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
    if recipe.has_tag {
        octets.extend([0x81, 0x00, 0x00, 0x2a]);
    }
    let ethertype = if recipe.is_v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    octets.extend(ethertype.to_be_bytes());
    octets
}

fn ipv4_header(recipe: &Recipe, protocol: u8, id: u16, payload_len: usize) -> Vec<u8> {
    let mut octets = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    octets.extend([10, 9, 0, 1, 10, 1, 0, 3]);
    let total_len = u16::try_from(ipv4::HEADER_LEN + payload_len).unwrap_or(0);
    octets[2..4].copy_from_slice(&total_len.to_be_bytes());
    octets[4..6].copy_from_slice(&id.to_be_bytes());
    octets[6] = if recipe.may_fragment { 0 } else { 0x40 };
    let checksum = !naive::sum(&octets);
    octets[10..12].copy_from_slice(&checksum.to_be_bytes());
    octets
}

fn ipv6_header(protocol: u8, payload_len: usize) -> Vec<u8> {
    let mut octets = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
    let payload_len = u16::try_from(payload_len).unwrap_or(0);
    octets[4..6].copy_from_slice(&payload_len.to_be_bytes());
    for last in [1, 2] {
        octets.extend([0xfd, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    debug_assert_eq!(octets.len(), ipv6::HEADER_LEN);
    octets
}
