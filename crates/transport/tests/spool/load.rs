//! Much, and fast: exactly once and in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use simnet::Random;
use transport::spool::{RECORD_MAX, RecvBatch, Side, Skip, Spool, Writer};

use super::rig::{Clock, Scratch, receive};

const STREAMS: u8 = 3;
const RECORDS: u64 = 2000;

/// The number of a record, its stream, and octets that follow from both.
fn fill(record: &mut [u8], stream: u8, number: u64) {
    let seed = number << 8 | u64::from(stream);
    record[..8].copy_from_slice(&seed.to_le_bytes());
    Random::new(seed).fill(&mut record[8..]);
}

fn write(writer: &mut Writer, to: &Side, stream: u8, clock: Clock) {
    let mut random = Random::new(stream.into());
    for number in 1..=RECORDS {
        let len = usize::try_from(random.within(8..RECORD_MAX as u64)).unwrap();
        let len = if random.chance(800) { 8 + len % 1500 } else { len };
        if writer.reserve(to, len).is_none() {
            publish(writer, clock);
        }
        fill(writer.reserve(to, len).unwrap(), stream, number);
        writer.commit(len);
        if random.chance(100) {
            publish(writer, clock);
        }
    }
    publish(writer, clock);
}

/// Waits for room as long as it takes.
fn publish(writer: &mut Writer, clock: Clock) {
    while !writer.is_empty() {
        let outcome = writer.publish(clock.now());
        assert_eq!((outcome.dropped, outcome.gone), (0, false), "{outcome:?}");
        assert!(!clock.is_out_of_patience(), "nobody takes anything");
        if outcome.full.is_some() {
            thread::yield_now();
        }
    }
}

fn read(spool: &Spool, from: &Side, clock: Clock) {
    let mut reader = spool.reader(clock.now()).unwrap();
    let mut batch = RecvBatch::new();
    let mut expected = [1; STREAMS as usize];
    let mut scratch = vec![0; RECORD_MAX];
    while expected.iter().any(|&number| number <= RECORDS) {
        receive(&mut reader, &mut batch, clock);
        assert_eq!(batch.from(), Some(from));
        for range in batch.records() {
            let record = &batch.arena()[range];
            let stream = record[0];
            let number = &mut expected[usize::from(stream)];
            let scratch = &mut scratch[..record.len()];
            fill(scratch, stream, *number);
            assert!(record == scratch, "record {number} of stream {stream}");
            *number += 1;
        }
    }
}

#[test]
fn under_load_every_record_arrives_once_and_in_order() {
    for scratch in Scratch::everywhere() {
        let clock = Clock::new();
        let (home, office) = (scratch.open("home", 1), scratch.open("office", 2));
        assert_eq!(home.sides().unwrap(), [office.side()]);
        thread::scope(|scope| {
            for stream in 0..STREAMS {
                let mut writer = home.writer(stream).unwrap();
                let to = office.side();
                scope.spawn(move || write(&mut writer, &to, stream, clock));
            }
            read(&office, &home.side(), clock);
        });
        let (sent, received) = (home.status(clock.now()), office.status(clock.now()));
        assert!(sent.up && received.up);
        let total = RECORDS * u64::from(STREAMS);
        assert_eq!((sent.counters.records_out, received.counters.records_in), (total, total));
        assert_eq!(sent.counters.octets_out, received.counters.octets_in);
        assert_eq!(sent.counters.batches_out, received.counters.batches_in);
        assert!(Skip::ALL.iter().all(|&skip| received.counters.skipped.of(skip) == 0));
        assert_eq!((sent.counters.faults, received.counters.faults), (0, 0));
    }
}

#[test]
fn an_answer_comes_without_waiting_for_a_poll() {
    let clock = Clock::new();
    let scratch = Scratch::new();
    let (home, office) = (scratch.open("home", 1), scratch.open("office", 2));
    assert!(home.character().inotify);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| echo(&office, &home.side(), &done, clock));
        let mut writer = home.writer(0).unwrap();
        let mut reader = home.reader(clock.now()).unwrap();
        let mut batch = RecvBatch::new();
        for number in 0..200_u32 {
            super::rig::send(&mut writer, &office.side(), &number.to_le_bytes(), clock.now());
            assert_eq!(receive(&mut reader, &mut batch, clock), 1);
            let range = batch.records().next().unwrap();
            assert_eq!(batch.arena()[range], number.to_le_bytes());
        }
        // Proven by 200 files in a row: looks are rare, and announcements do not need them.
        assert_eq!(reader.recv(&mut batch, clock.now()).unwrap(), 0);
        done.store(true, Ordering::Relaxed);
        super::rig::send(&mut writer, &office.side(), b"last", clock.now());
    });
    let counters = home.status(clock.now()).counters;
    assert_eq!((counters.records_out, counters.records_in, counters.full), (201, 200, 0));
}

fn echo(spool: &Spool, to: &Side, done: &AtomicBool, clock: Clock) {
    let mut writer = spool.writer(0).unwrap();
    let mut reader = spool.reader(clock.now()).unwrap();
    let mut batch = RecvBatch::new();
    loop {
        receive(&mut reader, &mut batch, clock);
        if done.load(Ordering::Relaxed) {
            return;
        }
        for range in batch.records() {
            super::rig::put(&mut writer, to, &batch.arena()[range]);
        }
        publish(&mut writer, clock);
    }
}

#[test]
fn spools_writers_and_readers_go_where_they_are_needed() {
    fn shared<T: Send + Sync>() {}
    fn moved<T: Send>() {}
    shared::<Spool>();
    moved::<(Writer, transport::spool::Reader, RecvBatch)>();
}
