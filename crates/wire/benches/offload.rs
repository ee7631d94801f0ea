//! What a packet costs in checksum, segmentation and coalescing.

#![expect(clippy::unwrap_used, reason = "what fails here is a fault of the benchmark")]

#[path = "../tests/packets/mod.rs"]
mod packets;

use std::hint::black_box;
use std::ops::Range;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use packets::{ACK, PSH, Shape, TCP, UDP, payload};
use wire::checksum::checksum;
use wire::offload::{Accepts, Coalescer, LinkLayer, segment};

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
        group.bench_function(name, |bencher| {
            let mut packet = octets.clone();
            bencher.iter(|| {
                // What the cut overwrote: the headers. The payload's content does not matter.
                packet[..60].copy_from_slice(&octets[..60]);
                let mut segments = segment(LinkLayer::Ip, header, &mut packet).unwrap();
                while let Some(segment) = segments.next() {
                    black_box(segment);
                }
            });
        });
    }
    let (header, octets) = UDP.super_packet(&payload(36), 0);
    let header = wire::virtio::VirtioNetHdr { gso: wire::virtio::Gso::None, ..header };
    group.throughput(Throughput::Elements(1));
    group.bench_function("1 UDP datagram of 36", |bencher| {
        let mut packet = octets.clone();
        bencher.iter(|| {
            let mut segments = segment(LinkLayer::Ip, header, black_box(&mut packet)).unwrap();
            segments.next().map(|segment| black_box(segment).len())
        });
    });
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
        for (how, accepts) in [
            ("merged", Accepts { tso4: true, tso6: true, uso: true }),
            ("singly", Accepts::default()),
        ] {
            let (arena, ranges) = lay_out(&packets);
            group.throughput(Throughput::Elements(packets.len() as u64));
            group.bench_function(format!("{name}, {how}"), |bencher| {
                let mut coalescer = Coalescer::new(LinkLayer::Ip, accepts);
                bencher.iter_batched_ref(
                    || arena.clone(),
                    |arena| {
                        for range in &ranges {
                            coalescer.push(arena, range.clone());
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
