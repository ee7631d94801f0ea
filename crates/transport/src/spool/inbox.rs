//! Which file of an inbox is next, and what becomes of each.
//!
//! # Theory of operation
//!
//! An [`Inbox`] hears of names, by announcements and by *passes* through the listing, and says which file
//! to read ([`Inbox::poll_file`]). Whoever reads it tells what was there and gets to know what to do
//! ([`Step`]). Each stream is a row of numbers that begins at 1:
//!
//! ```text
//!             number = next                        ours
//!  (waiting) ───────────────▶ (ready) ───────────────────────▶ next = number + 1
//!      │                         │ ▲ torn: again, less and less often, for TORN; then what is
//!      │                         │ │ whole of it is taken, if its header is
//!      │                         │ └ not ours after all: as if it were not there
//!      └──▶ (gap) ───────────────┘ number > next, for LATE and a complete pass after it
//! ```
//!
//! `next` never goes back, and grows only by a file whose header is whole and says that it is this very
//! file; so rubbish under names of ours does not end a stream. Whatever the folder does (names that come
//! late, twice, again after the file was removed, out of order or never; content that changes), records are
//! therefore handed over in order and at most once.
//!
//! What has a name of ours is removed when its number is passed, because the inbox and the name are ours
//! alone; anything else (names that mean nothing here, and whatever is no regular file with one link) is
//! *foreign*: counted, and neither read nor removed.
//!
//! A stream that is held up by a gap or a torn file holds up nobody else, and streams take turns.
//!
//! Memory is bounded: [`STREAMS`] streams, [`KNOWN`] names each; what is beyond is found by a later pass.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::time::Duration;

use super::file::{self, Header};
use super::name::{FileName, NUMBER_MAX, Stage};
use super::pace::Evidence;
use super::side::{RunId, Side};
use super::skip::{Skip, Skipped};

/// How many streams are known.
pub const STREAMS: usize = 1024;

/// How many names of a stream are known.
pub const KNOWN: usize = 128;

/// How long a missing number is waited for while a later one is there.
pub const LATE: Duration = Duration::from_secs(1);

/// How long a torn file is read again.
pub const TORN: Duration = Duration::from_secs(2);

/// How long the streams of a run that has ended are remembered, in case files of it come back.
pub const ABSENT: Duration = Duration::from_secs(60);

/// Until a torn file is read again for the first time, and at most.
const PAUSE: Range<Duration> = Duration::from_millis(1)..Duration::from_millis(250);

/// How many different foreign names are counted.
const FOREIGN: usize = 1024;

/// The streams of one inbox.
pub struct Inbox {
    own: RunId,
    streams: BTreeMap<StreamId, Stream>,
    /// Whose turn it was.
    served: Option<StreamId>,
    /// Whose file was expected last.
    asked: Option<StreamId>,
    /// When the pass that is under way began.
    pass: Option<Duration>,
    /// When the last pass that was completed began.
    completed: Option<Duration>,
    /// Hashes of the names that were counted although they stay.
    foreign: BTreeSet<u64>,
    skipped: Skipped,
    crowded: bool,
}

/// How a name came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// inotify.
    Announced,
    /// The listing of the inbox.
    Listed,
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is waited for, or was known.
    Known,
    /// Its number has been passed: the file is to be removed if it is ours.
    Passed,
    /// There is no room to remember it.
    Beyond,
}

/// What to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hand its records over, then remove it.
    Take(Side),
    /// Remove it.
    Remove,
    /// Leave it where it is.
    Leave,
    /// Read it again later.
    Later,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StreamId {
    from: RunId,
    stream: u8,
}

