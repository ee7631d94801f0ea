//! What became of a stream of numbered messages: loss, duplicates, order and latency.
//!
//! # Theory of operation
//!
//! [`Sequences`] sees the number of every message that arrived and remembers the last [`WINDOW`]
//! numbers below the highest one, one bit each.
//!
//! * A number in the window that is seen for the first time is *received*, seen again it is a
//!   *duplicate*. Only the first copy counts for order and latency (RFC 4737, section 3.3).
//! * A received message is *out of order* when its number is smaller than one that came before
//!   (`s < NextExp`: Type-P-Reordered, RFC 4737, section 3.3). So the late one counts, not those that
//!   overtook it.
//! * A number below the window is *stale*: whether it is new can no longer be said. It is late in
//!   any case, but counts neither as received nor as out of order.
//! * *Lost* is what lies between the lowest and the highest number and was not received. Messages
//!   before the first and after the last that arrived are invisible here; whoever knows how many
//!   were sent knows better.
//!
//! [`Latencies`] keeps smallest, largest and sum exactly, and the distribution in a histogram with two
//! significant digits between [`FINEST`] and [`COARSEST`].
//!
//! [`Streams`] keeps one [`Stream`] for each source address and run. Memory is bounded by
//! [`MAX_STREAMS`] times some 40 KiB; messages of further streams are counted only.
//!
//! Time is an argument everywhere.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::message::{Message, RunId, Timestamp};

/// How far below the highest number a duplicate can be told from a message that is late.
pub const WINDOW: u64 = 65_536;

/// How many streams are told apart.
pub const MAX_STREAMS: usize = 256;

/// Shorter latencies fall into one class of the histogram.
pub const FINEST: Duration = Duration::from_nanos(128);

/// Longer latencies count as this one in the distribution.
pub const COARSEST: Duration = Duration::from_secs(600);

const BITS: u64 = u64::BITS as u64;
const WORDS: usize = (WINDOW / BITS) as usize;

/// What a sequence number turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The highest so far.
    InOrder,
    /// New, but lower than one that came before.
    OutOfOrder,
    /// Seen before.
    Duplicate,
    /// Too far below the highest to know.
    Stale,
}

/// Which numbers of a stream arrived; see the module for the words.
#[derive(Clone, Debug)]
pub struct Sequences {
    range: Option<Range>,
    seen: Box<[u64; WORDS]>,
    received: u64,
    duplicates: u64,
    out_of_order: u64,
    stale: u64,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    lowest: u64,
    highest: u64,
}

impl Sequences {
    /// Nothing has arrived.
    pub fn new() -> Self {
        Self {
            range: None,
            seen: Box::new([0; WORDS]),
            received: 0,
            duplicates: 0,
            out_of_order: 0,
            stale: 0,
        }
    }

    /// Takes the number of a message that arrived.
    pub fn handle(&mut self, sequence: u64) -> Arrival {
        let arrival = self.judge(sequence);
        match arrival {
            Arrival::Duplicate => self.duplicates += 1,
            Arrival::Stale => self.stale += 1,
            Arrival::InOrder => self.received += 1,
            Arrival::OutOfOrder => {
                self.received += 1;
                self.out_of_order += 1;
            }
        }
        arrival
    }

    /// How many different numbers arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many numbers between the lowest and the highest did not arrive.
    pub fn lost(&self) -> u64 {
        let others = self.received.saturating_sub(1);
        self.range.map_or(0, |range| (range.highest - range.lowest).saturating_sub(others))
    }

    /// How many messages repeated a number.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// How many were out of order.
    pub fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// How many came too late to be told from duplicates.
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// The lowest number that arrived.
    pub fn lowest(&self) -> Option<u64> {
        self.range.map(|range| range.lowest)
    }

    /// The highest number that arrived.
    pub fn highest(&self) -> Option<u64> {
        self.range.map(|range| range.highest)
    }

