//! Killed at any step, a tunnel leaves nothing that `adit down` does not take back.
//!
//! ```text
//!   host A                                  host B                         host C
//!   adit0 10.9.0.1                          adit0 10.9.0.2, fd09::2
//!     default route, exclude, IPv6 blocked    forward, masquerade
//!   eth0 10.1.0.1 ------------------------- eth0 10.1.0.2
//!   eth1 10.2.0.1 --- nobody                eth1 198.51.100.2 ------------ eth0 198.51.100.3
//! ```
//!
//! Only one of the two tunnels is there at a time, and it carries nothing. strace(1) runs `adit up` once
//! to see which system calls change something, from the first to the last of its life, and then once
//! for each of them, each time with SIGKILL in the place of that call. What programs of others print
//! about the host must then be the same, octet by octet, as before.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use common::{Directory, adit, privileged};
use lab::{Deadline, Gateway, Host, Process};
use netlink::{Socket, nftables, sysctl};
use rustix::process::{Pid, Signal, kill_process};

/// The system calls by which a tunnel changes its journal, its device or the host's network.
///
/// Each is also a point between two changes, so that all points are seen.
const CALLS: &str = "fdatasync,fsync,ftruncate,ioctl,pwrite64,rename,renameat,renameat2,sendmsg,sendto,\
    unlink,unlinkat,write";

/// What strace shows of calls that change nothing: messages that only ask, of which it knows the flags
/// by name or by number, and words to standard error.
const QUESTIONS: [&str; 5] =
    ["NLM_F_DUMP", "NLM_F_REQUEST|0x300", "nlmsg_type=RTM_GET", "NFT_MSG_GET", "write(2, "];

/// Everything through the tunnel, whose endpoint is behind a router, and no IPv6.
const CLIENT: &str = r#"[device]
name = "adit0"
addresses = ["10.9.0.1/24"]

[local]
listen = ["udp://10.1.0.1:4740"]
security = "none"

[network]
default-route = true
exclude = ["203.0.113.0/24", "192.168.0.0/16"]

[[peer]]
name = "b"
endpoints = ["udp://198.51.100.2:4740"]
"#;

/// Everything that the tunnel brings is forwarded.
const GATEWAY: &str = r#"[device]
name = "adit0"
addresses = ["10.9.0.2/24", "fd09::2/64"]

[local]
listen = ["udp://0.0.0.0:4740"]
security = "none"

[network]
forward = true
masquerade = true

[[peer]]
name = "a"
allowed-ips = ["10.9.0.1/32", "fd09::1/128", "192.0.2.0/24"]
"#;

/// What an administrator of either host has set up.
const FOREIGN: &str = "set -e
ip rule add from 192.0.2.1 lookup 77 priority 1000
ip -6 rule add from fd99::1 lookup 77 priority 1000
ip route add 192.0.2.128/25 dev eth0 table 77 metric 5
ip -6 route add fd77::/64 dev eth0 metric 7
ip route add unreachable 172.16.0.0/12
nft add table inet other
nft 'add chain inet other input { type filter hook input priority 0; policy accept; }'
nft add rule inet other input iifname lo accept";

/// Settings that differ from the kernel's, and of links from those of the whole host.
const SETTINGS: [(&str, &str); 6] = [
    ("net.ipv4.conf.eth0.forwarding", "1"),
    ("net.ipv6.conf.eth1.forwarding", "1"),
    ("net.ipv4.conf.eth1.rp_filter", "2"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv6.conf.eth0.accept_ra", "2"),
    ("net.ipv4.conf.default.forwarding", "1"),
];

/// What is looked at with programs of others.
const COMMANDS: [&str; 7] = [
    "ip -j -p -4 route show table all",
    "ip -j -p -6 route show table all",
    "ip -j -p address",
    "ip -j -p link",
    "ip -j -p -4 rule",
    "ip -j -p -6 rule",
    "nft list ruleset",
];

/// Where every setting of a network namespace is that could concern a tunnel.
const SETTING_TREES: [&str; 3] =
    ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"];

fn soon() -> Deadline<'static> {
    Deadline::after(Duration::from_secs(20))
}

/// Whether the programs of others are there. Says which is not, and insists where `CI` is `true`.
fn available() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    let Some(missing) = ["strace", "ip", "nft"].into_iter().find(|program| !is_there(program))
    else {
        return true;
    };
    let insisted = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!insisted, "{missing} is not installed");
    eprintln!("skipped: {missing} is not installed");
    false
}