struct Stream {
    /// The number that is waited for.
    next: u64,
    /// Names that were seen, none below `next`, in order of their numbers.
    known: Vec<Known>,
    /// Since when `next` is missing while a later one is known.
    gap: Option<Duration>,
    retry: Option<Retry>,
    evidence: Evidence,
    /// When a file of it was listed last.
    listed: Option<Duration>,
    /// Since when its run is known to have ended.
    absent: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Known {
    number: u64,
    announced: bool,
}

/// A file that could not be read whole.
struct Retry {
    since: Duration,
    at: Duration,
    pause: Duration,
}

impl Inbox {
    /// The inbox of `own`, of which nothing is known.
    pub fn new(own: RunId) -> Self {
        Self {
            own,
            streams: BTreeMap::new(),
            served: None,
            asked: None,
            pass: None,
            completed: None,
            foreign: BTreeSet::new(),
            skipped: Skipped::default(),
            crowded: false,
        }
    }

    /// A pass through the listing begins.
    pub fn begin_pass(&mut self, now: Duration) {
        self.pass = Some(now);
    }

    /// The pass has come to its end.
    pub fn end_pass(&mut self) {
        self.completed = self.pass.take().or(self.completed);
    }

    /// There is a file of this name.
    pub fn handle_name(&mut self, file: &FileName, source: Source, now: Duration) -> Verdict {
        let id = StreamId { from: file.from, stream: file.stream };
        if !self.streams.contains_key(&id) && self.streams.len() >= STREAMS {
            self.crowded = true;
            return Verdict::Beyond;
        }
        self.streams.entry(id).or_insert_with(Stream::new).handle_name(file.number, source, now)
    }

    /// There is something whose name is not that of a file, or which is no regular file with one link.
    pub fn handle_foreign_name(&mut self, name: &[u8]) {
        self.count_name_once(name, Skip::Foreign);
    }

    /// A file whose number had been passed was removed.
    pub fn handle_passed(&mut self) {
        self.skipped.count(Skip::Passed, 1);
    }

    /// The file that is to be read, and must be told about: [`handle_octets`](Self::handle_octets) and
    /// its likes.
    pub fn poll_file(&mut self, now: Duration) -> Option<FileName> {
        let completed = self.completed;
        let after = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        let ready = |(id, stream): (&StreamId, &Stream)| Some((*id, stream.ready(completed, now)?));
        let later = self.streams.range((after, Bound::Unbounded));
        let earlier = self.served.into_iter().flat_map(|served| self.streams.range(..=served));
        let (id, number) = later.chain(earlier).find_map(ready)?;
        self.served = Some(id);
        Some(FileName { from: id.from, stream: id.stream, number })
    }

    /// At most `limit` files that streams wait for and of which no name was seen; each call goes on with
    /// other streams.
    pub fn poll_expected(&mut self, limit: usize) -> Vec<FileName> {
        let after = self.asked.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.streams.range((after, Bound::Unbounded));
        let earlier = self.asked.into_iter().flat_map(|asked| self.streams.range(..=asked));
        let expected = |(id, stream): (&StreamId, &Stream)| {
            let number = stream.expected()?;
            Some(FileName { from: id.from, stream: id.stream, number })
        };
        let files: Vec<_> = later.chain(earlier).filter_map(expected).take(limit).collect();
        self.asked = files.last().map(|file| StreamId { from: file.from, stream: file.stream });
        files
    }

    /// When [`poll_file`](Self::poll_file) has something to say again without a new name, or a pass is
    /// wanted.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.streams.values().filter_map(Stream::deadline).min()
    }

    /// Whether a gap lasts so long that a last complete pass has to tell whether it is one.
    pub fn wants_pass(&self, now: Duration) -> bool {
        let wanted = |since| now >= since + LATE && self.completed < Some(since + LATE);
        self.streams.values().filter_map(|stream| stream.gap).any(wanted)
    }