    fn judge(&mut self, sequence: u64) -> Arrival {
        let Some(range) = &mut self.range else {
            self.range = Some(Range { lowest: sequence, highest: sequence });
            self.mark(sequence);
            return Arrival::InOrder;
        };
        let highest = range.highest;
        if sequence > highest {
            range.highest = sequence;
            self.forget(highest + 1, sequence);
            self.mark(sequence);
            return Arrival::InOrder;
        }
        if highest - sequence >= WINDOW {
            return Arrival::Stale;
        }
        range.lowest = range.lowest.min(sequence);
        if self.mark(sequence) { Arrival::OutOfOrder } else { Arrival::Duplicate }
    }

    /// Sets the bit of `sequence`; false if it was set.
    fn mark(&mut self, sequence: u64) -> bool {
        let (word, bit) = place(sequence);
        let fresh = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        fresh
    }

    /// Clears the bits that the numbers from `first` to `last` take over from those `WINDOW` below.
    fn forget(&mut self, first: u64, last: u64) {
        if last - first >= WINDOW {
            self.seen.fill(0);
            return;
        }
        let (first_word, last_word) = (first / BITS, last / BITS);
        for word in first_word..=last_word {
            let from = if word == first_word { first % BITS } else { 0 };
            let to = if word == last_word { last % BITS } else { BITS - 1 };
            let taken_over = (u64::MAX << from) & (u64::MAX >> (BITS - 1 - to));
            self.seen[slot(word)] &= !taken_over;
        }
    }
}

impl Default for Sequences {
    fn default() -> Self {
        Self::new()
    }
}

/// Slot and bit of `sequence` in the window.
fn place(sequence: u64) -> (usize, u64) {
    (slot(sequence / BITS), 1 << (sequence % BITS))
}

/// Where the window keeps the bits of the numbers from `word * BITS` on.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is below 1024")]
fn slot(word: u64) -> usize {
    (word % WORDS as u64) as usize
}

/// A distribution of latencies.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u32>,
    smallest: u64,
    largest: u64,
    sum: u128,
    count: u64,
}

impl Latencies {
    /// No latency yet.
    pub fn new() -> Self {
        const { assert!(FINEST.as_nanos() >= 1 && COARSEST.as_nanos() >= 2 * FINEST.as_nanos()) };
        let histogram = Histogram::new_with_bounds(nanos(FINEST), nanos(COARSEST), 2)
            .expect("the bounds lie far enough apart and two digits are possible");
        Self { histogram, smallest: u64::MAX, largest: 0, sum: 0, count: 0 }
    }

    /// Takes one latency.
    pub fn record(&mut self, latency: Duration) {
        let nanos = nanos(latency);
        self.histogram.saturating_record(nanos);
        self.smallest = self.smallest.min(nanos);
        self.largest = self.largest.max(nanos);
        self.sum += u128::from(nanos);
        self.count += 1;
    }

    /// The distribution in microseconds; `None` if there is no latency.
    pub fn summary(&self) -> Option<LatencySummary> {
        if self.count == 0 {
            return None;
        }
        Some(LatencySummary {
            min: micros(self.smallest),
            avg: self.sum as f64 / self.count as f64 / 1e3,
            median: self.quantile(0.5),
            p99: self.quantile(0.99),
            max: micros(self.largest),
        })
    }

