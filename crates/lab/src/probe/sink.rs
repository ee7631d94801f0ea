//! Counts the messages that arrive and, when asked, answers them.
//!
//! # Theory of operation
//!
//! Each address has its own socket; `[::]` stands for IPv6 only (ipv6(7), `IPV6_V6ONLY`), so that
//! `0.0.0.0` can be served with the same port. The sink waits for all sockets and the stop
//! descriptor, and takes at most a few datagrams from a socket before it looks at the next.
//!
//! Messages are counted by source and run in [`Streams`]; other datagrams, such as text from
//! `nc -u`, are *foreign*. Answers to other sources' questions are foreign as well, and never
//! answered. An answer has the size of its question, so that a forged source address gains nothing.
//!
//! One-way latency is the sink's wall clock, read after the datagram was, less the time in the
//! message. It means something only if both clocks agree, for example on one machine.
//!
//! Limit: from a wildcard address the kernel chooses the source of an answer by its route. On a host
//! with several addresses it may differ from the one that was asked; listen on one address there.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use serde::Serialize;

use super::error::{ProbeError, SocketErrors};
use super::message::{Kind, Message, RunId, Timestamp, make_answer};
use super::tally::{Arrival, LatencySummary, Stream, Streams, Throughput};
use super::wait::{enlarge_receive_buffer, is_ready, stop_fd, wait};

/// The port of a sink that is not told otherwise.
pub const DEFAULT_PORT: u16 = 8080;

/// How many addresses a sink can listen on.
pub const MAX_ADDRESSES: usize = 8;

/// How many datagrams are taken from one socket before the next has its turn.
const TURN: usize = 64;

/// Room for the largest UDP payload.
const BUFFER_SIZE: usize = 65_536;

/// What to listen on, and for how long.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The local addresses. An unspecified one is left out if the host lacks its family and
    /// another can be served.
    pub listen: Vec<SocketAddr>,
    /// Whether messages are answered.
    pub echo: bool,
    /// Ends after so many messages, duplicates included.
    pub count: Option<u64>,
    /// Ends when nothing came for so long, once something came.
    pub idle: Option<Duration>,
    /// Ends after so long.
    pub duration: Option<Duration>,
}

impl Default for Sink {
    /// Listens on port [`DEFAULT_PORT`] of all addresses until it is stopped.
    fn default() -> Self {
        let listen = vec![
            (Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into(),
            (Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into(),
        ];
        Self { listen, echo: false, count: None, idle: None, duration: None }
    }
}

/// What a sink tells while it runs.
#[derive(Debug)]
pub enum SinkEvent<'a> {
    /// A socket is open.
    Listening {
        /// Its address, with the port that the kernel chose if 0 was asked for.
        local: SocketAddr,
    },
    /// A message came.
    Received {
        /// Where from.
        source: SocketAddr,
        /// What it says.
        message: Message<'a>,
        /// Its size in octets.
        octets: usize,
        /// Whether it is new; `None` if its stream is not tracked.
        arrival: Option<Arrival>,
        /// From the source's clock to ours, in microseconds.
        one_way_latency_us: f64,
    },
    /// Something else came.
    Foreign {
        /// Where from.
        source: SocketAddr,
        /// All of it.
        octets: &'a [u8],
    },
}

/// What a sink saw.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SinkReport {
    /// The addresses it listened on.
    pub listening: Vec<SocketAddr>,
    /// Messages of all streams, duplicates included.
    pub received: u64,
    /// Their octets of UDP payload.
    pub octets: u64,
    /// The time between the first and the last message.
    pub duration_s: f64,
    /// Messages a second; `None` for less than two messages.
    pub rate_pps: Option<f64>,
    /// Megabits (10⁶) of UDP payload a second; `None` for less than two messages.
    pub rate_mbit_s: Option<f64>,
    /// Datagrams that are no messages.
    pub foreign: u64,
    /// Their octets of UDP payload.
    pub foreign_octets: u64,
    /// Messages of streams beyond [`MAX_STREAMS`](super::tally::MAX_STREAMS).
    pub untracked: u64,
    /// Messages that were answered.
    pub answered: u64,
    /// Why others could not be, by kind.
    pub answer_errors: SocketErrors,
    /// Each source and run.
    pub streams: Vec<StreamReport>,
}

