//! Sends numbered messages to one address and, when asked, waits for the answers.
//!
//! # Theory of operation
//!
//! Message `n` is due at a fixed offset from the start, so that late messages do not delay those
//! after them: what is due is sent at once, then the source waits for the next one, an answer or
//! the stop descriptor. After a gap longer than [`MAX_BACKLOG`] (a stopped process, a full socket) the
//! schedule is moved instead of made up for.
//!
//! The socket is connected, so that the kernel reports ICMP errors (udp(7)). Such an error belongs
//! to an earlier message and takes the place of the next system call; the source counts it and goes
//! on. A message that no system call accepted is *unsent*, but has used up its number.
//!
//! Round trips are the difference of two times of one clock: the wall clock at the start plus the
//! monotonic time since then. Setting the wall clock does not disturb them.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags};
use serde::Serialize;

use super::error::{ProbeError, SocketErrors};
use super::message::{Format, Kind, MAX_SEQUENCE, Message, RunId, Timestamp};
use super::tally::{Arrival, Latencies, LatencySummary, Sequences, Throughput};
use super::wait::{enlarge_receive_buffer, is_ready, stop_fd, wait};

/// The longest time that a source makes up for by sending faster.
pub const MAX_BACKLOG: Duration = Duration::from_millis(100);

/// How many messages are sent, or answers read, before the source looks for anything else.
const TURN: u64 = 64;

/// Room for the largest UDP payload.
const BUFFER_SIZE: usize = 65_536;

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One message each time this has passed.
    Interval(Duration),
    /// So many messages a second, evenly.
    Rate(NonZeroU64),
    /// As fast as the socket takes them.
    Flood,
}

impl Pace {
    /// How long after the first message the one with number `sequence` is due.
    pub fn offset(self, sequence: u64) -> Duration {
        let nanos = match self {
            Self::Interval(interval) => interval.as_nanos().saturating_mul(sequence.into()),
            Self::Rate(rate) => u128::from(sequence) * 1_000_000_000 / u128::from(rate.get()),
            Self::Flood => 0,
        };
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What to send where.
#[derive(Clone, Debug)]
pub struct Source {
    /// The address and port that all messages go to.
    pub target: SocketAddr,
    /// The local address, and port unless it is 0; `None` leaves both to the kernel.
    pub bind: Option<SocketAddr>,
    /// What the messages look like.
    pub format: Format,
    /// When they are sent.
    pub pace: Pace,
    /// How many; `None` until the stop descriptor says so (or the numbers are used up).
    pub count: Option<u64>,
    /// How long messages are sent at most.
    pub duration: Option<Duration>,
    /// How long to wait for answers after the last message; `None` does not look for answers.
    pub echo: Option<Duration>,
}

/// What a source tells while it runs.
#[derive(Debug)]
pub enum SourceEvent<'a> {
    /// The socket is open.
    Started {
        /// The address that messages come from.
        local: SocketAddr,
        /// Where they go.
        target: SocketAddr,
        /// The run that they belong to.
        run: RunId,
    },
    /// The kernel took a message.
    Sent {
        /// Its number.
        sequence: u64,
        /// Its size in octets.
        octets: usize,
    },
    /// The socket reported an error, maybe about an earlier message.
    Error(&'a io::Error),
    /// An answer came.
    Answered {
        /// The number of the message.
        sequence: u64,
        /// The size in octets.
        octets: usize,
        /// The time since the message was sent.
        round_trip: Duration,
        /// Whether the answer is new.
        arrival: Arrival,
    },
    /// Something came that is no answer to this run.
    Foreign {
        /// All of it.
        octets: &'a [u8],
    },
}

/// What became of the messages of a source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SendReport {
    /// The address that the messages came from.
    pub source: SocketAddr,
    /// The address that they went to.
    pub target: SocketAddr,
    /// The run that they belonged to.
    pub run: String,
    /// How many the kernel took.
    pub sent: u64,
    /// How many it did not take.
    pub unsent: u64,
    /// How many octets of UDP payload it took.
    pub octets: u64,
    /// The time between the first and the last message.
    pub duration_s: f64,
    /// Messages a second; `None` for less than two messages.
    pub rate_pps: Option<f64>,
    /// Megabits (10⁶) of UDP payload a second; `None` for less than two messages.
    pub rate_mbit_s: Option<f64>,
    /// What the socket reported, by kind.
    pub errors: SocketErrors,
    /// What came back, if answers were looked for.
    pub echo: Option<EchoReport>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EchoReport {
    /// How many messages were answered.
    pub received: u64,
    /// How many were sent and not answered.
    pub lost: u64,
    /// How many answers came again.
    pub duplicates: u64,
    /// How many answers came after the answer to a later message (RFC 4737, section 3.3).
    pub out_of_order: u64,
    /// How many answers came too late to be told from duplicates.
    pub stale: u64,
    /// How many datagrams were no answers to this run.
    pub foreign: u64,
    /// The time from sending to the first answer; `None` if there was none.
    pub round_trip_us: Option<LatencySummary>,
}

impl Source {
    /// Sends until all is sent, the time is over or `stop` becomes readable; then waits for
    /// answers if they were asked for.
    ///
    /// # Errors
    ///
    /// The socket cannot be opened, or waiting fails. Errors of single messages are counted.
    pub fn run(
        self,
        stop: BorrowedFd<'_>,
        on_event: &mut dyn FnMut(SourceEvent<'_>),
    ) -> Result<SendReport, ProbeError> {
        let mut sending = Sending::start(&self, stop, on_event)?;
        if sending.send_all()? == Flow::Going {
            sending.await_answers()?;
        }
        Ok(sending.report())
    }

    fn open(&self) -> Result<(UdpSocket, SocketAddr), ProbeError> {
        let address = self.bind.unwrap_or_else(|| match self.target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        });
        let bind = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = bind().map_err(|source| ProbeError::Bind { address, source })?;
        let connect = || {
            socket.connect(self.target)?;
            socket.local_addr()
        };
        let target = self.target;
        let local = connect().map_err(|source| ProbeError::Connect { target, source })?;
        Ok((socket, local))
    }
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Going,
    Stopped,
}

/// A source at work.
struct Sending<'a> {
    source: &'a Source,
    stop: BorrowedFd<'a>,
    on_event: &'a mut dyn FnMut(SourceEvent<'_>),
    socket: UdpSocket,
    local: SocketAddr,
    clock: Clock,
    run: RunId,
    message: Vec<u8>,
    received: Vec<u8>,
    next: u64,
    sent: Throughput,
    unsent: u64,
    errors: SocketErrors,
    answers: Answers,
}

