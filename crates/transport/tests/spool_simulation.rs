//! The pure half of the spool through everything that folders do to files, in virtual time.
//!
//! Each run comes of a seed: two senders with some streams each and one reader, over a folder that shows
//! names late or out of order, lists what is gone, shows content in parts, loses, repeats and spoils files,
//! and sides that begin anew. At all times, what is handed over is in order for each stream, comes once, and is for
//! the run that gets it; what is missing is explained by what the folder lost. Once the folder behaves,
//! everything arrives.
//!
//! `ADIT_SEEDS` is how many runs there are, `ADIT_SEED` the first one: a run that fails says its seed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use simnet::Random;
use transport::spool::file::Composition;
use transport::spool::inbox::{Inbox, LATE, Source, Step, TORN, Verdict};
use transport::spool::name::FileName;
use transport::spool::outbox::{Bound, Outbox};
use transport::spool::{RunId, Side, Skip};

/// Runs unless said otherwise.
const SEEDS: u64 = 500;

/// Steps of a run, of up to 20 ms each.
const STEPS: u64 = 1500;

/// When everything has arrived after the folder began to behave: each of a stream's files may be torn, and the
/// one before missing.
const SETTLED: Duration = Duration::from_secs(30);

/// Streams of the senders that live, and of those that ended in the last minute.
const MOST_STREAMS: usize = 100;

const BOUND: Bound = Bound { files: 8, octets: 100_000 };

#[test]
fn whatever_the_folder_does_records_arrive_in_order_and_once() {
    let number = |name, default| {
        std::env::var(name)
            .map_or(default, |text| text.parse().expect("a number in the environment"))
    };
    let first = number("ADIT_SEED", 0);
    for seed in first..first + number("ADIT_SEEDS", SEEDS) {
        let _said = SaysSeed(seed);
        World::new(seed).run();
    }
}

/// Says the seed of a run that fails.
struct SaysSeed(u64);

impl Drop for SaysSeed {
    #[expect(clippy::print_stderr, reason = "the test harness shows it with the failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the run that failed is ADIT_SEED={} ADIT_SEEDS=1", self.0);
        }
    }
}

/// How often the folder does what, of 1000 files.
#[derive(Clone, Copy, Default)]
struct Misfortune {
    /// Shown up to 3 s after it was published.
    late: u64,
    /// Shown in parts at first.
    torn: u64,
    /// Never shown.
    lost: u64,
    /// Something of its content is wrong for ever.
    spoilt: u64,
    /// There again after it was removed.
    repeated: u64,
    /// Listed although it was removed.
    stale: u64,
    /// Announced by inotify.
    announced: u64,
}

/// A file in the folder.
#[derive(Clone)]
struct Stored {
    octets: Vec<u8>,
    /// When its name is shown.
    shown: Duration,
    /// When its content is shown whole; before, only so many octets.
    whole: Duration,
    torn: usize,
    to: RunId,
}

struct Sender {
    side: Side,
    streams: Vec<Outbox>,
}