/// Runs a script in `host` to its successful end; what it prints.
fn sh(host: &Host, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let mut process = host.spawn(command).unwrap();
    let status = process.wait(soon()).unwrap();
    assert!(status.success(), "{script}: {status}: {}", process.stderr());
    process.stdout()
}

/// What a host's network looks like, by what was looked at.
type State = BTreeMap<String, String>;

fn state(host: &Host) -> State {
    let mut state: State =
        COMMANDS.iter().map(|command| ((*command).to_owned(), sh(host, command))).collect();
    state.extend(host.run(|| {
        let mut settings = State::new();
        SETTING_TREES.iter().for_each(|tree| read_settings(Path::new(tree), &mut settings));
        settings
    }));
    state
}

fn read_settings(path: &Path, settings: &mut State) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            read_settings(&entry.unwrap().path(), settings);
        }
    } else if let Ok(value) = fs::read_to_string(path) {
        // Some cannot be read as long as they are unset.
        settings.insert(path.display().to_string(), value);
    }
}

/// The lines that are gone (`-`) or new (`+`), by what was looked at.
fn differences(before: &State, after: &State) -> Vec<String> {
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    let lines = |state: &State, key: &String| state.get(key).cloned().unwrap_or_default();
    keys.filter(|key| before.get(*key) != after.get(*key))
        .flat_map(|key| {
            let (before, after) = (lines(before, key), lines(after, key));
            let missing = |sign: char, of: &str, from: &str| -> Vec<String> {
                let missing = of.lines().filter(|line| !from.lines().any(|other| other == *line));
                missing.map(|line| format!("{key}: {sign} {line}")).collect()
            };
            let gone = missing('-', &before, &after);
            let moved = vec![format!("{key}: differs")];
            [moved, gone, missing('+', &after, &before)].concat()
        })
        .collect()
}

/// One system call of `adit up`: its name, the how many-th with that name, and what strace shows of it.
#[derive(Clone, Debug)]
struct Step {
    call: String,
    number: usize,
    shown: String,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, number, shown } = self;
        write!(formatter, "killed at {call} number {number} ({shown})")
    }
}

impl Step {
    /// The steps in what strace wrote, without those that change nothing.
    fn all(trace: &str) -> Vec<Self> {
        let mut numbers = BTreeMap::<&str, usize>::new();
        let mut steps = Vec::new();
        for line in trace.lines() {
            let Some((call, _)) = line.split_once('(') else { continue };
            let number = numbers.entry(call).or_default();
            *number += 1;
            if CALLS.split(',').any(|of| of == call)
                && !QUESTIONS.iter().any(|question| line.contains(question))
            {
                let (call, shown) = (call.to_owned(), line.to_owned());
                steps.push(Self { call, number: *number, shown });
            }
        }
        steps
    }
}

/// A tunnel in a host, run by strace again and again.
struct Trial<'a> {
    adit: &'a Path,
    host: &'a Host,
    directory: Directory,
    name: &'static str,
}

/// A running strace, and `adit up` below it, which does not end by itself when strace does.
struct Traced(Process);

impl Traced {
    fn signal(&self, signal: Signal) {
        if let Some(adit) = common::descendants(self.0.id()).first() {
            // Its parent waits for it, so the number is its own, or it has ended just before.
            let _ = kill_process(Pid::from_raw(adit.cast_signed()).unwrap(), signal);
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Trial<'_> {
    fn new<'a>(adit: &'a Path, host: &'a Host, name: &'static str, config: &str) -> Trial<'a> {
        let directory = Directory::new(name);
        fs::write(directory.0.join(format!("{name}.toml")), config).unwrap();
        Trial { adit, host, directory, name }
    }

    fn trace(&self) -> PathBuf {
        self.directory.0.join("trace")
    }

    /// Brings the tunnel up and takes it down, with SIGKILL in the place of `step`. How strace ended,
    /// which is how `adit up` ended, and what was said.
    fn run(&self, step: Option<&Step>) -> (ExitStatus, String) {
        let mut command = Command::new("strace");
        command.env("RUNTIME_DIRECTORY", &self.directory.0);
        command.args(["-s", "256", "-e", &format!("trace={CALLS}"), "-o"]).arg(self.trace());
        if let Some(Step { call, number, .. }) = step {
            command.args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")]);
        }
        let file = self.directory.0.join(format!("{}.toml", self.name));
        command.arg(self.adit).arg("up").arg(file);
        let mut traced = Traced(self.host.spawn(command).unwrap());
        if traced.0.wait_for_line("is up", soon()).is_ok() {
            traced.signal(Signal::TERM);
        }
        (traced.0.wait(soon()).unwrap(), traced.0.stderr())
    }

