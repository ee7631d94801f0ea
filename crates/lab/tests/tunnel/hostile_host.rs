//! Places for the journal, and kernels, with which no tunnel can be: a clear error, and nothing is changed.
//!
//! ```text
//!   host A: what holds journals is full, read-only, or holds something else; no nf_tables
//!   eth0 10.1.0.1/24, fd01::1/64; everything is compared before and after
//! ```

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::PathBuf;

use lab::TwoHosts;
use rustix::process::Signal;
use serde_json::Value;

use crate::rig::pair::{End, hosts};
use crate::rig::program::{self, available};
use crate::rig::sh::{assert_same, everything, sh};
use crate::rig::tunnel::{DEVICE, Files, Tunnel, adit_in};
use crate::rig::{private, soon, state};

const FORWARD: End = End::A.network("routes = [\"203.0.113.0/24\"]\nforward = true");

fn prepared() -> Option<TwoHosts> {
    if !available("ip") || !available("nft") {
        return None;
    }
    hosts()
}

/// Tries to bring a tunnel up whose journal's directory is what `mount` puts there.
fn assert_refused_on(mount: &str, errors: &[&str]) {
    if !private::available() {
        return;
    }
    let Some(hosts) = prepared() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let file = files.write("a", &FORWARD.toml());
    let directory = files.runtime_directory().display().to_string();
    let prepare = mount.replace("DIRECTORY", &directory);
    let ended = private::run(&hosts.a, &files, &prepare, &["up", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    for error in errors.iter().copied().chain([directory.as_str()]) {
        assert!(ended.said.contains(error), "{error}: {}", ended.said);
    }
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn a_directory_that_is_full() {
    let mount = "mount -t tmpfs -o size=4k tmpfs DIRECTORY && \
        head -c 4096 /dev/zero > DIRECTORY/rest";
    assert_refused_on(mount, &["a.journal", "No space left on device"]);
}

#[test]
fn a_directory_that_is_read_only() {
    let mount = "mount -t tmpfs -o ro tmpfs DIRECTORY";
    assert_refused_on(mount, &["a.journal", "Read-only file system"]);
}

/// Tries `up` and `down` with a journal there, which must stay as it is.
fn assert_refused_with(hosts: &TwoHosts, files: &Files, error: &str) {
    let journal = journal(files);
    let (before, was) = (everything(&hosts.a), fs::read(&journal).unwrap());
    let kind = fs::symlink_metadata(&journal).unwrap().file_type();
    let up = Tunnel::fail(&hosts.a, files, "a", &FORWARD.toml());
    let down = adit_in(&hosts.a, files, &["down", "a"]);
    for ended in [up, down] {
        assert_eq!(ended.code, Some(1), "{}", ended.said);
        assert!(ended.said.contains(error), "{error}: {}", ended.said);
        assert!(ended.said.contains(journal.to_str().unwrap()), "{}", ended.said);
    }
    assert_same(&before, &everything(&hosts.a));
    assert_eq!(fs::read(&journal).unwrap(), was);
    assert_eq!(fs::symlink_metadata(&journal).unwrap().file_type(), kind);
}

fn journal(files: &Files) -> PathBuf {
    files.runtime_directory().join("a.journal")
}

/// Writes a journal that looks like one of this program's.
fn write_journal(files: &Files, octets: &[u8]) {
    let _ = fs::remove_file(journal(files));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(journal(files)).unwrap();
    file.write_all(octets).unwrap();
}

/// The journal that a killed tunnel leaves: its first line, and the others.
fn left_behind(hosts: &TwoHosts, files: &Files) -> (Value, String) {
    let _ = Tunnel::up(&hosts.a, files, "a", &FORWARD.toml()).end(Signal::KILL);
    let gone = || state::link(&hosts.a, DEVICE).is_none().then_some(());
    soon().wait_until(gone).unwrap();
    let text = fs::read_to_string(journal(files)).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(!rest.is_empty());
    (serde_json::from_str(first).unwrap(), rest.to_owned())
}

#[test]
fn a_journal_that_is_garbage() {
    let Some(hosts) = prepared() else { return };
    let files = Files::new();
    for garbage in
        [&b"garbage\n"[..], b"\xff\xfe\x00\n\n", b"{}\n", b"{\"journal\":1}\n", b"[[[[\n"]
    {
        write_journal(&files, garbage);
        assert_refused_with(&hosts, &files, "a.journal line 1");
    }
}

#[test]
fn a_journal_with_a_step_that_is_garbage() {
    let Some(hosts) = prepared() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let (first, rest) = left_behind(&hosts, &files);
    write_journal(&files, format!("{first}\n{{\"no-such-step\":{{}}}}\n{rest}").as_bytes());
    assert_refused_with(&hosts, &files, "a.journal line 2");
    // Once it is whole again, it serves.
    write_journal(&files, format!("{first}\n{rest}").as_bytes());
    let down = adit_in(&hosts.a, &files, &["down", "a"]);
    assert_eq!(down.code, Some(0), "{}", down.said);
    assert_same(&before, &everything(&hosts.a));
}

/// Changes the first line of a journal that a killed tunnel has left, and expects `error`.
fn assert_refused_after(change: impl FnOnce(&mut Value), error: &str) {
    let Some(hosts) = prepared() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let (first, rest) = left_behind(&hosts, &files);
    let mut changed = first.clone();
    change(&mut changed);
    assert_ne!(changed, first);
    write_journal(&files, format!("{changed}\n{rest}").as_bytes());
    assert_refused_with(&hosts, &files, error);
    write_journal(&files, format!("{first}\n{rest}").as_bytes());
    let down = adit_in(&hosts.a, &files, &["down", "a"]);
    assert_eq!(down.code, Some(0), "{}", down.said);
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn a_journal_of_another_version() {
    let change = |first: &mut Value| first["journal"] = 9.into();
    assert_refused_after(change, "has version 9");
}

#[test]
fn a_journal_of_another_namespace() {
    let change = |first: &mut Value| first["of"]["place"]["netns"] = 7.into();
    assert_refused_after(change, "is of network namespace 7");
}

/// What it would take back ended with that boot, so it is in nobody's way.
#[test]
fn a_journal_of_an_earlier_boot() {
    let Some(hosts) = prepared() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let (mut first, rest) = left_behind(&hosts, &files);
    first["of"]["place"]["boot"] = "another".into();
    write_journal(&files, format!("{first}\n{rest}").as_bytes());
    // Here nothing was booted, so that it shows whether the journal is played back.
    let crashed = everything(&hosts.a);
    assert_ne!(before, crashed);
    let tunnel = Tunnel::up(&hosts.a, &files, "a", &FORWARD.toml());
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    assert!(!journal(&files).exists());
    assert_same(&crashed, &everything(&hosts.a));
}

#[test]
fn a_journal_that_is_a_symbolic_link() {
    let Some(hosts) = prepared() else { return };
    let files = Files::new();
    let target = files.path().join("target");
    fs::write(&target, "of someone else\n").unwrap();
    symlink(&target, journal(&files)).unwrap();
    assert_refused_with(&hosts, &files, "is a symbolic link");
    assert_eq!(fs::read_to_string(&target).unwrap(), "of someone else\n");
}

#[test]
fn a_kernel_without_nf_tables() {
    if !available("strace") {
        return;
    }
    let Some(hosts) = prepared() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let trace = files.path().join("trace");
    let options = format!("-qq -o {} -e trace=socket", trace.display());
    // Once to see which socket of the first thread it is, and once without it.
    let (code, said) = traced(&hosts, &files, &options, true);
    assert_eq!(code, Some(0), "{said}");
    let sockets = fs::read_to_string(&trace).unwrap();
    let place = sockets.lines().position(|line| line.contains("NETLINK_NETFILTER"));
    let place = place.unwrap_or_else(|| panic!("{sockets}")) + 1;
    let inject = format!("{options} -e inject=socket:error=EPROTONOSUPPORT:when={place}");
    let (code, said) = traced(&hosts, &files, &inject, false);
    assert_eq!(code, Some(1), "{said}");
    let sockets = fs::read_to_string(&trace).unwrap();
    let refused = sockets.lines().find(|line| line.contains("(INJECTED)")).unwrap_or_default();
    assert!(refused.contains("NETLINK_NETFILTER"), "{sockets}");
    assert!(said.contains("need nf_tables"), "{said}");
    assert_same(&before, &everything(&hosts.a));
    assert!(!journal(&files).exists());
}

/// Runs `adit up` under strace(1), and ends it when it is up if it shall come up.
fn traced(hosts: &TwoHosts, files: &Files, options: &str, comes_up: bool) -> (Option<i32>, String) {
    let file = files.write("a", &FORWARD.toml());
    let line = format!(
        "RUNTIME_DIRECTORY={} exec strace {options} {} up {}",
        files.runtime_directory().display(),
        lab::binary().unwrap().display(),
        file.display()
    );
    let mut tunnel = Tunnel::of(program::spawn(&hosts.a, "sh", &["-c", &line]));
    if comes_up {
        tunnel.wait_for("is up");
        let down = adit_in(&hosts.a, files, &["down", "a"]);
        assert_eq!(down.code, Some(0), "{}", down.said);
    }
    let ended = tunnel.wait();
    (ended.code, ended.said)
}

#[test]
fn a_host_where_nothing_can_be_run() {
    let Some(hosts) = prepared() else { return };
    // Neither nft(8) nor ip(8) nor sysctl(8) has a part in a tunnel.
    let (files, before) = (Files::new(), everything(&hosts.a));
    let file = files.write("a", &FORWARD.toml());
    let line = format!(
        "PATH=/nonexistent RUNTIME_DIRECTORY={} exec {} up {}",
        files.runtime_directory().display(),
        lab::binary().unwrap().display(),
        file.display()
    );
    let mut tunnel = Tunnel::of(program::spawn(&hosts.a, "sh", &["-c", &line]));
    tunnel.wait_for("is up");
    assert!(sh(&hosts.a, "nft list tables").contains("inet adit-a"));
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    assert_same(&before, &everything(&hosts.a));
}
