//! Two sides of a folder on tmpfs, a thread each: how much, and how soon.

use std::fs::{self, File};
use std::hint::black_box;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use transport::spool::{Limits, Reader, RecvBatch, RunId, Side, Spool, Writer};

/// Octets of a record: a super-packet, and a packet.
const RECORDS: [usize; 2] = [65_536, 1472];

fn records_to_another_thread(criterion: &mut Criterion) {
    let folder = Folder::new();
    for octets in RECORDS {
        let mut group = criterion.benchmark_group(format!("records of {octets}"));
        group.throughput(Throughput::Bytes(octets as u64));
        group.bench_function("to another thread", |bencher| {
            bencher.iter_custom(|records| stream(&folder, records, octets));
        });
        group.finish();
    }
}

fn one_record_there_and_back(criterion: &mut Criterion) {
    let folder = Folder::new();
    criterion.bench_function("one record there and back", |bencher| {
        bencher.iter_custom(|rounds| ping(&folder, rounds));
    });
}

/// How long it takes until so many records have arrived.
fn stream(folder: &Folder, records: u64, octets: usize) -> Duration {
    let (home, office) = (folder.open("home"), folder.open("office"));
    let clock = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = home.writer(0).expect("the stream is new");
            let to = office.side();
            for _ in 0..records {
                if writer.reserve(&to, octets).is_none() {
                    publish(&mut writer, clock);
                    writer.reserve(&to, octets).expect("an empty file has room");
                }
                writer.commit(octets);
            }
            publish(&mut writer, clock);
        });
        let mut reader = office.reader(Duration::ZERO).expect("there is no other reader");
        let mut batch = RecvBatch::new();
        let mut received = 0;
        while received < records {
            receive(&mut reader, &mut batch, clock);
            for range in batch.records() {
                black_box(batch.arena()[range.start]);
                received += 1;
            }
        }
    });
    clock.elapsed()
}

/// How long so many round trips take.
fn ping(folder: &Folder, rounds: u64) -> Duration {
    let (home, office) = (folder.open("home"), folder.open("office"));
    let clock = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut here = Ends::new(&office);
            for _ in 0..rounds {
                here.receive(clock);
                here.send(&home.side(), clock);
            }
        });
        let mut here = Ends::new(&home);
        let start = clock.elapsed();
        for _ in 0..rounds {
            here.send(&office.side(), clock);
            here.receive(clock);
        }
        clock.elapsed() - start
    })
}

/// What one thread reads and writes with.
struct Ends {
    writer: Writer,
    reader: Reader,
    batch: RecvBatch,
}

impl Ends {
    fn new(spool: &Spool) -> Self {
        Self {
            writer: spool.writer(0).expect("the stream is new"),
            reader: spool.reader(Duration::ZERO).expect("there is no other reader"),
            batch: RecvBatch::new(),
        }
    }

    fn send(&mut self, to: &Side, clock: Instant) {
        self.writer.reserve(to, 92).expect("an empty file has room");
        self.writer.commit(92);
        publish(&mut self.writer, clock);
    }

    fn receive(&mut self, clock: Instant) {
        receive(&mut self.reader, &mut self.batch, clock);
    }
}

fn publish(writer: &mut Writer, clock: Instant) {
    loop {
        let outcome = writer.publish(clock.elapsed());
        assert_eq!(outcome.dropped, 0, "{outcome:?}");
        if outcome.full.is_none() {
            return;
        }
        thread::yield_now();
    }
}

fn receive(reader: &mut Reader, batch: &mut RecvBatch, clock: Instant) {
    while reader.recv(batch, clock.elapsed()).expect("tmpfs works") == 0 {
        let pause = reader.next_look().saturating_sub(clock.elapsed());
        let timeout = Timespec { tv_sec: 0, tv_nsec: pause.subsec_nanos().into() };
        poll(&mut [PollFd::new(&*reader, PollFlags::IN)], Some(&timeout)).expect("poll works");
    }
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = PathBuf::from(format!("/dev/shm/adit-spool-bench-{}", std::process::id()));
        fs::create_dir_all(&path).expect("tmpfs is writable");
        Self(path)
    }

    fn open(&self, label: &str) -> Spool {
        let folder = File::open(&self.0).expect("the folder was made");
        let mut run = [0; RunId::LEN];
        rustix::rand::getrandom(&mut run, rustix::rand::GetRandomFlags::empty())
            .expect("the kernel has random numbers");
        let label = label.parse().expect("a label");
        Spool::open(folder.into(), label, RunId::new(run), Limits::default())
            .expect("tmpfs can do all that is needed")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

criterion_group!(benches, records_to_another_thread, one_record_there_and_back);
criterion_main!(benches);
