//! `adit probe send`.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use clap::Args;
use lab::probe::message::{DEFAULT_TEXT, Format};
use lab::probe::{EchoReport, Pace, SendReport, Source, SourceEvent};

use super::address::{HostPort, parse_bind};
use super::stop::Stop;
use super::summary::{Trace, count, errors, fates, foreign, latency, rate, remark, row};
use crate::output::Output;
use crate::report::{Exit, Failure};

/// How many messages are sent unless something else limits them.
const DEFAULT_COUNT: u64 = 10;

/// When messages are sent unless they are told to.
const DEFAULT_PACE: Pace = Pace::Interval(Duration::from_millis(100));

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Where to: an address or a name, and a port.
    #[arg(value_name = "ADDRESS:PORT")]
    target: HostPort,

    /// How many messages; 0 sends until stopped [default: 10, or no limit with --duration].
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,

    #[command(flatten)]
    pace: PaceArgs,

    /// Octets of UDP payload in each message, at least 29 [default: as long as the text needs].
    #[arg(long, value_name = "OCTETS")]
    size: Option<usize>,

    /// The local address, with or without a port.
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_bind)]
    bind: Option<SocketAddr>,

    /// What the messages say after their number; cut when --size leaves no room.
    #[arg(long, default_value = DEFAULT_TEXT)]
    text: String,

    /// Waits for answers (of `adit probe sink --echo`) and reports round trips.
    #[arg(long)]
    echo: bool,

    /// How long to wait for answers after the last message.
    #[arg(
        long,
        value_name = "DURATION",
        requires = "echo",
        default_value = "1s",
        value_parser = humantime::parse_duration,
    )]
    timeout: Duration,

    /// Stops sending after this time.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// Prints the report as one JSON object; what -v prints goes to standard error.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct PaceArgs {
    /// The time from one message to the next [default: 100ms].
    #[arg(short, long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    interval: Option<Duration>,

    /// Messages a second, such as 1000 or 1000/s.
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<NonZeroU64>,

    /// Sends as fast as the socket takes them.
    #[arg(long)]
    flood: bool,
}

impl PaceArgs {
    fn pace(&self) -> Pace {
        match (self.interval, self.rate, self.flood) {
            (Some(Duration::ZERO), ..) | (_, _, true) => Pace::Flood,
            (Some(interval), ..) => Pace::Interval(interval),
            (None, Some(rate), false) => Pace::Rate(rate),
            (None, None, false) => DEFAULT_PACE,
        }
    }
}

impl SendArgs {
    fn count(&self) -> Option<u64> {
        match (self.count, self.duration) {
            (Some(0), _) | (None, Some(_)) => None,
            (Some(count), _) => Some(count),
            (None, None) => Some(DEFAULT_COUNT),
        }
    }
}

pub(crate) fn run(args: SendArgs, output: &mut Output) -> Result<Exit, Failure> {
    let limit = args.count();
    let format =
        Format::new(args.text, args.size).map_err(|error| Failure::wrong_use(error.to_string()))?;
    let source = Source {
        target: args.target.resolve_for(args.bind)?,
        bind: args.bind,
        format,
        pace: args.pace.pace(),
        count: limit,
        duration: args.duration,
        echo: args.echo.then_some(args.timeout),
    };
    let target = source.target;
    let stop = Stop::on_signals()?;
    let mut trace = Trace::new(output, &stop, args.json);
    let report = source.run(stop.fd(), &mut |event| show(&mut trace, target, args.echo, &event))?;
    trace.finish()?;
    if args.json {
        output.json(&report)?;
    } else {
        summary(&report).iter().try_for_each(|line| output.line(line))?;
    }
    Ok(exit(&report))
}

/// Failed when nothing went out, or nothing came back although it should.
fn exit(report: &SendReport) -> Exit {
    let is_silent = report.echo.as_ref().is_some_and(|echo| echo.received == 0);
    if report.sent == 0 || is_silent { Exit::Failed } else { Exit::Done }
}

/// As ping does it: with answers, a line for each of them; otherwise one for each message.
fn show(trace: &mut Trace<'_>, target: SocketAddr, echo: bool, event: &SourceEvent<'_>) {
    match event {
        SourceEvent::Started { local, target, run } => {
            tracing::debug!("sending from {local} to {target}, run {run}");
        }
        SourceEvent::Sent { .. } if echo => {}
        SourceEvent::Sent { sequence, octets } => {
            trace.line(|| format!("{octets} octets to {target}: seq={sequence}"));
        }
        SourceEvent::Answered { sequence, octets, round_trip, arrival } => trace.line(|| {
            let time = round_trip.as_secs_f64() * 1e3;
            let remark = remark(Some(*arrival));
            format!("{octets} octets from {target}: seq={sequence} time={time:.3} ms{remark}")
        }),
        SourceEvent::Foreign { octets } => {
            trace.line(|| format!("{} octets from {target}: {}", octets.len(), foreign(octets)));
        }
        SourceEvent::Error(error) => trace.line(|| format!("{target}: {error}")),
    }
}

fn summary(report: &SendReport) -> Vec<String> {
    let SendReport { sent, octets, source, target, run, .. } = report;
    let unsent = match report.unsent {
        0 => String::new(),
        unsent => format!(", {unsent} could not be sent"),
    };
    let (sent, octets) = (count(*sent, "message"), count(*octets, "octet"));
    let mut lines =
        vec![row("sent", format!("{sent}, {octets} from {source} to {target}, run {run}{unsent}"))];
    lines.extend(
        rate(report.rate_pps, report.rate_mbit_s, report.duration_s).map(|rate| row("rate", rate)),
    );
    if report.errors.total() > 0 {
        lines.push(row("errors", errors(&report.errors)));
    }
    if let Some(echo) = &report.echo {
        lines.extend(echo_summary(echo));
    }
    lines
}

fn echo_summary(echo: &EchoReport) -> Vec<String> {
    let EchoReport { received, lost, duplicates, out_of_order, stale, .. } = *echo;
    let mut lines = vec![row("answers", fates(received, lost, duplicates, out_of_order, stale))];
    if echo.foreign > 0 {
        lines.push(row("foreign", count(echo.foreign, "datagram")));
    }
    lines.extend(echo.round_trip_us.as_ref().map(|times| row("round trip", latency(times))));
    lines
}

fn parse_rate(text: &str) -> Result<NonZeroU64, &'static str> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| "expected a whole number of messages a second, such as 1000/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_with_or_without_its_unit() {
        let rate = |text| parse_rate(text).ok().map(NonZeroU64::get);
        assert_eq!(rate("1000"), Some(1000));
        assert_eq!(rate("1000/s"), Some(1000));
        for wrong in ["", "/s", "0", "-1", "1.5", "1000/m", "1000 /s"] {
            assert_eq!(rate(wrong), None, "{wrong:?}");
        }
    }
}
