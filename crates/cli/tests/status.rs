//! `adit status` and `adit reload` as scripts see them, against control sockets in a directory of the test's own.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use engine::control::{Answer, ControlSockets, Question, Request, Response};
use engine::status::TunnelStatus;
use rustix::event::{PollFd, Timespec, poll};
use serde_json::{Value, json};
use snapbox::cmd::{Command, OutputAssert};
use snapbox::str;

/// How long the loop sleeps before it looks whether the test is over.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

struct Runtime(PathBuf);

impl Runtime {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("adit-status-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn adit(&self, arguments: &str) -> OutputAssert {
        Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(arguments.split_whitespace())
            .env("RUNTIME_DIRECTORY", &self.0)
            .assert()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn status(tunnel: &str) -> Value {
    json!({
        "tunnel": tunnel, "device": "adit0", "mode": "tun", "mtu": 1420, "listen": ["0.0.0.0:4740"],
        "folders": [], "fwmark": null, "security": "none", "public_key": null, "up_for_seconds": 61, "peers": [],
        "traffic": {
            "out": {"packets": 1, "octets": 60, "drops": {"no_endpoint": 2}},
            "back": {"packets": 0, "octets": 0, "drops": {}},
        },
        "handshakes": {},
    })
}

/// Runs `test` while `tunnels` answer; the first of their letters says how a reload goes.
fn with_tunnels(tunnels: &[&str], test: impl FnOnce(&Runtime)) {
    let runtime = Runtime::new();
    let mut sockets: Vec<_> = tunnels
        .iter()
        .map(|tunnel| (*tunnel, ControlSockets::open(&runtime.0, tunnel).unwrap()))
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                turn(&mut sockets);
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&runtime)));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn turn(tunnels: &mut [(&str, ControlSockets)]) {
    let sources: Vec<_> = tunnels.iter().flat_map(|(_, sockets)| sockets.poll_fds()).collect();
    let mut fds: Vec<_> =
        sources.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    poll(&mut fds, Some(&TURN)).unwrap();
    for (tunnel, sockets) in tunnels {
        for (client, question) in sockets.handle_ready(Instant::now()) {
            let Question::Command(request) = question else { panic!("{question:?}") };
            sockets.answer(client, Answer::Command(answer(tunnel, request)), Instant::now());
        }
    }
}

fn answer(tunnel: &str, request: Request) -> Response {
    let reloaded = |changes: &[&str]| Response::Reloaded {
        changes: changes.iter().map(ToString::to_string).collect(),
    };
    match (request, tunnel.as_bytes()[0]) {
        (Request::Status, _) => {
            let status: TunnelStatus = serde_json::from_value(status(tunnel)).unwrap();
            Response::Status(Box::new(status))
        }
        (Request::Reload, b'a') => reloaded(&["peer \"b\" is new", "peer \"c\" is gone"]),
        (Request::Reload, b'b') => reloaded(&[]),
        (Request::Reload, _) => {
            Response::Failed { reason: "read /etc/c.toml: no such file".to_owned() }
        }
        (Request::Invite(_), _) => Response::Failed { reason: "nobody asks that here".to_owned() },
    }
}

#[test]
fn a_tunnel_is_told_as_text() {
    with_tunnels(&["a", "b"], |runtime| {
        let told = runtime.adit("status a").success().stderr_eq("");
        told.stdout_eq(str![[r#"
tunnel a: device adit0 (TUN), MTU 1420, up for 1 min 1 s
security "none": packets travel in clear
listening on 0.0.0.0:4740

to the peers: 1 packets, 60 octets; dropped: peer without endpoint: 2
from the peers: 0 packets, 0 octets

"#]]);
    });
}

#[test]
fn all_tunnels_are_told_one_after_the_other() {
    with_tunnels(&["b", "a"], |runtime| {
        let output = runtime.adit("status").success();
        let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
        let tunnels: Vec<_> = text.lines().filter(|line| line.starts_with("tunnel ")).collect();
        assert!(tunnels[0].starts_with("tunnel a:") && tunnels[1].starts_with("tunnel b:"));
        assert_eq!(tunnels.len(), 2);
        let output = runtime.adit("status --json").success();
        let lines: Vec<Value> = output
            .get_output()
            .stdout
            .split_inclusive(|&octet| octet == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines, [status("a"), status("b")]);
    });
}

#[test]
fn no_tunnel_is_a_failure_and_no_output() {
    let runtime = Runtime::new();
    runtime.adit("status --json").code(1).stdout_eq("").stderr_eq(str![[r#"
error: no tunnel is running
...
"#]]);
    runtime.adit("status home").code(1).stdout_eq("").stderr_eq(str![[r#"
error: tunnel "home" is not running
...
"#]]);
    runtime.adit("reload home").code(1).stdout_eq("").stderr_eq(str![[r#"
error: tunnel "home" is not running

"#]]);
    runtime.adit("status --yaml").code(2);
    runtime.adit("reload").code(2);
}

#[test]
fn a_reload_tells_what_has_changed_or_why_nothing_could() {
    with_tunnels(&["a", "b", "c"], |runtime| {
        runtime.adit("reload a").success().stdout_eq(str![[r#"
tunnel "a": peer "b" is new
tunnel "a": peer "c" is gone

"#]]);
        runtime.adit("reload b").success().stdout_eq(str![[r#"
tunnel "b": nothing has changed

"#]]);
        runtime.adit("reload c").code(1).stdout_eq("").stderr_eq(str![[r#"
error: tunnel "c": read /etc/c.toml: no such file

"#]]);
    });
}
