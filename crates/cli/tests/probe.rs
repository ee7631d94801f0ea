//! `adit probe` as scripts see it: texts, exit codes, JSON, signals. All traffic is on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use snapbox::cmd::Command as Snap;
use snapbox::str;

const ADIT: &str = env!("CARGO_BIN_EXE_adit");

fn adit(arguments: &str) -> Snap {
    Snap::new(ADIT).args(arguments.split_whitespace())
}

/// A sink on a port that the kernel chose. It ends by itself after 20 s in any case.
struct RunningSink {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
}

impl RunningSink {
    fn start(arguments: &str) -> Self {
        let mut child = Command::new(ADIT)
            .args(["probe", "sink", "127.0.0.1:0", "--duration", "20s"])
            .args(arguments.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut address = None;
        // With -v, what developers want to know comes first.
        while address.is_none() {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the sink ended early");
            address = line.strip_prefix("listening on ").map(|rest| rest.trim().to_owned());
        }
        Self { child, stderr, address: address.unwrap() }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; what was said on standard error after the address is in the output.
    fn finish(mut self) -> Output {
        let mut stderr = Vec::new();
        self.stderr.read_to_end(&mut stderr).unwrap();
        let output = self.child.wait_with_output().unwrap();
        Output { stderr, ..output }
    }
}

fn json(output: &Output) -> Value {
    let text = str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
    serde_json::from_str(text).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn help_of_send() {
    adit("probe send --help").env("COLUMNS", "100").assert().success().stdout_eq(str![[r#"
Sends numbered messages, "7 Hello from client@…", to a UDP port; -v prints each

Usage: adit probe send [OPTIONS] <ADDRESS:PORT>

Arguments:
  <ADDRESS:PORT>  Where to: an address or a name, and a port

Options:
  -n, --count <N>              How many messages; 0 sends until stopped [default: 10, or no limit
                               with --duration]
  -v, --verbose...             Says more; twice for even more
  -i, --interval <DURATION>    The time from one message to the next [default: 100ms]
      --rate <N/s>             Messages a second, such as 1000 or 1000/s
      --flood                  Sends as fast as the socket takes them
      --size <OCTETS>          Octets of UDP payload in each message, at least 29 [default: as long
                               as the text needs]
      --bind <ADDRESS[:PORT]>  The local address, with or without a port
      --text <TEXT>            What the messages say after their number; cut when --size leaves no
                               room [default: "Hello from client"]
      --echo                   Waits for answers (of `adit probe sink --echo`) and reports round
                               trips
      --timeout <DURATION>     How long to wait for answers after the last message [default: 1s]
      --duration <DURATION>    Stops sending after this time
      --json                   Prints the report as one JSON object; what -v prints goes to standard
                               error
  -h, --help                   Print help
  -V, --version                Print version

"#]]);
}

#[test]
fn help_of_sink() {
    adit("probe sink --help").env("COLUMNS", "100").assert().success().stdout_eq(str![[r#"
Counts the messages that arrive: loss, duplicates, order, latency; -v prints each

Usage: adit probe sink [OPTIONS] [ADDRESS:PORT]...

Arguments:
  [ADDRESS:PORT]...  Where to listen; [::] is IPv6 only [default: [::]:8080 and 0.0.0.0:8080]

Options:
      --echo                 Sends each message back to its source
  -v, --verbose...           Says more; twice for even more
  -n, --count <N>            Stops after so many messages, duplicates included; 0 is no limit
      --idle <DURATION>      Stops when nothing came for this time, once something came
      --duration <DURATION>  Stops after this time
      --json                 Prints the report as one JSON object; what -v prints goes to standard
                             error
  -h, --help                 Print help
  -V, --version              Print version

"#]]);
}

#[test]
fn a_size_without_room_is_wrong_use() {
    adit("probe send 127.0.0.1:9 --size 28").assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: message size 28 is too small: number, time and run need 29 octets

"#]]);
}

#[test]
fn a_target_without_a_port_is_wrong_use() {
    adit("probe send 127.0.0.1").assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: invalid value '127.0.0.1' for '<ADDRESS:PORT>': expected ADDRESS:PORT, with an IPv6 address in brackets

For more information, try '--help'.

"#]]);
}

#[test]
fn two_paces_are_wrong_use() {
    adit("probe send 127.0.0.1:9 --flood --rate 5/s").assert().code(2).stderr_eq(str![[r#"
error: the argument '--flood' cannot be used with '--rate <N/s>'

Usage: adit probe send --flood <ADDRESS:PORT>

For more information, try '--help'.

"#]]);
}

#[test]
fn wrong_numbers_and_texts_are_wrong_use() {
    for arguments in [
        "probe",
        "probe send",
        "probe send 127.0.0.1:9 --rate 0",
        "probe send 127.0.0.1:9 --interval fast",
        "probe send 127.0.0.1:9 --text a@b",
        "probe send 127.0.0.1:9 --bind eth0",
        "probe send 127.0.0.1:9 --timeout 1s",
        "probe send 127.0.0.1:70000",
        "probe sink 8080",
        "probe sink --count many",
    ] {
        adit(arguments).assert().code(2).stdout_eq("");
    }
}

#[test]
fn an_address_in_use_fails() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    adit(&format!("probe sink {address}")).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: open UDP socket on 127.0.0.1:[..]: Address already in use (os error 98)

"#]]);
}

#[test]
fn a_closed_port_is_counted() {
    // A socket that listens to one other peer keeps the port from everybody and refuses us.
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    holder.connect("127.0.0.1:9").unwrap();
    let closed = holder.local_addr().unwrap();
    let arguments = format!("probe send {closed} --count 3 --interval 5ms -v");
    adit(&arguments).assert().code(0).stdout_eq(str![[r#"
35 octets to 127.0.0.1:[..]: seq=0
127.0.0.1:[..]: Connection refused (os error 111)
35 octets to 127.0.0.1:[..]: seq=1
127.0.0.1:[..]: Connection refused (os error 111)
35 octets to 127.0.0.1:[..]: seq=2
127.0.0.1:[..]: Connection refused (os error 111)
sent        3 messages, 105 octets from 127.0.0.1:[..] to 127.0.0.1:[..], run [..]
rate        [..] messages/s, [..] Mbit/s for [..] s
errors      connection refused: 3

"#]]);
    let arguments = format!("probe send {closed} --count 3 --interval 5ms --json");
    let output = adit(&arguments).output().unwrap();
    assert_eq!(json(&output)["errors"]["connection refused"], 3);
}

#[test]
fn an_echo_that_does_not_come_fails() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = silent.local_addr().unwrap();
    let arguments = format!("probe send {target} --count 2 --flood --echo --timeout 10ms");
    adit(&arguments).assert().code(1).stdout_eq(str![[r#"
sent        2 messages, 70 octets from 127.0.0.1:[..] to 127.0.0.1:[..], run [..]
rate        [..] messages/s, [..] Mbit/s for [..] s
answers     0 received, 2 lost (100.0 %), 0 duplicates, 0 out of order

"#]]);
}

#[test]
fn json_of_both_sides() {
    let sink = RunningSink::start("--echo --count 5 --json");
    let arguments = format!("probe send {} -n 5 --interval 1ms --echo --json", sink.address);
    let output = adit(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let sent = json(&output);
    assert_eq!(
        keys(&sent),
        [
            "duration_s",
            "echo",
            "errors",
            "octets",
            "rate_mbit_s",
            "rate_pps",
            "run",
            "sent",
            "source",
            "target",
            "unsent"
        ]
    );
    assert_eq!((&sent["sent"], &sent["octets"]), (&5.into(), &175.into()));
    let echo = &sent["echo"];
    assert_eq!(
        keys(echo),
        ["duplicates", "foreign", "lost", "out_of_order", "received", "round_trip_us", "stale"]
    );
    assert_eq!((&echo["received"], &echo["lost"]), (&5.into(), &0.into()));
    assert_eq!(keys(&echo["round_trip_us"]), ["avg", "max", "median", "min", "p99"]);
    assert!(echo["round_trip_us"]["min"].as_f64() > Some(0.0));

    let output = sink.finish();
    assert_eq!(output.status.code(), Some(0));
    let seen = json(&output);
    assert_eq!(
        keys(&seen),
        [
            "answer_errors",
            "answered",
            "duration_s",
            "foreign",
            "foreign_octets",
            "listening",
            "octets",
            "rate_mbit_s",
            "rate_pps",
            "received",
            "streams",
            "untracked"
        ]
    );
    let stream = &seen["streams"][0];
    assert_eq!(
        keys(stream),
        [
            "duplicates",
            "duration_s",
            "highest_sequence",
            "lost",
            "lowest_sequence",
            "negative_latencies",
            "octets",
            "one_way_latency_us",
            "out_of_order",
            "rate_mbit_s",
            "rate_pps",
            "received",
            "run",
            "source",
            "stale"
        ]
    );
    assert_eq!((&stream["source"], &stream["run"]), (&sent["source"], &sent["run"]));
    assert_eq!((&stream["received"], &stream["highest_sequence"]), (&5.into(), &4.into()));
}

#[test]
fn verbose_echo_looks_like_ping() {
    let sink = RunningSink::start("--echo --count 2");
    let arguments = format!("probe send {} -n 2 --interval 1ms --echo -v", sink.address);
    adit(&arguments).assert().code(0).stdout_eq(str![[r#"
35 octets from 127.0.0.1:[..]: seq=0 time=[..] ms
35 octets from 127.0.0.1:[..]: seq=1 time=[..] ms
sent        2 messages, 70 octets from 127.0.0.1:[..] to 127.0.0.1:[..], run [..]
rate        [..] messages/s, [..] Mbit/s for [..] s
answers     2 received, 0 lost (0.0 %), 0 duplicates, 0 out of order
round trip  min/avg/median/p99/max [..] ms

"#]]);
    let output = sink.finish();
    snapbox::assert_data_eq!(
        String::from_utf8(output.stdout).unwrap(),
        str![[r#"
received    2 messages, 70 octets
rate        [..] messages/s, [..] Mbit/s for [..] s
answered    2 messages
source      127.0.0.1:[..], run [..]
  sequence  0 to 1: 2 received, 0 lost (0.0 %), 0 duplicates, 0 out of order
  rate      [..] messages/s, [..] Mbit/s for [..] s
  one way   min/avg/median/p99/max [..] ms (if both clocks agree)

"#]]
    );
}

#[test]
fn sigterm_and_sigint_end_with_the_report() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut sink = RunningSink::start("-v --json");
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello\n", &sink.address).unwrap();
        let mut line = String::new();
        sink.stderr.read_line(&mut line).unwrap();
        assert!(line.ends_with(": foreign \"hello\"\n"), "{line}");
        sink.signal(signal);
        let output = sink.finish();
        assert_eq!(output.status.code(), Some(0));
        let seen = json(&output);
        assert_eq!((&seen["foreign"], &seen["foreign_octets"]), (&1.into(), &6.into()));
        assert_eq!(seen["received"], 0);
    }
}

#[test]
fn sigterm_ends_a_source_with_the_report() {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap().to_string();
    let source = Command::new(ADIT)
        .args(["probe", "send", &address, "--count", "0", "--interval", "1h", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut octets = [0; 100];
    let length = target.recv(&mut octets).unwrap();
    assert!(octets[..length].starts_with(b"0 Hello from client@"));
    kill_process(Pid::from_child(&source), Signal::TERM).unwrap();
    let output = source.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["sent"], 1);
}

#[test]
fn a_closed_pipe_ends_a_source_without_a_word() {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap().to_string();
    let mut source = Command::new(ADIT)
        .args(["probe", "send", &address, "--count", "0", "--interval", "1ms", "-v"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(source.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, format!("35 octets to {address}: seq=0\n"));
    let output = source.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.lines().all(|line| line.starts_with("debug: ")), "{stderr}");
}
