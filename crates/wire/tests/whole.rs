//! A super-packet crosses a tunnel as one, and comes out as it went in.

#![expect(clippy::unwrap_used, reason = "what fails here is a fault of the test")]

mod packets;

use packets::{Shape, TCP, UDP, any_shape, payload};
use proptest::prelude::*;
use wire::offload::{Accepts, Coalescer, LinkLayer, NotOffloadable, SegmentError, segment, whole};
use wire::virtio::{Gso, VirtioNetHdr};

const ALL: Accepts = Accepts { tso4: true, tso6: true, uso: true };

/// What a coalescer makes of one packet that comes whole.
fn pass(
    link: LinkLayer,
    accepts: Accepts,
    header: VirtioNetHdr,
    packet: &[u8],
) -> Result<(VirtioNetHdr, Vec<u8>), NotOffloadable> {
    let mut coalescer = Coalescer::new(link, accepts);
    let mut arena = packet.to_vec();
    coalescer.push_whole(&arena, 0..packet.len(), header)?;
    let mut delivered = Vec::new();
    coalescer.drain(&mut arena, |header, slices| {
        delivered.push((*header, slices.iter().flat_map(|slice| slice.to_vec()).collect()));
    });
    assert_eq!(delivered.len(), 1);
    Ok(delivered.remove(0))
}

/// The complete packets that a super-packet stands for.
fn cut(link: LinkLayer, header: VirtioNetHdr, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut packet = packet.to_vec();
    let mut segments = segment(link, header, &mut packet).unwrap();
    let mut all = Vec::new();
    while let Some(segment) = segments.next() {
        all.push(segment.to_vec());
    }
    all
}

/// One packet without its checksum.
fn undone(shape: &Shape) -> (VirtioNetHdr, Vec<u8>) {
    let (header, packet) = shape.super_packet(&payload(90), 0);
    (VirtioNetHdr { gso: Gso::None, hdr_len: 0, gso_size: 0, ..header }, packet)
}

proptest! {
    #[test]
    fn what_the_receiver_s_kernel_cuts_is_what_the_sender_s_would_have_cut(
        shape in any_shape(), len in 200_usize..20_000, gso_size in 64_u16..1500,
    ) {
        let (header, packet) = shape.super_packet(&payload(len), gso_size.min(200));
        let sent = whole(shape.link(), header, &packet).unwrap();
        let (arrived, octets) = pass(shape.link(), ALL, sent, &packet).unwrap();
        prop_assert_eq!(&octets, &packet);
        prop_assert_eq!(
            cut(shape.link(), arrived, &octets),
            cut(shape.link(), header, &packet)
        );
    }

    #[test]
    fn nothing_that_a_peer_writes_into_the_header_makes_the_kernel_write_elsewhere(
        octets in any::<[u8; VirtioNetHdr::LEN]>(), is_super in any::<bool>(), is_udp in any::<bool>(),
    ) {
        let shape = if is_udp { UDP } else { TCP };
        let (_, packet) = if is_super { shape.super_packet(&payload(900), 300) } else { undone(&shape) };
        let Ok(header) = VirtioNetHdr::parse_le(&octets) else { return Ok(()) };
        let Ok((told, _)) = pass(LinkLayer::Ip, ALL, header, &packet) else { return Ok(()) };
        if told.needs_checksum() {
            let checksum_at = if is_udp { 6 } else { 16 };
            prop_assert_eq!((told.csum_start, told.csum_offset), (20, checksum_at));
        }
        prop_assert_eq!(told.flags & !VirtioNetHdr::NEEDS_CSUM, 0);
    }
}

#[test]
fn a_checksum_over_the_source_address_is_refused() {
    let (header, packet) = undone(&TCP);
    assert!(whole(LinkLayer::Ip, header, &packet).is_ok());
    let over_source = VirtioNetHdr { csum_start: 0, csum_offset: 12, ..header };
    assert_eq!(
        whole(LinkLayer::Ip, over_source, &packet),
        Err(SegmentError::ChecksumPlace { start: 0, offset: 12, len: packet.len() })
    );
    let (header, packet) = TCP.super_packet(&payload(900), 300);
    let over_source = VirtioNetHdr { csum_start: 0, csum_offset: 12, ..header };
    assert!(matches!(
        whole(LinkLayer::Ip, over_source, &packet),
        Err(SegmentError::ChecksumDisagrees { .. })
    ));
}

#[test]
fn a_device_gets_only_what_it_takes() {
    let (header, packet) = TCP.super_packet(&payload(900), 300);
    let without = Accepts { tso4: false, ..ALL };
    assert_eq!(pass(LinkLayer::Ip, without, header, &packet), Err(NotOffloadable));
    let (header, packet) = undone(&TCP);
    assert!(pass(LinkLayer::Ip, Accepts::default(), header, &packet).is_ok());
}

#[test]
fn a_packet_of_another_length_than_its_header_says_is_refused() {
    for (header, mut packet) in [TCP.super_packet(&payload(900), 300), undone(&UDP)] {
        packet.push(0);
        assert_eq!(pass(LinkLayer::Ip, ALL, header, &packet), Err(NotOffloadable));
    }
}

#[test]
fn nothing_joins_what_stands_before_a_super_packet() {
    let mut packets = TCP.packets(&payload(3000), 1000).into_iter();
    let (header, super_packet) = UDP.super_packet(&payload(900), 300);
    let [first, second, _] = std::array::from_fn(|_| packets.next().unwrap_or_default());
    let mut arena = Vec::new();
    let ranges = [first, super_packet, second].map(|packet| {
        arena.extend(packet);
        arena.len()
    });
    let mut coalescer = Coalescer::new(LinkLayer::Ip, ALL);
    coalescer.push(&arena, 0..ranges[0]);
    coalescer.push_whole(&arena, ranges[0]..ranges[1], header).unwrap();
    coalescer.push(&arena, ranges[1]..ranges[2]);
    let mut kinds = Vec::new();
    coalescer.drain(&mut arena, |header, _| kinds.push(header.gso));
    assert_eq!(kinds, [Gso::None, Gso::UdpL4, Gso::None]);
}

#[test]
fn a_header_reads_the_same_on_every_machine() {
    let (header, _) = TCP.super_packet(&payload(900), 300);
    let octets = header.emit_le();
    assert_eq!(octets[4..6], [0x2c, 1]);
    assert_eq!(VirtioNetHdr::parse_le(&octets), Ok(header));
}
