//! Loads, made and measured by iperf3.

use std::process::Command;
use std::time::Duration;

use lab::{Deadline, Process};
use serde::Deserialize;

use super::rig::Track;
use crate::failure::Failure;

/// How long everything beside the load itself may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than any load is needed.
const FOREVER: Duration = Duration::from_secs(3600);

/// The congestion control of all loads, so that machines with other defaults can be compared. A
/// namespace's default is out of reach: it may only be changed to one that the machine allows to all.
const CONGESTION_CONTROL: &str = "cubic";

/// Octets of UDP payload in an IPv4 packet of 64 octets.
const SMALL: &str = "36";

/// What a receiver got.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Received {
    bytes: u64,
    seconds: f64,
}

/// The report of a client, as far as it matters.
#[derive(Debug, Deserialize)]
struct Report {
    end: End,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct End {
    sum_received: Option<Received>,
    sum: Option<Datagrams>,
}

/// UDP messages, counted by their numbers at the receiver.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Datagrams {
    seconds: f64,
    packets: u64,
    lost_packets: u64,
}

impl Received {
    /// Bits of TCP payload in a second.
    pub(super) fn rate(self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Bits in all, in units of 10⁹; `None` if there were none.
    pub(super) fn gigabits(self) -> Option<f64> {
        (self.bytes > 0).then(|| self.bytes as f64 * 8.0 / 1e9)
    }
}

impl Datagrams {
    /// How many arrived.
    pub(super) fn arrived(self) -> f64 {
        self.packets.saturating_sub(self.lost_packets) as f64
    }

    /// How many arrived in a second.
    pub(super) fn rate(self) -> f64 {
        self.arrived() / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Sends TCP for a while.
pub(super) fn tcp(
    track: &Track<'_>,
    duration: Duration,
    options: &[&str],
) -> Result<Received, Failure> {
    let options = [&["--congestion", CONGESTION_CONTROL], options].concat();
    let report = run(track, duration, &options)?;
    report.end.sum_received.ok_or_else(|| Failure::new("iperf3 reports no receiver"))
}

/// Sends UDP messages in IP packets of 64 octets as fast as it can.
pub(super) fn small_packets(track: &Track<'_>, duration: Duration) -> Result<Datagrams, Failure> {
    let report = run(track, duration, &["-u", "-l", SMALL, "-b", "0"])?;
    report.end.sum.ok_or_else(|| Failure::new("iperf3 reports no datagrams"))
}

/// A load that lasts until it is dropped.
pub(super) struct Load {
    // The client first, so that it does not see its server go.
    _client: Process,
    _server: Process,
}

impl Load {
    /// Starts one stream of TCP.
    pub(super) fn start(track: &Track<'_>) -> Result<Self, Failure> {
        let server = serve(track)?;
        let mut client = client(track, FOREVER);
        client.args(["--congestion", CONGESTION_CONTROL]);
        let client = track.near().spawn(client)?;
        Ok(Self { _client: client, _server: server })
    }
}

fn run(track: &Track<'_>, duration: Duration, options: &[&str]) -> Result<Report, Failure> {
    let _server = serve(track)?;
    let mut command = client(track, duration);
    command.args(options);
    let mut client = track.near().spawn(command)?;
    client.wait(Deadline::after(duration + PATIENCE))?;
    let report: Report = serde_json::from_str(&client.stdout())
        .map_err(|error| Failure::of("read the report of iperf3", error))?;
    match report.error {
        Some(error) => Err(Failure::new(format!("iperf3: {error}"))),
        None => Ok(report),
    }
}

/// A server for one client, which is ready when this returns.
fn serve(track: &Track<'_>) -> Result<Process, Failure> {
    let mut command = Command::new("iperf3");
    command.args(["--server", "--one-off", "--forceflush"]);
    let server = track.far().spawn(command)?;
    Deadline::after(PATIENCE)
        .wait_until(|| server.stdout().contains("listening").then_some(()))
        .map_err(|error| Failure::of("wait for the server of iperf3", error))?;
    Ok(server)
}

fn client(track: &Track<'_>, duration: Duration) -> Command {
    let mut command = Command::new("iperf3");
    command.arg("--client").arg(track.address().to_string()).arg("--json");
    command.arg("--time").arg(duration.as_secs().to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_side_of_a_report_is_read() {
        let report = r#"{"start":{},"end":{"sum_sent":{"seconds":2.0,"bytes":9},
            "sum_received":{"seconds":2.0,"bytes":500000000,"bits_per_second":2e9}}}"#;
        let report: Report = serde_json::from_str(report).unwrap();
        let received = report.end.sum_received.unwrap();
        assert!((received.rate() - 2e9).abs() < 1.0);
        assert_eq!(received.gigabits(), Some(4.0));
    }

    #[test]
    fn datagrams_that_were_lost_did_not_arrive() {
        let sum = r#"{"seconds":2.0,"packets":1000,"lost_packets":200}"#;
        let datagrams: Datagrams = serde_json::from_str(sum).unwrap();
        assert!((datagrams.arrived() - 800.0).abs() < 0.1);
        assert!((datagrams.rate() - 400.0).abs() < 0.1);
    }

    #[test]
    fn an_error_is_a_report_too() {
        let report = r#"{"start":{},"intervals":[],"end":{},"error":"unable to connect"}"#;
        let report: Report = serde_json::from_str(report).unwrap();
        assert_eq!(report.error.as_deref(), Some("unable to connect"));
    }
}
