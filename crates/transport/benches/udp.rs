//! Batches of datagrams over loopback in one thread: written, sent, received.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use transport::udp::{Destination, Options, RecvBatch, SendBatch, UdpSocket};

/// Datagrams in a batch and octets in a datagram: what becomes of a super-packet of 64 KiB, and
/// short ones.
const BATCHES: [(usize, usize); 3] = [(44, 1472), (64, 92), (128, 92)];

fn batches_over_loopback(criterion: &mut Criterion) {
    for (datagrams, octets) in BATCHES {
        let mut group = criterion.benchmark_group(format!("{datagrams} datagrams of {octets}"));
        group.throughput(Throughput::Bytes((datagrams * octets) as u64));
        for (name, offload) in [("with segmentation", true), ("one a message", false)] {
            let options =
                Options { segmentation: offload, coalescing: offload, ..Options::default() };
            let mut exchange = Exchange::new(&options);
            group.bench_function(name, |bencher| {
                bencher.iter(|| exchange.run(datagrams, octets));
            });
        }
        group.finish();
    }
}

/// Two sockets and their batches.
struct Exchange {
    sender: UdpSocket,
    receiver: UdpSocket,
    outgoing: SendBatch,
    incoming: RecvBatch,
}

impl Exchange {
    fn new(options: &Options) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            sender: UdpSocket::bind(any_port, options).expect("loopback has free ports"),
            receiver: UdpSocket::bind(any_port, options).expect("loopback has free ports"),
            outgoing: SendBatch::new(),
            incoming: RecvBatch::new(),
        }
    }

    fn run(&mut self, datagrams: usize, octets: usize) {
        let destination = Destination { remote: self.receiver.local_addr(), local: None };
        for index in 0..datagrams {
            let room = self.outgoing.reserve(octets).expect("the batch has room");
            room[0] = index.to_le_bytes()[0];
            self.outgoing.commit(octets, &destination);
        }
        assert_eq!(self.sender.send(&mut self.outgoing).sent, datagrams);
        let mut received = 0;
        while received < datagrams {
            self.receiver.recv(&mut self.incoming).expect("loopback delivers before it returns");
            for message in self.incoming.messages() {
                for datagram in message.datagrams() {
                    black_box(self.incoming.arena()[datagram.start]);
                    received += 1;
                }
            }
        }
    }
}

criterion_group!(benches, batches_over_loopback);
criterion_main!(benches);
