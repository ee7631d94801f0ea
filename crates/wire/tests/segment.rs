//! Super-packets are cut into exactly the packets that they stand for.

#![expect(clippy::unwrap_used, reason = "what fails here is a fault of the test")]

mod packets;

use packets::{ACK, CWR, FIN, PSH, Shape, TCP, UDP, any_shape, payload, sum};
use proptest::prelude::*;
use wire::offload::{LinkLayer, MAX_SEGMENTS, SegmentError, segment};
use wire::virtio::{Gso, VirtioNetHdr};

fn cut(link: LinkLayer, header: VirtioNetHdr, octets: &mut [u8]) -> Vec<Vec<u8>> {
    let mut segments = segment(link, header, octets).unwrap();
    let (count, segment_len) = (segments.count(), segments.segment_len());
    let mut cut = Vec::new();
    while let Some(segment) = segments.next() {
        cut.push(segment.to_vec());
        // Whoever seals a segment in place leaves anything behind.
        segment.fill(0xee);
    }
    assert_eq!(cut.len(), count);
    assert!(cut[..count - 1].iter().all(|segment| segment.len() == segment_len));
    assert!(cut[count - 1].len() <= segment_len);
    cut
}

#[test]
fn a_literal_udp_super_packet_becomes_two_datagrams() {
    let mut octets = [
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
    let datagrams = cut(LinkLayer::Ip, header, &mut octets);
    let first = [
        0x45, 0, 0, 31, 0x12, 0x34, 0x40, 0, 64, 17, 0x14, 0x8d, 10, 9, 0, 1, 10, 1, 0, 3, 0x9c,
        0x40, 0x1f, 0x90, 0, 11, 0x2b, 0xf8, 1, 2, 3,
    ];
    let second = [
        0x45, 0, 0, 30, 0x12, 0x35, 0x40, 0, 64, 17, 0x14, 0x8d, 10, 9, 0, 1, 10, 1, 0, 3, 0x9c,
        0x40, 0x1f, 0x90, 0, 10, 0x2b, 0xf7, 4, 5,
    ];
    assert_eq!(datagrams, [first.to_vec(), second.to_vec()]);
}

#[test]
fn fin_and_psh_stay_in_the_last_segment_and_cwr_in_the_first() {
    let shape = Shape { flags: ACK | FIN | PSH | CWR, ..TCP };
    let (header, mut octets) = shape.super_packet(&payload(250), 100);
    let flags: Vec<u8> =
        cut(LinkLayer::Ip, header, &mut octets).iter().map(|packet| packet[33]).collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | FIN | PSH]);
}

#[test]
fn a_single_packet_gets_its_checksum_and_nothing_else() {
    for shape in [TCP, UDP, Shape { is_v6: true, tags: Some(2), ..UDP }] {
        let (header, mut octets) = shape.super_packet(&payload(41), 0);
        let header = VirtioNetHdr { gso: Gso::None, ..header };
        assert_eq!(cut(shape.link(), header, &mut octets), [shape.packet(&payload(41))]);
    }
}

#[test]
fn a_checksum_of_zero_is_written_as_all_ones() {
    let mut octets = [0xff, 0xff, 0, 0];
    let header =
        VirtioNetHdr { flags: VirtioNetHdr::NEEDS_CSUM, csum_offset: 2, ..VirtioNetHdr::default() };
    assert_eq!(cut(LinkLayer::Ip, header, &mut octets), [[0xff; 4]]);
}

#[test]
fn a_complete_packet_is_handed_out_as_it_is() {
    let mut octets = [9; 30];
    assert_eq!(cut(LinkLayer::Ip, VirtioNetHdr::default(), &mut octets), [[9; 30]]);
}

