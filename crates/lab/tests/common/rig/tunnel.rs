//! `adit up` in a host: what it says, what it counted, how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
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

/// Where in [`Files`] the tunnels' journals are.
const RUNTIME: &str = "run";

/// A directory for configuration files and journals, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Identity { pid, start_time } = Identity::own().unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("adit-test-{pid}-{start_time}-{count}"));
        fs::create_dir_all(path.join(RUNTIME)).unwrap();
        Self(path)
    }

    /// Where journals are, in place of the directory of the machine's own tunnels.
    pub(crate) fn runtime_directory(&self) -> PathBuf {
        let own = self.0.join(RUNTIME);
        fs::read_link(&own).unwrap_or(own)
    }

    /// Where tunnels without a file of somebody's are.
    pub(crate) fn state_directory(&self) -> PathBuf {
        self.0.join("state")
    }

    /// Lets tunnels keep their journals, of which there is none yet, in another directory.
    pub(crate) fn replace_runtime_directory(&self, directory: &str) {
        let own = self.0.join(RUNTIME);
        fs::remove_dir(&own).unwrap();
        symlink(directory, own).unwrap();
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

    /// What is in the directory beside journals: names and contents.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let files = entries.filter(|path| *path != self.0.join(RUNTIME));
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
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

/// The program, with its journals and its state among `files`.
pub(crate) fn adit_with(files: &Files) -> Command {
    let mut command = adit();
    command.env("RUNTIME_DIRECTORY", files.runtime_directory());
    command.env("STATE_DIRECTORY", files.state_directory());
    command
}

/// Runs `adit` with `arguments` in `host`, where it finds the tunnels of `files`, to its end.
pub(crate) fn adit_in(host: &Host, files: &Files, arguments: &[&str]) -> Ended {
    let mut command = adit_with(files);
    command.args(arguments);
    Tunnel::of(host.spawn(command).unwrap()).wait()
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

/// How a tunnel, or another run of the program, ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code, if no signal killed it.
    pub(crate) code: Option<i32>,
    /// Everything it wrote to standard output.
    pub(crate) printed: String,
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
        let mut command = adit_with(files);
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

    /// Waits for a whole line of standard output with `part` in it.
    pub(crate) fn wait_for_printed(&self, part: &str) -> String {
        let find = || {
            let printed = self.process.stdout();
            let mut lines = printed.split_inclusive('\n').filter_map(|it| it.strip_suffix('\n'));
            lines.find(|line| line.contains(part)).map(str::to_owned)
        };
        soon().wait_until(find).unwrap_or_else(|error| panic!("{error}: {}", self.said()))
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
        Ended { code: status.code(), printed: self.process.stdout(), said: self.said() }
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

    /// The worker that carries its packets at the moment, if there is one.
    pub(crate) fn worker(&self) -> Option<u32> {
        common::descendants(self.id()).first().copied()
    }

    /// Processor time that it and its workers have used, in clock ticks.
    pub(crate) fn ticks(&self) -> u64 {
        let workers = common::descendants(self.id());
        // Fields 14 and 15 of proc_pid_stat(5), and for workers that have ended 16 and 17.
        ticks(self.id(), 4).unwrap() + workers.iter().filter_map(|pid| ticks(*pid, 2)).sum::<u64>()
    }
}

/// The sum of `count` fields from field 14 on of a process, if it is there.
fn ticks(pid: u32, count: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields = after_name.split_ascii_whitespace().skip(14 - 3).take(count);
    fields.map(|field| field.parse::<u64>().ok()).sum()
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
