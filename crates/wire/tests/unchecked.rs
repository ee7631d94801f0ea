//! TCP and UDP cross the tunnel without a checksum and come out as if they had had one.

#![expect(clippy::unwrap_used, reason = "what fails here is a fault of the test")]

mod packets;

use std::ops::Range;

use packets::{ACK, PSH, Shape, TCP, UDP, any_shape, payload, sum};
use proptest::prelude::*;
use wire::frame::{self, UNCHECKED};
use wire::offload::{
    Accepts, Coalescer, LinkLayer, MAX_DATAGRAMS_PER_GROUP, MAX_SEGMENTS, NotOffloadable, Segments,
    segment, segment_unchecked,
};
use wire::virtio::{Gso, VirtioNetHdr};

const ALL: Accepts = Accepts { tso4: true, tso6: true, uso: true };

/// One delivery of a coalescer.
type Delivered = (VirtioNetHdr, Vec<u8>);

/// A packet that arrived: unchecked with its flag cleared, or complete.
#[derive(Clone, Debug)]
struct Arrival {
    is_unchecked: bool,
    octets: Vec<u8>,
}

fn unchecked(octets: Vec<u8>) -> Arrival {
    Arrival { is_unchecked: true, octets }
}

fn complete(octets: Vec<u8>) -> Arrival {
    Arrival { is_unchecked: false, octets }
}

/// A packet as its sender's kernel hands it out, without checksum.
fn undone(shape: &Shape, payload: &[u8]) -> (VirtioNetHdr, Vec<u8>) {
    let (header, octets) = shape.super_packet(payload, 0);
    (VirtioNetHdr { gso: Gso::None, hdr_len: 0, ..header }, octets)
}

fn cut_unchecked(header: VirtioNetHdr, octets: &[u8]) -> Vec<Vec<u8>> {
    take(segment_unchecked(header, &mut octets.to_vec()).unwrap())
}

fn cut_complete(header: VirtioNetHdr, octets: &[u8]) -> Vec<Vec<u8>> {
    take(segment(LinkLayer::Ip, header, &mut octets.to_vec()).unwrap())
}

fn take(mut segments: Segments<'_>) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    while let Some(segment) = segments.next() {
        taken.push(segment.to_vec());
        // Whoever seals a segment in place leaves anything behind.
        segment.fill(0xee);
    }
    assert_eq!(taken.len(), segments.count());
    taken
}

/// Merges packets for a device that takes `accepts`; of what is refused, only the count is kept.
fn coalesce_for(accepts: Accepts, arrivals: &[Arrival]) -> (Vec<Delivered>, usize) {
    let mut coalescer = Coalescer::new(LinkLayer::Ip, accepts);
    let mut arena = vec![0xcc; 5];
    let mut ranges = Vec::new();
    for Arrival { octets, .. } in arrivals {
        ranges.push(arena.len()..arena.len() + octets.len());
        arena.extend(octets);
        arena.extend([0xcc; 3]);
    }
    let mut refused = 0;
    for (arrival, range) in arrivals.iter().zip(ranges) {
        if !arrival.is_unchecked {
            coalescer.push(&arena, range);
        } else if coalescer.push_unchecked(&arena, range).is_err() {
            refused += 1;
        }
    }
    let mut delivered = Vec::new();
    coalescer.drain(&mut arena, |header, slices| {
        delivered.push((*header, slices.iter().flat_map(|slice| slice.to_vec()).collect()));
    });
    (delivered, refused)
}

fn coalesce(arrivals: &[Arrival]) -> Vec<Delivered> {
    let (delivered, refused) = coalesce_for(ALL, arrivals);
    assert_eq!(refused, 0);
    delivered
}

/// Takes the flag off an unchecked packet.
fn arrive(mut octets: Vec<u8>) -> Arrival {
    let is_unchecked = frame::kind(&octets) == frame::Kind::Unchecked;
    octets[0] &= !UNCHECKED;
    Arrival { is_unchecked, octets }
}

