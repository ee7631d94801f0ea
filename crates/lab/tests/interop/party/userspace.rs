//! wireguard-go and boringtun, configured and asked by wg(8).
//!
//! Both meet at a socket in `/var/run/wireguard`, whatever their network namespaces are. Each party
//! therefore has a directory of its own that stands for `/run` in mount namespaces (unshare(1)) of
//! the party and of everyone who talks to it.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Host, Process};

use super::{DEVICE, Kind, MTU, PORT, Peer, Spec, wait_until};
use crate::rig::program;
use crate::rig::sh::sh;
use crate::rig::tunnel::Files;

/// A running program; it and its device are gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Userspace {
    kind: Kind,
    process: Process,
    /// What stands for `/run`.
    run: PathBuf,
}

/// What `wg show wg0 dump` says of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerState {
    pub(crate) public_key: String,
    pub(crate) endpoint: Option<SocketAddr>,
    /// Seconds since 1970.
    pub(crate) latest_handshake: Option<u64>,
    /// Octets of messages.
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// Where `cargo xtask setup` puts boringtun, below the directory that cargo builds in.
const BORINGTUN: &str = "tools/bin/boringtun-cli";

/// Whether wireguard-go can be run here. Says why not, and insists on it where `CI` is `true`.
pub(super) fn has_wireguard_go() -> bool {
    ["wireguard-go", "ip", "unshare", "mount"].into_iter().all(program::available)
}

/// The same of boringtun.
pub(super) fn has_boringtun() -> bool {
    if boringtun().is_none() {
        program::skip("boringtun-cli is not installed");
    }
    boringtun().is_some() && ["ip", "unshare", "mount"].into_iter().all(program::available)
}

/// The file of boringtun, if it is there.
fn boringtun() -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?;
    this.ancestors().map(|above| above.join(BORINGTUN)).find(|file| file.is_file())
}

/// The command line of a program that stays in the foreground.
fn command_line(kind: Kind) -> String {
    match kind {
        // Without privileges it could not configure a device any more.
        Kind::Boringtun => format!(
            "{} --foreground --disable-drop-privileges {DEVICE}",
            boringtun().unwrap().display()
        ),
        _ => format!("wireguard-go -f {DEVICE}"),
    }
}

impl Userspace {
    /// Starts it and waits until its device is up.
    pub(super) fn up(kind: Kind, host: &Host, files: &Files, spec: &Spec) -> Self {
        let run = files.path().join(format!("{}-run", spec.name));
        fs::create_dir_all(&run).unwrap();
        let mut command = in_mount_namespace(&run, &command_line(kind));
        command.env("LOG_LEVEL", "verbose");
        let party = Self { kind, process: host.spawn(command).unwrap(), run };
        // What a killed one left is replaced by then, or the name would be there and nobody behind it.
        let socket = party.run.join(format!("wireguard/{DEVICE}.sock"));
        let listens = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        wait_until(&party.process, "the socket of the program", listens);
        for address in &spec.addresses {
            sh(host, &format!("ip address add {address} dev {DEVICE}"));
        }
        sh(host, &format!("ip link set {DEVICE} mtu {MTU} up"));
        party.configure(host, files, spec);
        party
    }

    /// Sets keys and peers and routes what peers own; peers that stay keep their sessions.
    fn configure(&self, host: &Host, files: &Files, spec: &Spec) {
        let file = files.path().join(format!("{}.conf", spec.name));
        fs::write(&file, conf(spec)).unwrap();
        self.wg(host, &format!("syncconf {DEVICE} {}", file.display()));
        for prefix in spec.peers.iter().flat_map(|peer| &peer.allowed_ips) {
            sh(host, &format!("ip route replace {prefix} dev {DEVICE}"));
        }
    }

    /// Lets it be what `spec` says. boringtun starts anew, since it keeps old keys and refuses some changes.
    pub(super) fn reconfigure(self, host: &Host, files: &Files, spec: &Spec) -> Self {
        if self.kind == Kind::Boringtun {
            drop(self);
            return Self::up(Kind::Boringtun, host, files, spec);
        }
        self.configure(host, files, spec);
        self
    }

    /// Ends it as `kill -9` does.
    pub(super) fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// What it knows of its peers.
    pub(crate) fn peers(&self, host: &Host) -> Vec<PeerState> {
        let dump = self.wg(host, &format!("show {DEVICE} dump"));
        dump.lines().skip(1).map(PeerState::parse).collect()
    }

    /// What it knows of the only peer.
    pub(crate) fn only_peer(&self, host: &Host) -> PeerState {
        let [peer] = <[PeerState; 1]>::try_from(self.peers(host)).unwrap();
        peer
    }

    /// Runs wg(8) where it finds this party; what it prints.
    fn wg(&self, host: &Host, arguments: &str) -> String {
        let run = self.run.display();
        sh(host, &format!("unshare -m sh -c 'mount --bind {run} /run && exec wg {arguments}'"))
    }
}

/// A command that sees `run` as `/run`.
fn in_mount_namespace(run: &Path, line: &str) -> Command {
    let line = format!("mount --bind {} /run && exec {line}", run.display());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &line]);
    command
}

/// The configuration as wg(8) reads it.
fn conf(spec: &Spec) -> String {
    let mut conf =
        format!("[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n", spec.keys.private);
    for peer in &spec.peers {
        write_peer(&mut conf, peer).unwrap();
    }
    conf
}

fn write_peer(conf: &mut String, peer: &Peer) -> std::fmt::Result {
    let Peer { public_key, preshared_key, endpoint, allowed_ips, keepalive } = peer;
    writeln!(conf, "[Peer]\nPublicKey = {public_key}\nAllowedIPs = {}", allowed_ips.join(", "))?;
    if let Some(key) = preshared_key {
        writeln!(conf, "PresharedKey = {key}")?;
    }
    if let Some(endpoint) = endpoint {
        writeln!(conf, "Endpoint = {endpoint}")?;
    }
    if let Some(seconds) = keepalive {
        writeln!(conf, "PersistentKeepalive = {seconds}")?;
    }
    Ok(())
}

impl PeerState {
    /// Reads a line: public key, preshared key, endpoint, allowed IPs, latest handshake, octets received
    /// and sent, keepalive.
    fn parse(line: &str) -> Self {
        let fields: Vec<_> = line.split('\t').collect();
        let [public_key, _, endpoint, _, handshake, received, sent, _] = fields[..] else {
            panic!("no peer: {line}");
        };
        Self {
            public_key: public_key.to_owned(),
            endpoint: endpoint.parse().ok(),
            latest_handshake: Some(handshake.parse().unwrap()).filter(|seconds| *seconds != 0),
            received: received.parse().unwrap(),
            sent: sent.parse().unwrap(),
        }
    }
}
