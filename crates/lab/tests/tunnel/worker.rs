//! The process that faces the network: what it may not do, and what its death costs.
//!
//! ```text
//!   host A                                   host B
//!     adit up          root                    adit up
//!       |  queues, sockets
//!     adit worker      nobody, killed          adit worker
//!   adit0 192.0.2.1 ........................ adit0 192.0.2.2
//!   eth0  10.1.0.1 ------------------------- eth0  10.1.0.2
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common;
use crate::rig::pair::{End, Family, Pair};
use crate::rig::ping::{Pinger, assert_answers};
use crate::rig::program::may_change_users;
use crate::rig::tcp::{Session, assert_transfers};
use crate::rig::tunnel::{DEVICE, Traffic, Tunnel};
use crate::rig::{soon, state, udp};

/// The time between two datagrams of a train.
const BEAT: Duration = Duration::from_millis(10);

/// How long a train goes on, with the disturbance in its midst.
const TRAIN: Duration = Duration::from_secs(3);

/// The longest that nothing may pass while one worker follows the other.
const GAP: Duration = Duration::from_secs(1);

/// For how long every worker is killed.
const MASSACRE: Duration = Duration::from_secs(2);

/// The most workers that may start meanwhile: at once, then after 100, 200, 400, 800 ms, and some more.
const VICTIMS: usize = 8;

fn worker(tunnel: &Tunnel) -> u32 {
    let worker = soon().wait_until(|| tunnel.worker());
    worker.unwrap_or_else(|error| panic!("no worker: {error}: {}", tunnel.said()))
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Waits until another worker carries packets.
fn wait_for_successor(tunnel: &Tunnel, before: u32) -> u32 {
    let successor = soon().wait_until(|| tunnel.worker().filter(|&pid| pid != before));
    successor.unwrap_or_else(|error| panic!("no other worker: {error}: {}", tunnel.said()))
}

/// The values in proc_pid_status(5) of each thread of a process.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: PathBuf| {
        let status = fs::read_to_string(task.join("status")).unwrap();
        let fields = status.lines().filter_map(|line| line.split_once(":\t"));
        fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    };
    tasks.map(|task| status(task.unwrap().path())).collect()
}

/// The descriptors of a process: number, and what it is.
fn descriptors(process: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).unwrap().map(Result::unwrap);
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let target = |entry: &fs::DirEntry| fs::read_link(entry.path()).ok().map(text);
    entries.filter_map(|entry| Some((text(entry.file_name().into()), target(&entry)?))).collect()
}

#[test]
fn a_worker_has_no_privilege() {
    let Some(pair) = Pair::with(End::A.device("queues = 2"), End::B) else { return };
    let threads = threads(worker(&pair.a.tunnel));
    // One for each queue, and the first one.
    assert_eq!(threads.len(), 3);
    for status in threads {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}: {status:#?}");
        }
        assert_eq!(status["NoNewPrivs"], "1", "{status:#?}");
        assert_eq!(status["Seccomp"], "2", "{status:#?}");
        if may_change_users() {
            assert_eq!(status["Groups"], "", "{status:#?}");
            for ids in ["Uid", "Gid"] {
                assert!(!status[ids].split('\t').any(|id| id == "0"), "{ids}: {status:#?}");
            }
        }
    }
}

#[test]
fn a_worker_has_only_the_descriptors_that_it_needs() {
    let Some(pair) = Pair::with(End::A.device("queues = 2"), End::B) else { return };
    let all = descriptors(worker(&pair.a.tunnel).to_string().as_str());
    // What this test was started with, and could not but pass on.
    let inherited = descriptors("self");
    let own = all.iter().filter(|(number, target)| {
        matches!(number.as_str(), "0" | "1" | "2")
            || target.starts_with("anon_inode")
            || inherited.get(*number) != Some(*target)
    });
    let kind = |target: &String| target.split(":[").next().unwrap().to_owned();
    let mut kinds: Vec<String> = own.map(|(_, target)| kind(target)).collect();
    kinds.sort();
    let expected = [
        "/dev/net/tun",
        "/dev/net/tun",
        "/dev/null",
        "anon_inode",
        "anon_inode",
        "anon_inode",
        "anon_inode",
        "pipe",
        "socket",
        "socket",
    ];
    // Two queues; standard output; two epolls and two eventfds; standard error; the channel and the UDP socket.
    assert_eq!(kinds, expected);
}

