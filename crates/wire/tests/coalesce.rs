//! Packets of one flow leave as one super-packet, and nothing is lost, changed or reordered.

#![expect(clippy::unwrap_used, reason = "what fails here is a fault of the test")]

mod packets;

use std::io::IoSlice;
use std::ops::Range;

use packets::{ACK, CWR, FIN, PSH, Shape, TCP, UDP, any_shape, payload};
use proptest::prelude::*;
use wire::offload::{
    Accepts, Coalescer, LinkLayer, MAX_DATAGRAMS_PER_GROUP, MAX_OPEN_GROUPS, MAX_PACKETS_PER_GROUP,
    segment,
};
use wire::virtio::VirtioNetHdr;

/// What a second packet has that the first has not.
type Change = (&'static str, fn(&mut Shape));

const ALL: Accepts = Accepts { tso4: true, tso6: true, uso: true };

/// Lays packets into an arena with gaps between them.
fn arena(packets: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut arena = vec![0xcc; 5];
    let mut ranges = Vec::new();
    for packet in packets {
        ranges.push(arena.len()..arena.len() + packet.len());
        arena.extend(packet);
        arena.extend([0xcc; 3]);
    }
    (arena, ranges)
}

fn coalesce_with(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    let (mut arena, ranges) = arena(packets);
    for range in ranges {
        coalescer.push(&arena, range);
    }
    let mut delivered = Vec::new();
    coalescer.drain(&mut arena, |header: &VirtioNetHdr, slices: &[IoSlice<'_>]| {
        assert!(slices.len() <= MAX_PACKETS_PER_GROUP);
        delivered.push((*header, slices.iter().flat_map(|slice| slice.to_vec()).collect()));
    });
    delivered
}

fn coalesce(link: LinkLayer, packets: &[Vec<u8>]) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    coalesce_with(&mut Coalescer::new(link, ALL), packets)
}

/// What passes when nothing may be merged.
fn singly(packets: &[Vec<u8>]) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    packets.iter().map(|packet| (VirtioNetHdr::default(), packet.clone())).collect()
}

/// The packet that follows a packet of `len` octets of payload.
fn next(shape: &Shape, len: u32) -> Shape {
    let id = shape.id.wrapping_add(1);
    Shape { id, sequence: shape.sequence.wrapping_add(len), ..shape.clone() }
}

#[test]
fn a_train_of_44_packets_leaves_as_one() {
    let shape = Shape { flags: ACK | PSH, ..TCP };
    let payload = payload(44 * 1448);
    let delivered = coalesce(LinkLayer::Ip, &shape.packets(&payload, 1448));
    assert_eq!(delivered, [shape.super_packet(&payload, 1448)]);
}

#[test]
fn a_device_without_offload_gets_everything_singly() {
    let packets = TCP.packets(&payload(3000), 1000);
    let mut coalescer = Coalescer::new(LinkLayer::Ip, Accepts::default());
    assert_eq!(coalesce_with(&mut coalescer, &packets), singly(&packets));
}

#[test]
fn each_kind_is_merged_only_if_the_device_takes_it() {
    let tcp6 = Shape { is_v6: true, ..TCP };
    let udp6 = Shape { is_v6: true, ..UDP };
    for (shape, accepts) in [
        (&TCP, Accepts { tso4: false, ..ALL }),
        (&tcp6, Accepts { tso6: false, ..ALL }),
        (&UDP, Accepts { uso: false, ..ALL }),
        (&udp6, Accepts { uso: false, ..ALL }),
    ] {
        let packets = shape.packets(&payload(300), 100);
        let mut coalescer = Coalescer::new(LinkLayer::Ip, accepts);
        assert_eq!(coalesce_with(&mut coalescer, &packets), singly(&packets));
        assert_eq!(coalesce(LinkLayer::Ip, &packets).len(), 1);
    }
}

#[test]
fn tcp_that_a_cut_would_not_restore_is_not_merged() {
    let data = payload(100);
    let changes: [Change; 17] = [
        ("acknowledgment", |shape| shape.acknowledgment += 1),
        ("window", |shape| shape.window += 1),
        ("options", |shape| shape.option_words = 2),
        ("gap in the sequence", |shape| shape.sequence += 1),
        ("repeated sequence", |shape| shape.sequence -= 100),
        ("gap in the identification", |shape| shape.id = shape.id.wrapping_add(1)),
        ("congestion experienced", |shape| shape.traffic_class = 0x03),
        ("DSCP", |shape| shape.traffic_class = 0xb8),
        ("TTL", |shape| shape.ttl -= 1),
        ("DF", |shape| shape.dont_fragment = true),
        ("SYN", |shape| shape.flags |= 0x02),
        ("RST", |shape| shape.flags |= 0x04),
        ("URG", |shape| shape.flags |= 0x20),
        ("ECE", |shape| shape.flags |= 0x40),
        ("urgent pointer", |shape| shape.urgent_pointer = 1),
        ("CWR", |shape| shape.flags |= CWR),
        ("IP options", |shape| shape.has_extension = true),
    ];
    for (what, change) in changes {
        let mut second = next(&TCP, 100);
        change(&mut second);
        let packets = [TCP.packet(&data), second.packet(&data)];
        assert_eq!(coalesce(LinkLayer::Ip, &packets), singly(&packets), "{what}");
    }
    let packets = [TCP.packet(&data), next(&TCP, 100).packet(&data)];
    assert_eq!(coalesce(LinkLayer::Ip, &packets).len(), 1);
}

