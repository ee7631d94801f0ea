//! A user without privilege brings a tunnel up on a device that root made for them.
//!
//! ```text
//!   host A                                   host B
//!   adit0 192.0.2.1 ........................ adit0 192.0.2.2    made by root for user 65534,
//!     |   adit as root                         |                adit as user 65534
//!   eth0  10.1.0.1 ------------------------- eth0  10.1.0.2
//! ```
//!
//! The node of the tun driver may be root's only on the machine. The user gets one that everybody may
//! open, in a mount namespace that nobody else sees.

use std::fs;
use std::path::PathBuf;

use lab::{Host, Process};
use rustix::process::Signal;

use crate::rig::pair::{End, Family, hosts};
use crate::rig::ping::assert_answers;
use crate::rig::program::{available, may_change_users, spawn};
use crate::rig::state;
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::{DEVICE, Files, Tunnel, run_adit};

/// The user and the group that own nothing ("nobody", "nogroup" or "nfsnobody").
const USER: &str = "65534";

/// Runs the rest of the command line as that user. `--pdeathsig`, since the kernel forgets at a
/// change of the user with whose end the program was to be killed.
const AS_USER: &str = "set -e
mount -t tmpfs -o mode=755 none /dev/net
mknod -m 666 /dev/net/tun c 10 200
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all \
    --no-new-privs --pdeathsig KILL -- \"$@\"";

fn runnable() -> bool {
    may_change_users() && ["unshare", "setpriv", "mount", "mknod"].into_iter().all(available)
}

/// A copy of the program where every user can run it.
fn program_for_everybody(files: &Files) -> PathBuf {
    let copy = files.path().join("adit");
    fs::copy(lab::binary().unwrap(), &copy).unwrap();
    copy
}

fn spawn_as_user(host: &Host, files: &Files, name: &str, toml: &str) -> Process {
    let (program, file) = (program_for_everybody(files), files.write(name, toml));
    let (program, file) = (program.to_str().unwrap(), file.to_str().unwrap());
    spawn(host, "unshare", &["--mount", "sh", "-c", AS_USER, "sh", program, "up", file])
}

#[test]
fn a_user_brings_a_tunnel_up_on_a_device_of_their_own_and_is_told_what_could_not_be_set() {
    if !runnable() {
        return;
    }
    let Some(hosts) = hosts() else { return };
    let files = Files::new();
    let addresses = ["--address", "192.0.2.2/24", "--address", "fd00:7::2/64"];
    let arguments = ["device", "add", DEVICE, "--user", USER, "--up"];
    run_adit(&hosts.b, &[&arguments[..], &addresses].concat());
    let before = state::lasting(&hosts.b);
    let _a = Tunnel::up(&hosts.a, &files, "a", &End::A.toml());
    let end = End::B.network("routes = [\"203.0.113.0/24\"]\nforward = true");
    let mut b = Tunnel::of(spawn_as_user(&hosts.b, &files, "b", &end.toml()));
    b.wait_for("tunnel \"b\" is up");

    let status = fs::read_to_string(format!("/proc/{}/status", b.id())).unwrap();
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let said = b.said();
    let used_as_it_is: Vec<_> =
        said.lines().filter(|line| line.contains("device adit0 is used as it is")).collect();
    for what in ["mtu", "ip_forward", "203.0.113.0/24"] {
        assert!(used_as_it_is.iter().any(|line| line.contains(what)), "{what}: {said}");
    }

    for inner in Family::BOTH {
        assert_answers(&hosts.a, inner.inner(2));
        assert_transfers(&hosts.a, &hosts.b, inner.inner(2), 1 << 20);
    }
    let ended = b.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    state::assert_same(&before, &state::lasting(&hosts.b));
}

#[test]
fn a_user_cannot_take_the_device_of_another_user() {
    if !runnable() {
        return;
    }
    let Some(hosts) = hosts() else { return };
    let files = Files::new();
    run_adit(&hosts.b, &["device", "add", DEVICE, "--user", "1"]);
    let refused = Tunnel::of(spawn_as_user(&hosts.b, &files, "b", &End::B.toml())).wait();
    assert_eq!(refused.code, Some(1), "{}", refused.said);
    assert!(refused.said.contains("attach to TUN device \"adit0\""), "{}", refused.said);
    assert!(refused.said.contains("Operation not permitted"), "{}", refused.said);
}

#[test]
fn a_user_cannot_make_a_device() {
    if !runnable() {
        return;
    }
    let Some(hosts) = hosts() else { return };
    let files = Files::new();
    let before = state::of(&hosts.b);
    let refused = Tunnel::of(spawn_as_user(&hosts.b, &files, "b", &End::B.toml())).wait();
    assert_eq!(refused.code, Some(1), "{}", refused.said);
    assert!(refused.said.contains("create TUN device \"adit0\""), "{}", refused.said);
    assert!(refused.said.contains("Operation not permitted"), "{}", refused.said);
    assert_eq!(state::of(&hosts.b), before);
}
