//! Numbered messages from one host to another and back, sent and counted by `adit probe`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Scenario;
use crate::host::Host;
use crate::process::{GRACE, Process, ProcessError};

/// The port of the three-machine demo.
const PORT: u16 = 8080;

/// How long the sink may take until it listens.
const LISTEN_PATIENCE: Duration = Duration::from_secs(5);

/// How long the source waits for the last answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How much longer than planned the source may take.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// What became of the messages, on their way there and, for round trips, back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Traffic {
    /// Messages that the source sent.
    pub sent: u64,
    /// Different messages that the sink received.
    pub received: u64,
    /// Messages that the sink did not receive.
    pub lost: u64,
    /// Messages that the sink received after one that was sent later.
    pub out_of_order: u64,
    /// Messages whose answer came back to the source.
    pub answered: u64,
    /// The address that the sink saw as their source.
    pub source: Option<SocketAddr>,
    /// The time from sending a message to its answer, in microseconds.
    pub round_trip_us: Option<RoundTrip>,
}

/// How times are distributed, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// The smallest.
    pub min: f64,
    /// Half of all are not larger.
    pub median: f64,
    /// 99 of 100 are not larger.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// Why there is no report about messages.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The source or the sink failed.
    #[error("adit probe in host {host}")]
    Probe {
        /// The host's name.
        host: &'static str,
        /// The cause.
        source: ProcessError,
    },
    /// The source or the sink reported something else than was expected.
    #[error("understand the report of adit probe in host {host}")]
    Report {
        /// The host's name.
        host: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
}

/// The running source and sink; dropping it ends both.
#[derive(Debug)]
pub(super) struct Probes {
    source: Process,
    sink: Process,
    hosts: [&'static str; 2],
    /// How long the source takes if all goes well.
    planned: Duration,
}

/// What is used of the source's report.
#[derive(Deserialize)]
struct SourceReport {
    sent: u64,
    echo: Option<Echo>,
}

#[derive(Deserialize)]
struct Echo {
    received: u64,
    round_trip_us: Option<RoundTrip>,
}

/// What is used of the sink's report.
#[derive(Deserialize)]
struct SinkReport {
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    source: SocketAddr,
    received: u64,
    out_of_order: u64,
}

impl Probes {
    /// Starts a sink in `to`, and then a source in `from` that sends to `address` of `to`.
    pub(super) fn start(
        scenario: &Scenario<'_>,
        from: &Host,
        to: &Host,
        address: Ipv4Addr,
    ) -> Result<Self, TrafficError> {
        let options = scenario.options;
        let in_sink = |source| TrafficError::Probe { host: to.name(), source };
        let mut sink = to
            .spawn(probe(&options.adit, &["sink", &format!("0.0.0.0:{PORT}"), "--echo"]))
            .map_err(in_sink)?;
        sink.wait_for_line("listening on", scenario.deadline(LISTEN_PATIENCE)).map_err(in_sink)?;
        let source = from
            .spawn(probe(
                &options.adit,
                &[
                    "send",
                    &format!("{address}:{PORT}"),
                    "--echo",
                    &format!("--count={}", options.count),
                    &format!("--interval={}us", options.interval.as_micros()),
                    &format!("--timeout={}ms", ANSWER_TIMEOUT.as_millis()),
                ],
            ))
            .map_err(|source| TrafficError::Probe { host: from.name(), source })?;
        let planned = options.interval * options.count + ANSWER_TIMEOUT;
        Ok(Self { source, sink, hosts: [from.name(), to.name()], planned })
    }

    /// Waits until all is sent and answered, ends the sink, and puts both reports together.
    pub(super) fn finish(mut self, scenario: &Scenario<'_>) -> Result<Traffic, TrafficError> {
        let [from, to] = self.hosts;
        self.source
            .wait(scenario.deadline(self.planned + SEND_PATIENCE))
            .map_err(|source| TrafficError::Probe { host: from, source })?;
        self.sink.stop(GRACE).map_err(|source| TrafficError::Probe { host: to, source })?;
        let sent: SourceReport = parse(from, &self.source.stdout())?;
        let received: SinkReport = parse(to, &self.sink.stdout())?;
        Ok(together(sent, &received))
    }
}

fn probe(adit: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(adit);
    command.arg("probe").args(arguments).arg("--json");
    command
}

fn parse<'a, T: Deserialize<'a>>(host: &'static str, json: &'a str) -> Result<T, TrafficError> {
    serde_json::from_str(json).map_err(|source| TrafficError::Report { host, source })
}

fn together(sent: SourceReport, sink: &SinkReport) -> Traffic {
    let received = sink.streams.iter().map(|stream| stream.received).sum();
    let answered = sent.echo.as_ref().map_or(0, |echo| echo.received);
    Traffic {
        sent: sent.sent,
        received,
        lost: sent.sent.saturating_sub(received),
        out_of_order: sink.streams.iter().map(|stream| stream.out_of_order).sum(),
        answered,
        source: sink.streams.first().map(|stream| stream.source),
        round_trip_us: sent.echo.and_then(|echo| echo.round_trip_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_of_source_and_sink_become_one() {
        let source = r#"{"source":"10.9.0.1:5","target":"10.1.0.3:8080","run":"abc","sent":3,"unsent":0,
            "octets":99,"duration_s":0.2,"rate_pps":10.0,"rate_mbit_s":null,"errors":{},
            "echo":{"received":1,"lost":2,"duplicates":0,"out_of_order":0,"stale":0,"foreign":0,
                "round_trip_us":{"min":1.0,"avg":2.0,"median":2.0,"p99":3.0,"max":3.5}}}"#;
        let sink = r#"{"received":2,"streams":[{"source":"10.9.0.1:5","run":"abc","received":2,
            "lost":0,"out_of_order":1}]}"#;
        let traffic = together(parse("A", source).unwrap(), &parse("C", sink).unwrap());
        assert_eq!((traffic.sent, traffic.received, traffic.lost), (3, 2, 1));
        assert_eq!((traffic.out_of_order, traffic.answered), (1, 1));
        assert_eq!(traffic.source, Some("10.9.0.1:5".parse().unwrap()));
        assert_eq!(
            traffic.round_trip_us,
            Some(RoundTrip { min: 1.0, median: 2.0, p99: 3.0, max: 3.5 })
        );
    }

    #[test]
    fn a_report_that_is_none_is_an_error_that_names_the_host() {
        let error = parse::<SinkReport>("C", "").err().unwrap();
        assert_eq!(error.to_string(), "understand the report of adit probe in host C");
    }
}