#[derive(Default)]
struct Answers {
    sequences: Sequences,
    round_trips: Latencies,
    foreign: u64,
}

impl<'a> Sending<'a> {
    fn start(
        source: &'a Source,
        stop: BorrowedFd<'a>,
        on_event: &'a mut dyn FnMut(SourceEvent<'_>),
    ) -> Result<Self, ProbeError> {
        let (socket, local) = source.open()?;
        if source.echo.is_some() {
            enlarge_receive_buffer(&socket);
        }
        let run = random_run();
        on_event(SourceEvent::Started { local, target: source.target, run });
        Ok(Self {
            source,
            stop,
            on_event,
            socket,
            local,
            clock: Clock::start(),
            run,
            message: Vec::new(),
            received: vec![0; BUFFER_SIZE],
            next: 0,
            sent: Throughput::default(),
            unsent: 0,
            errors: SocketErrors::default(),
            answers: Answers::default(),
        })
    }

    fn send_all(&mut self) -> Result<Flow, ProbeError> {
        let mut origin = Instant::now();
        let end = self.source.duration.and_then(|duration| origin.checked_add(duration));
        let count = self.source.count.unwrap_or(u64::MAX).min(MAX_SEQUENCE + 1);
        while self.next < count {
            let now = Instant::now();
            let due = self.due(origin);
            if end.is_some_and(|end| now >= end || due.is_none_or(|due| due >= end)) {
                break;
            }
            let flow = match due {
                Some(due) if due <= now => {
                    let backlog = now - due;
                    if self.source.pace != Pace::Flood && backlog > MAX_BACKLOG {
                        origin += backlog;
                    }
                    self.send_due(now, end)?
                }
                due => self.wait(PollFlags::empty(), earlier(due, end))?,
            };
            if flow == Flow::Stopped {
                return Ok(Flow::Stopped);
            }
        }
        Ok(Flow::Going)
    }

    /// When the next message is due; `None` is never.
    fn due(&self, origin: Instant) -> Option<Instant> {
        origin.checked_add(self.source.pace.offset(self.next))
    }

    /// Sends the next message and from time to time looks for stop and answers.
    fn send_due(&mut self, now: Instant, end: Option<Instant>) -> Result<Flow, ProbeError> {
        let flow = self.send_next(now, end)?;
        if flow == Flow::Going && self.next.is_multiple_of(TURN) {
            return self.wait(PollFlags::empty(), Some(now));
        }
        Ok(flow)
    }

    fn send_next(&mut self, mut now: Instant, end: Option<Instant>) -> Result<Flow, ProbeError> {
        let mut may_retry = true;
        loop {
            let (sequence, sent_at) = (self.next, self.clock.at(now));
            self.source.format.emit(sequence, sent_at, self.run, &mut self.message);
            match self.socket.send(&self.message) {
                Ok(octets) => {
                    self.next += 1;
                    self.sent.record(now, octets);
                    (self.on_event)(SourceEvent::Sent { sequence, octets });
                    return Ok(Flow::Going);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let flow = self.wait(PollFlags::OUT, end)?;
                    now = Instant::now();
                    if flow == Flow::Stopped || end.is_some_and(|end| now >= end) {
                        return Ok(flow);
                    }
                }
                Err(error) => {
                    self.count_error(&error);
                    // This is news of an earlier message: the kernel has not tried to send this one.
                    if !(may_retry && error.kind() == io::ErrorKind::ConnectionRefused) {
                        self.next += 1;
                        self.unsent += 1;
                        return Ok(Flow::Going);
                    }
                    may_retry = false;
                }
            }
        }
    }

    fn await_answers(&mut self) -> Result<(), ProbeError> {
        let last = self.sent.last();
        let (Some(timeout), Some(last)) = (self.source.echo, last) else {
            // News of the last message may be there already.
            self.take_error();
            return Ok(());
        };
        let deadline = last.checked_add(timeout);
        while self.answers.sequences.received() < self.sent.messages()
            && deadline.is_none_or(|deadline| Instant::now() < deadline)
            && self.wait(PollFlags::empty(), deadline)? == Flow::Going
        {}
        Ok(())
    }

    /// Waits for `events` on the socket, an answer, an error or stop, and treats what it finds.
    fn wait(&mut self, events: PollFlags, until: Option<Instant>) -> Result<Flow, ProbeError> {
        let echo = self.source.echo.is_some();
        let events = if echo { events | PollFlags::IN } else { events };
        let mut fds = [stop_fd(self.stop), PollFd::from_borrowed_fd(self.socket.as_fd(), events)];
        wait(&mut fds, until)?;
        let found = fds[1].revents();
        if is_ready(&fds[0]) {
            return Ok(Flow::Stopped);
        }
        if found.contains(PollFlags::ERR) {
            self.take_error();
        }
        if found.contains(PollFlags::IN) {
            self.receive();
        }
        Ok(Flow::Going)
    }

    fn receive(&mut self) {
        for _ in 0..TURN {
            match self.socket.recv(&mut self.received) {
                Ok(octets) => self.handle_datagram(octets),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.count_error(&error),
            }
        }
    }

    fn handle_datagram(&mut self, octets: usize) {
        let datagram = &self.received[..octets];
        let Some(message) = self.answer_in(datagram) else {
            self.answers.foreign += 1;
            return (self.on_event)(SourceEvent::Foreign { octets: datagram });
        };
        let now = self.clock.at(Instant::now()).as_nanos();
        let round_trip = Duration::from_nanos(now.saturating_sub(message.sent_at.as_nanos()));
        let sequence = message.sequence;
        let arrival = self.answers.sequences.handle(sequence);
        if matches!(arrival, Arrival::InOrder | Arrival::OutOfOrder) {
            self.answers.round_trips.record(round_trip);
        }
        (self.on_event)(SourceEvent::Answered { sequence, octets, round_trip, arrival });
    }

    /// The message in `datagram` if it answers one of this run.
    fn answer_in<'m>(&self, datagram: &'m [u8]) -> Option<Message<'m>> {
        let message = Message::parse(datagram).ok()?;
        let ours =
            message.kind == Kind::Answer && message.run == self.run && message.sequence < self.next;
        ours.then_some(message)
    }

    fn take_error(&mut self) {
        if let Ok(Some(error)) = self.socket.take_error() {
            self.count_error(&error);
        }
    }

    fn count_error(&mut self, error: &io::Error) {
        self.errors.count(error);
        (self.on_event)(SourceEvent::Error(error));
    }

    fn report(self) -> SendReport {
        let sent = self.sent.messages();
        SendReport {
            source: self.local,
            target: self.source.target,
            run: self.run.to_string(),
            sent,
            unsent: self.unsent,
            octets: self.sent.octets(),
            duration_s: self.sent.duration_s(),
            rate_pps: self.sent.rate_pps(),
            rate_mbit_s: self.sent.rate_mbit_s(),
            errors: self.errors,
            echo: self.source.echo.map(|_| self.answers.report(sent)),
        }
    }
}

