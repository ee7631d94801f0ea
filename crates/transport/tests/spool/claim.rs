//! Labels, lives and ends.

use std::fs::{self, File};
use std::time::Duration;

use transport::spool::name::{FileName, Stage};
use transport::spool::{Fault, Limits, OpenError, Side, Spool};

use super::rig::{Scratch, names, put, receive_at, run_id, send};

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_label_has_one_living_owner_on_a_machine() {
    let scratch = Scratch::new();
    let home = scratch.open("home", 1);
    let again = |run| {
        let folder = File::open(scratch.path()).unwrap();
        Spool::open(folder.into(), "home".parse().unwrap(), run_id(run), Limits::default())
    };
    let error = again(2).unwrap_err();
    assert!(matches!(&error, OpenError::Claimed { by, .. } if *by == home.side()));
    assert_eq!(
        error.to_string(),
        "claim label \"home\": adit1-home-0000000000000001 has it and is alive"
    );
    assert!(matches!(again(1), Err(OpenError::Claimed { .. })));
    assert_eq!(names(scratch.path()), ["adit1-home-0000000000000001"]);
    drop(home);
    assert_eq!(names(scratch.path()), [""; 0]);
    assert_eq!(again(3).unwrap().side().run, run_id(3));
}

#[test]
fn what_a_dead_run_left_behind_is_removed_but_for_foreign_things() {
    let scratch = Scratch::new();
    let left = |label: &str, run| {
        let side = Side { label: label.parse().unwrap(), run: run_id(run) };
        let inbox = scratch.inbox(&side);
        fs::create_dir(&inbox).unwrap();
        let file = FileName { from: run_id(9), stream: 0, number: 1 };
        for name in ["alive", file.emit(Stage::Part).as_str(), file.emit(Stage::Batch).as_str()] {
            fs::write(inbox.join(name), b"x").unwrap();
        }
        (side, inbox)
    };
    let (_, clean) = left("home", 1);
    let (littered, kept) = left("home", 2);
    let (_, other) = left("home-2", 3);
    fs::write(kept.join("notes.txt"), b"mine").unwrap();
    let home = scratch.open("home", 4);
    assert_eq!(home.leftovers(), [littered]);
    assert!(!clean.exists());
    assert_eq!(names(&kept), ["notes.txt"]);
    assert_eq!(names(&other).len(), 3);
}

#[test]
fn a_side_that_begins_anew_gets_nothing_that_was_for_its_predecessor() {
    let scratch = Scratch::new();
    let home = scratch.open("home", 1);
    let office = scratch.open("office", 2);
    let before = office.side();
    let mut writer = home.writer(0).unwrap();
    send(&mut writer, &before, b"for the first life", at(0));
    drop(office);
    let office = scratch.open("office", 3);
    let mut reader = office.reader(at(0)).unwrap();
    assert_eq!(receive_at(&mut reader, at(0)), Vec::<Vec<u8>>::new());
    put(&mut writer, &before, b"lost");
    let outcome = writer.publish(at(1));
    assert!(outcome.gone && outcome.dropped == 1 && outcome.error.is_none(), "{outcome:?}");
    assert_eq!(home.sides().unwrap(), [office.side()]);
    send(&mut writer, &office.side(), b"for the second", at(2));
    assert_eq!(receive_at(&mut reader, at(100)), [b"for the second"]);
    let status = home.status(at(100));
    assert!(status.up);
    assert_eq!(status.counters.records_dropped, 1);
    assert_eq!(status.outstanding.iter().filter(|line| line.to == before).count(), 0);
}

#[test]
fn a_sender_that_begins_anew_is_heard_at_once() {
    let scratch = Scratch::new();
    let office = scratch.open("office", 2);
    let mut reader = office.reader(at(0)).unwrap();
    for run in 10..15 {
        let home = scratch.open("home", run);
        let mut writer = home.writer(0).unwrap();
        send(&mut writer, &office.side(), b"first", at(run));
        send(&mut writer, &office.side(), b"second", at(run));
        drop((home, writer));
        assert_eq!(receive_at(&mut reader, at(100 * run)), [&b"first"[..], b"second"]);
    }
}

#[test]
fn an_inbox_that_is_removed_is_noticed_by_everybody_and_can_be_made_again() {
    let scratch = Scratch::new();
    let (home, office) = (scratch.open("home", 1), scratch.open("office", 2));
    let mut writer = home.writer(0).unwrap();
    let mut reader = office.reader(at(0)).unwrap();
    send(&mut writer, &office.side(), b"one", at(0));
    send(&mut writer, &office.side(), b"two", at(0));
    assert_eq!(receive_at(&mut reader, at(0)), [b"one", b"two"]);
    fs::remove_dir_all(scratch.inbox(&office.side())).unwrap();
    let mut batch = transport::spool::RecvBatch::new();
    let fault = reader.recv(&mut batch, at(1000)).unwrap_err();
    assert!(matches!(fault, Fault::InboxGone(side) if side == office.side()));
    assert!(!office.status(at(1000)).up);
    put(&mut writer, &office.side(), b"lost");
    assert!(writer.publish(at(1000)).gone);
    reader.renew(at(2000)).unwrap();
    assert!(office.status(at(2000)).up);
    for number in 0..3 {
        send(&mut writer, &office.side(), &[number], at(2000));
    }
    assert_eq!(receive_at(&mut reader, at(2100)), [[0], [1], [2]]);
    drop((reader, office));
    assert_eq!(home.sides().unwrap(), []);
}

#[test]
fn an_inbox_that_is_renamed_is_gone_too() {
    let scratch = Scratch::new();
    let office = scratch.open("office", 2);
    let mut reader = office.reader(at(0)).unwrap();
    let inbox = scratch.inbox(&office.side());
    fs::rename(&inbox, scratch.path().join("elsewhere")).unwrap();
    let mut batch = transport::spool::RecvBatch::new();
    assert!(matches!(reader.recv(&mut batch, at(10_000)), Err(Fault::InboxGone(_))));
}

#[test]
fn parts_of_runs_that_have_ended_are_removed() {
    let scratch = Scratch::new();
    let (home, office) = (scratch.open("home", 1), scratch.open("office", 2));
    let mut reader = office.reader(at(0)).unwrap();
    let part = |run| FileName { from: run_id(run), stream: 0, number: 5 }.emit(Stage::Part);
    let inbox = scratch.inbox(&office.side());
    for run in [1, 7] {
        fs::write(inbox.join(part(run).as_str()), b"half").unwrap();
    }
    receive_at(&mut reader, at(9999));
    assert_eq!(names(&inbox).len(), 3);
    receive_at(&mut reader, at(10_000));
    assert_eq!(names(&inbox), [part(1).as_str(), "alive"]);
    drop(home);
}

#[test]
fn a_stream_has_one_writer_and_an_inbox_one_reader() {
    let scratch = Scratch::new();
    let office = scratch.open("office", 2);
    assert!(office.writer(200).is_some() && office.writer(200).is_none());
    assert!(office.writer(201).is_some());
    let reader = office.reader(at(0)).unwrap();
    assert!(office.reader(at(0)).is_err());
    drop(reader);
    assert!(office.reader(at(0)).is_ok());
}