fn is_udp(octets: &[u8]) -> bool {
    octets[if octets[0] >> 4 == 4 { 9 } else { 6 }] == 17
}

/// Where the transport header of a packet without extension headers stands.
fn transport_at(octets: &[u8]) -> usize {
    if octets[0] >> 4 == 4 { usize::from(octets[0] & 0x0f) * 4 } else { 40 }
}

fn checksum_at(octets: &[u8]) -> Range<usize> {
    let at = transport_at(octets) + if is_udp(octets) { 6 } else { 16 };
    at..at + 2
}

/// Completes an unchecked packet word by word.
fn completed(mut arrival: Arrival) -> Vec<u8> {
    if arrival.is_unchecked {
        let octets = &mut arrival.octets;
        let checksum = match !sum(&[&octets[transport_at(octets)..]]) {
            0 if is_udp(octets) => 0xffff,
            checksum => checksum,
        };
        let place = checksum_at(octets);
        octets[place].copy_from_slice(&checksum.to_be_bytes());
    }
    arrival.octets
}

/// The same packet with the one form of a TCP checksum of zero that kernels differ in.
fn normalized(mut octets: Vec<u8>) -> Vec<u8> {
    let place = checksum_at(&octets);
    if octets[place.clone()] == [0, 0] {
        octets[place].fill(0xff);
    }
    octets
}

#[test]
fn a_literal_udp_super_packet_becomes_two_unchecked_datagrams() {
    let octets = [
        0x45, 0, 0, 33, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, // IPv4 without a checksum
        10, 9, 0, 1, 10, 1, 0, 3, //
        0x9c, 0x40, 0x1f, 0x90, 0, 13, 0x14, 0x2c, // UDP with the pseudo-header's sum
        1, 2, 3, 4, 5,
    ];
    let header = VirtioNetHdr {
        flags: VirtioNetHdr::NEEDS_CSUM,
        gso: Gso::UdpL4,
        gso_size: 3,
        csum_start: 20,
        csum_offset: 6,
        ..VirtioNetHdr::default()
    };
    let first = [
        0xc5, 0, 0, 31, 0x12, 0x34, 0x40, 0, 64, 17, 0x14, 0x8d, 10, 9, 0, 1, 10, 1, 0, 3, 0x9c,
        0x40, 0x1f, 0x90, 0, 11, 0x14, 0x2a, 1, 2, 3,
    ];
    let second = [
        0xc5, 0, 0, 30, 0x12, 0x35, 0x40, 0, 64, 17, 0x14, 0x8d, 10, 9, 0, 1, 10, 1, 0, 3, 0x9c,
        0x40, 0x1f, 0x90, 0, 10, 0x14, 0x29, 4, 5,
    ];
    assert_eq!(cut_unchecked(header, &octets), [first.to_vec(), second.to_vec()]);
}

#[test]
fn a_single_packet_changes_in_its_first_octet_only() {
    for shape in [TCP, UDP, Shape { is_v6: true, ..UDP }, Shape { has_extension: true, ..TCP }] {
        for len in [0, 41] {
            let (header, octets) = undone(&shape, &payload(len));
            let mut expected = octets.clone();
            expected[0] |= UNCHECKED;
            assert_eq!(cut_unchecked(header, &octets), [expected]);
        }
    }
}

