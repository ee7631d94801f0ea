//! Everything passes through a folder, and nothing is left in it.
//!
//! ```text
//!   host A                                       host B
//!   adit0 192.0.2.1, fd00:7::1 ................. adit0 192.0.2.2, fd00:7::2
//!   folder ------------------------------------- folder
//!                        no wire
//! ```

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rig::folder::{End, Folder, FolderPair, hosts, tomls};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sealed::Station;
use crate::rig::sh::{assert_same, everything};
use crate::rig::state::assert_no_checksum_errors;
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::{DEVICE, Files, adit_in};
use crate::rig::udp::{MAX_PAYLOAD, assert_sizes_echo};
use crate::rig::{Pattern, program, state};

/// Octets that are transferred each way.
const OCTETS: usize = 8 << 20;

/// The MTU of a device whose packets go through a folder.
const MTU: usize = 1420;

/// Payloads of UDP: small ones, those around the MTU and multiples of it, random ones, and the largest.
fn sizes() -> impl Iterator<Item = usize> {
    let edges =
        [MTU, 2 * MTU, 16_384, 32_768, 65_000].into_iter().flat_map(|edge| edge - 60..edge + 4);
    let mut pattern = Pattern::new(5);
    let random = std::iter::repeat_with(move || usize::try_from(pattern.next() % 65_000).unwrap());
    (0..64).chain(edges).chain(random.take(100)).chain([MAX_PAYLOAD])
}

/// Fails unless everything passes both ways.
fn assert_carries(pair: &FolderPair) {
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    for inner in Family::BOTH {
        for (from, to, number) in [(a, b, 2), (b, a, 1)] {
            let mut pinger = Pinger::new(from, inner.inner(number));
            for payload in [0, 1, 1372, 1393, 9000, 65_507] {
                pinger.assert_answers(payload);
            }
            assert_sizes_echo(from, to, inner.inner(number), sizes(), || {});
            assert_transfers(from, to, inner.inner(number), OCTETS);
        }
    }
    assert_no_checksum_errors(a);
    assert_no_checksum_errors(b);
}

/// Ends both tunnels, after which nothing is in the folder.
fn end(pair: FolderPair) {
    let FolderPair { a, b, folder, .. } = pair;
    assert_eq!(folder.inboxes().len(), 2);
    a.end(End::Asked);
    assert_eq!(folder.inboxes().len(), 1);
    b.end(End::Asked);
    folder.assert_empty();
}

#[test]
fn everything_passes_in_a_session() {
    let Some(pair) = FolderPair::up() else { return };
    assert_carries(&pair);
    end(pair);
}

#[test]
fn everything_passes_without_security() {
    let Some(pair) = FolderPair::open(["", ""]) else { return };
    assert_carries(&pair);
    end(pair);
}

#[test]
fn everything_passes_when_one_side_has_no_offload() {
    let Some(pair) = FolderPair::with(["", "offload = false"]) else { return };
    assert_carries(&pair);
    end(pair);
}

#[test]
fn everything_passes_without_security_when_one_side_has_no_offload() {
    let Some(pair) = FolderPair::open(["offload = false", ""]) else { return };
    assert_carries(&pair);
    end(pair);
}

#[test]
fn everything_passes_in_frames() {
    let Some(pair) = FolderPair::with(["mode = \"tap\""; 2]) else { return };
    assert_carries(&pair);
    let macs: BTreeSet<_> = [&pair.hosts.a, &pair.hosts.b]
        .map(|host| state::link(host, DEVICE).unwrap().mac.unwrap())
        .into();
    assert_eq!(macs.len(), 2);
    end(pair);
}

#[test]
fn everything_passes_through_several_queues() {
    let Some(pair) = FolderPair::with(["queues = 2", ""]) else { return };
    assert_carries(&pair);
    end(pair);
}

#[test]
fn nothing_of_what_is_inside_shows_in_the_folder() {
    let Some(pair) = FolderPair::up() else { return };
    let FolderPair { a, b, hosts, folder } = pair;
    // What is for B stays where it is.
    b.end(End::Killed);
    let secret = Pattern::new(9).octets(2000);
    let socket = crate::rig::udp::connect(&hosts.a, (Family::V4.inner(2), 9).into());
    socket.send(&secret).unwrap();
    let files = || {
        let inboxes = folder.inboxes().into_iter();
        let paths = inboxes.flat_map(|inbox| crate::rig::folder::children(&inbox));
        let files: Vec<_> = paths.filter_map(|path| std::fs::read(path).ok()).collect();
        files.iter().any(|file| file.len() > secret.len()).then_some(files)
    };
    let files = crate::rig::soon().wait_until(files).unwrap();
    let shows = |file: &Vec<u8>| {
        secret.chunks_exact(16).any(|part| file.windows(part.len()).any(|octets| octets == part))
    };
    assert!(!files.iter().any(shows));
    drop(a);
}

#[test]
fn the_status_says_that_the_peer_is_in_the_folder() {
    let Some(pair) = FolderPair::up() else { return };
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    let labels = pair.folder.inboxes().into_iter().map(|inbox| {
        let name = inbox.file_name().unwrap().to_str().unwrap().to_owned();
        let mut words = name.split('-').skip(1).map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    });
    let sides: BTreeSet<_> =
        labels.map(|(label, run)| format!("side {label} in its run {run}")).collect();
    let seen: BTreeSet<_> = [(&pair.a, a), (&pair.b, b)]
        .map(|(station, host)| {
            station.status(host)["peers"][0]["endpoint"].as_str().unwrap().to_owned()
        })
        .into();
    assert_eq!(seen, sides);
    let text = adit_in(a, &pair.a.files, &["status", "a"]);
    let named: Vec<_> = sides.iter().filter(|side| text.printed.contains(*side)).collect();
    assert_eq!((text.code, named.len()), (Some(0), 1), "{}", text.printed);
    let status: Value = pair.a.status(a);
    assert!(status["peers"][0]["received"]["octets"].as_u64() > Some(0), "{status:#}");
}

#[test]
fn nothing_is_left_on_the_hosts() {
    if !program::available("nft") {
        return;
    }
    let Some(hosts) = hosts() else { return };
    let folder = Folder::new();
    let before = [everything(&hosts.a), everything(&hosts.b)];
    let [one, other] = tomls(&folder, ["", ""]);
    let a = Station::up(&hosts.a, 1, &one);
    let b = Station::up(&hosts.b, 2, &other);
    Pinger::new(&hosts.a, Family::V4.inner(2)).wait_for_answer();
    let journals = [a.files.runtime_directory(), b.files.runtime_directory()];
    let _files: [Files; 2] = [a.end(End::Asked).into_files(), b.end(End::Asked).into_files()];
    assert_same(&before[0], &everything(&hosts.a));
    assert_same(&before[1], &everything(&hosts.b));
    for journal in journals {
        assert_eq!(crate::rig::folder::children(&journal), Vec::<std::path::PathBuf>::new());
    }
    folder.assert_empty();
}
