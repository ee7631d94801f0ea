//! `adit up` in a host: what it says, what it counted, how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use lab::identity::Identity;
use lab::{Host, Process};
use rustix::process::{Pid, Signal, kill_process};

use super::soon;
use crate::common;

/// The device of every tunnel.
pub(crate) const DEVICE: &str = "adit0";

/// A directory for configuration files, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Identity { pid, start_time } = Identity::own().unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("adit-test-{pid}-{start_time}-{count}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the configuration of the tunnel `name`.
    pub(crate) fn write(&self, name: &str, toml: &str) -> PathBuf {
        let file = self.0.join(format!("{name}.toml"));
        fs::write(&file, toml).unwrap();
        file
    }

    /// What is in the directory: names and contents.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether tunnels can be made here. Says why not, and insists on it where `CI` is `true`.
pub(crate) fn runnable() -> bool {
    common::privileged() && common::adit().is_some()
}

/// The program.
fn adit() -> Command {
    Command::new(lab::binary().unwrap())
}

/// Runs `adit` with `arguments` in `host` to its successful end.
pub(crate) fn run_adit(host: &Host, arguments: &[&str]) {
    let mut command = adit();
    command.args(arguments);
    let mut process = host.spawn(command).unwrap();
    let status = process.wait(soon()).unwrap();
    assert!(status.success(), "adit {arguments:?}: {status}: {}", process.stderr());
}

/// Makes a persistent device in `host` that root may attach to.
pub(crate) fn add_device(host: &Host, options: &[&str]) {
    run_adit(host, &[&["device", "add", DEVICE, "--user", "0"], options].concat());
}

/// A running `adit up`.
#[derive(Debug)]
pub(crate) struct Tunnel {
    process: Process,
}

/// How a tunnel ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code, if no signal killed it.
    pub(crate) code: Option<i32>,
    /// Everything it wrote to standard error.
    pub(crate) said: String,
}

impl Tunnel {
    /// Starts the tunnel and waits until it is up.
    pub(crate) fn up(host: &Host, files: &Files, name: &str, toml: &str) -> Self {
        let mut tunnel = Self::start(host, files, name, toml);
        tunnel.wait_for(&format!("tunnel {name:?} is up"));
        tunnel
    }

    /// Starts the tunnel.
    pub(crate) fn start(host: &Host, files: &Files, name: &str, toml: &str) -> Self {
        let mut command = adit();
        command.arg("up").arg(files.write(name, toml));
        Self { process: host.spawn(command).unwrap() }
    }

    /// Tries to start a tunnel that cannot come up.
    pub(crate) fn fail(host: &Host, files: &Files, name: &str, toml: &str) -> Ended {
        Self::start(host, files, name, toml).wait()
    }

    /// The tunnel that `process` runs.
    pub(crate) fn of(process: Process) -> Self {
        Self { process }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line of standard error with `part` in it.
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        let line = self.process.wait_for_line(part, soon());
        line.unwrap_or_else(|error| panic!("{error}: {}", self.said()))
    }

    /// Everything it wrote to standard error so far.
    pub(crate) fn said(&self) -> String {
        self.process.stderr()
    }

    /// How often it said `part` so far.
    pub(crate) fn times_said(&self, part: &str) -> usize {
        self.said().matches(part).count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().cast_signed()).unwrap();
        // It is not reaped yet, so the number is its own.
        kill_process(pid, signal).unwrap();
    }

    /// Sends `signal` and waits for the end.
    pub(crate) fn end(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Ended {
        let status = self.process.wait(soon());
        let status = status.unwrap_or_else(|error| panic!("{error}: {}", self.said()));
        Ended { code: status.code(), said: self.said() }
    }

    /// What it counted so far, which it says after SIGUSR1.
    pub(crate) fn traffic(&self) -> Traffic {
        let before = Traffic::reports(&self.said()).len();
        self.signal(Signal::USR1);
        let report = soon().wait_until(|| Traffic::reports(&self.said()).into_iter().nth(before));
        report.unwrap_or_else(|error| panic!("no report: {error}: {}", self.said()))
    }

    /// Waits until what it counted is as `wanted`.
    pub(crate) fn wait_for_traffic(&self, wanted: impl Fn(&Traffic) -> bool) -> Traffic {
        let mut last = None;
        let found = soon().wait_until(|| {
            let traffic = last.insert(self.traffic());
            wanted(traffic).then(|| traffic.clone())
        });
        found.unwrap_or_else(|error| panic!("{error}: {last:?}"))
    }

    /// Processor time that it has used, in clock ticks (proc_pid_stat(5), fields 14 and 15).
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let fields = after_name.split_ascii_whitespace().skip(14 - 3).take(2);
        fields.map(|field| field.parse::<u64>().unwrap()).sum()
    }
}

/// What a tunnel counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) to_peers: Count,
    pub(crate) from_peers: Count,
}

/// What was carried in one direction, and what was dropped, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) octets: u64,
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Traffic {
    /// The whole reports in what a tunnel said.
    pub(crate) fn reports(said: &str) -> Vec<Self> {
        let mut reports = Vec::new();
        let mut to_peers = Count::default();
        for line in said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            if let Some(count) = line.strip_prefix("to the peers: ") {
                to_peers = Count::parse(count);
            } else if let Some(count) = line.strip_prefix("from the peers: ") {
                let to_peers = std::mem::take(&mut to_peers);
                reports.push(Self { to_peers, from_peers: Count::parse(count) });
            }
        }
        reports
    }
}

impl Count {
    /// How many packets were dropped for `reason`.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or(0)
    }

    /// How many packets were dropped for any reason.
    pub(crate) fn dropped_in_all(&self) -> u64 {
        self.drops.values().sum()
    }

    /// Reads `4 packets, 240 octets; dropped: from a stranger: 10, empty datagram: 2`.
    fn parse(text: &str) -> Self {
        let (carried, dropped) = text.split_once("; dropped: ").unwrap_or((text, ""));
        let (packets, octets) = carried.split_once(" packets, ").unwrap();
        let drops = dropped.split(", ").filter(|drop| !drop.is_empty()).map(|drop| {
            let (reason, count) = drop.rsplit_once(": ").unwrap();
            (reason.to_owned(), count.parse().unwrap())
        });
        Self {
            packets: packets.parse().unwrap(),
            octets: octets.strip_suffix(" octets").unwrap().parse().unwrap(),
            drops: drops.collect(),
        }
    }
}
