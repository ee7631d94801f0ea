//! Who is attached to a device.
//!
//! No ioctl and no netlink attribute tells. The tun driver prints the name of the device into
//! `/proc/PID/fdinfo/N` of every descriptor that is attached (`tun_chr_show_fdinfo` in Linux
//! `drivers/net/tun.c`), and names are unique in a network namespace only. A process counts when one
//! of its threads is in the namespace of the caller. That misses a process that attached and then
//! went elsewhere with all its threads. One with threads in several namespaces may hold a device of
//! the same name in another of them; [`Holder::only_here`] tells. The descriptor itself would know,
//! but to ask it is to duplicate it, and that keeps a device in use that its owner closes. (So does
//! the kernel while it prints the line, for some microseconds.)
//!
//! A process that was handed the descriptor by its parent, which keeps it, is not counted: who looks for the one to
//! talk to wants the parent.
//!
//! Only processes of the same user are visible without privilege.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most attachments that are looked for; the list is for people.
pub const MAX_HOLDERS: usize = 256;

/// Octets of an `fdinfo` file that are read; the line of the driver is among the first.
const MAX_FDINFO: u64 = 4096;

/// A process that is attached to a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The process id, as the caller sees it.
    pub pid: u32,
    /// The name of the program, at most 15 octets, without control characters (`/proc/PID/comm`).
    pub command: String,
    /// Whether all its threads are in the namespace of the caller, so that it certainly is a device
    /// of this namespace that it holds.
    pub only_here: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// The visible processes in the network namespace of the calling thread that are attached to a
/// device, each with the device's name; sorted.
pub fn holders() -> Vec<(String, Holder)> {
    let Ok(here) = fs::read_link("/proc/thread-self/ns/net") else {
        return Vec::new();
    };
    let mut found: Vec<(String, Holder)> = entries(Path::new("/proc"))
        .flat_map(|process| attachments(&process, &here))
        .take(MAX_HOLDERS)
        .collect();
    found.sort();
    found.dedup();
    let held: Vec<(String, u32)> =
        found.iter().map(|(device, holder)| (device.clone(), holder.pid)).collect();
    found.retain(|(device, holder)| {
        parent_of(holder.pid).is_none_or(|parent| !held.contains(&(device.clone(), parent)))
    });
    found
}

/// The parent of a process, if that is visible: the field after the state in proc_pid_stat(5).
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parent_in(&String::from_utf8_lossy(&stat))
}

fn parent_in(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The devices that the process with the directory `process` holds, if it is in namespace `here`.
fn attachments(process: &Path, here: &Path) -> Vec<(String, Holder)> {
    let Some(pid) = process_id(process) else {
        return Vec::new();
    };
    let (inside, outside): (Vec<PathBuf>, Vec<PathBuf>) = entries(&process.join("task"))
        .filter_map(|task| fs::read_link(task.join("ns/net")).ok())
        .partition(|namespace| namespace == here);
    if inside.is_empty() {
        return Vec::new();
    }
    let command = command_name(&fs::read(process.join("comm")).unwrap_or_default());
    let holder = Holder { pid, command, only_here: outside.is_empty() };
    entries(&process.join("fdinfo"))
        .filter_map(|fdinfo| device_of(&fdinfo))
        .map(|device| (device, holder.clone()))
        .collect()
}

fn process_id(process: &Path) -> Option<u32> {
    process.file_name()?.to_str()?.parse().ok()
}

/// The name in `/proc/PID/comm`. The process chose it, so it may try to write to a terminal.
fn command_name(comm: &[u8]) -> String {
    let name = String::from_utf8_lossy(comm);
    name.trim_end_matches('\n').replace(char::is_control, "\u{fffd}")
}

fn device_of(fdinfo: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(fdinfo).ok()?.take(MAX_FDINFO).read_to_string(&mut text).ok()?;
    interface_line(&text)
}

/// The device in a text such as `flags:\t0104002\niff:\ttun0\n`; none if not attached.
fn interface_line(fdinfo: &str) -> Option<String> {
    let name = fdinfo.lines().find_map(|line| line.strip_prefix("iff:\t"))?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The entries of a directory; processes come and go, so what cannot be read is not there.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_tun_driver_names_the_device() {
        let fdinfo = "pos:\t0\nflags:\t0104002\nmnt_id:\t26\nino:\t87\niff:\ttun0\n";
        assert_eq!(interface_line(fdinfo).as_deref(), Some("tun0"));
    }

    #[test]
    fn a_program_cannot_write_to_the_terminal_with_its_name() {
        assert_eq!(command_name(b"openvpn\n"), "openvpn");
        assert_eq!(command_name(b"a\x1b[2J\xff\n"), "a\u{fffd}[2J\u{fffd}");
    }

    #[test]
    fn a_descriptor_without_device_is_not_attached() {
        assert_eq!(interface_line("pos:\t0\niff:\t\n"), None);
        assert_eq!(interface_line("pos:\t0\nflags:\t02\n"), None);
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("42 (a) b) 7 ) S 17 42 0 0"), Some(17));
        assert_eq!(parent_in("42 (adit) S"), None);
        assert_eq!(parent_in(""), None);
    }
}