struct World {
    random: Random,
    misfortune: Misfortune,
    now: Duration,
    files: BTreeMap<FileName, Stored>,
    /// Names that a listing may show although the file is gone, until a time.
    ghosts: BTreeMap<FileName, Duration>,
    senders: Vec<Sender>,
    reader: RunId,
    inbox: Inbox,
    /// Names of the pass under way, which may be cut anywhere.
    pass: Option<Vec<FileName>>,
    /// What was handed over last, by stream of a run, and how much in this life of the reader.
    taken: BTreeMap<(RunId, u8), u64>,
    /// Whether nothing is lost: names and content come a little late, and files once too often.
    is_gentle: bool,
    runs: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut rare = |most| random.within(0..most).pow(2) / most;
        let misfortune = Misfortune {
            late: rare(400),
            torn: rare(300),
            lost: rare(100),
            spoilt: rare(100),
            repeated: rare(200),
            stale: rare(300),
            announced: rare(1400),
        };
        let is_gentle = random.chance(200);
        let misfortune =
            if is_gentle { Misfortune { lost: 0, spoilt: 0, ..misfortune } } else { misfortune };
        let reader = RunId::new([0; 8]);
        let mut world = Self {
            random,
            misfortune,
            now: Duration::ZERO,
            files: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            senders: Vec::new(),
            reader,
            inbox: Inbox::new(reader),
            pass: None,
            taken: BTreeMap::new(),
            is_gentle,
            runs: 0,
        };
        for _ in 0..2 {
            let sender = world.new_sender();
            world.senders.push(sender);
        }
        world
    }

    fn new_run(&mut self) -> RunId {
        self.runs += 1;
        RunId::new(self.runs.to_be_bytes())
    }

    fn new_sender(&mut self) -> Sender {
        let side = Side { label: "sender".parse().unwrap(), run: self.new_run() };
        let streams = 1 + self.random.within(0..3);
        Sender { side, streams: (0..streams).map(|_| Outbox::new(BOUND, self.now)).collect() }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            if self.random.chance(1) {
                self.restart();
            }
        }
        self.misfortune = Misfortune::default();
        self.ghosts.clear();
        let quiet = self.now;
        while self.now < quiet + SETTLED {
            self.advance();
            self.look();
        }
        assert!(self.files.is_empty(), "left behind: {:?}", self.files.keys());
        for index in 0..self.senders.len() {
            self.write(index);
        }
        let last: Vec<_> = self.files.keys().copied().collect();
        assert_eq!(last.len(), self.senders.iter().map(|sender| sender.streams.len()).sum());
        while self.now < quiet + 2 * SETTLED {
            self.advance();
            self.look();
        }
        for file in last {
            assert_eq!(self.taken.get(&(file.from, file.stream)), Some(&file.number));
        }
    }

    fn step(&mut self) {
        self.advance();
        if self.random.chance(10) {
            // Nobody gets to run for a while.
            self.now += self.random.duration(Duration::ZERO..2 * LATE);
        }
        let index = usize::try_from(self.random.within(0..self.senders.len() as u64)).unwrap();
        if self.random.chance(600) {
            self.write(index);
        }
        if self.random.chance(700) {
            self.look();
        }
    }

    fn advance(&mut self) {
        self.now += self.random.duration(Duration::ZERO..Duration::from_millis(20));
    }

    fn restart(&mut self) {
        if self.random.chance(500) {
            let index = usize::try_from(self.random.within(0..2)).unwrap();
            self.senders[index] = self.new_sender();
            return;
        }
        // Its inbox goes with it, but the folder may mix something of it into the next one.
        self.reader = self.new_run();
        self.inbox = Inbox::new(self.reader);
        self.pass = None;
        self.taken.clear();
        self.ghosts.clear();
        let mix = self.random.chance(300);
        self.files.retain(|_, stored| mix && stored.octets.len() % 2 == 0);
        for sender in &mut self.senders {
            // What the next inbox already has cannot be published again.
            let begin = |_: &Outbox| Outbox::new(BOUND, self.now);
            sender.streams = sender.streams.iter().map(begin).collect();
        }
    }

    /// Each stream of the sender publishes a file, if it may.
    fn write(&mut self, index: usize) {
        for stream in 0..self.senders[index].streams.len() {
            let side = self.senders[index].side;
            let outbox = &mut self.senders[index].streams[stream];
            let stream = u8::try_from(stream).unwrap();
            let name = |number| FileName { from: side.run, stream, number };
            let (files, now) = (&self.files, self.now);
            outbox.review(2000, now, |number| files.contains_key(&name(number)));
            if !outbox.admits(2000) {
                continue;
            }
            let file = name(outbox.number());
            if self.files.contains_key(&file) {
                outbox.handle_lost_number();
                continue;
            }
            let octets = self.compose(&side, &file);
            self.senders[index].streams[usize::from(stream)]
                .handle_published(octets.len() as u64, self.now);
            self.store(file, octets);
        }
        for outbox in &self.senders[index].streams {
            assert!(outbox.files() <= BOUND.files && outbox.octets() <= BOUND.octets);
        }
    }

    /// Records that say which file and which place they have.
    fn compose(&mut self, side: &Side, file: &FileName) -> Vec<u8> {
        let mut composition = Composition::new();
        for place in 0..=self.random.within(0..4) {
            let record = format!("{} {} {} {place}", file.from, file.stream, file.number);
            composition.reserve(record.len()).unwrap().copy_from_slice(record.as_bytes());
            composition.commit(record.len());
        }
        composition.emit(side.label, self.reader, file).to_vec()
    }

    fn store(&mut self, file: FileName, mut octets: Vec<u8>) {
        let Misfortune { late, torn, lost, spoilt, announced, .. } = self.misfortune;
        // A gentle folder is never so late that a reader gives up.
        let (late_most, torn_most) = if self.is_gentle {
            (LATE.mul_f32(0.9), TORN.mul_f32(0.9))
        } else {
            (3 * LATE, 2 * TORN)
        };
        if self.random.chance(lost) {
            return;
        }
        if self.random.chance(spoilt) {
            let at = usize::try_from(self.random.within(0..octets.len() as u64)).unwrap();
            if self.random.chance(500) { octets.truncate(at) } else { octets[at] ^= 1 }
        }
        let mut shown = self.now;
        if self.random.chance(late) {
            shown += self.random.duration(Duration::ZERO..late_most);
        }
        let mut whole = shown;
        if self.random.chance(torn) {
            whole += self.random.duration(Duration::ZERO..torn_most);
        }
        let torn = usize::try_from(self.random.within(0..octets.len() as u64 + 1)).unwrap();
        self.files.insert(file, Stored { octets, shown, whole, torn, to: self.reader });
        if self.random.chance(announced) {
            self.inbox.handle_name(&file, Source::Announced, self.now);
        }
    }

    /// What a reader does when it looks: part of a pass, then whatever can be taken.
    fn look(&mut self) {
        self.list();
        let alive = self.senders.iter().map(|sender| sender.side.run).collect();
        self.inbox.retain_runs(&alive, self.now);
        self.check_memory();
        let mut reads = 0;
        while let Some(file) = self.inbox.poll_file(self.now) {
            self.read(&file);
            reads += 1;
            assert!(reads < 10_000, "the same again and again");
        }
        // Whoever waits until the time that is said, is not called in vain for ever.
        if let Some(timeout) = self.inbox.poll_timeout() {
            assert!(timeout > self.now || self.inbox.wants_pass(self.now));
        }
    }

    fn list(&mut self) {
        let mut names = match self.pass.take() {
            Some(names) => names,
            None => {
                self.inbox.begin_pass(self.now);
                let now = self.now;
                let shown = self.files.iter().filter(|(_, stored)| stored.shown <= now);
                let mut names: Vec<_> = shown.map(|(file, _)| *file).collect();
                self.ghosts.retain(|_, until| *until > now);
                names.extend(self.ghosts.keys());
                self.shuffle(&mut names);
                names
            }
        };
        let left = if self.random.chance(300) { self.random.within(0..5) } else { 0 };
        while names.len() as u64 > left {
            let Some(file) = names.pop() else { break };
            let verdict = self.inbox.handle_name(&file, Source::Listed, self.now);
            if verdict == Verdict::Passed && self.files.remove(&file).is_some() {
                self.inbox.handle_passed();
            }
        }
        if names.is_empty() { self.inbox.end_pass() } else { self.pass = Some(names) }
    }

    fn shuffle(&mut self, names: &mut [FileName]) {
        for index in (1..names.len()).rev() {
            let other = usize::try_from(self.random.within(0..index as u64 + 1)).unwrap();
            names.swap(index, other);
        }
    }

    fn read(&mut self, file: &FileName) {
        let Some(stored) = self.files.get(file).filter(|stored| stored.shown <= self.now) else {
            self.inbox.handle_missing(file, self.now);
            return;
        };
        let len = if stored.whole <= self.now { stored.octets.len() } else { stored.torn };
        let octets = stored.octets[..len].to_vec();
        let to = stored.to;
        let mut records = Vec::new();
        match self.inbox.handle_octets(file, &octets, &mut records, self.now) {
            Step::Take(from) => {
                assert_eq!((from.run, to), (file.from, self.reader), "of a dead run");
                self.check_records(file, &octets, &records);
                self.remove(file);
            }
            Step::Remove => self.remove(file),
            Step::Later => assert!(records.is_empty()),
            Step::Leave => panic!("nothing is foreign here"),
        }
    }

    fn check_records(&mut self, file: &FileName, octets: &[u8], records: &[Range<usize>]) {
        let before = self.taken.insert((file.from, file.stream), file.number);
        assert!(before < Some(file.number), "{file:?} after {before:?}");
        let mut next = 0;
        for range in records {
            let record = std::str::from_utf8(&octets[range.clone()]).unwrap();
            let (of, place) = record.rsplit_once(' ').unwrap();
            assert_eq!(of, format!("{} {} {}", file.from, file.stream, file.number));
            let place: u64 = place.parse().unwrap();
            assert!(place >= next, "records in order and once");
            next = place + 1;
        }
    }

    /// The reader removes a file, and the folder may have its own mind.
    fn remove(&mut self, file: &FileName) {
        let stored = self.files.remove(file).unwrap();
        let Misfortune { repeated, stale, .. } = self.misfortune;
        if self.random.chance(repeated) {
            let shown = self.now + self.random.duration(Duration::ZERO..Duration::from_secs(4));
            self.files.insert(*file, Stored { shown, ..stored });
        } else if self.random.chance(stale) {
            let until = self.now + self.random.duration(Duration::ZERO..Duration::from_secs(4));
            self.ghosts.insert(*file, until);
        }
    }

    fn check_memory(&mut self) {
        assert!(self.inbox.streams() <= MOST_STREAMS);
        let skipped = self.inbox.take_skipped();
        assert_eq!(skipped.of(Skip::Foreign) + skipped.of(Skip::Oversized), 0);
        if self.is_gentle && self.runs == 2 {
            assert_eq!(skipped.of(Skip::Missing) + skipped.of(Skip::Torn), 0);
        }
    }
}