    fn quantile(&self, quantile: f64) -> f64 {
        let nanos = self.histogram.value_at_quantile(quantile);
        // The classes of the histogram are wider than what is known of both ends.
        micros(nanos.clamp(self.smallest, self.largest))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// A distribution of latencies in microseconds: the ends and the average exact, the others to two
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencySummary {
    /// The smallest.
    pub min: f64,
    /// The arithmetic mean.
    pub avg: f64,
    /// Half of all are not larger.
    pub median: f64,
    /// 99 of 100 are not larger.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// Messages and octets between the first and the last one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Throughput {
    messages: u64,
    octets: u64,
    first_octets: u64,
    span: Option<(Instant, Instant)>,
}

impl Throughput {
    /// Takes a message of `octets` octets at `now`.
    pub fn record(&mut self, now: Instant, octets: usize) {
        let octets = octets as u64;
        let first = self.span.map_or(now, |(first, _)| first);
        if self.span.is_none() {
            self.first_octets = octets;
        }
        self.span = Some((first, now));
        self.messages += 1;
        self.octets += octets;
    }

    /// How many messages there were.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// How many octets of UDP payload there were.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The time of the last message.
    pub fn last(&self) -> Option<Instant> {
        self.span.map(|(_, last)| last)
    }

    /// The time between the first and the last message in seconds.
    pub fn duration_s(&self) -> f64 {
        self.span.map_or(0.0, |(first, last)| (last - first).as_secs_f64())
    }

    /// Messages a second. The first one opens the time that is measured and does not count.
    pub fn rate_pps(&self) -> Option<f64> {
        self.per_second(self.messages.saturating_sub(1))
    }

    /// Megabits (10⁶) of UDP payload a second, without the first message.
    pub fn rate_mbit_s(&self) -> Option<f64> {
        self.per_second(self.octets - self.first_octets).map(|octets| octets * 8.0 / 1e6)
    }

    fn per_second(&self, amount: u64) -> Option<f64> {
        let duration = self.duration_s();
        (duration > 0.0).then(|| amount as f64 / duration)
    }
}

/// The messages of one run that came from one address.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Which numbers arrived.
    pub sequences: Sequences,
    /// How many octets arrived when, duplicates included.
    pub throughput: Throughput,
    /// From the source's clock to the sink's; without those that the clocks make negative.
    pub latencies: Latencies,
    /// Messages that arrived before they were sent: the clocks disagree.
    pub negative_latencies: u64,
}

impl Stream {
    /// Takes a message of `octets` octets that arrived at `now`, which the wall clock calls
    /// `arrived_at`.
    pub fn handle(
        &mut self,
        now: Instant,
        arrived_at: Timestamp,
        message: &Message<'_>,
        octets: usize,
    ) -> Arrival {
        self.throughput.record(now, octets);
        let arrival = self.sequences.handle(message.sequence);
        if matches!(arrival, Arrival::InOrder | Arrival::OutOfOrder) {
            match arrived_at.as_nanos().checked_sub(message.sent_at.as_nanos()) {
                Some(nanos) => self.latencies.record(Duration::from_nanos(nanos)),
                None => self.negative_latencies += 1,
            }
        }
        arrival
    }
}

/// All streams that a sink sees.
#[derive(Debug, Default)]
pub struct Streams {
    by_key: HashMap<(SocketAddr, RunId), Stream>,
    untracked: u64,
}

impl Streams {
    /// The stream of `run` from `source`; `None` if there are [`MAX_STREAMS`] others.
    pub fn find(&mut self, source: SocketAddr, run: RunId) -> Option<&mut Stream> {
        let full = self.by_key.len() >= MAX_STREAMS;
        if full && !self.by_key.contains_key(&(source, run)) {
            self.untracked += 1;
            return None;
        }
        Some(self.by_key.entry((source, run)).or_default())
    }

    /// How many messages belonged to streams beyond the limit.
    pub fn untracked(&self) -> u64 {
        self.untracked
    }