/// What a sink saw of one run of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamReport {
    /// Where the messages came from.
    pub source: SocketAddr,
    /// The run that they belonged to.
    pub run: String,
    /// The lowest number.
    pub lowest_sequence: u64,
    /// The highest number.
    pub highest_sequence: u64,
    /// How many different messages came.
    pub received: u64,
    /// How many between the lowest and the highest number did not come.
    pub lost: u64,
    /// How many came again.
    pub duplicates: u64,
    /// How many came after one with a higher number (RFC 4737, section 3.3).
    pub out_of_order: u64,
    /// How many came too late to be told from duplicates.
    pub stale: u64,
    /// All octets of UDP payload, duplicates included.
    pub octets: u64,
    /// The time between the first and the last message.
    pub duration_s: f64,
    /// Messages a second, duplicates included; `None` for less than two messages.
    pub rate_pps: Option<f64>,
    /// Megabits (10⁶) of UDP payload a second; `None` for less than two messages.
    pub rate_mbit_s: Option<f64>,
    /// From the source's clock to the sink's; `None` if the clocks let no message arrive after it
    /// was sent.
    pub one_way_latency_us: Option<LatencySummary>,
    /// How many messages arrived before they were sent: the clocks disagree.
    pub negative_latencies: u64,
}

impl Sink {
    /// Counts until one of the limits is reached or `stop` becomes readable.
    ///
    /// # Errors
    ///
    /// A socket cannot be opened, receiving fails for good, or waiting fails.
    pub fn run(
        self,
        stop: BorrowedFd<'_>,
        on_event: &mut dyn FnMut(SinkEvent<'_>),
    ) -> Result<SinkReport, ProbeError> {
        let sockets = open_all(&self.listen)?;
        for socket in &sockets {
            on_event(SinkEvent::Listening { local: socket.local });
        }
        let mut counting = Counting::new(&self, on_event);
        counting.run(&sockets, stop)?;
        Ok(counting.report(&sockets))
    }
}

struct Listener {
    socket: UdpSocket,
    local: SocketAddr,
}

fn open_all(addresses: &[SocketAddr]) -> Result<Vec<Listener>, ProbeError> {
    if addresses.len() > MAX_ADDRESSES {
        let given = addresses.len();
        return Err(ProbeError::TooManyAddresses { given, limit: MAX_ADDRESSES });
    }
    let mut listeners = Vec::new();
    let mut lacking = ProbeError::NoAddress;
    for &address in addresses {
        match open(address) {
            Ok(listener) => listeners.push(listener),
            Err(source) if address.ip().is_unspecified() && is_family_lacking(&source) => {
                lacking = ProbeError::Bind { address, source };
            }
            Err(source) => return Err(ProbeError::Bind { address, source }),
        }
    }
    if listeners.is_empty() { Err(lacking) } else { Ok(listeners) }
}

/// The kernel was built or booted without IPv6, or IPv6 is switched off by sysctl.
fn is_family_lacking(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn open(address: SocketAddr) -> io::Result<Listener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    let socket = UdpSocket::from(socket);
    enlarge_receive_buffer(&socket);
    let local = socket.local_addr()?;
    Ok(Listener { socket, local })
}

/// A sink at work.
struct Counting<'a> {
    sink: &'a Sink,
    on_event: &'a mut dyn FnMut(SinkEvent<'_>),
    buffer: Vec<u8>,
    end: Option<Instant>,
    last_datagram: Option<Instant>,
    messages: Throughput,
    foreign: Throughput,
    streams: Streams,
    answered: u64,
    answer_errors: SocketErrors,
}