#[test]
fn a_worker_that_is_started_by_hand_says_what_is_missing() {
    let Some(adit) = common::adit() else { return };
    let output = Command::new(adit).arg("worker").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: start a worker: standard input is not the supervisor's socket\n"
    );
}

#[test]
fn what_a_worker_has_carried_is_told_when_it_ends() {
    let Some(pair) = Pair::up() else { return };
    assert_answers(&pair.a.host, Family::V4.inner(2));
    let before = pair.a.tunnel.traffic();
    assert_answers(&pair.a.host, Family::V4.inner(2));
    let ended = pair.a.tunnel.end(Signal::TERM);
    let last = Traffic::reports(&ended.said).pop().unwrap();
    assert!(last.to_peers.packets > before.to_peers.packets, "{}", ended.said);
    assert!(last.from_peers.packets > before.from_peers.packets, "{}", ended.said);
}

#[test]
fn a_worker_whose_device_is_deleted_ends_in_order() {
    let Some(mut pair) = Pair::up() else { return };
    assert_answers(&pair.a.host, Family::V4.inner(2));
    state::change(&pair.a.host, DEVICE, netlink::Socket::delete_link);
    pair.a.tunnel.wait_for("device adit0 is back");
    assert_eq!(pair.a.tunnel.times_said("the worker of device"), 0, "{}", pair.a.tunnel.said());
}

/// How many datagrams of a train came back, of how many, and the longest time that none did.
struct Journey {
    sent: u32,
    returned: u32,
    gap: Duration,
}

/// Sends a numbered datagram each [`BEAT`] to an echo.
fn train(client: &UdpSocket) -> Journey {
    client.set_read_timeout(Some(BEAT)).unwrap();
    let begin = Instant::now();
    let (mut last, mut journey) = (begin, Journey { sent: 0, returned: 0, gap: Duration::ZERO });
    let mut receive = |journey: &mut Journey| {
        if client.recv(&mut [0; 4]).is_ok() {
            journey.returned += 1;
            journey.gap = journey.gap.max(last.elapsed());
            last = Instant::now();
        }
    };
    while begin.elapsed() < TRAIN {
        client.send(&journey.sent.to_be_bytes()).unwrap();
        journey.sent += 1;
        let next = begin + BEAT * journey.sent;
        while Instant::now() < next {
            receive(&mut journey);
        }
    }
    journey
}

/// Kills the worker of `which` with `signal`, under a transfer and a train of datagrams.
fn assert_death_is_survived(which: fn(&Pair) -> &Tunnel, signal: Signal, told: &str) {
    let Some(pair) = Pair::up() else { return };
    let index = state::link(&pair.a.host, DEVICE).unwrap().index;
    let before = worker(which(&pair));
    let address = Family::V4.inner(2);
    assert_answers(&pair.a.host, address);
    let echo = udp::Echo::serve(&pair.b.host, address);
    let client = udp::connect(&pair.a.host, echo.address());
    let mut session = Session::begin(&pair.a.host, &pair.b.host, address);
    let over = AtomicBool::new(false);
    let journey = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                session.exchange(100_000);
            }
        });
        let train = scope.spawn(|| train(&client));
        kill(before, signal);
        let journey = train.join();
        over.store(true, Ordering::Relaxed);
        journey.unwrap()
    });
    let lost = BEAT * (journey.sent - journey.returned);
    eprintln!("{signal:?}: lost {lost:?}, gap {:?}", journey.gap);
    assert!(lost < GAP && journey.gap < GAP, "{lost:?} lost, {:?} without any", journey.gap);
    session.exchange(100_000);

    let after = wait_for_successor(which(&pair), before);
    assert!(Path::new(&format!("/proc/{after}")).exists());
    assert_eq!(state::link(&pair.a.host, DEVICE).unwrap().index, index);
    let said = which(&pair).said();
    let line = format!("warning: the worker of device adit0 ended ({told}); another one starts\n");
    assert_eq!(said.matches(&line).count(), 1, "{said}");
    assert_transfers(&pair.a.host, &pair.b.host, Family::V6.inner(2), 1 << 20);
}

