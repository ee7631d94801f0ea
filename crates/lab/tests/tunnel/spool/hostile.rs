//! Somebody who may write in the folder writes rubbish named like ours, and repeats what others wrote.
//!
//! ```text
//!   host A                                       host B
//!   adit0 ...................................... adit0
//!   folder ------------------------------------- folder
//!      ^
//!      somebody: old files, wrong numbers, torn headers, endless names, links and pipes
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, mknodat};
use transport::spool::file::Header;
use transport::spool::name::NUMBER_MAX;

use crate::rig::folder::{End, Folder, FolderPair, children, end_all};
use crate::rig::numbered::Numbered;
use crate::rig::pair::Family;
use crate::rig::tcp::{Session, assert_transfers};
use crate::rig::tunnel::Tunnel;
use crate::rig::{Pattern, soon};

/// How long somebody writes.
const SIEGE: Duration = Duration::from_secs(3);

/// The longest that nothing may pass when it is over: what is not whole is waited for 2 s, what is missing 1 s.
const GAP: Duration = Duration::from_secs(5);

/// Inboxes of nobody, with which a folder has less than can be told apart.
const STRANGERS: usize = 500;

/// The most memory of a worker, in KiB.
const MEMORY: u64 = 64 << 10;

/// The memory of the worker that it has touched, in KiB.
pub(super) fn memory(tunnel: &Tunnel) -> u64 {
    let pid = soon().wait_until(|| tunnel.worker()).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// The run in an inbox's name.
fn run(inbox: &Path) -> String {
    inbox.to_str().unwrap().rsplit('-').next().unwrap().to_owned()
}

/// What was in the folder at some time.
fn overheard(folder: &Folder) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = folder.inboxes().into_iter().flat_map(|inbox| children(&inbox));
    let batches = files.filter(|file| file.extension().is_some_and(|end| end == "batch"));
    batches.filter_map(|file| Some((file.clone(), fs::read(&file).ok()?))).collect()
}

/// One handful of rubbish in every inbox.
fn throw(inboxes: &[PathBuf], heard: &BTreeMap<PathBuf, Vec<u8>>, pattern: &mut Pattern) {
    let runs: Vec<_> = inboxes.iter().map(|inbox| run(inbox)).collect();
    for (inbox, sender) in inboxes.iter().zip(runs.iter().rev()) {
        let mut name = |end: &str| {
            // So many numbers that hardly any is one of the next: each of those costs its stream seconds.
            let (stream, number) = (pattern.next() % 3, pattern.next() % (1 << 40));
            let stream = if stream == 2 { 255 } else { stream };
            inbox.join(format!("{sender}-{stream:02x}-{number:016x}.{end}"))
        };
        // Whoever is there first has the name; and who looks there may remove it at once.
        let (torn, long, link, pipe, folder) =
            (name("batch"), name("batch"), name("batch"), name("batch"), name("batch"));
        let part = name("part");
        let _ = fs::write(torn, b"adit\0sp1 and no more");
        let _ = File::create(long).and_then(|file| file.set_len(3 << 20));
        let _ = symlink("/etc/shadow", link);
        let _ = mknodat(rustix::fs::CWD, pipe, FileType::Fifo, Mode::RWXU, 0);
        let _ = fs::create_dir(folder);
        let _ = fs::write(part, "half");
        let stranger = format!("{:016x}-00-0000000000000001.batch", pattern.next());
        let _ = fs::write(inbox.join(stranger), pattern.octets(100));
        // What was said before is said again.
        for (path, content) in heard {
            let _ = fs::write(inbox.join(path.file_name().unwrap()), content);
        }
    }
}

