//! Sources and sinks on the loopback device, each in its thread.
//!
//! ```text
//! Source ── 127.0.0.1 or ::1, UDP ── Sink
//!                                 └─ or a bare socket that misbehaves
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{PipeWriter, pipe};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::probe::message::{Format, make_answer};
use lab::probe::{Pace, ProbeError, SendReport, Sink, SinkEvent, SinkReport, Source, SourceEvent};

/// A test that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

fn sink_on(address: &str) -> Sink {
    Sink { listen: vec![address.parse().unwrap()], duration: Some(PATIENCE), ..Sink::default() }
}

fn source_to(target: SocketAddr, count: u64) -> Source {
    Source {
        target,
        bind: None,
        format: Format::default(),
        pace: Pace::Flood,
        count: Some(count),
        duration: Some(PATIENCE),
        echo: None,
    }
}

/// A sink in its thread.
struct Running {
    local: SocketAddr,
    stop: PipeWriter,
    /// One for each message that arrived.
    arrivals: Receiver<()>,
    thread: JoinHandle<Result<SinkReport, ProbeError>>,
}

impl Running {
    fn start(sink: Sink) -> Self {
        Self::try_start(sink).unwrap()
    }

    /// `None` if the sink could not listen.
    fn try_start(sink: Sink) -> Option<Self> {
        let (stopped, stop) = pipe().unwrap();
        let (announce, announced) = channel();
        let (arrive, arrivals) = channel();
        let thread = std::thread::spawn(move || {
            sink.run(stopped.as_fd(), &mut |event| match event {
                SinkEvent::Listening { local } => {
                    let _ = announce.send(local);
                }
                SinkEvent::Received { .. } | SinkEvent::Foreign { .. } => {
                    let _ = arrive.send(());
                }
            })
        });
        let local = announced.recv_timeout(PATIENCE).ok()?;
        Some(Self { local, stop, arrivals, thread })
    }

    fn await_arrivals(&self, count: usize) {
        for _ in 0..count {
            self.arrivals.recv_timeout(PATIENCE).unwrap();
        }
    }

    fn stop(self) -> SinkReport {
        drop(self.stop);
        self.thread.join().unwrap().unwrap()
    }
}

fn run(source: Source) -> SendReport {
    let (stopped, _stop) = pipe().unwrap();
    source.run(stopped.as_fd(), &mut |_| {}).unwrap()
}

/// A port that refuses us and that nobody else gets: its socket listens to one other peer only.
fn closed_port() -> (SocketAddr, UdpSocket) {
    let holder = UdpSocket::bind(V4).unwrap();
    holder.connect("127.0.0.1:9").unwrap();
    (holder.local_addr().unwrap(), holder)
}

fn ten_messages_arrive(listen: &str) {
    let sink = Running::start(Sink { count: Some(10), ..sink_on(listen) });
    let sent = run(source_to(sink.local, 10));
    assert_eq!((sent.sent, sent.unsent, sent.errors.total()), (10, 0, 0));
    assert_eq!(sent.octets, 350);
    assert_eq!(sent.echo, None);

    let seen = sink.thread.join().unwrap().unwrap();
    assert_eq!((seen.received, seen.octets, seen.foreign, seen.answered), (10, 350, 0, 0));
    let [stream] = &seen.streams[..] else { panic!("{seen:?}") };
    assert_eq!((stream.source, &stream.run), (sent.source, &sent.run));
    assert_eq!((stream.lowest_sequence, stream.highest_sequence), (0, 9));
    assert_eq!((stream.received, stream.lost, stream.duplicates), (10, 0, 0));
    let latency = stream.one_way_latency_us.unwrap();
    assert!(latency.max < PATIENCE.as_secs_f64() * 1e6, "{latency:?}");
}

#[test]
fn ten_messages_arrive_over_ipv4() {
    ten_messages_arrive(V4);
}

#[test]
fn ten_messages_arrive_over_ipv6() {
    ten_messages_arrive(V6);
}

