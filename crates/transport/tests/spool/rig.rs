//! Folders that vanish, and what reads and writes in them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use transport::spool::{Limits, Reader, RecvBatch, RunId, Side, Spool, Writer};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of its own for a test, removed in the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::within(Path::new("/dev/shm"))
    }

    /// On tmpfs, and on what the build goes to.
    pub(crate) fn everywhere() -> [Self; 2] {
        [Self::new(), Self::within(Path::new(env!("CARGO_TARGET_TMPDIR")))]
    }

    pub(crate) fn within(parent: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("adit-spool-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn open(&self, label: &str, run: u64) -> Spool {
        self.open_limited(label, run, Limits::default())
    }

    pub(crate) fn open_limited(&self, label: &str, run: u64, limits: Limits) -> Spool {
        open_at(&self.0, label, run, limits)
    }

    pub(crate) fn inbox(&self, side: &Side) -> PathBuf {
        self.0.join(side.to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A side of the folder at a path.
pub(crate) fn open_at(path: &Path, label: &str, run: u64, limits: Limits) -> Spool {
    let folder = File::open(path).unwrap();
    Spool::open(folder.into(), label.parse().unwrap(), run_id(run), limits).unwrap()
}

pub(crate) fn run_id(run: u64) -> RunId {
    RunId::new(run.to_be_bytes())
}

/// The names in a directory, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| name(entry).into_string().unwrap()).collect();
    names.sort();
    names
}

/// The time since a test began.
#[derive(Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn is_out_of_patience(&self) -> bool {
        self.now() > PATIENCE
    }
}

/// Waits for the reader as a worker does, then receives until something comes.
pub(crate) fn receive(reader: &mut Reader, batch: &mut RecvBatch, clock: Clock) -> usize {
    loop {
        let records = reader.recv(batch, clock.now()).unwrap();
        if records > 0 {
            return records;
        }
        assert!(!clock.is_out_of_patience(), "nothing came");
        wait(reader, clock);
    }
}

fn wait(reader: &Reader, clock: Clock) {
    let pause = reader.next_look().saturating_sub(clock.now());
    let timeout = Timespec { tv_sec: 0, tv_nsec: pause.subsec_nanos().into() };
    let _ = poll(&mut [PollFd::new(reader, PollFlags::IN)], Some(&timeout));
}

/// Adds a record.
pub(crate) fn put(writer: &mut Writer, to: &Side, record: &[u8]) {
    writer.reserve(to, record.len()).unwrap().copy_from_slice(record);
    writer.commit(record.len());
}

/// Publishes one record.
pub(crate) fn send(writer: &mut Writer, to: &Side, record: &[u8], now: Duration) {
    put(writer, to, record);
    let outcome = writer.publish(now);
    assert_eq!(outcome.sent, 1, "{outcome:?}");
}

/// What can be received at a time, without waiting.
pub(crate) fn receive_at(reader: &mut Reader, now: Duration) -> Vec<Vec<u8>> {
    let mut batch = RecvBatch::new();
    let mut records = Vec::new();
    let mut idle = 0;
    while idle < 3 {
        let received = reader.recv(&mut batch, now).unwrap();
        idle = if received == 0 { idle + 1 } else { 0 };
        records.extend(batch.records().map(|record| batch.arena()[record].to_vec()));
    }
    records
}
