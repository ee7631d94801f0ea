//! Two sides that send each other records all the time: whatever the folder does, what arrives is right, in
//! order, and nothing arrives twice.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use simnet::Random;
use transport::spool::{Fault, Limits, Reader, RecvBatch, Side, Skip, Spool, Writer};

use super::rig::{Clock, names, open_at};

/// The most octets of a record.
const RECORD: usize = 1400;

/// The most records of a file.
const RECORDS: u64 = 40;

/// The longest pause of who has something to send.
const PAUSE: Duration = Duration::from_millis(20);

/// What no answer may take where everything works.
const SLOW: Duration = Duration::from_secs(3);

/// The number of the record that says that none follows.
const END: u64 = u64::MAX;

/// How an exchange is going, seen from outside; the first is *here*, the second *there*.
pub(crate) struct Progress {
    pub(crate) clock: Clock,
    received: [AtomicU64; 2],
    finished: AtomicBool,
}

/// What came of an exchange in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// How many of the lost ones the writer said to have dropped.
    pub(crate) dropped: u64,
}

/// One side of an exchange.
struct Party<'a> {
    index: usize,
    reader: Reader,
    writer: Writer,
    batch: RecvBatch,
    to: Side,
    random: Random,
    sent: u64,
    dropped: u64,
    /// The number of the last record received.
    last: u64,
    received: u64,
    has_ended: bool,
    progress: &'a Progress,
}

impl Progress {
    /// How many records each has received.
    pub(crate) fn received(&self) -> [u64; 2] {
        [0, 1].map(|index| self.received[index].load(Ordering::Relaxed))
    }

    /// Waits until both have received so many more, and says how long that took.
    pub(crate) fn await_records(&self, more: u64, limit: Duration) -> Duration {
        let goal = self.received().map(|received| received + more);
        until("records", limit, || self.received()[0] >= goal[0] && self.received()[1] >= goal[1])
    }
}

/// Lets both send until `control` returns, and then until everything has arrived that will.
pub(crate) fn exchange(
    here: &Spool,
    there: &Spool,
    streams: [u8; 2],
    control: impl FnOnce(&Progress),
) -> [Account; 2] {
    let progress = Progress {
        clock: Clock::new(),
        received: Default::default(),
        finished: AtomicBool::new(false),
    };
    let accounts = thread::scope(|scope| {
        let parties = [(here, there), (there, here)].into_iter().enumerate();
        let threads = parties.map(|(index, (own, other))| {
            let (progress, stream) = (&progress, streams[index]);
            scope.spawn(move || Party::new(index, own, other.side(), stream, progress).run())
        });
        let threads: Vec<_> = threads.collect();
        control(&progress);
        progress.finished.store(true, Ordering::Relaxed);
        let accounts = threads.into_iter().map(|thread| thread.join().unwrap());
        accounts.collect::<Vec<_>>()
    });
    let [(to_there, from_there), (to_here, from_here)] = accounts[..] else { unreachable!() };
    let account = |(sent, dropped): (u64, u64), received: u64| Account {
        sent,
        lost: sent - received,
        dropped,
    };
    [account(to_there, from_here), account(to_here, from_there)]
}

impl<'a> Party<'a> {
    fn new(index: usize, spool: &Spool, to: Side, stream: u8, progress: &'a Progress) -> Self {
        Self {
            index,
            reader: spool.reader(progress.clock.now()).unwrap(),
            writer: spool.writer(stream).unwrap(),
            batch: RecvBatch::new(),
            to,
            random: Random::new(stream.into()),
            sent: 0,
            dropped: 0,
            last: 0,
            received: 0,
            has_ended: false,
            progress,
        }
    }

    /// What was sent and dropped, and what was received.
    fn run(mut self) -> ((u64, u64), u64) {
        let mut heard_end = false;
        while !(heard_end && self.has_ended) {
            assert!(!self.progress.clock.is_out_of_patience(), "no end comes");
            let sends = self.send();
            let receives = self.receive();
            heard_end |= self.last == END;
            if !sends && !receives {
                wait(&self.reader, self.progress.clock.now(), PAUSE);
            }
        }
        ((self.sent, self.dropped), self.received)
    }

    /// Publishes what there is to send; whether it was published.
    fn send(&mut self) -> bool {
        if self.has_ended {
            return false;
        }
        let is_end = self.writer.is_empty() && self.progress.finished.load(Ordering::Relaxed);
        if is_end {
            self.put(END, 8);
        } else if self.writer.is_empty() {
            for _ in 0..self.random.within(1..RECORDS) {
                self.sent += 1;
                let len = usize::try_from(self.random.within(8..RECORD as u64)).unwrap();
                self.put(self.sent, len);
            }
        }
        let outcome = self.writer.publish(self.progress.clock.now());
        if is_end {
            // It is no record that is counted; while the side has taken too little it stays.
            if outcome.full.is_some() {
                self.writer.clear();
            }
            self.has_ended = outcome.sent > 0;
        } else {
            self.dropped += outcome.dropped as u64;
        }
        outcome.sent > 0
    }

    fn put(&mut self, number: u64, len: usize) {
        fill(self.writer.reserve(&self.to, len).unwrap(), number);
        self.writer.commit(len);
    }