#[test]
fn what_cannot_be_unchecked_is_completed() {
    type Change = (&'static str, Shape, fn(&mut VirtioNetHdr, &mut Vec<u8>));
    let changes: [Change; 8] = [
        ("extension header", Shape { is_v6: true, has_extension: true, ..TCP }, |_, _| ()),
        ("fragment", UDP, |_, octets| octets[6] = 0x20),
        ("later fragment", UDP, |_, octets| octets[7] = 1),
        ("another protocol", UDP, |_, octets| octets[9] = 136),
        ("octets behind the packet", TCP, |_, octets| octets.push(0)),
        ("another length in UDP", UDP, |_, octets| octets[25] -= 1),
        ("another start", TCP, |header, _| header.csum_start -= 4),
        ("another place", UDP, |header, _| header.csum_offset -= 2),
    ];
    for (what, shape, change) in changes {
        let (mut header, mut octets) = undone(&shape, &payload(40));
        change(&mut header, &mut octets);
        let expected = cut_complete(header, &octets);
        assert_ne!(expected, [octets.clone()], "{what}");
        assert_eq!(cut_unchecked(header, &octets), expected, "{what}");
    }
    let extended = Shape { is_v6: true, has_extension: true, ..TCP };
    let (header, octets) = extended.super_packet(&payload(300), 100);
    assert_eq!(cut_unchecked(header, &octets), extended.packets(&payload(300), 100));
}

#[test]
fn a_complete_packet_is_handed_out_as_it_is() {
    let octets = TCP.packet(&payload(40));
    assert_eq!(cut_unchecked(VirtioNetHdr::default(), &octets), [octets]);
}

#[test]
fn what_is_not_ip_or_would_not_stay_so_is_refused() {
    let error = |header, octets: &[u8]| {
        let mut cut = octets.to_vec();
        let error = segment_unchecked(header, &mut cut).unwrap_err();
        assert_eq!(cut, octets);
        error.to_string()
    };
    let said = "packet that starts with 0x01, which is no IP version's";
    assert_eq!(error(VirtioNetHdr::default(), &[1; 40]), said);
    assert_eq!(
        error(VirtioNetHdr::default(), &[]),
        "packet that starts with 0x00, which is no IP version's"
    );
    let first_octet = VirtioNetHdr { flags: VirtioNetHdr::NEEDS_CSUM, ..VirtioNetHdr::default() };
    assert_eq!(
        error(first_octet, &[0x45; 40]),
        "checksum of octets from 0, stored 0 octets later, in 40 octets"
    );
}

#[test]
fn one_packet_leaves_with_the_place_of_its_checksum() {
    let v6 = Shape { is_v6: true, ..UDP };
    for (shape, csum_start, csum_offset) in
        [(TCP, 20, 16), (UDP, 20, 6), (v6, 40, 6), (Shape { has_extension: true, ..TCP }, 24, 16)]
    {
        for accepts in [ALL, Accepts::default()] {
            for len in [0, 100] {
                let (_, octets) = undone(&shape, &payload(len));
                let flags = VirtioNetHdr::NEEDS_CSUM;
                let header =
                    VirtioNetHdr { flags, csum_start, csum_offset, ..VirtioNetHdr::default() };
                let (delivered, _) = coalesce_for(accepts, &[unchecked(octets.clone())]);
                assert_eq!(delivered, [(header, octets)]);
            }
        }
    }
}

#[test]
fn the_payload_is_not_looked_at() {
    let shape = Shape { flags: ACK | PSH, ..TCP };
    let (header, octets) = shape.super_packet(&payload(3 * 1400), 1400);
    let mut segments = cut_unchecked(header, &octets);
    for segment in &mut segments {
        segment[100] ^= 0x55;
    }
    let mut expected = octets;
    for at in [100, 1500, 2900] {
        expected[at] ^= 0x55;
    }
    let arrivals: Vec<_> = segments.into_iter().map(arrive).collect();
    assert_eq!(coalesce(&arrivals), [(header, expected)]);
}

#[test]
fn a_damaged_header_leaves_alone_as_it_came() {
    let shape = UDP;
    let whole: Vec<_> = (0..3)
        .map(|number| undone(&Shape { id: number, ..shape.clone() }, &payload(100)).1)
        .collect();
    assert_eq!(coalesce(&whole.iter().cloned().map(unchecked).collect::<Vec<_>>()).len(), 1);
    for (what, at) in [("IPv4 checksum", 10), ("sum of the pseudo-header", 27)] {
        for damaged in 0..3 {
            let mut packets = whole.clone();
            packets[damaged][at] ^= 1;
            let delivered = coalesce(&packets.iter().cloned().map(unchecked).collect::<Vec<_>>());
            let (header, _) = undone(&shape, &payload(100));
            let place = (header, packets[damaged].clone());
            assert!(delivered.contains(&place), "{what} of packet {damaged}");
        }
    }
}

#[test]
fn what_cannot_be_unchecked_is_refused_and_leaves_no_trace() {
    let refuse = |octets: &[u8]| {
        let arrival = unchecked(octets.to_vec());
        assert_eq!(coalesce_for(ALL, &[arrival]), (Vec::new(), 1), "{octets:x?}");
    };
    let changed = |shape: &Shape, change: fn(&mut Vec<u8>)| {
        let (_, mut octets) = undone(shape, &payload(40));
        change(&mut octets);
        refuse(&octets);
    };
    refuse(&[]);
    refuse(&[0x45; 12]);
    changed(&TCP, |octets| octets[0] |= UNCHECKED);
    changed(&TCP, |octets| octets.push(0));
    changed(&TCP, |octets| octets.truncate(50));
    changed(&TCP, |octets| octets[32] = 0x40);
    changed(&TCP, |octets| octets[0] = 0x44);
    changed(&TCP, |octets| octets[9] = 1);
    changed(&UDP, |octets| octets[25] += 1);
    changed(&UDP, |octets| octets[6] = 0x20);
    changed(&UDP, |octets| octets[7] = 1);
    changed(&Shape { is_v6: true, has_extension: true, ..UDP }, |_| ());
    // 60 octets of header in 52.
    let (_, mut octets) = undone(&TCP, &payload(20));
    octets[32] = 0xf0;
    refuse(&octets);
}

#[test]
fn a_range_beyond_the_arena_and_a_device_of_frames_are_refused() {
    let (_, octets) = undone(&UDP, &payload(40));
    let mut coalescer = Coalescer::new(LinkLayer::Ip, ALL);
    assert_eq!(coalescer.push_unchecked(&octets, 1..octets.len() + 1), Err(NotOffloadable));
    assert_eq!(coalescer.push_unchecked(&octets, 0..octets.len()), Ok(()));
    let mut coalescer = Coalescer::new(LinkLayer::Ethernet, ALL);
    assert_eq!(coalescer.push_unchecked(&octets, 0..octets.len()), Err(NotOffloadable));
    let frame = Shape { tags: Some(0), ..UDP }.packet(&payload(40));
    assert_eq!(coalescer.push_unchecked(&frame, 0..frame.len()), Err(NotOffloadable));
}

#[test]
fn complete_and_unchecked_packets_do_not_merge() {
    let shapes: Vec<_> = (0..6).map(|id| Shape { id, ..UDP }).collect();
    let arrivals: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(index, shape)| match index {
            2 | 3 => complete(shape.packet(&payload(100))),
            _ => unchecked(undone(shape, &payload(100)).1),
        })
        .collect();
    let delivered = coalesce(&arrivals);
    let ids: Vec<u8> = delivered.iter().map(|(_, octets)| octets[5]).collect();
    assert_eq!(ids, [0, 2, 4]);
    assert!(delivered.iter().all(|(header, _)| header.gso == Gso::UdpL4));
}