    /// The streams by address and run.
    pub fn sorted(&self) -> Vec<(SocketAddr, RunId, &Stream)> {
        let mut streams: Vec<_> =
            self.by_key.iter().map(|((source, run), stream)| (*source, *run, stream)).collect();
        streams.sort_unstable_by_key(|(source, run, _)| (*source, *run));
        streams
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::message::Kind;
    use super::*;

    fn tally(numbers: impl IntoIterator<Item = u64>) -> Sequences {
        let mut sequences = Sequences::new();
        for number in numbers {
            sequences.handle(number);
        }
        sequences
    }

    fn counts(sequences: &Sequences) -> [u64; 5] {
        [
            sequences.received(),
            sequences.lost(),
            sequences.duplicates(),
            sequences.out_of_order(),
            sequences.stale(),
        ]
    }

    #[test]
    fn nothing_arrived() {
        let sequences = Sequences::new();
        assert_eq!(counts(&sequences), [0; 5]);
        assert_eq!((sequences.lowest(), sequences.highest()), (None, None));
    }

    #[test]
    fn the_late_message_is_out_of_order_and_not_those_that_overtook_it() {
        assert_eq!(counts(&tally([1, 2, 4, 5, 3, 6])), [6, 0, 0, 1, 0]);
    }

    #[test]
    fn a_late_duplicate_is_a_duplicate_only() {
        assert_eq!(counts(&tally([1, 2, 3, 1])), [3, 0, 1, 0, 0]);
    }

    #[test]
    fn a_lower_number_opens_the_range_downwards() {
        let sequences = tally([7, 3]);
        assert_eq!(counts(&sequences), [2, 3, 0, 1, 0]);
        assert_eq!((sequences.lowest(), sequences.highest()), (Some(3), Some(7)));
    }

    #[test]
    fn the_window_ends_exactly() {
        let mut sequences = tally([WINDOW]);
        assert_eq!(sequences.handle(0), Arrival::Stale);
        assert_eq!(sequences.handle(1), Arrival::OutOfOrder);
        assert_eq!(sequences.handle(1), Arrival::Duplicate);
    }

    #[test]
    fn a_jump_of_the_whole_range_forgets_everything() {
        let mut sequences = tally([0, 1, 2]);
        assert_eq!(sequences.handle(u64::MAX - 1), Arrival::InOrder);
        assert_eq!(sequences.handle(2), Arrival::Stale);
        assert_eq!(sequences.handle(u64::MAX - 2), Arrival::OutOfOrder);
    }

    /// What [`Sequences`] should say, with unbounded memory.
    #[derive(Default)]
    struct Naive {
        seen: HashSet<u64>,
        highest: Option<u64>,
        counts: [u64; 5],
    }

    impl Naive {
        fn handle(&mut self, number: u64) {
            let [received, _, duplicates, out_of_order, stale] = &mut self.counts;
            let next_expected = self.highest.map_or(0, |highest| highest + 1);
            if number + WINDOW < next_expected {
                *stale += 1;
                return;
            }
            if !self.seen.insert(number) {
                *duplicates += 1;
                return;
            }
            *received += 1;
            if number < next_expected {
                *out_of_order += 1;
            }
            self.highest = self.highest.max(Some(number));
        }

        fn counts(mut self) -> [u64; 5] {
            if let (Some(lowest), Some(highest)) = (self.seen.iter().min(), self.highest) {
                self.counts[1] = highest - lowest + 1 - self.seen.len() as u64;
            }
            self.counts
        }
    }

    /// How the network treats one message: lost, sent on, how often, and by how much delayed.
    fn fate() -> impl Strategy<Value = Option<(usize, u64)>> {
        prop_oneof![
            1 => Just(None),
            6 => Just(Some((1, 0))),
            1 => Just(Some((2, 0))),
            2 => (1..4_usize, 0..100_u64).prop_map(Some),
            1 => (1..3_usize, 0..3 * WINDOW).prop_map(Some),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_set_under_loss_duplication_and_reordering(
            fates in proptest::collection::vec(fate(), 1..400),
            stride in prop_oneof![Just(1_u64), 1..2_000_u64],
        ) {
            let mut arrivals = Vec::new();
            for (sequence, fate) in (0..).step_by(usize::try_from(stride).unwrap()).zip(fates) {
                let Some((copies, delay)) = fate else { continue };
                for copy in 0..copies as u64 {
                    arrivals.push((sequence + delay * (copy + 1), sequence));
                }
            }
            arrivals.sort_by_key(|(time, _)| *time);
            let mut naive = Naive::default();
            let mut sequences = Sequences::new();
            for (_, sequence) in arrivals {
                naive.handle(sequence);
                sequences.handle(sequence);
            }
            prop_assert_eq!(counts(&sequences), naive.counts());
        }

        #[test]
        fn arbitrary_numbers_never_panic(numbers in proptest::collection::vec(any::<u64>(), 0..50)) {
            let mut sequences = Sequences::new();
            for number in &numbers {
                sequences.handle(number >> 1);
            }
            let handled = sequences.received() + sequences.duplicates() + sequences.stale();
            prop_assert_eq!(handled, numbers.len() as u64);
        }
    }

    #[test]
    fn latencies_are_summed_up_in_microseconds() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.summary(), None);
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let summary = latencies.summary().unwrap();
        assert_eq!((summary.min, summary.avg, summary.max), (1.0, 500.5, 1000.0));
        assert!((495.0..505.0).contains(&summary.median), "{summary:?}");
        assert!((980.0..1000.0).contains(&summary.p99), "{summary:?}");
    }