impl Answers {
    fn report(&self, sent: u64) -> EchoReport {
        EchoReport {
            received: self.sequences.received(),
            lost: sent.saturating_sub(self.sequences.received()),
            duplicates: self.sequences.duplicates(),
            out_of_order: self.sequences.out_of_order(),
            stale: self.sequences.stale(),
            foreign: self.foreign,
            round_trip_us: self.round_trips.summary(),
        }
    }
}

/// Wall clock time that nobody can set while the run lasts.
struct Clock {
    wall: Duration,
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { wall, start: Instant::now() }
    }

    fn at(&self, now: Instant) -> Timestamp {
        let nanos = (self.wall + now.saturating_duration_since(self.start)).as_nanos();
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A run that is most likely not that of another source.
fn random_run() -> RunId {
    let random = RandomState::new().hash_one(0) % u64::from(RunId::COUNT);
    RunId::new(u16::try_from(random).unwrap_or(0))
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_absolute_and_do_not_drift() {
        let rate = Pace::Rate(NonZeroU64::new(3).unwrap());
        assert_eq!(rate.offset(0), Duration::ZERO);
        assert_eq!(rate.offset(1), Duration::from_nanos(333_333_333));
        assert_eq!(rate.offset(3_000_000), Duration::from_secs(1_000_000));
        let interval = Pace::Interval(Duration::from_millis(100));
        assert_eq!(interval.offset(36_000), Duration::from_secs(3_600));
        assert_eq!(Pace::Flood.offset(MAX_SEQUENCE), Duration::ZERO);
        assert_eq!(
            Pace::Interval(Duration::MAX).offset(MAX_SEQUENCE),
            Duration::from_nanos(u64::MAX)
        );
    }
}