    /// Runs `adit down`: its exit code and what it said.
    fn down(&self) -> (Option<i32>, String) {
        let mut command = Command::new(self.adit);
        command.env("RUNTIME_DIRECTORY", &self.directory.0).args(["down", self.name]);
        let mut process = self.host.spawn(command).unwrap();
        let status = process.wait(soon()).unwrap();
        (status.code(), process.stderr())
    }

    /// The kernel takes what belongs to a killed process some time after its end.
    fn wait_for_kernel(&self) {
        let gone = || {
            self.host.run(|| {
                let device = Socket::open().unwrap().link("adit0").unwrap();
                let tables = nftables::Socket::open().unwrap().tables().unwrap();
                (device.is_none() && !tables.iter().any(|table| table.owner)).then_some(())
            })
        };
        soon().wait_until(gone).unwrap();
    }

    /// Kills `adit up` at `step`. Whether it was, and whether `adit down` had something to do.
    fn kill_at(&self, step: &Step, before: &State) -> (bool, bool) {
        let (ended, said) = self.run(Some(step));
        let killed = ended.signal() == Some(Signal::KILL.as_raw());
        assert!(killed || ended.success(), "{step}: {ended}: {said}");
        self.wait_for_kernel();
        let left = differences(before, &state(self.host));
        let (code, said) = self.down();
        let nothing = said.contains("left nothing behind");
        let cleaned = code == Some(0) || (nothing && left.is_empty());
        assert!(cleaned, "{step} left {left:#?}, and adit down ended with {code:?}: {said}");
        let after = differences(before, &state(self.host));
        assert!(after.is_empty(), "{step} left {left:#?}, and after adit down: {after:#?}: {said}");
        (killed, !left.is_empty())
    }
}

/// Kills the tunnel of that configuration at each of its steps in `host`.
fn assert_undone_at_every_step(adit: &Path, host: &Host, name: &'static str, config: &str) {
    sh(host, FOREIGN);
    host.run(|| SETTINGS.iter().for_each(|(key, value)| sysctl::write(key, value).unwrap()));
    let before = state(host);
    let trial = Trial::new(adit, host, name, config);

    let (ended, said) = trial.run(None);
    assert!(ended.success() && said.contains("is up"), "{ended}: {said}");
    trial.wait_for_kernel();
    assert_eq!(differences(&before, &state(host)), [""; 0]);
    let steps = Step::all(&fs::read_to_string(trial.trace()).unwrap());

    let outcomes: Vec<_> = steps.iter().map(|step| trial.kill_at(step, &before)).collect();
    let killed = outcomes.iter().filter(|(killed, _)| *killed).count();
    let mended = outcomes.iter().filter(|(_, left)| *left).count();
    eprintln!("{name}: killed {killed} times at {} steps, {mended} times mended", steps.len());
    // The others found fewer calls of that name than the first run made.
    assert!(killed * 10 >= steps.len() * 9, "{killed} of {}", steps.len());
    assert!(mended > 0, "no kill left anything, so nothing was tested");
}

#[test]
fn a_client_that_is_killed_at_any_step_leaves_nothing_after_down() {
    let (true, Some(adit), true) = (privileged(), adit(), available()) else { return };
    let topology = Gateway::build().unwrap();
    // A filter that is in the way of nothing, as on many hosts.
    sh(
        &topology.a,
        "nft add table ip filter; \
        nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
    );
    assert_undone_at_every_step(&adit, &topology.a, "client", CLIENT);
}

#[test]
fn a_gateway_that_is_killed_at_any_step_leaves_nothing_after_down() {
    let (true, Some(adit), true) = (privileged(), adit(), available()) else { return };
    let topology = Gateway::build().unwrap();
    sh(&topology.b, "nft add rule ip filter FORWARD iifname lo drop");
    assert_undone_at_every_step(&adit, &topology.b, "gateway", GATEWAY);
}

#[test]
fn steps_are_counted_by_call_and_questions_are_none() {
    let trace = "fdatasync(5) = 0\nsendto(3, [{nlmsg_type=RTM_GETLINK, nlmsg_flags=NLM_F_DUMP}]) = 2\n\
        sendto(3, [{nlmsg_type=RTM_NEWROUTE}]) = 2\nfdatasync(5) = 0\n--- SIGTERM {si_signo=15} ---\n";
    let steps = Step::all(trace);
    let steps: Vec<_> = steps.iter().map(|step| (step.call.as_str(), step.number)).collect();
    assert_eq!(steps, [("fdatasync", 1), ("sendto", 2), ("fdatasync", 2)]);
}