#[test]
fn every_message_is_answered_once() {
    for listen in [V4, V6] {
        let sink = Running::start(Sink { echo: true, ..sink_on(listen) });
        let pace = Pace::Rate(NonZeroU64::new(10_000).unwrap());
        let source = Source { echo: Some(PATIENCE), pace, ..source_to(sink.local, 500) };
        let start = Instant::now();
        let sent = run(source);
        assert!(start.elapsed() < PATIENCE, "the source waits no longer than for the last answer");

        let echo = sent.echo.unwrap();
        assert_eq!((echo.received, echo.lost, echo.duplicates, echo.foreign), (500, 0, 0, 0));
        let times = echo.round_trip_us.unwrap();
        assert!(times.min > 0.0 && times.min <= times.median && times.median <= times.max);
        assert_eq!(sink.stop().answered, 500);
    }
}

#[test]
fn messages_of_every_size_arrive_whole() {
    for size in [29, 36, 1_472, 9_000, 65_507] {
        let sink = Running::start(Sink { count: Some(3), ..sink_on(V4) });
        let format = Format::new("size", Some(size)).unwrap();
        run(Source { format, ..source_to(sink.local, 3) });
        let seen = sink.thread.join().unwrap().unwrap();
        assert_eq!((seen.received, seen.octets), (3, 3 * size as u64));
    }
}

#[test]
fn a_second_run_from_the_same_address_is_a_second_stream() {
    let sink = Running::start(Sink { count: Some(4), ..sink_on(V4) });
    let first = run(source_to(sink.local, 2));
    let second = run(Source { bind: Some(first.source), ..source_to(sink.local, 2) });
    assert_eq!(second.source, first.source);
    let seen = sink.thread.join().unwrap().unwrap();
    // Two runs have the same name once in 46,656 times; then they are one stream.
    let streams = if second.run == first.run { 1 } else { 2 };
    assert_eq!(seen.streams.len(), streams);
}

#[test]
fn foreign_text_is_counted_apart_and_never_answered() {
    let sink = Running::start(Sink { echo: true, ..sink_on(V4) });
    let netcat = UdpSocket::bind(V4).unwrap();
    netcat.set_read_timeout(Some(PATIENCE)).unwrap();
    netcat.send_to(b"hello\n", sink.local).unwrap();
    // What another sink would send must not come back either.
    let mut answer = b"7 Hello<00000000000z00a".to_vec();
    netcat.send_to(&answer, sink.local).unwrap();
    let question = b"8 Hello@00000000000z00a";
    netcat.send_to(question, sink.local).unwrap();

    let octets = netcat.recv(&mut answer).unwrap();
    assert_eq!(&answer[..octets], b"8 Hello<00000000000z00a");
    sink.await_arrivals(3);
    let seen = sink.stop();
    assert_eq!((seen.foreign, seen.foreign_octets), (2, 6 + 23));
    assert_eq!((seen.received, seen.answered), (1, 1));
}

#[test]
fn a_closed_port_is_counted_and_survived() {
    let (closed, _holder) = closed_port();
    let pace = Pace::Interval(Duration::from_millis(1));
    let sent = run(Source { pace, ..source_to(closed, 20) });
    assert_eq!((sent.sent, sent.unsent), (20, 0));
    let errors: Vec<_> = sent.errors.iter().collect();
    // The loopback device refuses at once, so that no refusal covers another one.
    assert_eq!(errors, [("connection refused", 20)]);
}

#[test]
fn a_target_that_the_kernel_refuses_is_named() {
    // The limited broadcast address needs SO_BROADCAST (ip(7)).
    let source = source_to("255.255.255.255:9".parse().unwrap(), 1);
    let (stopped, _stop) = pipe().unwrap();
    let error = source.run(stopped.as_fd(), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "connect UDP socket to 255.255.255.255:9");
}

