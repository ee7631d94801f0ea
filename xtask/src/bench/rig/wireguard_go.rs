//! wireguard-go, configured by wg(8).

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use lab::{Deadline, Host, Process};

use super::keys::Keys;
use super::{PATIENCE, WIREGUARD_PORT};
use crate::failure::Failure;

/// Its device.
const DEVICE: &str = "wg0";

/// The program.
const PROGRAM: &str = "wireguard-go";

/// Starts it in the host with `number`, whose peer is the other one, and waits until its tunnel is up.
///
/// It and wg(8) meet at a socket below `/run`, whatever their network namespaces are, so `folder` stands for
/// `/run` where they are (unshare(1)).
pub(super) fn start(
    host: &Host,
    folder: &Path,
    number: u8,
    keys: &[Keys; 2],
) -> Result<Process, Failure> {
    let run = folder.join(format!("{PROGRAM}-{number}"));
    let file = run.join("wg0.conf");
    fs::create_dir_all(&run)
        .and_then(|()| fs::write(&file, configuration(number, keys)))
        .map_err(|error| Failure::of(format!("write {}", file.display()), error))?;
    let process = host.spawn(with_run(&run, &format!("exec {PROGRAM} -f {DEVICE}")))?;
    let socket = run.join(format!("wireguard/{DEVICE}.sock"));
    Deadline::after(PATIENCE)
        .wait_until(|| UnixStream::connect(&socket).ok())
        .map_err(|error| Failure::of(format!("wait for {PROGRAM}"), error))?;
    let set_up = format!(
        "wg setconf {DEVICE} {} && ip address add 10.10.0.{number}/24 dev {DEVICE} && \
         ip link set {DEVICE} mtu 1420 up",
        file.display()
    );
    let status = host.spawn(with_run(&run, &set_up))?.wait(Deadline::after(PATIENCE))?;
    if status.success() {
        Ok(process)
    } else {
        Err(Failure::new(format!("wg ended with {status}")))
    }
}

/// A shell that sees `run` as `/run`.
fn with_run(run: &Path, line: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c"]);
    command.arg(format!("mount --bind {} /run && {line}", run.display()));
    command
}

/// The configuration of host `number`, as wg(8) reads it.
fn configuration(number: u8, keys: &[Keys; 2]) -> String {
    let other = 3 - number;
    let [own, others] = Keys::own_first(keys, number);
    format!(
        "[Interface]
PrivateKey = {}
ListenPort = {WIREGUARD_PORT}

[Peer]
PublicKey = {}
Endpoint = 10.1.0.{other}:{WIREGUARD_PORT}
AllowedIPs = 10.10.0.{other}/32
",
        own.private, others.public
    )
}
