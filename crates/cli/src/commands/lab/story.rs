//! A scenario as a person reads it: the drawing, what happens while it happens, and the outcome.

use std::io;

use lab::Topology;
use lab::run::{Check, Event, Hop, Measurement, Report, RoundTrip, Traffic};

use crate::output::Output;

/// Writes a scenario down while it is played.
pub(super) struct Story<'a> {
    output: &'a mut Output,
    style: Style,
    /// The first failure of writing, told at the end.
    failure: Option<io::Error>,
}

/// Marks and colours: plain text unless a person looks on.
#[derive(Clone, Copy)]
struct Style {
    terminal: bool,
    colours: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn mark(self, passed: bool) -> String {
        match (self.terminal, passed) {
            (true, true) => self.paint("32", "✓"),
            (true, false) => self.paint("31", "✗"),
            (false, true) => "ok    ".to_owned(),
            (false, false) => "FAILED".to_owned(),
        }
    }

    fn arrow(self, outgoing: bool) -> &'static str {
        match (self.terminal, outgoing) {
            (true, true) => "→",
            (true, false) => "←",
            (false, true) => ">",
            (false, false) => "<",
        }
    }

    fn micro(self) -> &'static str {
        if self.terminal { "µs" } else { "us" }
    }
}

impl<'a> Story<'a> {
    /// Writes the drawing of `topology`.
    pub(super) fn begin(topology: Topology, output: &'a mut Output) -> io::Result<Self> {
        let style = Style { terminal: output.is_terminal(), colours: output.colours() };
        output.line(format_args!("{}: {}\n", style.bold(topology.name()), topology.summary()))?;
        output.line(lab::run::drawing(topology))?;
        Ok(Self { output, style, failure: None })
    }

    /// Writes what happened. Checks wait for the end.
    pub(super) fn tell(&mut self, event: Event<'_>) {
        match event {
            Event::Step(step) => self.line(&capitalized(step)),
            Event::Hop(hop) => self.line(&hop_line(hop, self.style)),
            Event::Check(_) => {}
        }
    }

    /// Writes the outcome.
    pub(super) fn end(mut self, report: &Report) -> io::Result<()> {
        self.heading("Messages");
        traffic_lines(&report.traffic).iter().for_each(|line| self.line(line));
        self.heading("TCP throughput");
        report.throughput.iter().for_each(|measured| self.line(&throughput_line(measured)));
        self.heading("Checks");
        let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        for check in &report.checks {
            self.line(&check_line(check, width, self.style));
        }
        let failed = report.checks.iter().filter(|check| !check.passed).count();
        self.line("");
        self.line(&self.style.bold(&match failed {
            0 => format!("All {} checks hold.", report.checks.len()),
            _ => format!("{failed} of {} checks do not hold.", report.checks.len()),
        }));
        self.failure.map_or(Ok(()), Err)
    }

    fn heading(&mut self, text: &str) {
        self.line("");
        self.line(&self.style.bold(text));
    }

    fn line(&mut self, text: &str) {
        if self.failure.is_none() {
            self.failure = self.output.line(text).err();
        }
    }
}

fn capitalized(step: &str) -> String {
    let mut letters = step.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn hop_line(hop: &Hop, style: Style) -> String {
    let Hop { host, device, outgoing, offset_us, packet, .. } = hop;
    let time = style.dim(&format!("{offset_us:>7.0} {}", style.micro()));
    format!("  {time}  {host} {device:<5} {}  {packet}", style.arrow(*outgoing))
}

fn traffic_lines(traffic: &Traffic) -> Vec<String> {
    let Traffic { sent, received, lost, out_of_order, answered, .. } = traffic;
    let mut lines = vec![format!(
        "  {sent} sent, {received} received, {lost} lost, {out_of_order} out of order, \
         {answered} answered"
    )];
    lines.extend(traffic.round_trip_us.map(|RoundTrip { min, median, p99, max }| {
        let [min, median, p99, max] = [min, median, p99, max].map(|time| time / 1e3);
        format!(
            "  round trip {median:.3} ms median, {min:.3} ms least, {p99:.3} ms 99th percentile, \
             {max:.3} ms most"
        )
    }));
    lines
}

fn throughput_line(measured: &Measurement) -> String {
    let way = if measured.tunnel { "through the tunnel" } else { "beside the tunnel" };
    let rate = measured.throughput.bits_per_second / 1e9;
    format!("  {}  {way:<18}  {rate:>7.2} Gbit/s", measured.direction)
}

fn check_line(check: &Check, width: usize, style: Style) -> String {
    let Check { name, passed, evidence } = check;
    format!("  {} {name:<width$}  {}", style.mark(*passed), style.dim(evidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { terminal: false, colours: false };

    #[test]
    fn a_hop_is_one_line_with_time_place_direction_and_packet() {
        let hop = Hop {
            host: "B",
            device: "adit0",
            outgoing: false,
            answer: false,
            offset_us: 41.6,
            packet: "IPv4 10.9.0.1 > 10.1.0.3: UDP 40000 > 8080, 41 octets".to_owned(),
        };
        assert_eq!(
            hop_line(&hop, PLAIN),
            "       42 us  B adit0 <  IPv4 10.9.0.1 > 10.1.0.3: UDP 40000 > 8080, 41 octets"
        );
    }

    #[test]
    fn a_check_is_marked_in_words_or_signs_and_coloured_only_if_asked() {
        let check =
            Check { name: "it holds".to_owned(), passed: true, evidence: "seen".to_owned() };
        assert_eq!(check_line(&check, 10, PLAIN), "  ok     it holds    seen");
        let signs = Style { terminal: true, colours: false };
        assert_eq!(check_line(&check, 8, signs), "  ✓ it holds  seen");
        let colours = Style { terminal: true, colours: true };
        assert_eq!(
            check_line(&check, 8, colours),
            "  \x1b[32m✓\x1b[0m it holds  \x1b[2mseen\x1b[0m"
        );
    }
}