#[test]
fn ipv6_and_frames_that_differ_are_not_merged() {
    let data = payload(100);
    let shape = Shape { is_v6: true, tags: Some(1), ..TCP };
    let changes: [Change; 4] = [
        ("flow label", |shape| shape.flow_label = 7),
        ("hop limit", |shape| shape.ttl = 63),
        ("VLAN", |shape| shape.tags = Some(2)),
        ("extension header", |shape| shape.has_extension = true),
    ];
    for (what, change) in changes {
        let mut second = next(&shape, 100);
        change(&mut second);
        let packets = [shape.packet(&data), second.packet(&data)];
        assert_eq!(coalesce(LinkLayer::Ethernet, &packets), singly(&packets), "{what}");
    }
    let mut packets = [shape.packet(&data), next(&shape, 100).packet(&data)];
    assert_eq!(coalesce(LinkLayer::Ethernet, &packets).len(), 1);
    packets[1][0] ^= 4;
    assert_eq!(coalesce(LinkLayer::Ethernet, &packets), singly(&packets), "MAC address");
}

#[test]
fn identifications_do_not_matter_with_dont_fragment() {
    let shape = Shape { dont_fragment: true, id: 0, ..TCP };
    let second = Shape { id: 0, ..next(&shape, 100) };
    let packets = [shape.packet(&payload(100)), second.packet(&payload(100))];
    assert_eq!(coalesce(LinkLayer::Ip, &packets).len(), 1);
}

#[test]
fn psh_fin_and_a_short_packet_close_a_group() {
    for (flags, len) in [(ACK | PSH, 100), (ACK | FIN, 100), (ACK, 99)] {
        let second = Shape { flags, ..next(&TCP, 100) };
        let third = Shape { flags: ACK, ..next(&second, len) };
        let packets = [
            TCP.packet(&payload(100)),
            second.packet(&payload(len as usize)),
            third.packet(&payload(100)),
        ];
        let delivered = coalesce(LinkLayer::Ip, &packets);
        assert_eq!(delivered.len(), 2, "{flags:#x}, {len}");
        assert_eq!(delivered[0].1[33], flags);
        assert_eq!(delivered[1..], singly(&packets[2..]));
    }
}

#[test]
fn a_longer_packet_starts_a_group_of_its_own() {
    let second = next(&UDP, 0);
    let packets = [UDP.packet(&payload(100)), second.packet(&payload(101))];
    assert_eq!(coalesce(LinkLayer::Ip, &packets), singly(&packets));
}

#[test]
fn a_pure_acknowledgment_closes_its_flow_and_keeps_its_place() {
    let second = next(&TCP, 100);
    let packets =
        [TCP.packet(&payload(100)), second.packet(&[]), next(&TCP, 100).packet(&payload(100))];
    assert_eq!(coalesce(LinkLayer::Ip, &packets), singly(&packets));
}

#[test]
fn a_fragment_closes_every_group_because_its_flow_is_unknown() {
    let mut fragment = UDP.packet(&payload(100));
    fragment[7] = 9;
    let mut packets = UDP.packets(&payload(200), 100);
    packets.insert(1, fragment);
    assert_eq!(coalesce(LinkLayer::Ip, &packets), singly(&packets));
}

#[test]
fn a_damaged_packet_leaves_alone_as_it_came() {
    for shape in [TCP, UDP, Shape { is_v6: true, ..TCP }, Shape { is_v6: true, ..UDP }] {
        let whole = shape.packets(&payload(500), 100);
        for damaged in 0..5 {
            let mut packets = whole.clone();
            *packets[damaged].last_mut().unwrap() ^= 1;
            let delivered = coalesce(LinkLayer::Ip, &packets);
            let place = (VirtioNetHdr::default(), packets[damaged].clone());
            assert!(delivered.contains(&place), "packet {damaged} of {shape:?}");
        }
    }
}

#[test]
fn a_damaged_ipv4_header_is_not_merged() {
    let mut packets = UDP.packets(&payload(200), 100);
    packets[1][10] ^= 1;
    assert_eq!(coalesce(LinkLayer::Ip, &packets), singly(&packets));
}

