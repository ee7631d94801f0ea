//! Keys are in files and in the memory of two processes, and nowhere else.
//!
//! ```text
//!   host A                        host B
//!   adit0 192.0.2.1 ............. adit0 192.0.2.2
//!   eth0  10.1.0.1 -------------- eth0  10.1.0.2
//! ```

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use base64ct::{Base64, Encoding};
use lab::TwoHosts;
use rustix::process::Signal;

use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::program::{available, may_change_users, spawn};
use crate::rig::sealed::{keys, only_peer, toml, write_key, write_secret};
use crate::rig::tunnel::{DEVICE, Files, Tunnel, adit_in, run_adit, runnable};
use crate::rig::{private, sh};

/// A key that both sides have, and its file.
const PRESHARED: &str = "cHJlc2hhcmVkIGtleSBvZiB0d28gZnJpZW5kcyEhISE=";
const PRESHARED_FILE: &str = "friends.psk";

/// The user and the group that own nothing.
const NOBODY: u32 = 65_534;

fn with_preshared_key(number: u8, other: u8) -> String {
    let peer = only_peer(other) + &format!("preshared-key-file = \"{PRESHARED_FILE}\"\n");
    toml(number, "", "", &[peer])
}

fn files(number: u8) -> Files {
    let files = Files::new();
    write_key(&files, number);
    write_secret(&files, PRESHARED_FILE, PRESHARED);
    files
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_file_that_everybody_may_read_or_write_is_refused() {
    if !runnable() {
        return;
    }
    let hosts = TwoHosts::build().unwrap();
    for file in ["1.key", PRESHARED_FILE] {
        for mode in [0o604, 0o644, 0o602, 0o666] {
            let files = files(1);
            set_mode(&files.path().join(file), mode);
            let ended = Tunnel::fail(&hosts.a, &files, "a", &with_preshared_key(1, 2));
            assert_eq!(ended.code, Some(1), "{}", ended.said);
            let told = format!("{file}: its mode {mode:04o} lets everybody at it");
            assert!(ended.said.contains(&told), "{}", ended.said);
            assert_tells_no_key(&ended.said);
        }
    }
}

#[test]
fn a_key_file_that_its_group_may_read_is_told_of() {
    if !runnable() || !may_change_users() {
        return;
    }
    let hosts = TwoHosts::build().unwrap();
    for (group, is_told) in [(NOBODY, true), (0, false)] {
        let files = files(1);
        let key = files.path().join("1.key");
        set_mode(&key, 0o640);
        chown(&key, None, Some(group)).unwrap();
        let tunnel = Tunnel::up(&hosts.a, &files, "a", &with_preshared_key(1, 2));
        let ended = tunnel.end(Signal::TERM);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        let warnings = ended.said.lines().filter(|line| line.contains("1.key"));
        assert_eq!(warnings.count(), usize::from(is_told), "{}", ended.said);
        assert_tells_no_key(&ended.said);
    }
}

#[test]
fn what_is_wrong_with_a_key_is_told_without_the_key() {
    if !runnable() {
        return;
    }
    let hosts = TwoHosts::build().unwrap();
    let secret = keys(1).private;
    for text in
        [&secret[..43], &format!("{secret}A"), &format!("{secret}\n{PRESHARED}"), &secret[1..]]
    {
        let files = files(1);
        write_secret(&files, "1.key", text);
        let ended = Tunnel::fail(&hosts.a, &files, "a", &with_preshared_key(1, 2));
        assert_eq!(ended.code, Some(1), "{}", ended.said);
        assert!(ended.said.contains("1.key"), "{}", ended.said);
        assert_tells_no_key(&ended.said);
        assert!(!ended.said.contains(&secret[4..20]), "{}", ended.said);
    }
}

/// Fails if a secret is in `text`: as it is in files, or as WireGuard's programs write it.
fn assert_tells_no_key(text: &str) {
    for secret in [keys(1).private, keys(2).private, PRESHARED] {
        let octets = Base64::decode_vec(secret).unwrap();
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let list = format!("{octets:?}");
        for form in [secret, &hex, &list] {
            assert!(!text.contains(form), "a key is told: {text}");
        }
        // Not even a part of it.
        assert!(!text.contains(&secret[8..24]) && !text.contains(&hex[16..32]), "{text}");
    }
}

/// Fails if a secret, as text or in octets, is in `octets`.
fn assert_holds_no_key(octets: &[u8], place: &str) {
    for secret in [keys(1).private, keys(2).private, PRESHARED] {
        let key = Base64::decode_vec(secret).unwrap();
        for form in [secret.as_bytes(), &key] {
            let is_there = octets.windows(form.len()).any(|part| part == form);
            assert!(!is_there, "a key is in {place}");
        }
    }
}

#[test]
fn keys_are_neither_in_arguments_nor_in_the_environment_nor_in_messages() {
    if !runnable() || !private::available() {
        return;
    }
    let hosts = TwoHosts::build().unwrap();
    let (a_files, b_files) = (files(1), files(2));
    let start = |host, files: &Files, name: &str, toml: String| {
        let file = files.write(name, &toml);
        let mut tunnel =
            private::start(host, files, "true", &["-vv", "up", file.to_str().unwrap()]);
        tunnel.wait_for(&format!("tunnel {name:?} is up"));
        tunnel
    };
    let a = start(&hosts.a, &a_files, "a", with_preshared_key(1, 2));
    let b = start(&hosts.b, &b_files, "b", with_preshared_key(2, 1));
    Pinger::new(&hosts.a, Family::V4.inner(2)).wait_for_answer();
    for tunnel in [&a, &b] {
        for pid in [tunnel.id(), tunnel.worker().unwrap()] {
            for file in ["cmdline", "environ"] {
                let path = format!("/proc/{pid}/{file}");
                assert_holds_no_key(&fs::read(&path).unwrap(), &path);
            }
        }
        // All that it can tell: how it is, what it counted, other keys, a worker that dies.
        tunnel.traffic();
        tunnel.signal(Signal::HUP);
    }
    for (host, files, name) in [(&hosts.a, &a_files, "a"), (&hosts.b, &b_files, "b")] {
        for arguments in [&["status"][..], &["status", "--json"], &["-vv", "reload", name]] {
            let ended = adit_in(host, files, arguments);
            assert_eq!(ended.code, Some(0), "{}", ended.said);
            assert_tells_no_key(&ended.printed);
            assert_tells_no_key(&ended.said);
        }
    }
    let worker = a.worker().unwrap();
    sh::sh(&hosts.a, &format!("kill -ABRT {worker}"));
    crate::rig::soon().wait_until(|| a.worker().filter(|&pid| pid != worker)).unwrap();
    for tunnel in [a, b] {
        let ended = tunnel.end(Signal::TERM);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        assert_tells_no_key(&ended.said);
        assert_tells_no_key(&ended.printed);
    }
    for files in [&a_files, &b_files] {
        for entry in fs::read_dir(files.runtime_directory()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                assert_holds_no_key(&fs::read(&path).unwrap(), path.to_str().unwrap());
            }
        }
    }
}

