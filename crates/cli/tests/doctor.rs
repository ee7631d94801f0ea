//! `adit doctor` as scripts see it, on hosts to which something was done.
//!
//! ```text
//!   host A
//!   +--------------------------------------+
//!   |  adit0                        v0     |------- v1 (same host, without address)
//!   |  192.0.2.1/24    198.51.100.1/24     |
//!   |  203.0.113.0/24 is routed to adit0   |
//!   +--------------------------------------+
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what fails here fails the test")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use lab::{Deadline, Host, Process};
use netlink::nftables::{ChainId, Family, Socket as Filter};
use netlink::{Socket, sysctl};
use serde_json::Value;

const CONFIG: &str = r#"
device.name = "adit0"
device.addresses = ["192.0.2.1/24"]
local.security = "none"
local.listen = ["udp://0.0.0.0:4740"]
network.routes = ["203.0.113.0/24"]
network.forward = true
[[peer]]
name = "b"
endpoints = ["udp://198.51.100.2:4740"]
"#;

/// A host, a configuration, and what runs there.
struct Rig {
    host: Host,
    /// Of this test alone; removed at its end.
    directory: PathBuf,
}

impl Rig {
    /// The host of the drawing without the tunnel; none where that cannot be made.
    fn new(test: &str) -> Option<Self> {
        let host = match Host::new("A") {
            Ok(host) => host,
            Err(error) => {
                assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no namespace: {error}");
                println!("skipped: {error}");
                return None;
            }
        };
        let name = format!("adit-doctor-{test}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let rig = Self { host, directory };
        rig.configure(CONFIG);
        rig.ip("link set lo up");
        rig.ip("link add v0 type veth peer name v1");
        rig.ip("link set v0 up");
        rig.ip("link set v1 up");
        rig.ip("address add 198.51.100.1/24 dev v0");
        Some(rig)
    }

    fn configure(&self, text: &str) {
        fs::write(self.directory.join("home.toml"), text).unwrap();
    }

    fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("RUNTIME_DIRECTORY", &self.directory);
        command.current_dir(&self.directory);
        command
    }

    fn ip(&self, arguments: &str) {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let mut command = self.program("ip", &arguments);
        let output = self.host.run(move || command.output()).unwrap();
        assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    }

    fn up(&self, tunnel: &str) -> Process {
        let file = format!("{tunnel}.toml");
        let command = self.program(env!("CARGO_BIN_EXE_adit"), &["up", &file]);
        let mut process = self.host.spawn(command).unwrap();
        let soon = Deadline::after(Duration::from_secs(10));
        process.wait_for_line(&format!("tunnel {tunnel:?} is up"), soon).unwrap();
        process
    }

    fn set(&self, key: &'static str, value: &'static str) {
        self.host.run(move || sysctl::write(key, value)).unwrap();
    }

    fn doctor(&self, arguments: &[&str]) -> Output {
        let mut command = self.program(env!("CARGO_BIN_EXE_adit"), &["doctor"]);
        command.args(arguments);
        self.host.run(move || command.output()).unwrap()
    }

