//! Files of wg-quick(8), as people have them, are tunnels as they are.
//!
//! ```text
//!   host A                                               host B
//!   wg0   192.0.2.1/24, fd00:7::1/64 .................. wg0   192.0.2.2/24, fd00:7::2/64
//!   eth0  10.1.0.1/24, fd01::1/64 --------------------- eth0  10.1.0.2/24, fd01::2/64
//!   A sends everything through B: AllowedIPs = 0.0.0.0/0, ::/0
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Host, Process};
use rustix::process::Signal;

use crate::rig::pair::{Family, hosts};
use crate::rig::ping::assert_answers;
use crate::rig::private::{self, wg};
use crate::rig::sealed::keys;
use crate::rig::sh::{assert_same, everything, json, wait_for_links, way};
use crate::rig::tunnel::{Files, Tunnel};
use crate::rig::{program, tcp};

const PSK: &str = "qGa1ZbHGlqgmnWnuSRfyNZ9CAbXEjgxPZRaTHZq5eCo=";

/// Writes `wg0.conf` into a directory of its own.
fn write(text: &str) -> (Files, PathBuf) {
    let files = Files::new();
    let path = files.path().join("wg0.conf");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (files, path)
}

fn up(host: &Host, files: &Files, path: &Path) -> Process {
    let mut command = Command::new(lab::binary().unwrap());
    command.env("RUNTIME_DIRECTORY", files.runtime_directory()).arg("up").arg(path);
    host.spawn(command).unwrap()
}

fn client() -> String {
    format!(
        "# laptop\n\
         [Interface]\n\
         PrivateKey = {private}\n\
         Address = 192.0.2.1/24, fd00:7::1/64\n\
         MTU = 1380\n\
         \n\
         [Peer]\n\
         # the office\n\
         PublicKey = {public}\n\
         PresharedKey = {PSK}\n\
         AllowedIPs = 0.0.0.0/0, ::/0\n\
         Endpoint = 10.1.0.2:51820\n\
         PersistentKeepalive = 25\n",
        private = keys(1).private,
        public = keys(2).public,
    )
}

fn server() -> String {
    format!(
        "[Interface]\n\
         Address = 192.0.2.2/24\n\
         Address = fd00:7::2/64\n\
         ListenPort = 51820\n\
         PrivateKey = {private}\n\
         [Peer]\n\
         PublicKey = {public}\n\
         PresharedKey = {PSK}\n\
         AllowedIPs = 192.0.2.1/32,fd00:7::1/128\n",
        private = keys(2).private,
        public = keys(1).public,
    )
}

#[test]
fn two_files_of_wg_quick_make_one_network() {
    let programs = ["ip", "nft", "wg"].map(program::available);
    if programs.contains(&false) || !private::available() {
        return;
    }
    let Some(hosts) = hosts() else { return };
    let (a, b) = (&hosts.a, &hosts.b);
    [a, b].into_iter().for_each(wait_for_links);
    let before = [everything(a), everything(b)];
    let ((files_a, path_a), (files_b, path_b)) = (write(&client()), write(&server()));
    let mut tunnel_b = Tunnel::of(up(b, &files_b, &path_b));
    tunnel_b.wait_for("tunnel \"wg0\" is up");
    let mut tunnel_a = Tunnel::of(up(a, &files_a, &path_a));
    tunnel_a.wait_for("tunnel \"wg0\" is up");
    for family in Family::BOTH {
        assert_answers(a, family.inner(2));
        assert_answers(b, family.inner(1));
        tcp::assert_transfers(a, b, family.inner(2), 1 << 20);
    }
    assert_eq!(json(a, "ip -j link show wg0")[0]["mtu"], 1380);
    for (address, link) in [("8.8.8.8", "wg0"), ("2001:db8:9::1", "wg0"), ("10.1.0.2", "eth0")] {
        assert_eq!(way(a, address), Ok((link.to_owned(), None)), "{address}");
    }
    let shown = wg(a, &files_a, "wg show wg0 preshared-keys");
    assert_eq!(shown.trim(), format!("{}\t{PSK}", keys(2).public));
    for (tunnel, host, before) in [(tunnel_a, a, &before[0]), (tunnel_b, b, &before[1])] {
        let ended = tunnel.end(Signal::TERM);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        assert_same(before, &everything(host));
    }
}

#[test]
fn what_adit_does_not_do_is_refused_with_its_place() {
    let Some(hosts) = hosts() else { return };
    wait_for_links(&hosts.a);
    let before = everything(&hosts.a);
    let command = "PostUp = iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE";
    let text = client().replace("MTU = 1380", command);
    let (files, path) = write(&text);
    let ended = Tunnel::of(up(&hosts.a, &files, &path)).wait();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    let place = "wg0.conf:5:10: [Interface]: PostUp is not supported: adit runs no commands";
    for part in [place, "masquerade = true"] {
        assert!(ended.said.contains(part), "{part:?} is not in {}", ended.said);
    }
    assert!(!ended.said.contains("iptables"), "{}", ended.said);
    assert_same(&before, &everything(&hosts.a));
}
