//! What is not ours, and who does not mean well.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use simnet::Random;
use transport::spool::file::{Composition, FILE_MAX, Header};
use transport::spool::name::{FileName, NUMBER_MAX, Stage};
use transport::spool::{RunId, Side, Skip, Spool};

use super::rig::{Scratch, names, receive_at, run_id, send};

const STRANGER: u64 = 99;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The name of the first file of a stranger's stream.
fn named(stream: u8) -> String {
    let file = FileName { from: run_id(STRANGER), stream, number: 1 };
    file.emit(Stage::Batch).to_string()
}

/// A whole file with one record.
fn content(from: Side, to: RunId, file: &FileName, record: &[u8]) -> Vec<u8> {
    let mut composition = Composition::new();
    composition.reserve(record.len()).unwrap().copy_from_slice(record);
    composition.commit(record.len());
    composition.emit(from.label, to, file).to_vec()
}

/// Everything about a file but when it was looked at: kind, size, inode, and the times of reading and writing.
type Trace = (u32, u64, u64, (i64, i64), (i64, i64), u64);

fn traces(folder: &Path) -> BTreeMap<PathBuf, Trace> {
    let mut traces = BTreeMap::new();
    for name in names(folder) {
        let path = folder.join(name);
        let stat = path.symlink_metadata().unwrap();
        let read = (stat.atime(), stat.atime_nsec());
        let written = (stat.mtime(), stat.mtime_nsec());
        let trace = (stat.mode(), stat.len(), stat.ino(), read, written, stat.nlink());
        if stat.is_dir() {
            // Listing it here is reading it.
            traces.extend(self::traces(&path));
        } else if !path.ends_with("alive") {
            traces.insert(path, trace);
        }
    }
    traces
}

/// Puts everything into an inbox that does not belong there; says how many files and how many of them are
/// foreign.
fn litter(inbox: &Path, outside: &Path, spool: &Spool) -> u64 {
    let side = spool.side();
    let file = FileName { from: run_id(STRANGER), stream: 1, number: 1 };
    let valid = content(side, side.run, &file, b"must not be read");
    fs::write(outside.join("secret"), &valid).unwrap();
    fs::write(outside.join("linked"), &valid).unwrap();
    fs::write(inbox.join("notes.txt"), b"E\x00 nothing for a tunnel").unwrap();
    fs::write(inbox.join("123"), b"").unwrap();
    fs::write(inbox.join(format!("{}~", named(9))), &valid).unwrap();
    fs::write(inbox.join("film.iso"), vec![0x45; 3 * FILE_MAX]).unwrap();
    fs::create_dir(inbox.join("folder")).unwrap();
    fs::write(inbox.join("folder").join(named(1)), &valid).unwrap();
    symlink(outside.join("secret"), inbox.join(named(1))).unwrap();
    symlink("alive", inbox.join("link")).unwrap();
    fs::hard_link(outside.join("linked"), inbox.join(named(2))).unwrap();
    mknodat(CWD, inbox.join(named(3)), FileType::Fifo, Mode::RWXU, 0).unwrap();
    mknodat(CWD, inbox.join(named(4)), FileType::Socket, Mode::RWXU, 0).unwrap();
    fs::create_dir(inbox.join(named(5))).unwrap();
    // /dev/zero: it would read as a file without end.
    let device = mknodat(
        CWD,
        inbox.join(named(6)),
        FileType::CharacterDevice,
        Mode::RWXU,
        rustix::fs::makedev(1, 5),
    );
    let devices = u64::from(device.is_ok());
    assert_eq!(devices == 1, inbox.join(named(6)).exists());
    11 + devices
}

#[test]
fn what_is_not_ours_is_neither_read_nor_changed_nor_removed() {
    for scratch in Scratch::everywhere() {
        let outside = Scratch::within(scratch.path().parent().unwrap());
        let (home, office) = (scratch.open("home", 1), scratch.open("office", 2));
        let inbox = scratch.inbox(&office.side());
        let foreign = litter(&inbox, outside.path(), &office);
        let huge = inbox.join(named(7));
        fs::write(&huge, vec![0x45; 2 * FILE_MAX]).unwrap();
        let huge_before =
            (fs::metadata(&huge).unwrap().ino(), fs::metadata(&huge).unwrap().mtime_nsec());
        let before = (traces(&inbox), traces(outside.path()));
        let mut writer = home.writer(0).unwrap();
        let mut reader = office.reader(at(0)).unwrap();
        for second in 0..20 {
            send(&mut writer, &office.side(), &[second], at(1000 * u64::from(second)));
            let received = receive_at(&mut reader, at(1000 * u64::from(second) + 500));
            assert_eq!(received, [[second]]);
        }
        let mut after = (traces(&inbox), traces(outside.path()));
        let huge_after =
            (fs::metadata(&huge).unwrap().ino(), fs::metadata(&huge).unwrap().mtime_nsec());
        assert_eq!(huge_after, huge_before);
        // What is too long under a name of ours is asked whose it is.
        let read = before.0[&huge];
        after.0.entry(huge).and_modify(|trace| trace.3 = read.3);
        assert_eq!(after, before);
        assert!(fs::symlink_metadata(inbox.join(named(3))).unwrap().file_type().is_fifo());
        let skipped = office.status(at(0)).counters.skipped;
        assert_eq!((skipped.of(Skip::Foreign), skipped.of(Skip::Oversized)), (foreign, 1));
        // Neither does the end remove them, nor the next run.
        let name = office.side();
        drop((reader, writer, office));
        assert!(inbox.join("notes.txt").exists() && inbox.join(named(2)).exists());
        let again = scratch.open("office", 3);
        assert_eq!(again.leftovers(), [name]);
        let mut left = traces(&inbox);
        let mut expected = before.0;
        // Its name and place are ours; as a regular file with one link it goes with the inbox.
        left.remove(&inbox.join(named(7)));
        expected.remove(&inbox.join(named(7)));
        assert_eq!(left, expected);
    }
}

