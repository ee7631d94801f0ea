//! `wg` of wireguard-tools against the control socket of a tunnel that is nothing but its roster.
//!
//! ```text
//!   this process                          a mount namespace of its own
//!   ControlSockets -- DIRECTORY/wireguard ==bind==> /var/run/wireguard <-- wg
//! ```
//!
//! `wg` also has a network namespace of its own, so that it cannot find a WireGuard device of the machine.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what fails here fails the test")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use engine::control::{Answer, ControlSockets, Question, uapi_directory};
use engine::status::{Carried, PeerStatus, UnixTime};
use engine::uapi::{Roster, RosterPeer, emit_get};
use rustix::event::{PollFd, Timespec, poll};

/// The device of the tunnel.
const DEVICE: &str = "adit0";

/// How long the loop sleeps before it looks whether the test is over.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// What `wg` prints for the private key of which all octets are 1, clamped.
const PRIVATE_KEY: &str = "AAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAUE=";

/// The keys of peers.
const B: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
const C: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";

/// A directory that stands for /run.
struct Run(PathBuf);

impl Run {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("adit-wg-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Runs a shell command line in which `wg` finds the tunnel, and `file` is what standard input is.
    fn shell(&self, line: &str, file: &str) -> Output {
        let directory = self.0.join("wireguard");
        let line = format!(
            "mount -t tmpfs adit /var/run/ && mkdir -p /var/run/wireguard && \
             mount --bind {} /var/run/wireguard && {line}",
            directory.display()
        );
        let mut child = Command::new("unshare")
            .args(["-m", "-n", "sh", "-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(file.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a command prints that succeeds.
    fn prints(&self, line: &str, file: &str) -> String {
        let output = self.shell(line, file);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{line}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether `wg` can be run in namespaces of its own. Says why not, and insists on it where `CI` is `true`.
fn runnable() -> bool {
    let tried = Command::new("unshare").args(["-m", "-n", "wg", "--version"]).output();
    let problem = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "wg cannot be run: {problem}");
    println!("skipped: wg cannot be run: {problem}");
    false
}

/// Serves `roster` while `test` runs, and returns what has become of it.
fn serve(mut roster: Roster, test: impl FnOnce(&Run)) -> Roster {
    let run = Run::new();
    let runtime = run.0.join("adit");
    let mut sockets = ControlSockets::open(&runtime, "home").unwrap();
    sockets.open_uapi(&uapi_directory(&runtime), DEVICE).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                turn(&mut sockets, &mut roster);
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&run)));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    roster
}

/// One turn of the loop that a tunnel has.
fn turn(sockets: &mut ControlSockets, roster: &mut Roster) {
    let sources = sockets.poll_fds();
    let mut fds: Vec<_> =
        sources.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    poll(&mut fds, Some(&TURN)).unwrap();
    let now = Instant::now();
    for (client, question) in sockets.handle_ready(now) {
        let answer = match question {
            Question::Command(request) => panic!("nobody asks {request:?} here"),
            Question::Get => Answer::Get(emit_get(roster, &states(roster))),
            Question::Set(changes) => Answer::Set(roster.apply(changes)),
        };
        sockets.answer(client, answer, now);
    }
}

/// Every peer has sent 92 octets and got 180.
fn states(roster: &Roster) -> Vec<PeerStatus> {
    let state = |peer: &RosterPeer| PeerStatus {
        name: "b".into(),
        public_key: Some(peer.public_key.to_string()),
        preshared: false,
        endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        allowed_ips: peer.allowed_ips.clone(),
        latest_handshake: Some(UnixTime { seconds: 1_700_000_000, nanoseconds: 5 }),
        cipher: None,
        key_exchange: None,
        is_adit: false,
        keepalive: None,
        received: Some(Carried { packets: 1, octets: 92 }),
        sent: Some(Carried { packets: 2, octets: 180 }),
    };
    roster.peers.iter().map(state).collect()
}

/// A configuration as `wg setconf` reads it.
fn configuration() -> String {
    format!(
        "[Interface]\nPrivateKey = {PRIVATE_KEY}\nListenPort = 51820\nFwMark = 0xca6c\n\
         [Peer]\nPublicKey = {B}\nPresharedKey = {C}\nEndpoint = 192.0.2.1:51820\n\
         AllowedIPs = 10.9.0.2/32, fd00::/64\nPersistentKeepalive = 25\n\
         [Peer]\nPublicKey = {C}\nAllowedIPs = 10.9.0.3/32\n"
    )
}

/// A roster with that configuration.
fn configured() -> Roster {
    serve(Roster::default(), |run| {
        run.prints("wg setconf adit0 /dev/stdin", &configuration());
    })
}

#[test]
fn wg_show_tells_what_setconf_said() {
    if !runnable() {
        return;
    }
    serve(configured(), |run| {
        assert_eq!(run.prints("wg show interfaces", ""), "adit0\n");
        let dump = run.prints("wg show adit0 dump", "");
        let lines: Vec<_> = dump.lines().map(|line| line.split('\t').collect::<Vec<_>>()).collect();
        assert_eq!((lines[0][0], lines[0][2], lines[0][3]), (PRIVATE_KEY, "51820", "0xca6c"));
        assert_eq!(
            lines[1],
            [B, C, "192.0.2.1:51820", "10.9.0.2/32,fd00::/64", "1700000000", "92", "180", "25"]
        );
        assert_eq!(
            lines[2],
            [C, "(none)", "(none)", "10.9.0.3/32", "1700000000", "92", "180", "off"]
        );
        let shown = run.prints("wg show", "");
        assert!(shown.contains("transfer: 92 B received, 180 B sent"), "{shown}");
    });
}

#[test]
fn wg_showconf_can_be_read_by_setconf() {
    if !runnable() {
        return;
    }
    let first = configured();
    let mut conf = String::new();
    let second = serve(first.clone(), |run| conf = run.prints("wg showconf adit0", ""));
    assert!(conf.contains("ListenPort = 51820\n"), "{conf}");
    let third = serve(Roster::default(), |run| {
        run.prints("wg setconf adit0 /dev/stdin", &conf);
    });
    assert_eq!((&first.peers, &first.peers), (&second.peers, &third.peers));
    assert_eq!((third.listen_port, third.fwmark), (51_820, Some(0xca6c)));
}

#[test]
fn wg_set_changes_what_it_names_and_nothing_else() {
    if !runnable() {
        return;
    }
    let before = configured();
    let after = serve(before.clone(), |run| {
        run.prints("wg set adit0 listen-port 7 fwmark 0", "");
        run.prints(
            &format!("wg set adit0 peer {C} allowed-ips 10.9.0.2/32 endpoint [2001:db8::1]:9"),
            "",
        );
        run.prints(&format!("wg set adit0 peer {B} preshared-key /dev/stdin"), &format!("{B}\n"));
    });
    assert_eq!((after.listen_port, after.fwmark), (7, None));
    let [b, c] = after.peers.as_slice() else { panic!("{after:?}") };
    // The address has moved from one to the other.
    assert_eq!(b.allowed_ips, ["fd00::/64".parse().unwrap()]);
    assert_eq!(c.allowed_ips, ["10.9.0.2/32".parse().unwrap()]);
    assert_eq!(c.endpoint, Some("[2001:db8::1]:9".parse().unwrap()));
    assert_eq!(*b.preshared_key.to_text(), B);
    assert_eq!((b.endpoint, b.keepalive), (before.peers[0].endpoint, 25));
    let rest = serve(after, |run| {
        run.prints(&format!("wg set adit0 peer {B} remove"), "");
    });
    assert_eq!(rest.peers.len(), 1);
}

#[test]
fn wg_syncconf_removes_adds_and_leaves_alone() {
    if !runnable() {
        return;
    }
    let mut before = configured();
    before.peers[0].name = Some("b".into());
    let wanted = format!(
        "[Interface]\nPrivateKey = {PRIVATE_KEY}\nListenPort = 51820\n\
         [Peer]\nPublicKey = {B}\nPresharedKey = {C}\nEndpoint = 192.0.2.1:51820\n\
         AllowedIPs = 10.9.0.2/32\nPersistentKeepalive = 25\n\
         [Peer]\nPublicKey = {PRIVATE_KEY}\nAllowedIPs = ::/0\n"
    );
    let after = serve(before, |run| {
        run.prints("wg syncconf adit0 /dev/stdin", &wanted);
    });
    let [b, new] = after.peers.as_slice() else { panic!("{after:?}") };
    assert_eq!((b.name.as_deref(), b.keepalive), (Some("b"), 25));
    assert_eq!(b.allowed_ips, ["10.9.0.2/32".parse().unwrap()]);
    assert_eq!(new.allowed_ips, ["::/0".parse().unwrap()]);
    assert_eq!(new.public_key.to_string(), PRIVATE_KEY);
}

#[test]
fn wg_says_why_it_was_refused() {
    if !runnable() {
        return;
    }
    let before = configured();
    let after = serve(before.clone(), |run| {
        let line = format!("wg set adit0 fwmark 1 peer {B} endpoint 224.0.0.1:1");
        let output = run.shell(&line, "");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(told, "Unable to modify interface: Invalid argument\n");
    });
    assert_eq!((after.fwmark, after.peers), (before.fwmark, before.peers));
}

#[test]
fn wg_shows_and_sets_ten_thousand_peers() {
    if !runnable() {
        return;
    }
    let peer = |number: u16| {
        let mut octets = [9; 32];
        octets[..2].copy_from_slice(&number.to_be_bytes());
        let [high, low] = number.to_be_bytes();
        let allowed_ips = vec![format!("10.{high}.{low}.0/24").parse().unwrap()];
        RosterPeer { allowed_ips, ..RosterPeer::new(octets.into()) }
    };
    let roster = Roster { peers: (0..10_000).map(peer).collect(), ..Roster::default() };
    let mut conf = String::new();
    let shown = serve(roster, |run| conf = run.prints("wg showconf adit0", ""));
    let again = serve(Roster::default(), |run| {
        run.prints("wg setconf adit0 /dev/stdin", &conf);
    });
    assert_eq!(again.peers.len(), 10_000);
    assert_eq!(again.peers, shown.peers);
}
