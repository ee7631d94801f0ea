//! TCP under load through a folder, while either side comes and goes at random times.
//!
//! ```text
//!   host A                                       host B
//!   octets ...  adit0 .......................... adit0  the same octets
//!               folder ------------------------- folder
//!               asked to end, or killed, every second or so
//! ```
//!
//! `ADIT_SOAK_SECONDS` says for how long (30), `ADIT_SOAK_SEED` in which order.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::hostile::memory;
use crate::rig::folder::{End, FolderPair, end_all};
use crate::rig::pair::Family;
use crate::rig::tcp::connect;
use crate::rig::{PATIENCE, Pattern};

/// How long it goes on if nothing else is said, in seconds.
const SECONDS: u64 = 30;

/// The most memory of a worker, in KiB.
const MEMORY: u64 = 64 << 10;

/// What all streams together may leave lying: three of each side.
const FILES: usize = 6 * 65;
const OCTETS: u64 = 6 * (18 << 20);

/// Octets that are written and read at a time.
const CHUNK: usize = 64 << 10;

/// A number from the environment.
fn setting(name: &str, otherwise: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or_else(otherwise)
}

/// Sends until it is over; how many octets.
fn send(mut stream: &TcpStream, over: &AtomicBool) -> u64 {
    let (mut pattern, mut chunk, mut sent) = (Pattern::new(1), vec![0; CHUNK], 0);
    while !over.load(Ordering::Relaxed) {
        pattern.fill(&mut chunk);
        stream.write_all(&chunk).unwrap();
        sent += CHUNK as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    sent
}

/// Receives until the end, and counts; fails if an octet is wrong.
fn receive(mut stream: &TcpStream, received: &AtomicU64) {
    let (mut pattern, mut expected, mut chunk) = (Pattern::new(1), vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        match stream.read(&mut chunk[..1]).unwrap() {
            0 => return,
            _ => stream.read_exact(&mut chunk[1..]).unwrap(),
        }
        pattern.fill(&mut expected);
        assert!(chunk == expected, "wrong octets after {received:?}");
        received.fetch_add(CHUNK as u64, Ordering::Relaxed);
    }
}

/// Restarts a side, whichever it is; how long after it is up again something arrives.
fn disturb(pair: FolderPair, pattern: &mut Pattern) -> FolderPair {
    let FolderPair { a, b, hosts, folder } = pair;
    let end = End::ALL[usize::from(pattern.next().is_multiple_of(2))];
    let (a, b) = match pattern.next() % 3 {
        0 => (a.restart(&hosts.a, end), b),
        1 => (a, b.restart(&hosts.b, end)),
        _ => {
            let (a, b) = (a.end(end), b.end(end));
            (a.start(&hosts.a), b.start(&hosts.b))
        }
    };
    FolderPair { a, b, hosts, folder }
}

/// Fails if a worker or the folder grows; the most so far of memory, files and octets.
fn look(pair: &FolderPair, most: &mut (u64, usize, u64)) {
    let (files, octets) = pair.folder.size();
    let memory = [&pair.a, &pair.b].map(|station| memory(&station.tunnel));
    *most = (most.0.max(memory[0]).max(memory[1]), most.1.max(files), most.2.max(octets));
    assert!(most.0 < MEMORY && most.1 < FILES && most.2 < OCTETS, "KiB, files, octets: {most:?}");
}

#[test]
fn tcp_is_right_and_complete_whoever_comes_and_goes() {
    let Some(pair) = FolderPair::up() else { return };
    let length = Duration::from_secs(setting("ADIT_SOAK_SECONDS", || SECONDS));
    let seed = setting("ADIT_SOAK_SEED", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    eprintln!("ADIT_SOAK_SECONDS={} ADIT_SOAK_SEED={seed}", length.as_secs());
    let mut pattern = Pattern::new(seed);
    let (client, server) = connect(&pair.hosts.a, &pair.hosts.b, Family::V4.inner(2));
    let (over, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut standing = Some(pair);
    let (mut most, mut restarts) = ((0, 0, 0), 0);
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(&client, &over));
        let receiving = scope.spawn(|| receive(&server, &received));
        let end = Instant::now() + length;
        while Instant::now() < end && !receiving.is_finished() && !sending.is_finished() {
            let calm = Instant::now() + Duration::from_millis(200 + pattern.next() % 1500);
            let before = received.load(Ordering::Relaxed);
            // As long as nothing arrives it has not come back.
            let patience = Instant::now() + PATIENCE;
            while Instant::now() < calm || received.load(Ordering::Relaxed) == before {
                assert!(Instant::now() < patience, "nothing arrives after {restarts} restarts");
                standing.iter().for_each(|pair| look(pair, &mut most));
                thread::park_timeout(Duration::from_millis(20));
            }
            standing = standing.take().map(|pair| disturb(pair, &mut pattern));
            restarts += 1;
        }
        over.store(true, Ordering::Relaxed);
        let sent = sending.join().unwrap();
        receiving.join().unwrap();
        assert_eq!(received.load(Ordering::Relaxed), sent);
    });
    let (memory, files, octets) = most;
    eprintln!(
        "{} MiB, {restarts} restarts; at most {memory} KiB of memory, {files} files, {octets} octets",
        received.load(Ordering::Relaxed) >> 20
    );
    assert!(restarts > 0 && received.load(Ordering::Relaxed) > 1 << 20);
    let Some(FolderPair { a, b, folder, .. }) = standing else { return };
    end_all([a, b]);
    folder.assert_empty();
}