proptest! {
    #[test]
    fn completed_unchecked_segments_are_those_of_a_plain_cut(
        shape in any_shape(),
        has_extension: bool,
        payload_len in prop_oneof![1usize..3000, 60_000usize..65_300],
        gso_size in 1u16..2000,
        is_single: bool,
    ) {
        let shape = Shape { tags: None, has_extension, ..shape };
        let payload = payload(payload_len);
        let gso_size = gso_size.clamp(
            u16::try_from(payload_len.div_ceil(MAX_SEGMENTS)).unwrap(),
            u16::try_from(payload_len).unwrap(),
        );
        let (header, octets) = match is_single {
            true => undone(&shape, &payload),
            false => shape.super_packet(&payload, gso_size),
        };
        let segments = cut_unchecked(header, &octets);
        let plain = cut_complete(header, &octets);
        let can_be_unchecked = !(shape.is_v6 && has_extension);
        for segment in &segments {
            let is_unchecked = frame::kind(segment) == frame::Kind::Unchecked;
            prop_assert_eq!(is_unchecked, can_be_unchecked);
            prop_assert_eq!(frame::ip_len(segment), Some(segment.len()));
        }
        if can_be_unchecked {
            let completed: Vec<_> = segments.into_iter().map(arrive).map(completed)
                .map(normalized).collect();
            prop_assert_eq!(completed, plain.into_iter().map(normalized).collect::<Vec<_>>());
        } else {
            prop_assert_eq!(segments, plain);
        }
    }

    #[test]
    fn whatever_a_device_hands_out_no_segment_is_another_frame_than_a_packet(
        shape in any_shape(),
        gso in prop::sample::select(vec![Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::UdpL4]),
        fields: Option<[u16; 4]>,
        places: Option<(u16, u16)>,
        damage in prop::collection::vec((0usize..60, any::<u8>()), 0..4),
        len in 0usize..200,
    ) {
        let shape = Shape { tags: None, ..shape };
        let (mut header, mut octets) = shape.super_packet(&payload(80), 30);
        let flags = VirtioNetHdr::NEEDS_CSUM;
        if let Some([hdr_len, gso_size, csum_start, csum_offset]) = fields {
            header = VirtioNetHdr { flags, gso, hdr_len, gso_size, csum_start, csum_offset, ecn: true };
        }
        if let Some((start, offset)) = places {
            (header.gso, header.csum_start, header.csum_offset) = (Gso::None, start % 60, offset % 20);
        }
        for (at, octet) in damage {
            octets[at % 40] = octet;
        }
        octets.truncate(if len < 100 { len } else { usize::MAX });
        if let Ok(segments) = segment_unchecked(header, &mut octets) {
            for segment in take(segments) {
                let kind = frame::kind(&segment);
                prop_assert!(matches!(kind, frame::Kind::Packet | frame::Kind::Unchecked));
            }
        }
    }

    #[test]
    fn coalescing_undoes_unchecked_segmentation(
        shape in any_shape(),
        has_extension: bool,
        payload_len in prop_oneof![1usize..3000, 60_000usize..65_300],
        gso_size in 64u16..2000,
    ) {
        let has_extension = has_extension && !shape.is_v6;
        let shape = Shape { tags: None, has_extension, ..shape };
        let gso_size = gso_size.min(u16::try_from(payload_len).unwrap());
        let payload = payload(payload_len);
        let (header, octets) = shape.super_packet(&payload, gso_size);
        let arrivals: Vec<_> = cut_unchecked(header, &octets).into_iter().map(arrive).collect();
        let delivered = coalesce(&arrivals);
        let again: Vec<_> = delivered.iter()
            .flat_map(|(header, octets)| cut_complete(*header, octets))
            .map(normalized)
            .collect();
        let expected: Vec<_> = shape.packets(&payload, gso_size).into_iter().map(normalized).collect();
        prop_assert_eq!(again, expected);
        let fits = octets.len() <= 65_535
            && (!shape.is_udp || arrivals.len() <= MAX_DATAGRAMS_PER_GROUP);
        if arrivals.len() > 1 && fits && !has_extension {
            prop_assert_eq!(delivered, [(header, octets)]);
        }
    }

    #[test]
    fn complete_and_unchecked_packets_keep_their_order(
        flows in prop::collection::vec(any_shape(), 1..4),
        steps in prop::collection::vec((0usize..4, any::<bool>(), 0usize..3, 0u8..12), 1..60),
    ) {
        let mut flows: Vec<_> = flows.into_iter().enumerate().map(|(number, shape)| Shape {
            tags: None,
            flags: ACK,
            dont_fragment: false,
            source_port: u16::try_from(number).unwrap() + 1000,
            ..shape
        }).collect();
        let count = flows.len();
        let arrivals: Vec<_> = steps.into_iter().map(|(flow, is_unchecked, size, disturbance)| {
            one_packet(&mut flows[flow % count], is_unchecked, size, disturbance)
        }).collect();
        let mut again = Vec::new();
        for (header, octets) in coalesce(&arrivals) {
            if header.gso != Gso::None {
                let payload = &octets[header.hdr_len.into()..];
                prop_assert!(payload.iter().all(|octet| *octet == payload[0]), "a merge of both");
            }
            again.extend(cut_complete(header, &octets).into_iter().map(normalized));
        }
        let expected: Vec<_> =
            arrivals.into_iter().map(completed).map(normalized).collect();
        prop_assert_eq!(again.len(), expected.len());
        for shape in flows {
            let of_flow = |octets: &&Vec<u8>| {
                let at = transport_at(octets);
                octets[at..at + 2] == shape.source_port.to_be_bytes()
            };
            let arrived: Vec<_> = again.iter().filter(of_flow).collect();
            prop_assert_eq!(arrived, expected.iter().filter(of_flow).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_forged_packet_yields_a_checksum_outside_its_transport_header(
        shape in any_shape(),
        has_extension: bool,
        damage in prop::collection::vec((0usize..5, 0usize..80, any::<u8>()), 0..6),
        cuts in prop::collection::vec((0usize..5, 0usize..80), 0..2),
        random in prop::collection::vec(any::<Vec<u8>>(), 0..4),
    ) {
        let shape = Shape { tags: None, has_extension, ..shape };
        let (header, octets) = shape.super_packet(&payload(450), 100);
        let mut packets: Vec<_> = cut_unchecked(header, &octets).into_iter()
            .map(|octets| arrive(octets).octets).collect();
        for (packet, at, octet) in damage {
            if let Some(place) = packets[packet].get_mut(at) {
                *place = octet;
            }
        }
        for (packet, len) in cuts {
            packets[packet].truncate(len);
        }
        packets.extend(random);
        let count = packets.len();
        let arrivals: Vec<_> = packets.into_iter().map(unchecked).collect();
        let (delivered, refused) = coalesce_for(ALL, &arrivals);
        let mut taken = 0;
        for (header, octets) in delivered {
            let start = usize::from(header.csum_start);
            prop_assert!(header.needs_checksum());
            prop_assert_eq!(start, transport_at(&octets));
            prop_assert!(start + usize::from(header.csum_offset) + 2 <= octets.len());
            prop_assert!(matches!(header.csum_offset, 6 | 16));
            taken += cut_complete(header, &octets).len();
        }
        prop_assert_eq!(taken + refused, count);
    }
}

/// The next packet of a flow, whose payload says whether it is unchecked.
fn one_packet(shape: &mut Shape, is_unchecked: bool, size: usize, disturbance: u8) -> Arrival {
    let len = [100, 60, 0][size];
    match disturbance {
        0 => shape.sequence = shape.sequence.wrapping_add(1),
        1 => shape.id = shape.id.wrapping_add(1),
        2 => shape.window = shape.window.wrapping_add(1),
        _ => {}
    }
    let flags = if disturbance == 3 { ACK | PSH } else { ACK };
    let packet = Shape { flags, ..shape.clone() };
    shape.sequence = shape.sequence.wrapping_add(u32::try_from(len).unwrap());
    shape.id = shape.id.wrapping_add(1);
    if !is_unchecked {
        return complete(packet.packet(&vec![0x55; len]));
    }
    let (_, mut octets) = undone(&packet, &vec![0xaa; len]);
    if disturbance == 4 {
        let at = checksum_at(&octets).start;
        octets[at] ^= 0x10;
    }
    unchecked(octets)
}