    /// What was read of `file`; `records` are those that are whole if they are to be taken.
    pub fn handle_octets(
        &mut self,
        file: &FileName,
        octets: &[u8],
        records: &mut Vec<Range<usize>>,
        now: Duration,
    ) -> Step {
        records.clear();
        let Some(header) = Header::parse(octets) else {
            return self.handle_defect(file, Skip::Torn, now).unwrap_or(Step::Remove);
        };
        if header.to != self.own || !header.is_of(file) {
            let skip = if header.to == self.own { Skip::Misnamed } else { Skip::WrongRun };
            self.skipped.count(skip, 1);
            self.handle_missing(file, now);
            return Step::Remove;
        }
        let whole = file::parse_records(octets, &header, records).is_whole();
        if !whole {
            if self.stream(file).is_some_and(|stream| stream.retry_later(now)) {
                records.clear();
                return Step::Later;
            }
            self.skipped.count(Skip::Torn, 1);
        }
        self.advance(file, now);
        if records.is_empty() { Step::Remove } else { Step::Take(header.from) }
    }

    /// The file is too long; `head` is what it begins with.
    pub fn handle_oversized(&mut self, file: &FileName, head: &[u8], now: Duration) -> Step {
        self.count_once(file, Skip::Oversized);
        self.handle_missing(file, now);
        let ours = Header::parse(head).is_some_and(|header| header.is_of(file));
        if ours { Step::Remove } else { Step::Leave }
    }

    /// The file is there and cannot be read.
    pub fn handle_unreadable(&mut self, file: &FileName, now: Duration) -> Step {
        self.handle_defect(file, Skip::Unreadable, now).unwrap_or(Step::Remove)
    }

    /// What has this name is no regular file with one link.
    pub fn handle_foreign(&mut self, file: &FileName, now: Duration) -> Step {
        self.count_once(file, Skip::Foreign);
        self.handle_missing(file, now);
        Step::Leave
    }

    /// The file has a second name: for a moment while it is renamed by linking and unlinking, or it is
    /// foreign.
    pub fn handle_linked(&mut self, file: &FileName, now: Duration) -> Step {
        if self.stream(file).is_some_and(|stream| stream.retry_later(now)) {
            return Step::Later;
        }
        self.handle_foreign(file, now)
    }

    /// There is no file of this name (any more), or none of ours.
    pub fn handle_missing(&mut self, file: &FileName, now: Duration) {
        if let Some(stream) = self.stream(file) {
            stream.known.retain(|known| known.number != file.number);
            stream.retry = None;
            stream.note_gap(now);
        }
    }

    /// Only the runs in `alive` are still there: forgets the streams of others after a while, or at once when
    /// there is no room for new ones. Streams of which something lies here stay, even if it only could not
    /// be removed: it would be taken again.
    pub fn retain_runs(&mut self, alive: &BTreeSet<RunId>, now: Duration) {
        let (completed, crowded) = (self.completed, self.crowded);
        self.streams.retain(|id, stream| {
            if alive.contains(&id.from) {
                stream.absent = None;
                return true;
            }
            let since = *stream.absent.get_or_insert(now);
            let lies_here = !stream.known.is_empty() || stream.listed >= completed;
            lies_here || !crowded && now < since + ABSENT
        });
        self.crowded = false;
    }

    /// Whether there are more streams than can be known.
    pub fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// How many streams are known.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether inotify announces what is written, by every sender that was heard of.
    pub fn is_trusted(&self, now: Duration) -> bool {
        !self.streams.is_empty()
            && self.streams.values().all(|stream| stream.evidence.is_trusted(now))
    }

    /// What was skipped since the last call.
    pub fn take_skipped(&mut self) -> Skipped {
        std::mem::take(&mut self.skipped)
    }

    fn stream(&mut self, file: &FileName) -> Option<&mut Stream> {
        self.streams.get_mut(&StreamId { from: file.from, stream: file.stream })
    }

    fn advance(&mut self, file: &FileName, now: Duration) {
        let id = StreamId { from: file.from, stream: file.stream };
        if let Some(stream) = self.streams.get_mut(&id) {
            let missing = stream.advance(file.number, now);
            self.skipped.count(Skip::Missing, missing);
        }
    }

