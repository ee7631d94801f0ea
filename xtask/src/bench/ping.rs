//! Round trips of ICMP echo, by ping(8): the kernel of the other host answers.

use std::process::Command;
use std::thread;
use std::time::Duration;

use lab::Deadline;

use super::iperf::Load;
use super::rig::Track;
use crate::failure::Failure;

/// Requests of one measurement, and the seconds from one to the next.
const COUNT: &str = "200";
const INTERVAL: &str = "0.01";
/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long TCP has to find its speed before anything is measured beside it.
const WARM_UP: Duration = Duration::from_millis(500);

/// Round trips of one measurement, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RoundTrips {
    pub(super) median: f64,
    /// 99 of 100 were not longer.
    pub(super) p99: f64,
}

/// Round trips while nothing else happens.
pub(super) fn idle(track: &Track<'_>) -> Result<RoundTrips, Failure> {
    let mut command = Command::new("ping");
    command.args(["-n", "-c", COUNT, "-i", INTERVAL]).arg(track.address().to_string());
    let mut ping = track.near().spawn(command)?;
    ping.wait(Deadline::after(PATIENCE))?;
    RoundTrips::parse(&ping.stdout())
        .ok_or_else(|| Failure::new(format!("no answer from {}", track.address())))
}

/// Round trips while one stream of TCP takes what it gets.
pub(super) fn under_load(track: &Track<'_>) -> Result<RoundTrips, Failure> {
    let _load = Load::start(track)?;
    thread::sleep(WARM_UP);
    idle(track)
}

impl RoundTrips {
    /// Reads what ping(8) prints of each answer; nothing if there was none.
    fn parse(output: &str) -> Option<Self> {
        let mut times: Vec<f64> = output.lines().filter_map(microseconds).collect();
        times.sort_by(f64::total_cmp);
        let last = times.len().checked_sub(1)?;
        Some(Self { median: times[last / 2], p99: times[last * 99 / 100] })
    }
}

/// The time in a line such as `64 bytes from 10.9.0.2: icmp_seq=1 ttl=64 time=0.123 ms`.
fn microseconds(line: &str) -> Option<f64> {
    let (_, time) = line.split_once(" time=")?;
    let milliseconds: f64 = time.strip_suffix(" ms")?.parse().ok()?;
    Some(milliseconds * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_all_answers_count() {
        let output = "PING 10.9.0.2 (10.9.0.2) 56(84) bytes of data.\n\
            64 bytes from 10.9.0.2: icmp_seq=1 ttl=64 time=0.300 ms\n\
            64 bytes from 10.9.0.2: icmp_seq=2 ttl=64 time=0.100 ms\n\
            64 bytes from 10.9.0.2: icmp_seq=3 ttl=64 time=0.200 ms\n\n\
            --- 10.9.0.2 ping statistics ---\n\
            3 packets transmitted, 3 received, 0% packet loss, time 20ms\n";
        let trips = RoundTrips::parse(output).unwrap();
        assert!((trips.median - 200.0).abs() < 0.001);
        assert!((trips.p99 - 200.0).abs() < 0.001);
    }

    #[test]
    fn without_an_answer_there_are_no_times() {
        assert_eq!(RoundTrips::parse("1 packets transmitted, 0 received, 100% packet loss"), None);
    }
}