/// Whether a process may be dumped and traced by its user: then the files that stand for it are its user's
/// (proc(5), `task_dump_owner` in fs/proc/base.c).
fn is_dumpable(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    let uid: u32 = uid.split('\t').next().unwrap().parse().unwrap();
    assert_ne!(uid, 0, "of root's processes this says nothing");
    fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid() == uid
}

/// Runs the rest of the command line as nobody, who may open a node of the tun driver of their own.
const AS_NOBODY: &str = "set -e
mount -t tmpfs -o mode=755 none /dev/net
mknod -m 666 /dev/net/tun c 10 200
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all \
    --no-new-privs --pdeathsig KILL -- \"$@\"";

#[test]
fn neither_process_can_be_dumped_by_its_user() {
    let programs = ["unshare", "setpriv", "mount", "mknod"];
    if !runnable() || !may_change_users() || !programs.into_iter().all(available) {
        return;
    }
    let hosts = TwoHosts::build().unwrap();
    let files = files(2);
    let device = ["device", "add", DEVICE, "--user", "65534", "--up", "--address", "192.0.2.2/24"];
    run_adit(&hosts.b, &[&device[..], &["--address", "fd00:7::2/64"]].concat());
    // A program, files and a directory that a user without privilege can get at.
    let program = files.path().join("adit");
    fs::copy(lab::binary().unwrap(), &program).unwrap();
    let file = files.write("b", &with_preshared_key(2, 1));
    for path in [files.path().join("2.key"), files.path().join(PRESHARED_FILE)] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let (program, file) = (program.to_str().unwrap(), file.to_str().unwrap());
    let arguments = ["--mount", "sh", "-c", AS_NOBODY, "sh", program, "up", file];
    let mut tunnel = Tunnel::of(spawn(&hosts.b, "unshare", &arguments));
    tunnel.wait_for("tunnel \"b\" is up");
    assert!(!is_dumpable(tunnel.worker().unwrap()), "the worker");
    assert!(!is_dumpable(tunnel.id()), "the supervisor");
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
}