impl<'a> Counting<'a> {
    fn new(sink: &'a Sink, on_event: &'a mut dyn FnMut(SinkEvent<'_>)) -> Self {
        Self {
            sink,
            on_event,
            buffer: vec![0; BUFFER_SIZE],
            end: sink.duration.and_then(|duration| Instant::now().checked_add(duration)),
            last_datagram: None,
            messages: Throughput::default(),
            foreign: Throughput::default(),
            streams: Streams::default(),
            answered: 0,
            answer_errors: SocketErrors::default(),
        }
    }

    fn run(&mut self, listeners: &[Listener], stop: BorrowedFd<'_>) -> Result<(), ProbeError> {
        let mut fds = vec![stop_fd(stop)];
        fds.extend(
            listeners
                .iter()
                .map(|listener| PollFd::from_borrowed_fd(listener.socket.as_fd(), PollFlags::IN)),
        );
        while !self.is_done() {
            wait(&mut fds, self.deadline())?;
            let (stop, sockets) = (&fds[0], &fds[1..]);
            if is_ready(stop) {
                break;
            }
            for (listener, _) in listeners.iter().zip(sockets).filter(|(_, fd)| is_ready(fd)) {
                self.receive(listener)?;
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.is_count_reached() || self.deadline().is_some_and(|end| Instant::now() >= end)
    }

    fn is_count_reached(&self) -> bool {
        self.sink.count.is_some_and(|count| self.messages.messages() >= count)
    }

    /// When the sink ends if nothing comes.
    fn deadline(&self) -> Option<Instant> {
        let idle = self.last_datagram.zip(self.sink.idle);
        let idle = idle.and_then(|(last, idle)| last.checked_add(idle));
        [idle, self.end].into_iter().flatten().min()
    }

    fn receive(&mut self, listener: &Listener) -> Result<(), ProbeError> {
        for _ in 0..TURN {
            if self.is_count_reached() {
                break;
            }
            match listener.socket.recv_from(&mut self.buffer) {
                Ok((octets, source)) => self.handle_datagram(&listener.socket, source, octets),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ProbeError::Receive { local: listener.local, source });
                }
            }
        }
        Ok(())
    }

    fn handle_datagram(&mut self, socket: &UdpSocket, source: SocketAddr, octets: usize) {
        let now = Instant::now();
        self.last_datagram = Some(now);
        let datagram = &self.buffer[..octets];
        match Message::parse(datagram) {
            Ok(message) if message.kind == Kind::Question => {
                self.messages.record(now, octets);
                let stream = self.streams.find(source, message.run);
                let arrived_at = wall_clock();
                let arrival = stream.map(|stream| stream.handle(now, arrived_at, &message, octets));
                let one_way_latency_us = signed_micros(arrived_at, message.sent_at);
                (self.on_event)(SinkEvent::Received {
                    source,
                    message,
                    octets,
                    arrival,
                    one_way_latency_us,
                });
                self.answer(socket, source, octets);
            }
            _ => {
                self.foreign.record(now, octets);
                (self.on_event)(SinkEvent::Foreign { source, octets: datagram });
            }
        }
    }

    /// Answers the question in the first `octets` octets of the buffer, if that is wanted.
    fn answer(&mut self, socket: &UdpSocket, source: SocketAddr, octets: usize) {
        if !self.sink.echo {
            return;
        }
        let datagram = &mut self.buffer[..octets];
        if make_answer(datagram) {
            match socket.send_to(datagram, source) {
                Ok(_) => self.answered += 1,
                Err(error) => self.answer_errors.count(&error),
            }
        }
    }

    fn report(self, listeners: &[Listener]) -> SinkReport {
        let streams = self.streams.sorted();
        SinkReport {
            listening: listeners.iter().map(|listener| listener.local).collect(),
            received: self.messages.messages(),
            octets: self.messages.octets(),
            duration_s: self.messages.duration_s(),
            rate_pps: self.messages.rate_pps(),
            rate_mbit_s: self.messages.rate_mbit_s(),
            foreign: self.foreign.messages(),
            foreign_octets: self.foreign.octets(),
            untracked: self.streams.untracked(),
            answered: self.answered,
            answer_errors: self.answer_errors,
            streams: streams.iter().map(|(from, run, of)| stream_report(*from, *run, of)).collect(),
        }
    }
}

fn stream_report(source: SocketAddr, run: RunId, stream: &Stream) -> StreamReport {
    let Stream { sequences, throughput, latencies, negative_latencies } = stream;
    StreamReport {
        source,
        run: run.to_string(),
        lowest_sequence: sequences.lowest().unwrap_or(0),
        highest_sequence: sequences.highest().unwrap_or(0),
        received: sequences.received(),
        lost: sequences.lost(),
        duplicates: sequences.duplicates(),
        out_of_order: sequences.out_of_order(),
        stale: sequences.stale(),
        octets: throughput.octets(),
        duration_s: throughput.duration_s(),
        rate_pps: throughput.rate_pps(),
        rate_mbit_s: throughput.rate_mbit_s(),
        one_way_latency_us: latencies.summary(),
        negative_latencies: *negative_latencies,
    }
}

fn wall_clock() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// The time from `earlier` to `later` in microseconds, below zero if it is the other way round.
fn signed_micros(later: Timestamp, earlier: Timestamp) -> f64 {
    (i128::from(later.as_nanos()) - i128::from(earlier.as_nanos())) as f64 / 1e3
}
