//! Round trips of numbered UDP messages.

use std::io::pipe;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lab::Host;
use lab::probe::message::Format;
use lab::probe::tally::LatencySummary;
use lab::probe::{Pace, SendReport, Sink, SinkEvent, Source};

use super::iperf::Load;
use super::rig::Track;
use crate::failure::Failure;

/// Messages of one measurement.
const COUNT: u64 = 200;
/// The time from one message to the next.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long TCP has to find its speed before anything is measured beside it.
const WARM_UP: Duration = Duration::from_millis(500);

/// The port that answers.
const PORT: u16 = 8080;

/// Round trips while nothing else happens.
pub(super) fn idle(track: &Track<'_>) -> Result<LatencySummary, Failure> {
    let target = SocketAddr::from((track.address(), PORT));
    let report = thread::scope(|scope| {
        let (stopped, stop) = pipe()?;
        let (listening, ready) = mpsc::channel();
        let sink = scope.spawn(move || answer(track.far(), target, stopped, listening));
        // An error of the sink is seen when it is joined.
        let report = ready.recv().ok().map(|()| send(track.near(), target));
        drop(stop);
        sink.join().map_err(|_| Failure::new("the sink panicked"))??;
        report.ok_or_else(|| Failure::new("the sink does not listen"))?
    })?;
    let echo = report.echo.and_then(|echo| echo.round_trip_us);
    echo.ok_or_else(|| Failure::new(format!("no answer from {target}")))
}

/// Round trips while one stream of TCP takes what it gets.
pub(super) fn under_load(track: &Track<'_>) -> Result<LatencySummary, Failure> {
    let _load = Load::start(track)?;
    thread::sleep(WARM_UP);
    idle(track)
}

fn send(host: &Host, target: SocketAddr) -> Result<SendReport, Failure> {
    let source = Source {
        target,
        bind: None,
        format: Format::default(),
        pace: Pace::Interval(INTERVAL),
        count: Some(COUNT),
        duration: None,
        echo: Some(PATIENCE),
    };
    // Its other end stays open, so it never says stop.
    let (stop, _never) = pipe()?;
    Ok(host.run(move || source.run(stop.as_fd(), &mut |_| {}))?)
}

/// Answers until the other end of `stop` is closed.
fn answer(
    host: &Host,
    address: SocketAddr,
    stop: std::io::PipeReader,
    listening: mpsc::Sender<()>,
) -> Result<(), Failure> {
    let sink = Sink { listen: vec![address], echo: true, ..Sink::default() };
    host.run(move || {
        sink.run(stop.as_fd(), &mut |event| {
            if let SinkEvent::Listening { .. } = event {
                // Nobody waits any more after the first time.
                let _ = listening.send(());
            }
        })
    })?;
    Ok(())
}
