//! A worker gives up what it does not need.
//!
//! # Theory of operation
//!
//! Whoever takes a worker over, by a flaw in how it reads what the network sends, shall find a process that can carry
//! packets of this tunnel and nothing else. Several walls stand one behind the other, since each of
//! them may be missing on some kernel or in some container:
//!
//! | wall | what it keeps from the worker | needs |
//! |---|---|---|
//! | user and groups | files and processes of others | to start as root, and other users to be mapped |
//! | capabilities | the host's network, raw sockets | nothing |
//! | no new privileges | programs with the set-user-ID bit | nothing |
//! | not dumpable | being traced by other processes of its user, core files | nothing |
//! | landlock(7) | files but those in shared folders, TCP, signals and abstract sockets to others | Linux 5.13, 6.7, 6.12 |
//! | seccomp(2) | most system calls ([`filter`]) | x86-64, AArch64, RISC-V |
//!
//! Besides, the kernel kills the worker when the supervisor dies; it forgets that when the user
//! changes, so that comes after. The descriptors that the worker has stay as they are: what they were opened
//! for, the kernel has allowed already.
//!
//! A worker with a shared folder needs files, those in the folder. It becomes whoever may write there: its usual user if
//! everybody may, the folder's owner otherwise. That may be root, without any capability.
//!
//! The order matters: dropping bounding capabilities and changing the user need capabilities, and landlock and
//! seccomp without privilege need *no new privileges*. What cannot be applied is told, and is no reason to end.

mod filter;
mod user;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::channel::message::Confinement;

pub(super) use self::filter::apply as system_calls;

/// What a worker needs in its environment.
///
/// glibc gives every thread a heap of its own, and when it shrinks one for the first time, it opens a file to
/// find out how (`check_may_shrink_heap` in malloc/arena.c). One heap for all is the one that grows by brk(2), without
/// that question. Nothing is allocated where speed counts.
pub(crate) const ENVIRONMENT: [(&str, &str); 1] = [("MALLOC_ARENA_MAX", "1")];

/// The newest version of landlock whose restrictions are asked for; an older kernel gives what it has.
const LANDLOCK: ABI = ABI::V6;

/// Keeps what the process will know from core files and other processes. What it has got from outside: it must have
/// no descriptors but the standard ones.
pub(super) fn before_secrets() -> Vec<String> {
    // Said again below, where it may fail loudly: another user makes it dumpable or not by itself.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    inherited()
}

/// Puts up every wall but the last one. The process must have one thread. Of all files it keeps those in `folders`.
pub(super) fn privileges(inherited: &[String], folders: &[OwnedFd]) -> Confinement {
    let mut confinement = Confinement::default();
    let missing = &mut confinement.missing;
    if !inherited.is_empty() {
        missing.push(format!("descriptors: it has got {} from outside", inherited.join(", ")));
    }
    note(missing, "bounding capabilities", drop_bounding_set());
    note(missing, "ambient capabilities", rustix::thread::clear_ambient_capability_set());
    match user::change(folders.first()) {
        Ok(()) => {}
        Err(user::Refusal::Unmapped) => {
            missing.push("another user: this user namespace has none".into());
        }
        Err(user::Refusal::Root) => {
            missing.push("another user: the folder that it shares is root's".into());
        }
        Err(user::Refusal::Failed(error)) => confinement.still_root = Some(error.to_string()),
    }
    note(missing, "capabilities", drop_capabilities());
    note(missing, "no new privileges", rustix::thread::set_no_new_privs(true));
    let not_dumpable = DumpableBehavior::NotDumpable;
    note(missing, "not dumpable", rustix::process::set_dumpable_behavior(not_dumpable));
    let death = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    note(missing, "death with the supervisor", death);
    match restrict_files(folders) {
        Ok(RulesetStatus::FullyEnforced) => {}
        Ok(RulesetStatus::PartiallyEnforced) => missing.push("a part of landlock".into()),
        Ok(RulesetStatus::NotEnforced) => missing.push("landlock: not in this kernel".into()),
        Err(error) => missing.push(format!("landlock: {error}")),
    }
    confinement
}

