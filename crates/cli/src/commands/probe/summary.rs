//! The words that the reports of source and sink share.

use std::fmt::Display;
use std::io;

use lab::probe::SocketErrors;
use lab::probe::tally::{Arrival, LatencySummary};

use super::stop::Stop;
use crate::output::Output;

/// A line of a summary: a label, and what is aligned below that of the other lines.
pub(super) fn row(label: &str, value: impl Display) -> String {
    format!("{label:<12}{value}")
}

/// "1 message", "2 messages".
pub(super) fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// "10.0 messages/s, 0.003 Mbit/s for 0.900 s".
pub(super) fn rate(pps: Option<f64>, mbit_s: Option<f64>, duration_s: f64) -> Option<String> {
    let (pps, mbit_s) = pps.zip(mbit_s)?;
    Some(format!("{pps:.1} messages/s, {mbit_s:.3} Mbit/s for {duration_s:.3} s"))
}

/// "10 received, 0 lost (0.0 %), 0 duplicates, 0 out of order".
pub(super) fn fates(
    received: u64,
    lost: u64,
    duplicates: u64,
    out_of_order: u64,
    stale: u64,
) -> String {
    let percent = 100.0 * lost as f64 / (received + lost).max(1) as f64;
    let duplicates = count(duplicates, "duplicate");
    let stale = if stale > 0 { format!(", {stale} too late to judge") } else { String::new() };
    format!(
        "{received} received, {lost} lost ({percent:.1} %), {duplicates}, \
         {out_of_order} out of order{stale}"
    )
}

/// "min/avg/median/p99/max 0.041/0.052/0.050/0.090/0.101 ms", as ping says it.
pub(super) fn latency(latency_us: &LatencySummary) -> String {
    let LatencySummary { min, avg, median, p99, max } = latency_us;
    let [min, avg, median, p99, max] = [min, avg, median, p99, max].map(|us| us / 1e3);
    format!("min/avg/median/p99/max {min:.3}/{avg:.3}/{median:.3}/{p99:.3}/{max:.3} ms")
}

/// "connection refused: 10, …".
pub(super) fn errors(errors: &SocketErrors) -> String {
    let kinds: Vec<_> = errors.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
    kinds.join(", ")
}

/// What is to be said of a message that is not simply the next one.
pub(super) fn remark(arrival: Option<Arrival>) -> &'static str {
    match arrival {
        Some(Arrival::InOrder) => "",
        Some(Arrival::OutOfOrder) => " (out of order)",
        Some(Arrival::Duplicate) => " (duplicate)",
        Some(Arrival::Stale) => " (too late to judge)",
        None => " (source not tracked)",
    }
}

/// A datagram that is not ours, harmless for a terminal and cut to one line.
pub(super) fn foreign(octets: &[u8]) -> String {
    const SHOWN: usize = 64;
    let text = octets.trim_ascii_end();
    let shown = text.get(..SHOWN).unwrap_or(text);
    let cut = if shown.len() < text.len() { "…" } else { "" };
    format!("foreign \"{}\"{cut}", shown.escape_ascii())
}

/// One line for each message, while the probe runs.
pub(super) struct Trace<'a> {
    output: &'a mut Output,
    stop: &'a Stop,
    json: bool,
    failure: Option<io::Error>,
}

impl<'a> Trace<'a> {
    /// With `json`, standard output belongs to the report and lines go to standard error.
    pub(super) fn new(output: &'a mut Output, stop: &'a Stop, json: bool) -> Self {
        Self { output, stop, json, failure: None }
    }

    /// Writes the line that `text` makes, if `-v` was given. Ends the probe if nobody reads it.
    pub(super) fn line<T: Display>(&mut self, text: impl FnOnce() -> T) {
        if self.output.verbosity() == 0 || self.failure.is_some() {
            return;
        }
        if self.json {
            tracing::info!("{}", text());
        } else if let Err(error) = self.output.line(text()) {
            self.failure = Some(error);
            self.stop.now();
        }
    }

    /// The first failure to write.
    pub(super) fn finish(self) -> io::Result<()> {
        self.failure.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_told_in_one_line() {
        assert_eq!(
            fates(3, 1, 1, 1, 0),
            "3 received, 1 lost (25.0 %), 1 duplicate, 1 out of order"
        );
        assert_eq!(
            fates(0, 0, 0, 0, 1),
            "0 received, 0 lost (0.0 %), 0 duplicates, 0 out of order, 1 too late to judge"
        );
    }

    #[test]
    fn latencies_are_told_in_milliseconds() {
        let summary =
            LatencySummary { min: 1.0, avg: 20.5, median: 20.0, p99: 99.0, max: 12_345.6 };
        assert_eq!(latency(&summary), "min/avg/median/p99/max 0.001/0.021/0.020/0.099/12.346 ms");
    }

    #[test]
    fn foreign_text_cannot_command_the_terminal() {
        assert_eq!(foreign(b"hello\n"), r#"foreign "hello""#);
        assert_eq!(foreign(b"\x1b[2J\"\xff"), r#"foreign "\x1b[2J\"\xff""#);
        assert_eq!(foreign(&[b'x'; 65]), format!("foreign \"{}\"…", "x".repeat(64)));
    }
}