#[test]
fn a_connection_survives_that_the_worker_is_killed() {
    assert_death_is_survived(|pair| &pair.a.tunnel, Signal::KILL, "signal: 9 (SIGKILL)");
}

#[test]
fn a_connection_survives_that_the_worker_of_the_other_side_is_killed() {
    assert_death_is_survived(|pair| &pair.b.tunnel, Signal::KILL, "signal: 9 (SIGKILL)");
}

#[test]
fn a_connection_survives_that_the_worker_crashes() {
    assert_death_is_survived(|pair| &pair.a.tunnel, Signal::ABORT, "signal: 6 (SIGABRT)");
}

#[test]
fn a_connection_survives_that_the_worker_is_asked_to_end() {
    assert_death_is_survived(|pair| &pair.a.tunnel, Signal::TERM, "signal: 15 (SIGTERM)");
}

#[test]
fn a_connection_survives_that_the_worker_does_what_it_may_not() {
    let told = "it made a system call that it may not make (SIGSYS)";
    assert_death_is_survived(|pair| &pair.a.tunnel, Signal::SYS, told);
}

#[test]
fn a_first_sender_stays_known_to_the_next_worker() {
    let Some(hosts) = crate::rig::pair::hosts() else { return };
    let waiting = End::B.toml().replace("endpoints = [\"udp://10.1.0.1:4740\"]", "");
    let files = crate::rig::tunnel::Files::new();
    let _a = Tunnel::up(&hosts.a, &files, "a", &End::A.toml());
    let b = Tunnel::up(&hosts.b, &files, "b", &waiting);
    Pinger::new(&hosts.a, Family::V4.inner(2)).wait_for_answer();
    // What was learned before a report is told before it.
    b.traffic();
    let before = worker(&b);
    kill(before, Signal::KILL);
    wait_for_successor(&b, before);
    // B speaks first to the new worker: it must know where A is.
    Pinger::new(&hosts.b, Family::V4.inner(1)).wait_for_answer();
    assert_eq!(b.traffic().to_peers.dropped("peer without endpoint"), 0, "{}", b.said());
    assert_eq!(b.times_said("it sent first"), 1, "{}", b.said());
}

#[test]
fn a_worker_and_the_device_end_with_a_supervisor_that_is_killed() {
    let Some(pair) = Pair::up() else { return };
    let worker = worker(&pair.a.tunnel);
    let process = PathBuf::from(format!("/proc/{worker}"));
    assert!(!common::has_ended(&process));
    assert_eq!(pair.a.tunnel.end(Signal::KILL).code, None);
    let gone = soon().wait_until(|| {
        let device = state::link(&pair.a.host, DEVICE);
        (common::has_ended(&process) && device.is_none()).then_some(())
    });
    gone.unwrap();
}

#[test]
fn a_stopped_worker_does_not_hold_the_supervisor_up() {
    let Some(pair) = Pair::up() else { return };
    kill(worker(&pair.a.tunnel), Signal::STOP);
    let ended = pair.a.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(state::link(&pair.a.host, DEVICE), None);
}

#[test]
fn workers_that_die_at_once_start_more_and_more_seldom() {
    let Some(pair) = Pair::up() else { return };
    let begin = Instant::now();
    let mut victims = Vec::new();
    while begin.elapsed() < MASSACRE {
        if let Some(worker) = pair.a.tunnel.worker().filter(|pid| !victims.contains(pid)) {
            kill(worker, Signal::KILL);
            victims.push(worker);
        }
    }
    assert!((3..=VICTIMS).contains(&victims.len()), "{victims:?}: {}", pair.a.tunnel.said());
    Pinger::new(&pair.a.host, Family::V4.inner(2)).wait_for_answer();
    let ended = pair.a.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
}
