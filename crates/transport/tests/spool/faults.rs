//! Nobody reads, nothing fits.

use std::fs;
use std::path::Path;
use std::time::Duration;

use transport::spool::outbox::Bound;
use transport::spool::{Full, Limits, RECORD_MAX};

use super::alone::{Mount, alone};
use super::rig::{Scratch, names, put, receive_at, send};

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn without_a_reader_no_more_than_the_bound_is_written() {
    let scratch = Scratch::new();
    let bound = Bound { files: 8, octets: 1_000_000 };
    let limits = Limits { outstanding: bound, ..Limits::default() };
    let (home, office) = (scratch.open_limited("home", 1, limits), scratch.open("office", 2));
    let mut writer = home.writer(0).unwrap();
    for _ in 0..8 {
        send(&mut writer, &office.side(), b"x", at(5));
    }
    put(&mut writer, &office.side(), b"kept");
    for millis in [6, 500, 9000] {
        let outcome = writer.publish(at(millis));
        assert_eq!(outcome.full, Some(Full { progress: at(5) }));
        assert_eq!((outcome.sent, outcome.dropped, writer.records()), (0, 0, 1));
    }
    let status = home.status(at(9005));
    let [outstanding] = status.outstanding[..] else { panic!("{status:?}") };
    assert_eq!((outstanding.to, outstanding.files), (office.side(), 8));
    assert_eq!(outstanding.age, at(9000));
    assert_eq!(status.counters.full, 3);
    let mut reader = office.reader(at(9000)).unwrap();
    assert_eq!(receive_at(&mut reader, at(9000)).len(), 8);
    assert_eq!(writer.publish(at(9001)).sent, 1);
    assert_eq!(receive_at(&mut reader, at(9100)), [b"kept"]);
    writer.review(at(9900));
    assert_eq!(home.status(at(9900)).outstanding, []);
}

#[test]
fn octets_are_bounded_as_well() {
    let scratch = Scratch::new();
    let limits = Limits { outstanding: Bound { files: 64, octets: 200_000 }, ..Limits::default() };
    let (home, office) = (scratch.open_limited("home", 1, limits), scratch.open("office", 2));
    let mut writer = home.writer(0).unwrap();
    let record = vec![7; RECORD_MAX];
    send(&mut writer, &office.side(), &record, at(0));
    send(&mut writer, &office.side(), &record, at(0));
    put(&mut writer, &office.side(), &record);
    assert!(writer.publish(at(0)).full.is_some());
    writer.clear();
    assert!(writer.publish(at(0)).full.is_none());
    assert_eq!(names(&scratch.inbox(&office.side())).len(), 3);
}

#[test]
fn records_for_another_side_wait_until_these_are_published() {
    let scratch = Scratch::new();
    let home = scratch.open("home", 1);
    let (office, shed) = (scratch.open("office", 2), scratch.open("shed", 3));
    let mut writer = home.writer(0).unwrap();
    put(&mut writer, &office.side(), b"to the office");
    assert!(writer.reserve(&shed.side(), 1).is_none());
    assert!(writer.reserve(&office.side(), 1).is_some());
    assert_eq!(writer.publish(at(0)).sent, 1);
    send(&mut writer, &shed.side(), b"to the shed", at(0));
    assert_eq!(receive_at(&mut office.reader(at(0)).unwrap(), at(0)), [b"to the office"]);
    assert_eq!(receive_at(&mut shed.reader(at(0)).unwrap(), at(0)), [b"to the shed"]);
}

#[test]
fn a_full_disk_drops_counts_and_recovers() {
    alone("faults::a_full_disk_drops_counts_and_recovers", || {
        let scratch = Scratch::new();
        let Some(_mount) = Mount::new("tmpfs", "size=1m", scratch.path()) else { return };
        fill_up(scratch.path());
    });
}

fn fill_up(tiny: &Path) {
    let scratch = Scratch::within(tiny);
    let (home, office) = (scratch.open("home", 1), scratch.open("office", 2));
    assert_eq!(home.character().filesystem, "tmpfs");
    let mut writer = home.writer(0).unwrap();
    let mut reader = office.reader(at(0)).unwrap();
    let inbox = scratch.inbox(&office.side());
    let record = vec![7; RECORD_MAX];
    let mut sent = 0;
    let outcome = loop {
        put(&mut writer, &office.side(), &record);
        let outcome = writer.publish(at(0));
        if outcome.sent == 0 {
            break outcome;
        }
        sent += 1;
    };
    assert!(sent >= 10, "{sent} published");
    assert_eq!(outcome.dropped, 1);
    let fault = outcome.error.unwrap();
    assert_eq!(fault.to_string(), "write a file in the folder");
    let cause = std::error::Error::source(&fault).unwrap().to_string();
    assert!(cause.contains("No space left"), "{cause}");
    assert!(names(&inbox).iter().all(|name| !name.ends_with(".part")), "a part is left");
    assert!(!home.status(at(0)).up);
    put(&mut writer, &office.side(), b"too soon");
    let outcome = writer.publish(at(1));
    assert!(outcome.down && outcome.dropped == 1);
    assert_eq!(receive_at(&mut reader, at(1)).len(), sent);
    send(&mut writer, &office.side(), b"room again", at(10));
    assert!(home.status(at(10)).up);
    assert_eq!(receive_at(&mut reader, at(100)), [b"room again"]);
    let counters = home.status(at(100)).counters;
    assert_eq!((counters.faults, counters.records_dropped), (1, 2));
    drop((reader, office));
    assert!(!fs::exists(inbox).unwrap());
}