    #[test]
    fn the_distribution_stays_within_its_ends() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::ZERO);
        let zero = LatencySummary { min: 0.0, avg: 0.0, median: 0.0, p99: 0.0, max: 0.0 };
        assert_eq!(latencies.summary(), Some(zero));
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_secs(100_000));
        let summary = latencies.summary().unwrap();
        assert_eq!((summary.min, summary.median, summary.max), (1e11, 1e11, 1e11));
        latencies.record(Duration::MAX);
        assert_eq!(latencies.summary().unwrap().min, 1e11);
    }

    #[test]
    fn ten_messages_in_nine_intervals_have_the_rate_of_the_interval() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        assert_eq!(throughput.rate_pps(), None);
        for number in 0..10 {
            throughput.record(start + Duration::from_millis(100) * number, 1_250);
        }
        assert_eq!((throughput.messages(), throughput.octets()), (10, 12_500));
        assert_eq!(throughput.duration_s(), 0.9);
        assert_eq!(throughput.rate_pps(), Some(10.0));
        assert_eq!(throughput.rate_mbit_s(), Some(0.1));
    }

    fn message(sequence: u64, sent_at: u64) -> Message<'static> {
        Message {
            sequence,
            text: "",
            kind: Kind::Question,
            sent_at: Timestamp::from_nanos(sent_at),
            run: RunId::new(1),
        }
    }

    #[test]
    fn latency_counts_for_the_first_copy_and_never_below_zero() {
        let now = Instant::now();
        let mut stream = Stream::default();
        stream.handle(now, Timestamp::from_nanos(5_000), &message(0, 3_000), 40);
        stream.handle(now, Timestamp::from_nanos(9_000), &message(0, 3_000), 40);
        stream.handle(now, Timestamp::from_nanos(9_000), &message(1, 9_001), 40);
        assert_eq!(stream.latencies.summary().map(|summary| summary.max), Some(2.0));
        assert_eq!(stream.negative_latencies, 1);
        assert_eq!(stream.throughput.octets(), 120);
    }

    #[test]
    fn streams_beyond_the_limit_are_counted_only() {
        let mut streams = Streams::default();
        let source = |port| SocketAddr::from(([192, 0, 2, 1], port));
        for port in (1..).take(MAX_STREAMS) {
            assert!(streams.find(source(port), RunId::new(0)).is_some());
        }
        assert!(streams.find(source(60_000), RunId::new(0)).is_none());
        assert!(streams.find(source(1), RunId::new(0)).is_some());
        assert!(streams.find(source(1), RunId::new(1)).is_none());
        assert_eq!(streams.untracked(), 2);
        assert_eq!(streams.sorted().len(), MAX_STREAMS);
        assert_eq!(streams.sorted()[0].0, source(1));
    }
}