#[test]
fn rubbish_and_repetitions_disturb_no_longer_than_they_come() {
    let Some(pair) = FolderPair::up() else { return };
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    let [there, back] = [(a, b, 2), (b, a, 1)]
        .map(|(from, to, number)| Numbered::start(from, to, Family::V4.inner(number)));
    let mut session = Session::begin(a, b, Family::V4.inner(2));
    session.exchange(100_000);
    let (inboxes, mut heard) = (pair.folder.inboxes(), BTreeMap::new());
    soon()
        .wait_until(|| {
            heard.append(&mut overheard(&pair.folder));
            (heard.len() > 20).then_some(())
        })
        .unwrap();
    let mut pattern = Pattern::new(11);
    let until = Instant::now() + SIEGE;
    while Instant::now() < until {
        throw(&inboxes, &heard, &mut pattern);
    }
    for (way, numbered) in [("there", &there), ("back", &back)] {
        let gap = numbered.wait_for_news();
        assert!(gap < GAP, "nothing {way} for {gap:?}");
    }
    session.exchange(1_000_000);
    for tally in [there.finish(), back.finish()] {
        assert!(tally.arrived * 10 > tally.sent, "{tally:?}");
    }
    for station in [&pair.a, &pair.b] {
        let memory = memory(&station.tunnel);
        assert!(memory < MEMORY, "{memory} KiB");
    }
}

#[test]
fn inboxes_of_nobody_are_no_sides() {
    let Some(pair) = FolderPair::up() else { return };
    let inboxes = pair.folder.inboxes();
    let label = |inbox: &Path| inbox.to_str().unwrap().rsplit_once('-').unwrap().0.to_owned();
    let mut pattern = Pattern::new(12);
    for inbox in &inboxes {
        for _ in 0..100 {
            fs::create_dir(format!("{}-{:016x}", label(inbox), pattern.next())).unwrap();
        }
    }
    for number in 0..STRANGERS {
        let name = format!("adit1-{number:016x}-{:016x}", pattern.next());
        fs::create_dir(pair.folder.path().join(name)).unwrap();
    }
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    assert_transfers(a, b, Family::V4.inner(2), 4 << 20);
    // Those of their own label are leftovers; who comes again finds the one that lives.
    let FolderPair { a, b, hosts, folder } = pair;
    let a = a.restart(&hosts.a, End::Killed);
    let b = b.restart(&hosts.b, End::Asked);
    let pair = FolderPair { a, b, hosts, folder };
    pair.wait_for_answers();
    assert_eq!(pair.folder.inboxes().len(), 2 + STRANGERS);
}

#[test]
fn a_number_far_ahead_silences_a_side_no_longer_than_until_it_comes_again() {
    let Some(pair) = FolderPair::up() else { return };
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    let there = Numbered::start(a, b, Family::V4.inner(2));
    let heard = soon().wait_until(|| {
        let heard = overheard(&pair.folder);
        let lane = |path: &Path| path.to_str().unwrap().contains("-00-0");
        heard.into_iter().find(|(path, _)| lane(path))
    });
    let (path, mut content) = heard.unwrap();
    // As the side would write it whose file it was.
    let header = Header::parse(&content).unwrap();
    let far = Header { number: NUMBER_MAX - 1, ..header };
    content[..Header::LEN].copy_from_slice(&far.emit());
    let name = path.to_str().unwrap().rsplit_once('-').unwrap().0.to_owned();
    let forged = PathBuf::from(format!("{name}-{:016x}.batch", far.number));
    fs::write(&forged, content).unwrap();
    let gap = there.wait_for_news();
    assert!(gap < GAP, "{gap:?}");
    there.finish();
    // It is taken when nothing comes that is missing before it. Then all is passed that the side has still to write.
    soon().wait_until(|| (!forged.exists()).then_some(())).unwrap();
    let FolderPair { a, b, hosts, folder } = pair;
    let a = a.restart(&hosts.a, End::Killed);
    let there = Numbered::start(&hosts.a, &hosts.b, Family::V4.inner(2));
    let gap = there.wait_for_news();
    assert!(gap < GAP, "{gap:?}");
    there.finish();
    end_all([a, b]);
    folder.assert_empty();
}
