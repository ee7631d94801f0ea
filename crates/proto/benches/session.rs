//! What a handshake and a data message cost.

#![expect(clippy::unwrap_used, reason = "what fails here is a fault of the benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use proto::keypair::{Ciphers, Keypair, Role};
use proto::noise::{CipherKeys, Identity, Initiating, SessionKeys, initiate, open_initiation};
use proto::replay::Window;
use proto::{Instant, PresharedKey, PrivateKey, PublicKey, Tai64n};
use wire::frame::Features;
use wire::message::{Cipher, DataHeader, Initiation, Response};

criterion_group!(benches, handshakes, messages, replay);
criterion_main!(benches);

/// Octets of plaintext: a small packet, and the largest in an MTU of 1420 with its padding.
const SIZES: [(usize, usize); 2] = [(64, 0), (1420, 4)];

/// Both parties of a handshake.
struct Parties {
    initiator: Identity,
    responder: Identity,
    psk: PresharedKey,
}

impl Parties {
    fn new() -> Self {
        let identity = |octet| Identity::new(PrivateKey::from_bytes([octet; 32]));
        let psk = PresharedKey::from_bytes([3; 32]);
        Self { initiator: identity(1), responder: identity(2), psk }
    }

    fn initiate(&self) -> impl Fn() -> (Initiation, Initiating) {
        let remote: PublicKey = self.responder.public();
        let shared = self.initiator.shared(&remote).unwrap();
        let timestamp = Tai64n::from_unix(Duration::from_secs(1_700_000_000));
        move || {
            let ephemeral = PrivateKey::from_bytes([4; 32]);
            initiate(&self.initiator, &remote, &shared, ephemeral, 7, timestamp).unwrap()
        }
    }

    fn respond(&self) -> impl Fn(&Initiation) -> (Response, SessionKeys) {
        let shared = self.responder.shared(&self.initiator.public()).unwrap();
        move |initiation| {
            let introduction = open_initiation(&self.responder, initiation).unwrap();
            let (_, responding) = introduction.authenticate(&shared).unwrap();
            responding.respond(PrivateKey::from_bytes([5; 32]), &self.psk, 9).unwrap()
        }
    }
}

fn handshakes(criterion: &mut Criterion) {
    let parties = Parties::new();
    let (initiate, respond) = (parties.initiate(), parties.respond());
    let (initiation, initiating) = initiate();
    let (response, _) = respond(&initiation);
    let mut group = criterion.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    group.bench_function("initiate", |bencher| bencher.iter(&initiate));
    group.bench_function("open and respond", |bencher| {
        bencher.iter(|| respond(black_box(&initiation)));
    });
    group.bench_function("complete", |bencher| {
        let local = &parties.initiator;
        bencher.iter(|| initiating.complete(local, &parties.psk, black_box(&response)).unwrap());
    });
    group.bench_function("open a stranger's", |bencher| {
        bencher.iter(|| open_initiation(&parties.responder, black_box(&initiation)).unwrap());
    });
    group.bench_function("keypair", |bencher| bencher.iter(|| keypair(1, 2)));
}

fn keypair(send: u8, receive: u8) -> Keypair {
    let keys = |octet| CipherKeys { chacha: [octet; 32], aes: [octet; 32] };
    let keys = SessionKeys { send: keys(send), receive: keys(receive) };
    let ciphers = Ciphers { chacha: true, aes: true };
    Keypair::new(keys, 1, 2, Role::Initiator, Instant::ZERO, ciphers)
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm] {
        for (len, padding) in SIZES {
            group.throughput(Throughput::Bytes(len as u64));
            seal(&mut group, cipher, len, padding);
            open(&mut group, cipher, len, padding);
        }
    }
}

fn sealing(cipher: Cipher) -> Keypair {
    let keypair = keypair(1, 2);
    if cipher == Cipher::Aes256Gcm {
        keypair.set_features(Features::AES_256_GCM);
    }
    keypair
}

fn seal(group: &mut BenchmarkGroup<'_, WallTime>, cipher: Cipher, len: usize, padding: usize) {
    let (plaintext, mut out) = (vec![0x5a; len], [0; 2048]);
    group.bench_function(format!("seal {len} with {cipher}"), |bencher| {
        // A fresh keypair for every run, since AES-256-GCM has a limit.
        let keypair = sealing(cipher);
        bencher.iter(|| {
            let counter = keypair.reserve(1).unwrap();
            keypair.seal(counter, black_box(&plaintext), padding, black_box(&mut out)).unwrap()
        });
    });
}

fn open(group: &mut BenchmarkGroup<'_, WallTime>, cipher: Cipher, len: usize, padding: usize) {
    const BATCH: usize = 512;
    let (sender, plaintext) = (sealing(cipher), vec![0x5a; len]);
    let datagrams: Vec<_> = (0..BATCH)
        .map(|_| {
            let mut out = vec![0; len + padding + 32];
            sender.seal(sender.reserve(1).unwrap(), &plaintext, padding, &mut out).unwrap();
            out
        })
        .collect();
    group.throughput(Throughput::Bytes((len * BATCH) as u64));
    group.bench_function(format!("open {BATCH} of {len} with {cipher}"), |bencher| {
        let batch = || (keypair(2, 1), datagrams.clone());
        bencher.iter_batched_ref(
            batch,
            |(receiver, datagrams)| {
                for datagram in datagrams {
                    let header = DataHeader::parse(datagram).unwrap();
                    black_box(receiver.open(&header, datagram).unwrap());
                }
            },
            BatchSize::LargeInput,
        );
    });
}

fn replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(1));
    group.bench_function("check and accept", |bencher| {
        let (window, mut counter) = (Window::new(), 0);
        bencher.iter(|| {
            counter += 1;
            window.check(black_box(counter)) && window.accept(black_box(counter))
        });
    });
}