    /// The exit code and the findings about a tunnel: severity and subject, one a line.
    fn findings(&self, tunnel: &str) -> (i32, String) {
        let output = self.doctor(&["--json", tunnel]);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let code = output.status.code().unwrap();
        assert_eq!(answer["stops"], Value::Bool(code == 1), "{answer}");
        let line = |finding: &Value| {
            for key in ["says", "evidence", "mend"] {
                assert!(!finding[key].as_str().unwrap().is_empty(), "{finding}");
            }
            let [severity, subject] = ["severity", "subject"].map(|key| finding[key].as_str());
            format!("{}: {}", severity.unwrap(), subject.unwrap())
        };
        let findings: Vec<_> = answer["findings"].as_array().unwrap().iter().map(line).collect();
        (code, findings.join("\n"))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap()
}

#[test]
fn a_tunnel_without_fault_ends_with_zero() {
    let Some(rig) = Rig::new("fine") else { return };
    let _tunnel = rig.up("home");
    assert_eq!(rig.findings("home.toml"), (0, String::new()));
    let output = rig.doctor(&["home"]);
    assert_eq!(text(&output.stdout), "nothing that was looked at stops packets\n");
    let output = rig.doctor(&["-v", "home"]);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    let (verdict, fine) = lines.split_last().unwrap();
    assert_eq!(*verdict, "nothing that was looked at stops packets");
    assert!(fine.iter().all(|line| line.starts_with("ok: ")), "{fine:#?}");
    assert!(fine.contains(&"ok: device adit0 has its addresses"), "{fine:#?}");
}

#[test]
fn a_tunnel_that_does_not_run_is_no_fault() {
    let Some(rig) = Rig::new("stopped") else { return };
    assert_eq!(rig.findings("home.toml"), (0, "note: tunnel home".to_owned()));
    let output = rig.doctor(&["home"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "error: examine \"home\": there is neither a file nor a running tunnel of that name\n"
    );
}

#[test]
fn the_host_in_general_has_no_fault() {
    let Some(rig) = Rig::new("host") else { return };
    let output = rig.doctor(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains(
        "note: default route: there is none, so that only networks with a route of their own are reached\n  \
         seen: ip route: no default of IPv4 or IPv6\n  \
         mend: ip route add default via ROUTER\n"
    ));
}

#[test]
fn forwarding_that_was_switched_off_is_found() {
    let Some(rig) = Rig::new("forward") else { return };
    let _tunnel = rig.up("home");
    rig.set("net.ipv4.ip_forward", "0");
    assert_eq!(rig.findings("home"), (1, "stops: sysctl net.ipv4.ip_forward".to_owned()));
}

#[test]
fn a_strict_check_of_the_way_back_is_found() {
    let Some(rig) = Rig::new("rp_filter") else { return };
    rig.configure(&format!("{CONFIG}allowed-ips = [\"192.0.2.0/24\", \"203.0.113.0/24\"]\n"));
    let _tunnel = rig.up("home");
    rig.set("net.ipv4.conf.adit0.rp_filter", "1");
    assert_eq!(rig.findings("home"), (0, String::new()));
    rig.ip("route add 203.0.113.0/25 dev v0");
    assert_eq!(
        rig.findings("home"),
        (
            1,
            "stops: sysctl net.ipv4.conf.adit0.rp_filter\ndegrades: route 203.0.113.0/25"
                .to_owned()
        )
    );
}

#[test]
fn a_chain_that_drops_what_is_forwarded_is_found() {
    let Some(rig) = Rig::new("chain") else { return };
    let _tunnel = rig.up("home");
    let chain =
        ChainId { family: Family::Ipv4, table: "filter".to_owned(), chain: "FORWARD".to_owned() };
    let add = chain.clone();
    rig.host.run(move || Filter::open().unwrap().add_drop_chain(&add)).unwrap();
    assert_eq!(rig.findings("home"), (1, "stops: chain ip filter FORWARD".to_owned()));
    rig.host.run(move || Filter::open().unwrap().accept_forward(&chain, "adit0")).unwrap();
    assert_eq!(rig.findings("home"), (0, String::new()));
}

#[test]
fn an_mtu_that_is_too_large_is_found() {
    let Some(rig) = Rig::new("mtu") else { return };
    let _tunnel = rig.up("home");
    rig.ip("link set adit0 mtu 1473");
    assert_eq!(rig.findings("home"), (0, "degrades: device adit0".to_owned()));
}

#[test]
fn a_foreign_process_at_the_device_is_found() {
    let Some(rig) = Rig::new("holder") else { return };
    let other = CONFIG.replace(":4740\"]\nnetwork", ":4741\"]\nnetwork");
    fs::write(rig.directory.join("other.toml"), other).unwrap();
    let other = rig.up("other");
    assert_eq!(rig.findings("home.toml"), (1, "stops: device adit0\nnote: tunnel home".to_owned()));
    let output = rig.doctor(&["home.toml"]);
    let process = format!("process {} (adit) is attached to it", other.id());
    assert!(text(&output.stdout).contains(&process), "{output:?}");
    assert_eq!(rig.findings("other"), (0, String::new()));
}

#[test]
fn an_interface_of_another_kind_with_that_name_is_found() {
    let Some(rig) = Rig::new("name") else { return };
    rig.ip("link add adit0 type bridge");
    assert_eq!(rig.findings("home.toml"), (1, "stops: device adit0\nnote: tunnel home".to_owned()));
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_found() {
    let Some(rig) = Rig::new("endpoint") else { return };
    let _tunnel = rig.up("home");
    let endpoint = "stops: peer b, endpoint udp://198.51.100.2:4740";
    rig.ip("route add unreachable 198.51.100.2/32");
    assert_eq!(rig.findings("home"), (1, endpoint.to_owned()));
    rig.ip("route delete unreachable 198.51.100.2/32");
    rig.ip("route add 198.51.100.2/32 dev adit0");
    assert_eq!(rig.findings("home"), (1, endpoint.to_owned()));
}

#[test]
fn a_port_that_is_taken_is_found() {
    let Some(rig) = Rig::new("port") else { return };
    let bind = || std::net::UdpSocket::bind("198.51.100.1:4740");
    let socket = rig.host.run(bind).unwrap();
    assert_eq!(
        rig.findings("home.toml"),
        (1, "stops: listen udp://0.0.0.0:4740\nnote: tunnel home".to_owned())
    );
    drop(socket);
}

#[test]
fn a_device_that_was_switched_off_is_found() {
    let Some(rig) = Rig::new("down") else { return };
    let _tunnel = rig.up("home");
    rig.ip("link set adit0 down");
    let (code, findings) = rig.findings("home");
    assert_eq!(code, 1);
    assert!(findings.starts_with("stops: device adit0"), "{findings}");
    // The kernel has taken the routes of the device away with it.
    let link = rig.host.run(|| Socket::open().unwrap().link("adit0")).unwrap();
    assert!(!link.unwrap().up);
}