/// Descriptors that came through the supervisor from whoever has started that, open for programs to come.
fn inherited() -> Vec<String> {
    // The one by which the directory is read is not there any more when its link is read.
    let numbers = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let paths: Vec<_> = numbers.map(|number| number.path()).collect();
    paths
        .iter()
        .filter(|path| fs::read_link(path).is_ok())
        .filter_map(|path| path.file_name()?.to_str())
        .filter(|number| !matches!(*number, "0" | "1" | "2"))
        .map(str::to_owned)
        .collect()
}

fn note(missing: &mut Vec<String>, wall: &str, result: Result<(), Errno>) {
    if let Err(error) = result {
        missing.push(format!("{wall}: {error}"));
    }
}

/// Gives up to get capabilities from a program; without privilege there are none to give up.
fn drop_bounding_set() -> Result<(), Errno> {
    if !rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for number in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
            1 << number,
        )) {
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), Errno> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}

/// No file but those in `folders`, no TCP, no signal and no abstract socket to others: there is no rule that allows any.
fn restrict_files(folders: &[OwnedFd]) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let in_folder = AccessFs::from_read(LANDLOCK) | AccessFs::from_write(LANDLOCK);
    let special = AccessFs::Execute
        | AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeSock
        | AccessFs::MakeFifo
        | AccessFs::MakeSym
        | AccessFs::IoctlDev
        | AccessFs::Refer;
    for folder in folders {
        ruleset = ruleset.add_rule(PathBeneath::new(folder.as_fd(), in_folder & !special))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::process::Command;

    use super::*;

    /// Tells a second process of this test program where the first one listens.
    const SECOND: &str = "ADIT_TEST_CONFINED";

    /// How the second process says that everything was denied.
    const DENIED: i32 = 7;

    /// What landlock alone denies to a process whose user may do it all.
    fn assert_is_denied(port: u16, abstract_name: &str) {
        let to_parent = rustix::process::getppid().unwrap();
        let signal = || rustix::process::test_kill_process(to_parent);
        let address = SocketAddr::from_abstract_name(abstract_name).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        UnixStream::connect_addr(&address).unwrap();
        signal().unwrap();
        File::open("/dev/null").unwrap();

        rustix::thread::set_no_new_privs(true).unwrap();
        let status = restrict_files(&[]).unwrap();
        assert_eq!(status, RulesetStatus::FullyEnforced);
        let denied = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        for file in ["/dev/null", "/etc/passwd", "/proc/self/status"] {
            denied(File::open(file).unwrap_err());
        }
        denied(fs::read_dir("/").unwrap_err());
        denied(File::create("/tmp/adit-confined").unwrap_err());
        denied(Command::new("/bin/true").status().unwrap_err());
        denied(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err());
        denied(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap_err());
        denied(UnixStream::connect_addr(&address).unwrap_err());
        denied(signal().unwrap_err().into());
    }

    #[test]
    fn landlock_denies_files_tcp_signals_and_abstract_sockets() {
        if let Some(told) = std::env::var_os(SECOND) {
            let told = told.into_string().unwrap();
            let (port, name) = told.split_once(' ').unwrap();
            assert_is_denied(port.parse().unwrap(), name);
            std::process::exit(DENIED);
        }
        if !has_all_of_landlock() {
            let why = "this kernel has not all of landlock that is asked for (Linux 6.12)";
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
            eprintln!("not run: {why}");
            return;
        }
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let name = format!("adit-confined-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _unix = UnixListener::bind_addr(&address).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "landlock_denies_files_tcp_signals_and_abstract_sockets";
        command.args(["--exact", &format!("worker::confine::tests::{test}")]);
        command.args(["--nocapture", "--test-threads=1"]);
        command.env(SECOND, format!("{} {name}", tcp.local_addr().unwrap().port()));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(DENIED), "{said}");
    }

    /// Whether this kernel knows signals and abstract sockets to be denied.
    fn has_all_of_landlock() -> bool {
        use landlock::CompatLevel::HardRequirement;
        use landlock::Compatible;
        let ruleset = Ruleset::default().set_compatibility(HardRequirement);
        let ruleset = ruleset.scope(Scope::from_all(LANDLOCK));
        ruleset.and_then(Ruleset::create).is_ok()
    }
}
