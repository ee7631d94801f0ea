//! What a packet costs in checksum, segmentation and coalescing.

#![expect(clippy::unwrap_used, reason = "what fails here is a fault of the benchmark")]

#[path = "../tests/packets/mod.rs"]
mod packets;

use std::hint::black_box;
use std::ops::Range;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use packets::{ACK, PSH, Shape, TCP, UDP, payload, sum};
use wire::checksum::checksum;
use wire::offload::{
    Accepts, Coalescer, LinkLayer, SegmentError, Segments, segment, segment_unchecked,
};
use wire::virtio::{Gso, VirtioNetHdr};

/// A way to cut a super-packet of IP.
type Segment = fn(VirtioNetHdr, &mut [u8]) -> Result<Segments<'_>, SegmentError>;

const WAYS: [(&str, Segment); 2] = [
    ("complete", |header, packet| segment(LinkLayer::Ip, header, packet)),
    ("unchecked", segment_unchecked),
];

criterion_group!(benches, checksums, segmentation, coalescing);
criterion_main!(benches);

fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in [20, 64, 1460, 65_535] {
        let octets = payload(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(len.to_string(), |bencher| {
            bencher.iter(|| checksum(black_box(&octets)));
        });
    }
}

fn segmentation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    let tcp = Shape { flags: ACK | PSH, ..TCP };
    let tcp6 = Shape { is_v6: true, ..tcp.clone() };
    for (name, shape, len, gso_size) in [
        ("44 TCP segments of 1448", &tcp, 44 * 1448, 1448),
        ("44 TCP segments of 1428 in IPv6", &tcp6, 44 * 1428, 1428),
        ("44 UDP datagrams of 1472", &UDP, 44 * 1472, 1472),
        ("64 UDP datagrams of 36", &UDP, 64 * 36, 36),
    ] {
        let (header, octets) = shape.super_packet(&payload(len), gso_size);
        group.throughput(Throughput::Bytes(len as u64));
        for (how, segment) in WAYS {
            group.bench_function(format!("{name}, {how}"), |bencher| {
                let mut packet = octets.clone();
                bencher.iter(|| {
                    // What the cut overwrote: the headers. The payload's content does not matter.
                    packet[..60].copy_from_slice(&octets[..60]);
                    let mut segments = segment(header, &mut packet).unwrap();
                    while let Some(segment) = segments.next() {
                        black_box(segment);
                    }
                });
            });
        }
    }
    for len in [36, 1400] {
        let (header, octets) = UDP.super_packet(&payload(len), 0);
        let header = VirtioNetHdr { gso: Gso::None, ..header };
        group.throughput(Throughput::Elements(1));
        for (how, segment) in WAYS {
            group.bench_function(format!("1 UDP datagram of {len}, {how}"), |bencher| {
                let mut packet = octets.clone();
                bencher.iter(|| {
                    packet[0] = 0x45;
                    let mut segments = segment(header, black_box(&mut packet)).unwrap();
                    segments.next().map(|segment| black_box(segment).len())
                });
            });
        }
    }
}

fn coalescing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    let tcp = Shape { flags: ACK | PSH, ..TCP };
    let tcp6 = Shape { is_v6: true, ..tcp.clone() };
    for (name, packets) in [
        ("44 TCP segments of 1420", tcp.packets(&payload(44 * 1420), 1420)),
        ("44 TCP segments of 1420 in IPv6", tcp6.packets(&payload(44 * 1420), 1420)),
        ("44 UDP datagrams of 1444", UDP.packets(&payload(44 * 1444), 1444)),
        ("64 UDP datagrams of 36", UDP.packets(&payload(64 * 36), 36)),
        ("64 UDP datagrams of 36 in 8 flows", flows(8)),
        ("64 UDP datagrams of 36 in 64 flows", flows(64)),
    ] {
        let merged = Accepts { tso4: true, tso6: true, uso: true };
        let without_checksums = unchecked(&packets);
        for (how, accepts, packets, push) in [
            ("merged", merged, &packets, push as Push),
            ("singly", Accepts::default(), &packets, push),
            ("merged, unchecked", merged, &without_checksums, push_unchecked),
            ("singly, unchecked", Accepts::default(), &without_checksums, push_unchecked),
        ] {
            let (arena, ranges) = lay_out(packets);
            group.throughput(Throughput::Elements(packets.len() as u64));
            group.bench_function(format!("{name}, {how}"), |bencher| {
                let mut coalescer = Coalescer::new(LinkLayer::Ip, accepts);
                bencher.iter_batched_ref(
                    || arena.clone(),
                    |arena| {
                        for range in &ranges {
                            push(&mut coalescer, arena, range.clone());
                        }
                        coalescer.drain(arena, |header, slices| {
                            black_box((header, slices));
                        });
                    },
                    BatchSize::NumIterations(64),
                );
            });
        }
    }
}

/// A way to take a packet.
type Push = fn(&mut Coalescer, &[u8], Range<usize>);

fn push(coalescer: &mut Coalescer, arena: &[u8], packet: Range<usize>) {
    coalescer.push(arena, packet);
}

fn push_unchecked(coalescer: &mut Coalescer, arena: &[u8], packet: Range<usize>) {
    coalescer.push_unchecked(arena, packet).unwrap();
}

/// The same packets with the pseudo-header's sum in the place of their checksum.
fn unchecked(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    packets
        .iter()
        .map(|packet| {
            let (v6, v4) = (packet[0] >> 4 == 6, &packet[12..20]);
            let (transport_at, protocol, addresses) =
                if v6 { (40, packet[6], &packet[8..40]) } else { (20, packet[9], v4) };
            let len = u16::try_from(packet.len() - transport_at).unwrap();
            let pseudo = sum(&[addresses, &[0, protocol], &len.to_be_bytes()]);
            let at = transport_at + if protocol == 17 { 6 } else { 16 };
            let mut packet = packet.clone();
            packet[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
            packet
        })
        .collect()
}

/// 64 datagrams, one of each flow in turn.
fn flows(count: u16) -> Vec<Vec<u8>> {
    (0..64)
        .map(|i| Shape { source_port: i % count, id: i / count, ..UDP }.packet(&payload(36)))
        .collect()
}

/// Packets as they lie in a receive buffer, each behind 16 octets of outer header and before a tag.
fn lay_out(packets: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut arena, mut ranges) = (Vec::new(), Vec::new());
    for packet in packets {
        arena.extend([0; 16]);
        ranges.push(arena.len()..arena.len() + packet.len());
        arena.extend(packet);
        arena.extend([0; 16]);
    }
    (arena, ranges)
}