#[test]
fn what_does_not_fit_together_is_an_error_with_the_values() {
    let error = |shape: &Shape, change: fn(&mut VirtioNetHdr, &mut Vec<u8>)| {
        let (mut header, mut octets) = shape.super_packet(&payload(300), 100);
        change(&mut header, &mut octets);
        segment(shape.link(), header, &mut octets).unwrap_err()
    };
    let tcp = |change| error(&TCP, change);
    assert_eq!(
        tcp(|header, _| header.gso_size = 0),
        SegmentError::SegmentSize { gso_size: 0, payload: 300 }
    );
    assert_eq!(
        tcp(|header, _| header.gso_size = 301),
        SegmentError::SegmentSize { gso_size: 301, payload: 300 }
    );
    assert_eq!(tcp(|header, _| header.flags = 2), SegmentError::NoChecksum);
    assert_eq!(
        tcp(|header, _| header.csum_start = 24),
        SegmentError::ChecksumDisagrees {
            start: 24,
            offset: 16,
            transport_at: 20,
            checksum_at: 16
        }
    );
    assert_eq!(
        tcp(|header, _| header.gso = Gso::TcpV6),
        SegmentError::Protocol { gso: Gso::TcpV6, version: 4, protocol: 6 }
    );
    assert_eq!(
        tcp(|header, _| header.gso = Gso::UdpL4),
        SegmentError::Protocol { gso: Gso::UdpL4, version: 4, protocol: 6 }
    );
    assert_eq!(tcp(|_, octets| octets[6] = 0x20), SegmentError::Fragment);
    assert_eq!(tcp(|_, octets| octets.push(0)), SegmentError::TotalLength { says: 352, has: 353 });
    assert_eq!(
        tcp(|header, _| {
            header.gso = Gso::None;
            header.csum_offset = 331;
        }),
        SegmentError::ChecksumPlace { start: 20, offset: 331, len: 352 }
    );
    assert!(matches!(tcp(|_, octets| octets[32] = 0x40), SegmentError::Headers(_)));
    let arp = error(&Shape { tags: Some(1), ..TCP }, |_, octets| octets[17] = 0x06);
    assert_eq!(arp, SegmentError::Protocol { gso: Gso::TcpV4, version: 0, protocol: 0 });
}

#[test]
fn more_segments_than_the_limit_are_refused() {
    let (header, mut octets) = UDP.super_packet(&payload(MAX_SEGMENTS + 1), 1);
    let error = segment(LinkLayer::Ip, header, &mut octets).unwrap_err();
    assert_eq!(error, SegmentError::TooManySegments(MAX_SEGMENTS + 1));
}

proptest! {
    #[test]
    fn a_super_packet_becomes_the_packets_that_it_stands_for(
        shape in any_shape(),
        has_extension: bool,
        is_cwr: bool,
        payload_len in prop_oneof![1usize..3000, 60_000usize..65_300],
        gso_size in 1u16..2000,
    ) {
        let mut shape = Shape { has_extension, ..shape };
        shape.flags |= if is_cwr { CWR } else { 0 };
        let payload = payload(payload_len);
        let gso_size = gso_size.clamp(
            u16::try_from(payload_len.div_ceil(MAX_SEGMENTS)).unwrap(),
            u16::try_from(payload_len).unwrap(),
        );
        let (header, mut octets) = shape.super_packet(&payload, gso_size);
        let segments = cut(shape.link(), header, &mut octets);
        prop_assert_eq!(segments, shape.packets(&payload, gso_size));
    }

    #[test]
    fn a_checksum_is_completed_wherever_it_stands(
        mut octets in prop::collection::vec(any::<u8>(), 2..200),
        start: prop::sample::Index,
        offset: prop::sample::Index,
    ) {
        let start = start.index(octets.len() - 1);
        let offset = offset.index(octets.len() - start - 1) & !1;
        let header = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            csum_start: u16::try_from(start).unwrap(),
            csum_offset: u16::try_from(offset).unwrap(),
            ..VirtioNetHdr::default()
        };
        let place = start + offset..start + offset + 2;
        let pseudo_sum = octets[place.clone()].to_vec();
        let done = cut(LinkLayer::Ip, header, &mut octets).remove(0);
        let mut covered = done[start..].to_vec();
        covered.extend([0][..covered.len() % 2].iter());
        // What stood in the checksum's place was a part of the sum.
        prop_assert_eq!(sum(&[&covered, &pseudo_sum]), 0xffff);
    }

    #[test]
    fn rubbish_never_panics(
        shape in any_shape(),
        has_extension: bool,
        gso in prop::sample::select(vec![Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::UdpL4]),
        fields: Option<[u16; 4]>,
        flags: u8,
        damage in prop::collection::vec((0usize..120, any::<u8>()), 0..4),
        len in 0usize..200,
        is_random: bool,
        random: Vec<u8>,
    ) {
        let shape = Shape { has_extension, ..shape };
        let (mut header, mut octets) = shape.super_packet(&payload(80), 30);
        if let Some([hdr_len, gso_size, csum_start, csum_offset]) = fields {
            header = VirtioNetHdr { flags, gso, hdr_len, gso_size, csum_start, csum_offset, ecn: true };
        }
        for (at, octet) in damage {
            if let Some(place) = octets.get_mut(at) {
                *place = octet;
            }
        }
        octets.truncate(if len < 100 { len } else { usize::MAX });
        if is_random {
            octets = random;
        }
        let before = octets.len();
        for link in [LinkLayer::Ip, LinkLayer::Ethernet] {
            if let Ok(mut segments) = segment(link, header, &mut octets) {
                let mut count = 0;
                while let Some(segment) = segments.next() {
                    prop_assert!(segment.len() <= before);
                    count += 1;
                }
                prop_assert_eq!(count, segments.count());
            }
        }
    }
}
