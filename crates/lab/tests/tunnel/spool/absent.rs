//! Who is not there costs a bounded part of the folder, and nobody else's time.
//!
//! ```text
//!   host A                    host B, killed                host C
//!   adit0, floods B ......... its inbox is left ........... adit0, answers meanwhile
//!   folder ------------------ folder ---------------------- folder
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lab::Host;

use crate::rig::folder::{End, Folder, FolderPair, hosts, only_peer, peer, toml};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sealed::Station;
use crate::rig::udp;

/// What a stream may leave lying for one side, and one file more; a side has a stream for each queue of its device and one
/// for handshakes.
const FILES: usize = 2 * (64 + 1);
const OCTETS: u64 = 2 * ((16 << 20) + (2 << 20));

/// The flood: so many datagrams of such a length, more than may be left lying.
const DATAGRAMS: usize = 20_000;
const LENGTH: usize = 8_000;

/// How long it may take that somebody else answers.
const PATIENCE: Duration = Duration::from_millis(500);

/// Sends everything, and lets `meanwhile` happen after every hundredth.
fn flood(from: &Host, to: IpAddr, mut meanwhile: impl FnMut()) {
    let socket = udp::connect(from, SocketAddr::new(to, 9));
    let datagram = vec![0x55; LENGTH];
    for number in 0..DATAGRAMS {
        // Refused when the device's queue is full.
        let _ = socket.send(&datagram);
        if number % 100 == 0 {
            meanwhile();
        }
    }
}

#[test]
fn a_flood_for_a_killed_side_fills_the_folder_up_to_the_bound() {
    let Some(pair) = FolderPair::up() else { return };
    let FolderPair { a, b, hosts, folder } = pair;
    let b = b.end(End::Killed);
    let mut most = (0, 0);
    flood(&hosts.a, Family::V4.inner(2), || {
        let (files, octets) = folder.size();
        most = (files.max(most.0), octets.max(most.1));
    });
    assert!(most.0 > 32 || most.1 > 8 << 20, "no flood: {most:?}");
    assert!(most.0 <= FILES && most.1 <= OCTETS, "{most:?}");
    // Who comes again begins with an empty inbox.
    let b = b.start(&hosts.b);
    let pair = FolderPair { a, b, hosts, folder };
    pair.wait_for_answers();
    let (files, octets) = pair.folder.size();
    assert!(files < 16 && octets < 1 << 20, "{files} files with {octets} octets");
}

#[test]
fn a_flood_for_a_side_that_was_never_there_leaves_nothing_in_the_folder() {
    let Some(hosts) = hosts() else { return };
    let folder = Folder::new();
    let _a = Station::up(&hosts.a, 1, &toml(1, &folder, "", "", &[only_peer(2, &folder)]));
    flood(&hosts.a, Family::V4.inner(2), || {});
    // Its own inbox with the file that says that it lives.
    assert_eq!((folder.inboxes().len(), folder.size().0), (1, 1));
}

#[test]
fn a_flood_for_a_killed_side_keeps_no_other_waiting() {
    let Some(hosts) = hosts() else { return };
    let (folder, c) = (Folder::new(), Host::new("C").unwrap());
    let of_a = [peer(2, &folder, &[]), peer(3, &folder, &[])];
    let a = Station::up(&hosts.a, 1, &toml(1, &folder, "", "", &of_a));
    let b = Station::up(&hosts.b, 2, &toml(2, &folder, "", "", &[only_peer(1, &folder)]));
    let _c = Station::up(&c, 3, &toml(3, &folder, "", "", &[only_peer(1, &folder)]));
    let mut to_c = Pinger::new(&hosts.a, Family::V4.inner(3));
    Pinger::new(&hosts.a, Family::V4.inner(2)).wait_for_answer();
    to_c.wait_for_answer();
    let _b = b.end(End::Killed);
    let mut slowest = Duration::ZERO;
    flood(&hosts.a, Family::V4.inner(2), || {
        let start = Instant::now();
        to_c.wait_for_answer();
        slowest = slowest.max(start.elapsed());
    });
    assert!(slowest < PATIENCE, "{slowest:?}");
    drop(a);
}