#[test]
fn duplicates_reordering_and_strangers_among_the_answers_are_told_apart() {
    let peer = UdpSocket::bind(V4).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let target = peer.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let mut questions = Vec::new();
        let mut source = None;
        for _ in 0..4 {
            let mut buffer = vec![0; 100];
            let (octets, from) = peer.recv_from(&mut buffer).unwrap();
            buffer.truncate(octets);
            questions.push(buffer);
            source = Some(from);
        }
        let source = source.unwrap();
        peer.send_to(b"rubbish", source).unwrap();
        peer.send_to(&questions[0], source).unwrap();
        for question in &mut questions {
            assert!(make_answer(question));
        }
        for index in [1, 0, 0, 3] {
            peer.send_to(&questions[index], source).unwrap();
        }
        peer
    });
    let source = Source { echo: Some(Duration::from_millis(300)), ..source_to(target, 4) };
    let echo = run(source).echo.unwrap();
    drop(answering.join().unwrap());
    assert_eq!((echo.received, echo.lost, echo.duplicates), (3, 1, 1));
    assert_eq!((echo.out_of_order, echo.foreign, echo.stale), (1, 2, 0));
}

#[test]
fn stop_ends_a_source_without_limits() {
    let sink = UdpSocket::bind(V4).unwrap();
    for pace in [Pace::Flood, Pace::Interval(Duration::from_secs(3_600))] {
        for echo in [None, Some(PATIENCE)] {
            let target = sink.local_addr().unwrap();
            let source = Source { pace, echo, count: None, ..source_to(target, 0) };
            let (stopped, stop) = pipe().unwrap();
            let mut stop = Some(stop);
            let start = Instant::now();
            let on_event = &mut |event: SourceEvent<'_>| {
                if matches!(event, SourceEvent::Sent { .. }) {
                    stop = None;
                }
            };
            let sent = source.run(stopped.as_fd(), on_event).unwrap();
            assert!(start.elapsed() < PATIENCE);
            assert!((1..=64).contains(&sent.sent), "{pace:?}: {}", sent.sent);
        }
    }
}

#[test]
fn the_pace_is_kept_and_duration_ends_it() {
    let sink = UdpSocket::bind(V4).unwrap();
    let source = Source {
        pace: Pace::Rate(NonZeroU64::new(1_000).unwrap()),
        count: None,
        duration: Some(Duration::from_millis(200)),
        ..source_to(sink.local_addr().unwrap(), 0)
    };
    let start = Instant::now();
    let sent = run(source);
    assert!(start.elapsed() >= Duration::from_millis(199));
    // Never more than are due; fewer only if this machine stood still for long.
    assert!(sent.sent <= 200, "{}", sent.sent);
    assert!(sent.sent >= 50, "{}", sent.sent);
}

#[test]
fn an_idle_sink_ends_only_after_something_came() {
    let idle = Some(Duration::from_millis(50));
    let sink = Running::start(Sink { idle, ..sink_on(V4) });
    run(source_to(sink.local, 1));
    let seen = sink.thread.join().unwrap().unwrap();
    assert_eq!(seen.received, 1);

    let duration = Some(Duration::from_millis(150));
    let sink = Running::start(Sink { idle, duration, ..sink_on(V4) });
    let start = Instant::now();
    assert_eq!(sink.thread.join().unwrap().unwrap().received, 0);
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[test]
fn both_families_are_served_on_one_port() {
    let listen_on_any_port = || {
        let free = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let listen = vec![([0_u16; 8], free).into(), ([0_u8; 4], free).into()];
        let sink = Sink { listen, count: Some(2), duration: Some(PATIENCE), ..Sink::default() };
        Running::try_start(sink)
    };
    // Somebody else may take a free port before the sink does.
    let sink = (0..5).find_map(|_| listen_on_any_port()).unwrap();
    let free = sink.local.port();
    run(source_to(([127, 0, 0, 1], free).into(), 1));
    run(source_to(SocketAddr::new("::1".parse().unwrap(), free), 1));
    let seen = sink.thread.join().unwrap().unwrap();
    assert_eq!(seen.received, 2);
    let families: Vec<_> = seen.streams.iter().map(|stream| stream.source.is_ipv6()).collect();
    assert_eq!(families, [false, true]);
}

#[test]
fn an_address_in_use_is_named() {
    let taken = UdpSocket::bind(V4).unwrap();
    let address = taken.local_addr().unwrap();
    let (stopped, _stop) = pipe().unwrap();
    let sink = Sink { listen: vec![address], ..Sink::default() };
    let error = sink.run(stopped.as_fd(), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), format!("open UDP socket on {address}"));
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "Address already in use (os error 98)");
}
