//! adit: a configuration file, with the keys in files of their own.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lab::Host;

use super::{DEVICE, MTU, PORT, Peer, Spec};
use crate::rig::tunnel::{Files, Tunnel};

/// Starts adit and waits until its tunnel is up.
pub(super) fn up(host: &Host, files: &Files, spec: &Spec) -> Tunnel {
    write_secret(&files.path().join(key_file(spec)), &spec.keys.private);
    for (number, peer) in spec.peers.iter().enumerate() {
        if let Some(key) = &peer.preshared_key {
            write_secret(&files.path().join(preshared_key_file(spec, number)), key);
        }
    }
    Tunnel::up(host, files, spec.name, &toml(spec))
}

fn key_file(spec: &Spec) -> String {
    format!("{}.key", spec.name)
}

fn preshared_key_file(spec: &Spec, number: usize) -> String {
    format!("{}-{number}.psk", spec.name)
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, secret: &str) {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).unwrap();
    std::io::Write::write_all(&mut file, format!("{secret}\n").as_bytes()).unwrap();
}

fn toml(spec: &Spec) -> String {
    let Spec { addresses, local, network, .. } = spec;
    let key = key_file(spec);
    let mut toml = format!(
        "[device]\nname = \"{DEVICE}\"\nmtu = {MTU}\naddresses = {addresses:?}\n\
         [local]\nprivate-key-file = \"{key}\"\n\
         listen = [\"udp://0.0.0.0:{PORT}\", \"udp://[::]:{PORT}\"]\n{local}\n\
         [network]\n{network}\n"
    );
    for (number, peer) in spec.peers.iter().enumerate() {
        write_peer(&mut toml, spec, number, peer).unwrap();
    }
    toml
}

fn write_peer(toml: &mut String, spec: &Spec, number: usize, peer: &Peer) -> std::fmt::Result {
    let Peer { public_key, preshared_key, endpoint, allowed_ips, keepalive } = peer;
    writeln!(toml, "[[peer]]\nname = \"peer-{number}\"\npublic-key = \"{public_key}\"")?;
    writeln!(toml, "allowed-ips = {allowed_ips:?}")?;
    if preshared_key.is_some() {
        writeln!(toml, "preshared-key-file = \"{}\"", preshared_key_file(spec, number))?;
    }
    if let Some(endpoint) = endpoint {
        writeln!(toml, "endpoints = [\"udp://{endpoint}\"]")?;
    }
    if let Some(seconds) = keepalive {
        writeln!(toml, "keepalive = \"{seconds}s\"")?;
    }
    Ok(())
}
