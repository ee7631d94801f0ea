//! Both sides, over real sockets in a directory of the test's own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use device::Mode;
use rustix::event::PollFd;

use super::client::{ask_in, running_in};
use super::*;
use crate::config::Security;
use crate::metrics::Totals;
use crate::poll::poll_until;
use crate::status::{Handshakes, PeerStatus};
use crate::uapi::{Refusal, Roster, emit_get};

/// How long a test waits before it fails.
const LONG: Duration = Duration::from_secs(20);

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("adit-control-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn open(&self) -> ControlSockets {
        ControlSockets::open(&self.0, "home").unwrap()
    }

    fn open_uapi(&self) -> ControlSockets {
        let mut sockets = self.open();
        sockets.open_uapi(&self.0.join("wireguard"), "adit0").unwrap();
        sockets
    }

    fn connect(&self, socket: &str) -> UnixStream {
        let socket = UnixStream::connect(self.0.join(socket)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits as the supervisor does until something is asked.
fn questions(sockets: &mut ControlSockets) -> Vec<(Client, Question)> {
    let latest = Instant::now() + LONG;
    while Instant::now() < latest {
        let deadline = sockets.deadline().map_or(latest, |deadline| deadline.min(latest));
        let sources = sockets.poll_fds();
        let mut fds: Vec<_> =
            sources.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        poll_until(&mut fds, Some(deadline)).unwrap();
        let questions = sockets.handle_ready(Instant::now());
        if !questions.is_empty() {
            return questions;
        }
    }
    panic!("nothing is asked: {sockets:?}");
}

/// The one question that comes next.
fn question(sockets: &mut ControlSockets) -> (Client, Question) {
    let mut questions = questions(sockets);
    assert_eq!(questions.len(), 1, "{questions:?}");
    questions.remove(0)
}

/// Serves on a thread while `test` runs.
fn serve<T>(
    mut sockets: ControlSockets,
    mut answer: impl FnMut(Question) -> Answer + Send,
    test: impl FnOnce() -> T,
) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let soon = Instant::now() + Duration::from_millis(20);
                let sources = sockets.poll_fds();
                let mut fds: Vec<_> = sources
                    .iter()
                    .map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
                    .collect();
                poll_until(&mut fds, Some(soon)).unwrap();
                for (client, question) in sockets.handle_ready(Instant::now()) {
                    sockets.answer(client, answer(question), Instant::now());
                }
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn status(peers: usize) -> TunnelStatus {
    let peer = |number| PeerStatus {
        name: format!("peer-{number}"),
        public_key: Some("HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".into()),
        preshared: false,
        endpoint: Some("192.0.2.1:4740".parse().unwrap()),
        allowed_ips: vec!["10.0.0.1/32".parse().unwrap()],
        latest_handshake: None,
        cipher: None,
        key_exchange: None,
        is_adit: true,
        keepalive: None,
        received: None,
        sent: None,
    };
    TunnelStatus {
        tunnel: "home".into(),
        device: Some("adit0".into()),
        mode: Mode::Tun,
        mtu: Some(1420),
        listen: Vec::new(),
        folders: Vec::new(),
        fwmark: None,
        security: Security::Wireguard,
        public_key: None,
        up_for: Duration::ZERO,
        peers: (0..peers).map(peer).collect(),
        traffic: Totals::default(),
        handshakes: Handshakes::default(),
    }
}

fn read_line(socket: &mut UnixStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut octet = [0];
        assert_eq!(socket.read(&mut octet).unwrap(), 1, "{}", String::from_utf8_lossy(&line));
        line.push(octet[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Everything until the other side closes.
fn read_rest(mut socket: &UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    rest
}

#[test]
fn a_command_gets_its_answer_even_a_long_one() {
    let directory = Directory::new();
    let long = status(10_000);
    let answer = |question: Question| {
        assert!(matches!(question, Question::Command(Request::Status)));
        Answer::Command(Response::Status(Box::new(long.clone())))
    };
    serve(directory.open(), answer, || {
        assert_eq!(running_in(&directory.0).unwrap(), ["home"]);
        let arrived = ask_in(&directory.0, "home", &Request::Status).unwrap();
        assert_eq!(arrived, Response::Status(Box::new(long.clone())));
    });
}

#[test]
fn a_failure_is_an_error_of_who_asks() {
    let directory = Directory::new();
    let answer = |_| Answer::Command(Response::Failed { reason: "no such file".into() });
    serve(directory.open(), answer, || {
        let error = ask_in(&directory.0, "home", &Request::Reload).unwrap_err();
        assert_eq!(error.to_string(), "tunnel \"home\": no such file");
    });
}

#[test]
fn nobody_answers_for_a_tunnel_that_is_not_there() {
    let directory = Directory::new();
    for name in ["home", "../home", ""] {
        let error = ask_in(&directory.0, name, &Request::Status).unwrap_err();
        assert!(matches!(error, AskError::NotRunning { .. }), "{error:?}");
    }
    assert!(running_in(&directory.0).unwrap().is_empty());
    assert!(running_in(&directory.0.join("none")).unwrap().is_empty());
}

#[test]
fn only_the_owner_may_connect_and_the_files_go_with_the_sockets() {
    let directory = Directory::new();
    let mut sockets = directory.open_uapi();
    let files = [directory.0.join("home.sock"), directory.0.join("wireguard/adit0.sock")];
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    sockets.close_uapi();
    assert!(files[0].exists() && !files[1].exists());
    drop(sockets);
    assert!(!files[0].exists());
}

#[test]
fn a_socket_that_nobody_listens_to_is_replaced_and_one_that_lives_is_not() {
    let directory = Directory::new();
    let file = directory.0.join("home.sock");
    // What a killed process leaves.
    drop(UnixListener::bind(&file).unwrap());
    let sockets = directory.open();
    let error = ControlSockets::open(&directory.0, "home").unwrap_err();
    assert!(matches!(error, ControlError::Live { .. }), "{error:?}");
    assert!(file.exists());
    // Somebody else's in its place stays.
    fs::remove_file(&file).unwrap();
    let _other = UnixListener::bind(&file).unwrap();
    drop(sockets);
    assert!(file.exists());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let directory = Directory::new();
    let file = directory.0.join("home.sock");
    fs::write(&file, "mine").unwrap();
    let error = ControlSockets::open(&directory.0, "home").unwrap_err();
    assert!(matches!(error, ControlError::Listen { .. }), "{error:?}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn what_is_no_request_is_answered_and_the_next_one_is_heard() {
    let directory = Directory::new();
    let mut sockets = directory.open();
    let mut client = directory.connect("home.sock");
    client.write_all(b"{\"request\":\"dance\"}\n\xff\n{\"request\":\"reload\"}\n").unwrap();
    let (asked, question) = question(&mut sockets);
    assert!(matches!(question, Question::Command(Request::Reload)));
    for _ in 0..2 {
        let line = read_line(&mut client);
        assert!(line.starts_with(r#"{"failed":{"reason":"this version of adit"#), "{line}");
    }
    let answer = Answer::Command(Response::Reloaded { changes: Vec::new() });
    sockets.answer(asked, answer, Instant::now());
    assert_eq!(read_line(&mut client), "{\"reloaded\":{\"changes\":[]}}\n");
}

#[test]
fn a_flood_of_nonsense_is_answered_a_little_at_a_time() {
    let directory = Directory::new();
    let mut sockets = directory.open();
    let mut client = directory.connect("home.sock");
    client.write_all(&[b'\n'; 100]).unwrap();
    let now = Instant::now();
    for _ in 0..7 {
        assert!(sockets.handle_ready(now).is_empty());
    }
    assert_eq!(sockets.deadline(), Some(now + PATIENCE));
    let answered = (0..100).map(|_| read_line(&mut client));
    assert!(answered.into_iter().all(|line| line.starts_with("{\"failed\"")));
    client.write_all(&[b'\n'; 100]).unwrap();
    assert!(sockets.handle_ready(now).is_empty());
    assert_eq!(sockets.deadline(), Some(now));
}

#[test]
fn requests_at_once_are_answered_one_after_the_other() {
    let directory = Directory::new();
    let mut sockets = directory.open_uapi();
    let mut client = directory.connect("wireguard/adit0.sock");
    client.write_all(b"get=1\n\nset=1\nfwmark=7\n\nset=1\nfwmark=x\n\nget=1\n\n").unwrap();
    let now = Instant::now();
    let (asked, first) = question(&mut sockets);
    assert!(matches!(first, Question::Get));
    // While an answer is owed, nothing is waited for, not even a time.
    assert!(sockets.handle_ready(now).is_empty());
    assert_eq!((sockets.poll_fds().len(), sockets.deadline()), (2, None));
    let told = emit_get(&Roster::default(), &[]);
    sockets.answer(asked, Answer::Get(told), now);
    // The next request is there already, and due.
    assert_eq!(sockets.deadline(), Some(now));
    let mut next = sockets.handle_ready(now);
    let Some((_, Question::Set(changes))) = next.pop() else { panic!("{next:?}") };
    assert!(matches!(changes[..], [uapi::Change::Fwmark(7)]));
    sockets.answer(asked, Answer::Set(Err(Refusal::PortInUse)), now);
    let (_, last) = question(&mut sockets);
    assert!(matches!(last, Question::Get));
    drop(sockets);
    let answers = String::from_utf8(read_rest(&client)).unwrap();
    assert_eq!(answers, "errno=0\n\nerrno=-98\n\nerrno=-22\n\n");
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up_and_is_dropped() {
    let directory = Directory::new();
    let mut sockets = directory.open();
    let mut deaf = directory.connect("home.sock");
    deaf.write_all(b"{\"request\":\"status\"}\n").unwrap();
    let (asked, _) = question(&mut sockets);
    let start = Instant::now();
    let long = Answer::Command(Response::Status(Box::new(status(50_000))));
    sockets.answer(asked, long, start);
    assert_eq!(sockets.deadline(), Some(start + PATIENCE));
    let mut other = directory.connect("home.sock");
    other.write_all(b"{\"request\":\"status\"}\n").unwrap();
    let (quick, _) = question(&mut sockets);
    assert_ne!(quick, asked);
    let answer = Answer::Command(Response::Failed { reason: "x".into() });
    sockets.answer(quick, answer, start);
    assert_eq!(read_line(&mut other), "{\"failed\":{\"reason\":\"x\"}}\n");
    sockets.handle_ready(start + PATIENCE);
    assert!(sockets.deadline().is_none() && sockets.poll_fds().len() == 1);
    let told = read_rest(&deaf);
    assert!(!told.is_empty() && !told.contains(&b'\n'), "{} octets", told.len());
    sockets.answer(asked, Answer::Set(Ok(())), start);
}

#[test]
fn a_client_that_says_nothing_or_half_a_request_is_dropped() {
    let directory = Directory::new();
    let mut sockets = directory.open_uapi();
    let silent = directory.connect("home.sock");
    let mut slow = directory.connect("wireguard/adit0.sock");
    slow.write_all(b"set=1\nfwmark=").unwrap();
    let start = Instant::now();
    assert!(sockets.handle_ready(start).is_empty());
    assert_eq!((sockets.poll_fds().len(), sockets.deadline()), (4, Some(start + PATIENCE)));
    // An octet now and then is not enough.
    slow.write_all(b"1").unwrap();
    sockets.handle_ready(start + PATIENCE / 2);
    assert_eq!(sockets.deadline(), Some(start + PATIENCE));
    sockets.handle_ready(start + PATIENCE);
    assert_eq!((sockets.poll_fds().len(), sockets.deadline()), (2, None));
    assert!(read_rest(&silent).is_empty() && read_rest(&slow).is_empty());
}

#[test]
fn a_line_without_end_is_not_kept() {
    let directory = Directory::new();
    let mut sockets = directory.open_uapi();
    for (socket, limit) in [("home.sock", MAX_REQUEST), ("wireguard/adit0.sock", uapi::MAX_LINE)] {
        let mut client = directory.connect(socket);
        client.write_all(b"set=1\n").unwrap();
        client.write_all(&vec![b'x'; limit + 1]).unwrap();
        let start = Instant::now();
        sockets.handle_ready(start);
        while sockets.poll_fds().len() > 2 {
            assert!(start.elapsed() < PATIENCE / 2, "{sockets:?}");
            sockets.handle_ready(start);
        }
    }
}

#[test]
fn what_begins_no_request_ends_the_connection() {
    let directory = Directory::new();
    let mut sockets = directory.open_uapi();
    let mut client = directory.connect("wireguard/adit0.sock");
    client.write_all(b"get=2\n").unwrap();
    assert!(sockets.handle_ready(Instant::now()).is_empty());
    assert!(read_rest(&client).is_empty());
    assert_eq!(sockets.poll_fds().len(), 2);
}

#[test]
fn more_clients_than_may_wait_for_their_turn() {
    let directory = Directory::new();
    let mut sockets = directory.open();
    let mut clients: Vec<_> =
        (0..MAX_CLIENTS + 1).map(|_| directory.connect("home.sock")).collect();
    assert!(sockets.handle_ready(Instant::now()).is_empty());
    assert_eq!(sockets.poll_fds().len(), MAX_CLIENTS);
    clients[MAX_CLIENTS].write_all(b"{\"request\":\"status\"}\n").unwrap();
    assert!(sockets.handle_ready(Instant::now()).is_empty());
    clients.remove(0);
    let (_, question) = question(&mut sockets);
    assert!(matches!(question, Question::Command(Request::Status)));
}

#[test]
fn a_request_of_ten_thousand_peers_fits() {
    let directory = Directory::new();
    let mut sockets = directory.open_uapi();
    let mut client = directory.connect("wireguard/adit0.sock");
    let mut body = "set=1\nreplace_peers=true\n".to_owned();
    for number in 0..10_000 {
        body += &format!(
            "public_key={number:064x}\npreshared_key={number:064x}\nendpoint=192.0.2.1:4740\n\
             persistent_keepalive_interval=25\nreplace_allowed_ips=true\n\
             allowed_ip=10.{}.{}.0/24\nallowed_ip=fd00::{number:x}/128\n",
            number / 256,
            number % 256
        );
    }
    body.push('\n');
    let writer = thread::spawn(move || client.write_all(body.as_bytes()).map(|()| client));
    let (_, question) = question(&mut sockets);
    let Question::Set(changes) = question else { panic!("{question:?}") };
    let mut roster = Roster::default();
    roster.apply(changes).unwrap();
    assert_eq!(roster.peers.len(), 10_000);
    assert!(roster.peers.iter().all(|peer| peer.allowed_ips.len() == 2));
    drop(writer.join().unwrap().unwrap());
}

#[test]
fn a_directory_that_cannot_be_made_is_told() {
    let directory = Directory::new();
    let file = directory.0.join("file");
    fs::write(&file, "").unwrap();
    let error = ControlSockets::open(&file.join("below"), "home").unwrap_err();
    assert!(matches!(error, ControlError::Directory { .. }), "{error:?}");
    let error = ControlSockets::open(Path::new(&directory.0), "a/b").unwrap_err();
    assert!(matches!(error, ControlError::Listen { .. }), "{error:?}");
}

#[test]
fn the_sockets_for_wg_are_beside_those_of_tunnels() {
    assert_eq!(uapi_directory(Path::new("/run/adit")), Path::new("/run/wireguard"));
}

#[test]
fn no_name_leads_out_of_the_directory() {
    let here = Path::new("/run/adit");
    assert_eq!(path(here, "home").unwrap(), Path::new("/run/adit/home.sock"));
    assert_eq!(path(here, "..").unwrap(), Path::new("/run/adit/...sock"));
    for name in ["a/b", "../b", "/b", "/etc/b", "b/"] {
        assert_eq!(path(here, name).filter(|path| path.parent() != Some(here)), None);
    }
    assert_eq!((path(here, "../b"), path(here, "/run/adit/b")), (None, None));
}

#[test]
fn requests_and_answers_are_lines_that_people_can_type_and_read() {
    let json = |response: &Response| serde_json::to_string(response).unwrap();
    assert_eq!(serde_json::to_string(&Request::Status).unwrap(), r#"{"request":"status"}"#);
    let request: Request = serde_json::from_str(r#"{"request":"reload"}"#).unwrap();
    assert_eq!(request, Request::Reload);
    let changes = vec!["peer \"b\" is new".to_owned()];
    assert_eq!(
        json(&Response::Reloaded { changes }),
        r#"{"reloaded":{"changes":["peer \"b\" is new"]}}"#
    );
    let reason = "no".to_owned();
    assert_eq!(json(&Response::Failed { reason }), r#"{"failed":{"reason":"no"}}"#);
}