    fn receive(&mut self) -> bool {
        let now = self.progress.clock.now();
        match self.reader.recv(&mut self.batch, now) {
            Ok(records) => {
                self.check();
                records > 0
            }
            Err(Fault::InboxGone(_)) => {
                let _ = self.reader.renew(now);
                false
            }
            Err(_) => false,
        }
    }

    fn check(&mut self) {
        let mut expected = [0; RECORD];
        for range in self.batch.records() {
            let record = &self.batch.arena()[range];
            let number = u64::from_le_bytes(record[..8].try_into().unwrap());
            if number == END {
                self.last = END;
                continue;
            }
            assert!(number > self.last, "record {number} after {}", self.last);
            let expected = &mut expected[..record.len()];
            fill(expected, number);
            assert!(record == expected, "record {number} is another one");
            self.last = number;
            self.received += 1;
        }
        self.progress.received[self.index].store(self.received, Ordering::Relaxed);
    }
}

/// A number, and octets that follow from it.
fn fill(record: &mut [u8], number: u64) {
    record[..8].copy_from_slice(&number.to_le_bytes());
    Random::new(number).fill(&mut record[8..]);
}

/// Waits as a worker does, but for no longer than `longest`.
pub(crate) fn wait(reader: &Reader, now: Duration, longest: Duration) {
    let pause = reader.next_look().saturating_sub(now).min(longest);
    let timeout = Timespec::try_from(pause).unwrap();
    let _ = poll(&mut [PollFd::new(reader, PollFlags::IN)], Some(&timeout));
}

/// Waits until `condition` holds, for no longer than `limit`, and says how long that took.
pub(crate) fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let clock = Clock::new();
    while !condition() {
        assert!(clock.now() < limit, "waited {limit:?} for {what}");
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
    }
    clock.now()
}

/// Everything that two sides do in a folder which one of them sees as `here`, the other as `there`: they find
/// each other, exchange, answer, begin anew, and leave nothing behind.
pub(crate) fn tour(what: &str, here: &Path, there: &Path) {
    let home = open_at(here, "home", 1, Limits::default());
    let office = open_at(there, "office", 2, Limits::default());
    let found = await_sides(&home, &office);
    println!("{what}: {}; sides found after {found:?}", home.character());
    let clock = Clock::new();
    let count = |progress: &Progress| {
        progress.await_records(10_000, Duration::from_secs(50));
    };
    let accounts = exchange(&home, &office, [0, 0], count);
    assert_lossless(&home, &office, accounts);
    let [to, fro] = accounts.map(|account| account.sent);
    println!("{what}: {to} records there and {fro} back in {:?}", clock.now());
    let (busy, quiet) = round_trips(&home, &office);
    println!("{what}: round trip {busy:?}, after a pause {quiet:?}");
    assert!(quiet < SLOW, "an answer took {quiet:?}");
    drop(office);
    let office = open_at(there, "office", 3, Limits::default());
    let found = await_sides(&home, &office);
    let accounts = exchange(&home, &office, [2, 0], |progress| {
        progress.await_records(500, Duration::from_secs(30));
    });
    assert_lossless(&home, &office, accounts);
    println!("{what}: restart seen after {found:?}");
    drop((home, office));
    assert_eq!(names(there), [""; 0]);
}

fn assert_lossless(home: &Spool, office: &Spool, accounts: [Account; 2]) {
    assert_eq!(accounts.map(|account| (account.lost, account.dropped)), [(0, 0); 2]);
    for spool in [home, office] {
        let status = spool.status(Duration::ZERO);
        assert!(status.up && status.counters.faults == 0, "{status:?}");
        assert!(Skip::ALL.iter().all(|&skip| status.counters.skipped.of(skip) == 0), "{status:?}");
    }
}

/// Waits until each sees the other and nobody else.
pub(crate) fn await_sides(home: &Spool, office: &Spool) -> Duration {
    until("the sides to find each other", Duration::from_secs(30), || {
        home.sides().unwrap() == [office.side()] && office.sides().unwrap() == [home.side()]
    })
}

/// The median time until an answer comes, and the longest after a pause.
fn round_trips(home: &Spool, office: &Spool) -> (Duration, Duration) {
    const BUSY: usize = 41;
    const QUIET: usize = 5;
    let clock = Clock::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut writer, mut reader) =
                (office.writer(1).unwrap(), office.reader(clock.now()).unwrap());
            for _ in 0..BUSY + QUIET {
                super::rig::receive(&mut reader, &mut RecvBatch::new(), clock);
                super::rig::send(&mut writer, &home.side(), b"answer", clock.now());
            }
        });
        let (mut writer, mut reader) = (home.writer(1).unwrap(), home.reader(clock.now()).unwrap());
        let mut ask = |pause: Duration| {
            let (end, mut batch) = (clock.now() + pause, RecvBatch::new());
            while clock.now() < end {
                assert_eq!(reader.recv(&mut batch, clock.now()).unwrap(), 0);
                wait(&reader, clock.now(), PAUSE);
            }
            let start = clock.now();
            super::rig::send(&mut writer, &office.side(), b"question", start);
            super::rig::receive(&mut reader, &mut batch, clock);
            clock.now() - start
        };
        let mut busy = [(); BUSY].map(|()| ask(Duration::ZERO));
        let quiet = [(); QUIET].map(|()| ask(Duration::from_millis(300)));
        busy.sort_unstable();
        (busy[BUSY / 2], quiet.into_iter().max().unwrap())
    })
}
