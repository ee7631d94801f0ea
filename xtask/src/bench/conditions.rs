//! What figures depend on besides adit.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::SystemTime;

use serde::Serialize;

use crate::failure::Failure;
use crate::program;

/// Where, when and how it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Conditions {
    /// The time of the start, in UTC.
    pub(super) date: String,
    pub(super) adit: String,
    pub(super) iperf: String,
    pub(super) wireguard_go: String,
    pub(super) kernel: String,
    pub(super) processor: String,
    pub(super) cores: usize,
    /// How many threads wanted to run before the start, on average of a minute.
    pub(super) load: f64,
    pub(super) rounds: u32,
    /// How long each load lasted.
    pub(super) seconds: u32,
}

impl Conditions {
    /// What they are at this moment.
    pub(super) fn observe(adit: &Path, rounds: u32, seconds: u32) -> Result<Self, Failure> {
        let load = read("/proc/loadavg")?;
        Ok(Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            adit: version(Command::new(adit).arg("--version"))?,
            iperf: version(Command::new("iperf3").arg("--version"))?,
            wireguard_go: version(Command::new("wireguard-go").arg("--version"))?,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor: processor(&read("/proc/cpuinfo")?).unwrap_or("unknown").to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN),
            rounds,
            seconds,
        })
    }
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::of(format!("read {path}"), error))
}

/// The first line that a program says about itself.
fn version(command: &mut Command) -> Result<String, Failure> {
    let output = program::output(command)?;
    let text = String::from_utf8_lossy(&output);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The name of the first processor.
fn processor(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_the_first_that_is_named() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 2\nmodel name\t: A B C\n\nmodel name\t: D\n";
        assert_eq!(processor(cpuinfo), Some("A B C"));
        assert_eq!(processor("processor\t: 0\n"), None);
    }
}