#[test]
fn reserved_bits_of_tcp_are_not_merged_even_if_all_packets_have_them() {
    let shape = Shape { reserved: 1, ..TCP };
    let packets = shape.packets(&payload(200), 100);
    assert_eq!(coalesce(LinkLayer::Ip, &packets), singly(&packets));
}

#[test]
fn udp_without_a_checksum_is_not_merged_even_if_zero_would_be_right() {
    let mut data = payload(200);
    data[198..].fill(0);
    let checksum = UDP.packets(&data, 100)[1][26..28].to_vec();
    data[198..].copy_from_slice(&checksum);
    let mut packets = UDP.packets(&data, 100);
    assert_eq!(packets[1][26..28], [0xff, 0xff]);
    packets[1][26..28].fill(0);
    assert_eq!(coalesce(LinkLayer::Ip, &packets), singly(&packets));
}

#[test]
fn padding_behind_the_ip_packet_is_kept_by_not_merging() {
    let mut packets = Shape { tags: Some(0), ..UDP }.packets(&payload(4), 2);
    packets[1].resize(60, 0);
    assert_eq!(coalesce(LinkLayer::Ethernet, &packets), singly(&packets));
}

#[test]
fn a_group_holds_no_more_packets_and_octets_than_its_limits() {
    for (shape, headers, most) in
        [(TCP, 52, MAX_PACKETS_PER_GROUP), (UDP, 28, MAX_DATAGRAMS_PER_GROUP)]
    {
        let tiny = shape.packets(&payload(most + 2), 1);
        let delivered = coalesce(LinkLayer::Ip, &tiny);
        let lens: Vec<usize> = delivered.iter().map(|(_, packet)| packet.len()).collect();
        assert_eq!(lens, [headers + most, headers + 2]);
    }

    // 52 octets of headers and 65,483 of payload are exactly 65,535.
    let mut full = TCP.packets(&payload(65_483), 65_483 / 7 + 1);
    assert_eq!(coalesce(LinkLayer::Ip, &full).len(), 1);
    let last = full.len() - 1;
    let longer = Shape { sequence: 0, ..TCP };
    full[last] = longer.packets(&payload(65_483), 65_483 / 7 + 1)[last].clone();
    assert_eq!(coalesce(LinkLayer::Ip, &full).len(), 2);
    let over = TCP.packets(&payload(65_480), 1448);
    let more = Shape { id: TCP.id.wrapping_add(46), ..next(&TCP, 65_480) };
    let delivered = coalesce(LinkLayer::Ip, &[over, vec![more.packet(&payload(10))]].concat());
    assert_eq!(delivered.len(), 2);
}

#[test]
fn one_flow_more_than_can_be_open_makes_another_leave() {
    let flows = u16::try_from(MAX_OPEN_GROUPS).unwrap();
    let first = |port| Shape { source_port: port, ..UDP }.packet(&payload(64));
    let second = |port| Shape { source_port: port, ..next(&UDP, 0) }.packet(&payload(64));
    let merged = |flows: u16| {
        let packets: Vec<_> = (0..flows).map(first).chain((0..flows).map(second)).collect();
        coalesce(LinkLayer::Ip, &packets).len()
    };
    assert_eq!(merged(flows), usize::from(flows));
    assert!(merged(flows + 1) > usize::from(flows) + 1);
}

#[test]
fn a_coalescer_is_empty_after_it_was_drained() {
    let mut coalescer = Coalescer::new(LinkLayer::Ip, ALL);
    let packets = UDP.packets(&payload(200), 100);
    for packet in &packets {
        let one = std::slice::from_ref(packet);
        assert_eq!(coalesce_with(&mut coalescer, one), singly(one));
    }
    assert_eq!(coalesce_with(&mut coalescer, &[]), []);
}

#[test]
fn a_range_beyond_the_arena_is_ignored() {
    let mut coalescer = Coalescer::new(LinkLayer::Ip, ALL);
    let mut arena = UDP.packet(&payload(10));
    let len = arena.len();
    coalescer.push(&arena, 1..len + 1);
    #[expect(clippy::reversed_empty_ranges, reason = "this is what must not panic")]
    coalescer.push(&arena, 9..2);
    coalescer.push(&arena, 0..len);
    let mut count = 0;
    coalescer.drain(&mut arena, |_, _| count += 1);
    assert_eq!(count, 1);
}

