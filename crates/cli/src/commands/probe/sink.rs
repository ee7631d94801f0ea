//! `adit probe sink`.

use std::time::Duration;

use clap::Args;
use lab::probe::{Sink, SinkEvent, SinkReport, StreamReport};

use super::address::HostPort;
use super::stop::Stop;
use super::summary::{Trace, count, errors, fates, foreign, latency, rate, remark, row};
use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct SinkArgs {
    // Not as a comment: rustdoc takes the brackets for links.
    #[arg(
        value_name = "ADDRESS:PORT",
        help = "Where to listen; [::] is IPv6 only [default: [::]:8080 and 0.0.0.0:8080]"
    )]
    listen: Vec<HostPort>,

    /// Sends each message back to its source.
    #[arg(long)]
    echo: bool,

    /// Stops after so many messages, duplicates included; 0 is no limit.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    count: u64,

    /// Stops when nothing came for this time, once something came.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    idle: Option<Duration>,

    /// Stops after this time.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// Prints the report as one JSON object; what -v prints goes to standard error.
    #[arg(long)]
    json: bool,
}

impl SinkArgs {
    fn sink(&self) -> Result<Sink, Failure> {
        let mut sink = Sink {
            echo: self.echo,
            count: Some(self.count).filter(|count| *count > 0),
            idle: self.idle,
            duration: self.duration,
            ..Sink::default()
        };
        if !self.listen.is_empty() {
            sink.listen.clear();
            for address in &self.listen {
                sink.listen.extend(address.resolve()?);
            }
        }
        Ok(sink)
    }
}

pub(crate) fn run(args: &SinkArgs, output: &mut Output) -> Result<Exit, Failure> {
    let sink = args.sink()?;
    let stop = Stop::on_signals()?;
    let mut trace = Trace::new(output, &stop, args.json);
    let report = sink.run(stop.fd(), &mut |event| show(&mut trace, &event))?;
    trace.finish()?;
    if args.json {
        output.json(&report)?;
    } else {
        summary(&report).iter().try_for_each(|line| output.line(line))?;
    }
    Ok(Exit::Done)
}

fn show(trace: &mut Trace<'_>, event: &SinkEvent<'_>) {
    match event {
        SinkEvent::Listening { local } => tracing::info!("listening on {local}"),
        SinkEvent::Received { source, message, octets, arrival, one_way_latency_us } => {
            trace.line(|| {
                let (sequence, text) = (message.sequence, message.text);
                let (latency, remark) = (one_way_latency_us / 1e3, remark(*arrival));
                format!(
                    "{octets} octets from {source}: seq={sequence} {text:?} \
                     latency={latency:.3} ms{remark}"
                )
            });
        }
        SinkEvent::Foreign { source, octets } => {
            trace.line(|| format!("{} octets from {source}: {}", octets.len(), foreign(octets)));
        }
    }
}

fn summary(report: &SinkReport) -> Vec<String> {
    let SinkReport { received, octets, foreign, foreign_octets, .. } = report;
    let amount =
        |number, noun, octets| format!("{}, {}", count(number, noun), count(octets, "octet"));
    let mut lines = vec![row("received", amount(*received, "message", *octets))];
    lines.extend(
        rate(report.rate_pps, report.rate_mbit_s, report.duration_s).map(|rate| row("rate", rate)),
    );
    if *foreign > 0 {
        lines.push(row("foreign", amount(*foreign, "datagram", *foreign_octets)));
    }
    if report.untracked > 0 {
        lines.push(row("untracked", count(report.untracked, "message") + " of further sources"));
    }
    if report.answered > 0 {
        lines.push(row("answered", count(report.answered, "message")));
    }
    if report.answer_errors.total() > 0 {
        lines.push(row("errors", errors(&report.answer_errors)));
    }
    lines.extend(report.streams.iter().flat_map(stream_summary));
    lines
}

fn stream_summary(stream: &StreamReport) -> Vec<String> {
    let StreamReport { source, run, lowest_sequence, highest_sequence, .. } = stream;
    let StreamReport { received, lost, duplicates, out_of_order, stale, .. } = *stream;
    let fates = fates(received, lost, duplicates, out_of_order, stale);
    let mut lines = vec![
        row("source", format!("{source}, run {run}")),
        row("  sequence", format!("{lowest_sequence} to {highest_sequence}: {fates}")),
    ];
    lines.extend(
        rate(stream.rate_pps, stream.rate_mbit_s, stream.duration_s)
            .map(|rate| row("  rate", rate)),
    );
    lines.extend(
        stream
            .one_way_latency_us
            .as_ref()
            .map(|times| row("  one way", format!("{} (if both clocks agree)", latency(times)))),
    );
    if stream.negative_latencies > 0 {
        let early = count(stream.negative_latencies, "message");
        lines.push(row("  clocks", format!("disagree: {early} came before they left")));
    }
    lines
}