    /// The file may become readable: *later*, or `None` when it was waited for long enough.
    fn handle_defect(&mut self, file: &FileName, skip: Skip, now: Duration) -> Option<Step> {
        if self.stream(file).is_some_and(|stream| stream.retry_later(now)) {
            return Some(Step::Later);
        }
        self.skipped.count(skip, 1);
        self.handle_missing(file, now);
        None
    }

    /// Counts something that stays where it is, however often it is seen.
    fn count_once(&mut self, file: &FileName, skip: Skip) {
        self.count_name_once(file.emit(Stage::Batch).as_str().as_bytes(), skip);
    }

    fn count_name_once(&mut self, name: &[u8], skip: Skip) {
        if self.foreign.len() < FOREIGN && self.foreign.insert(hash(name)) {
            self.skipped.count(skip, 1);
        }
    }
}

impl Stream {
    fn new() -> Self {
        Self {
            next: 1,
            known: Vec::new(),
            gap: None,
            retry: None,
            evidence: Evidence::default(),
            listed: None,
            absent: None,
        }
    }

    fn handle_name(&mut self, number: u64, source: Source, now: Duration) -> Verdict {
        let announced = source == Source::Announced;
        if !announced {
            self.listed = Some(now);
        }
        if number < self.next {
            if announced {
                self.evidence.handle_announced(number, now);
                // If it really is there once more, a pass finds it.
                return Verdict::Known;
            }
            return Verdict::Passed;
        }
        match self.known.binary_search_by_key(&number, |known| known.number) {
            Ok(index) => self.known[index].announced |= announced,
            Err(index) if index >= KNOWN => return Verdict::Beyond,
            Err(index) => {
                self.known.truncate(KNOWN - 1);
                self.known.insert(index, Known { number, announced });
                self.note_gap(now);
            }
        }
        Verdict::Known
    }

    /// The number of the file that is to be read.
    fn ready(&self, completed: Option<Duration>, now: Duration) -> Option<u64> {
        let number = self.known.first()?.number;
        if self.retry.as_ref().is_some_and(|retry| now < retry.at) {
            return None;
        }
        let is_late = |since| completed >= Some(since + LATE);
        (number == self.next || self.gap.is_some_and(is_late)).then_some(number)
    }

    /// The number that is waited for, unless its name was seen.
    fn expected(&self) -> Option<u64> {
        let seen = self.known.first().is_some_and(|known| known.number == self.next);
        (!seen && self.next <= NUMBER_MAX).then_some(self.next)
    }

    fn deadline(&self) -> Option<Duration> {
        let number = self.known.first()?.number;
        match (&self.retry, self.gap) {
            (Some(retry), _) => Some(retry.at),
            (None, Some(since)) if number > self.next => Some(since + LATE),
            _ => Some(Duration::ZERO),
        }
    }

    /// The file of this number was ours. Says how many numbers before it are missing.
    fn advance(&mut self, number: u64, now: Duration) -> u64 {
        let is_announced = |known: &Known| known.number == number && known.announced;
        let announced = self.known.iter().any(is_announced);
        self.evidence.handle_taken(number, announced, now);
        let missing = number.saturating_sub(self.next);
        self.next = self.next.max(number + 1);
        self.known.retain(|known| known.number > number);
        (self.retry, self.gap) = (None, None);
        self.note_gap(now);
        missing
    }

    /// A gap is counted from when it was first noticed. A name that comes and goes, as in a stale
    /// listing, must not begin it anew.
    fn note_gap(&mut self, now: Duration) {
        if self.known.first().is_some_and(|known| known.number > self.next) {
            self.gap.get_or_insert(now);
        }
    }

    /// Whether the file is to be read again, which is then put off.
    fn retry_later(&mut self, now: Duration) -> bool {
        let retry = self.retry.get_or_insert(Retry { since: now, at: now, pause: PAUSE.start });
        let end = retry.since + TORN;
        retry.at = end.min(now + retry.pause);
        retry.pause = PAUSE.end.min(retry.pause * 2);
        now < end
    }
}

/// FNV-1a; somebody who makes two names equal by it spoils a counter.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