proptest! {
    #[test]
    fn coalescing_undoes_segmentation(
        shape in any_shape(),
        payload_len in prop_oneof![1usize..3000, 60_000usize..65_300],
        gso_size in 64u16..2000,
    ) {
        let gso_size = gso_size.min(u16::try_from(payload_len).unwrap());
        let payload = payload(payload_len);
        let (header, mut octets) = shape.super_packet(&payload, gso_size);
        let whole = octets.clone();
        let mut segments = segment(shape.link(), header, &mut octets).unwrap();
        let mut packets = Vec::new();
        while let Some(segment) = segments.next() {
            packets.push(segment.to_vec());
        }
        let fits = whole.len() <= 65_535
            && (!shape.is_udp || packets.len() <= MAX_DATAGRAMS_PER_GROUP);
        let delivered = coalesce(shape.link(), &packets);
        if packets.len() == 1 {
            prop_assert_eq!(delivered, singly(&packets));
        } else if fits {
            prop_assert_eq!(delivered, [(header, whole)]);
        }
    }

    #[test]
    fn no_flow_loses_changes_or_reorders_a_packet(
        is_tap: bool,
        flows in prop::collection::vec(
            (any_shape(), prop::collection::vec((0usize..4, 0u8..12, any::<bool>()), 1..20)),
            1..12,
        ),
        order in prop::collection::vec(any::<prop::sample::Index>(), 300),
    ) {
        let mut waiting: Vec<Vec<Vec<u8>>> = Vec::new();
        for (number, (shape, steps)) in flows.into_iter().enumerate() {
            let source_port = u16::try_from(number).unwrap() + 1000;
            let tags = is_tap.then_some(shape.tags.unwrap_or(0));
            let mut shape = Shape { tags, source_port, dont_fragment: false, ..shape };
            shape.flags = ACK;
            waiting.push(steps.into_iter().map(|step| one_packet(&mut shape, step)).collect());
        }
        let link = if is_tap { LinkLayer::Ethernet } else { LinkLayer::Ip };
        let sent = waiting.clone();
        let mut packets = Vec::new();
        for pick in order {
            waiting.retain(|flow| !flow.is_empty());
            if waiting.is_empty() {
                break;
            }
            let flow = pick.index(waiting.len());
            packets.push(waiting[flow].remove(0));
        }
        let mut received = Vec::new();
        for (header, mut octets) in coalesce(link, &packets) {
            let mut segments = segment(link, header, &mut octets).unwrap();
            while let Some(segment) = segments.next() {
                received.push(segment.to_vec());
            }
        }
        prop_assert_eq!(received.len(), packets.len());
        for flow in sent {
            let of_flow = |packet: &&Vec<u8>| flow.contains(*packet);
            let expected: Vec<_> = packets.iter().filter(of_flow).collect();
            let arrived: Vec<_> = received.iter().filter(of_flow).collect();
            prop_assert_eq!(arrived, expected);
        }
    }

    #[test]
    fn rubbish_passes_unchanged_between_good_packets(
        is_tap: bool,
        shape in any_shape(),
        random in prop::collection::vec(any::<Vec<u8>>(), 0..4),
        damage in prop::collection::vec((0usize..5, 0usize..80, any::<u8>()), 0..6),
        cuts in prop::collection::vec((0usize..5, 0usize..80), 0..2),
    ) {
        let mut packets = shape.packets(&payload(450), 100);
        for (packet, at, octet) in damage {
            if let Some(place) = packets[packet].get_mut(at) {
                *place = octet;
            }
        }
        for (packet, len) in cuts {
            packets[packet].truncate(len);
        }
        packets.extend(random);
        let link = if is_tap { LinkLayer::Ethernet } else { LinkLayer::Ip };
        let delivered = coalesce(link, &packets);
        let mut segments_of_all = Vec::new();
        for (header, mut octets) in delivered {
            let mut segments = segment(link, header, &mut octets).unwrap();
            while let Some(segment) = segments.next() {
                segments_of_all.push(segment.to_vec());
            }
        }
        prop_assert_eq!(segments_of_all.len(), packets.len());
        if !shape.dont_fragment {
            segments_of_all.sort();
            packets.sort();
            prop_assert_eq!(segments_of_all, packets);
        }
    }
}

/// One packet of a flow with some disturbance, and the flow's state behind it.
fn one_packet(shape: &mut Shape, (size, disturbance, is_damaged): (usize, u8, bool)) -> Vec<u8> {
    let len = [100, 100, 60, 0][size];
    match disturbance {
        0 => shape.sequence = shape.sequence.wrapping_add(1),
        1 => shape.id = shape.id.wrapping_add(1),
        2 => shape.acknowledgment = shape.acknowledgment.wrapping_add(1),
        3 => shape.traffic_class ^= 1,
        _ => {}
    }
    let flags = if disturbance == 4 { ACK | PSH } else { ACK };
    let mut packet = Shape { flags, ..shape.clone() }.packet(&payload(len));
    if is_damaged && disturbance == 5 {
        *packet.last_mut().unwrap() ^= 0x10;
    }
    shape.sequence = shape.sequence.wrapping_add(u32::try_from(len).unwrap());
    shape.id = shape.id.wrapping_add(1);
    packet
}