#[test]
fn rubbish_under_our_names_costs_others_nothing_and_goes_away() {
    let mut random = Random::new(7);
    let scratch = Scratch::new();
    let (home, office) = (scratch.open("home", 1), scratch.open("office", 2));
    let inbox = scratch.inbox(&office.side());
    let mut writer = home.writer(0).unwrap();
    let mut reader = office.reader(at(0)).unwrap();
    let mut now = at(0);
    for round in 0..300_u32 {
        for _ in 0..random.within(1..8) {
            rubbish(&inbox, &office.side(), &mut random);
        }
        now += random.duration(at(0)..at(100));
        send(&mut writer, &office.side(), &round.to_le_bytes(), now);
        let received = receive_at(&mut reader, now);
        let genuine = received.iter().filter(|record| record[..] == round.to_le_bytes());
        assert_eq!(genuine.count(), 1, "round {round}");
        assert!(received.iter().all(|record| record.len() == 4 || record == b"forged"));
    }
    for _ in 0..100 {
        now += at(700);
        receive_at(&mut reader, now);
    }
    let is_long = |name: &String| fs::metadata(inbox.join(name)).unwrap().len() > FILE_MAX as u64;
    let left: Vec<_> = names(&inbox).into_iter().filter(|name| !is_long(name)).collect();
    assert_eq!(left, ["alive"]);
    let skipped = office.status(now).counters.skipped;
    for skip in [Skip::Torn, Skip::WrongRun, Skip::Misnamed, Skip::Oversized, Skip::Missing] {
        assert!(skipped.of(skip) > 0, "{skip}");
    }
}

/// Puts a file into the inbox that is wrong in one of many ways.
fn rubbish(inbox: &Path, to: &Side, random: &mut Random) {
    let number = match random.within(0..12) {
        0 => NUMBER_MAX,
        number => number,
    };
    let stream = u8::try_from(random.within(0..40)).unwrap();
    let file = FileName { from: run_id(STRANGER), stream, number };
    let mut octets = content(*to, to.run, &file, b"forged");
    match random.within(0..6) {
        0 => octets.truncate(usize::try_from(random.within(0..octets.len() as u64)).unwrap()),
        1 => random.fill(&mut octets),
        2 => octets = content(*to, run_id(STRANGER), &file, b"to nobody"),
        3 => octets = content(*to, to.run, &FileName { number: 77, ..file }, b"misnamed"),
        4 => octets.resize(FILE_MAX + 1, 0),
        _ => {
            let bit = usize::try_from(random.within(0..octets.len() as u64 * 8)).unwrap();
            octets[bit / 8] ^= 1 << (bit % 8);
        }
    }
    fs::write(inbox.join(file.emit(Stage::Batch).as_str()), octets).unwrap();
}

#[test]
fn of_what_was_removed_while_it_was_open_only_what_is_ours_is_removed() {
    let scratch = Scratch::new();
    let office = scratch.open("office", 2);
    let inbox = scratch.inbox(&office.side());
    let file = FileName { from: run_id(STRANGER), stream: 1, number: 1 };
    let valid = content(office.side(), office.side().run, &file, b"taken long ago");
    let other = content(office.side(), run_id(7), &file, b"for another run");
    fs::write(inbox.join(".fuse_hidden01"), valid).unwrap();
    fs::write(inbox.join(".fuse_hidden02"), other).unwrap();
    fs::write(inbox.join(".fuse_hidden03"), b"notes").unwrap();
    fs::write(inbox.join(".nfs04"), b"").unwrap();
    let mut reader = office.reader(at(0)).unwrap();
    assert_eq!(receive_at(&mut reader, at(0)), Vec::<Vec<u8>>::new());
    assert_eq!(names(&inbox), [".fuse_hidden02", ".fuse_hidden03", ".nfs04", "alive"]);
    assert_eq!(office.status(at(0)).counters.skipped.of(Skip::Foreign), 0);
}

#[test]
fn a_file_that_is_seen_half_written_is_taken_when_it_is_whole() {
    let scratch = Scratch::new();
    let office = scratch.open("office", 2);
    let mut reader = office.reader(at(0)).unwrap();
    let from = Side { label: "home".parse().unwrap(), run: run_id(1) };
    let file = FileName { from: from.run, stream: 0, number: 1 };
    let path = scratch.inbox(&office.side()).join(file.emit(Stage::Batch).as_str());
    let octets = content(from, office.side().run, &file, b"whole");
    for len in [0, 50, Header::LEN, Header::LEN + 10] {
        fs::write(&path, &octets[..len]).unwrap();
        assert_eq!(receive_at(&mut reader, at(len as u64)), Vec::<Vec<u8>>::new());
        assert!(path.exists());
    }
    fs::write(&path, &octets).unwrap();
    assert_eq!(receive_at(&mut reader, at(1000)), [b"whole"]);
    assert!(!path.exists());
    assert_eq!(office.status(at(0)).counters.skipped.of(Skip::Torn), 0);
    // It comes back, as from a stale copy of the folder.
    fs::write(&path, &octets).unwrap();
    assert_eq!(receive_at(&mut reader, at(3000)), Vec::<Vec<u8>>::new());
    assert!(!path.exists());
    assert_eq!(office.status(at(0)).counters.skipped.of(Skip::Passed), 1);
}
