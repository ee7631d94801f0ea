//! Hosts with nothing in common but a folder, and tunnels through it.
//!
//! ```text
//!   host A, number 1                                          host B, number 2
//!   adit0 192.0.2.1/24, fd00:7::1/64 ........................ adit0 192.0.2.2/24, fd00:7::2/64
//!   folder ---- adit1-LABEL-RUN/, one for each side --------- folder
//! ```

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use lab::{Host, TwoHosts};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use transport::spool::name::{ALIVE, FileName};

use super::pair::{self, Family};
use super::ping::Pinger;
use super::sealed::{self, Station, keys};
use super::sh::sh;
use super::tunnel::{DEVICE, Files, Tunnel};

/// What the names of inboxes begin with.
const INBOX: &str = "adit1-";

/// A folder that hosts share, with what is in it removed in the end.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Holds the folder.
    _files: Files,
}

impl Folder {
    /// An empty one in which everybody may write.
    pub(crate) fn new() -> Self {
        let files = Files::new();
        let folder = Self { path: files.path().join("share"), _files: files };
        folder.make();
        folder
    }

    /// Makes the folder, which is not there.
    pub(crate) fn make(&self) {
        fs::create_dir(&self.path).unwrap();
        self.set_mode(0o777);
    }

    /// Gives it to a user, who may do with it what `mode` says.
    pub(crate) fn give_to(&self, user: u32, mode: u32) {
        chown(&self.path, Some(user), Some(user)).unwrap();
        self.set_mode(mode);
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(&self.path, Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// As an endpoint.
    pub(crate) fn url(&self) -> String {
        format!("spool://{}", self.path.display())
    }

    /// The inboxes in it, of whatever side.
    pub(crate) fn inboxes(&self) -> Vec<PathBuf> {
        let inboxes = children(&self.path).into_iter();
        inboxes.filter(|path| path.is_dir() && name(path).starts_with(INBOX)).collect()
    }

    /// Everything in it but what is ours: paths, and what is known of each without reading it.
    pub(crate) fn foreign(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        describe_all(&self.path, &mut found);
        found
    }

    /// How many files are in the inboxes, and their octets.
    pub(crate) fn size(&self) -> (usize, u64) {
        let files = self.inboxes().into_iter().flat_map(|inbox| children(&inbox));
        // Files come and go.
        let sizes = files.filter_map(|file| fs::symlink_metadata(file).ok());
        sizes.fold((0, 0), |(files, octets), file| (files + 1, octets + file.len()))
    }

    /// Fails unless nothing is in it.
    pub(crate) fn assert_empty(&self) {
        let left = children(&self.path);
        assert!(left.is_empty(), "{left:?}");
    }
}

/// What is in a directory, if it is there.
pub(crate) fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap()
}

fn describe_all(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for path in children(directory) {
        // A link is not to be followed: reading it would leave a trace.
        let Ok(entry) = fs::symlink_metadata(&path) else { continue };
        let in_inbox = name(directory).starts_with(INBOX);
        let is_ours = if entry.is_dir() {
            name(&path).starts_with(INBOX)
        } else {
            in_inbox && (name(&path) == ALIVE || FileName::parse(name(&path).as_bytes()).is_some())
        };
        if !is_ours {
            found.insert(path.clone(), describe(&entry));
        }
        if entry.is_dir() {
            describe_all(&path, found);
        }
    }
}

/// Of everything that looking at it does not change.
fn describe(entry: &fs::Metadata) -> String {
    let read = if entry.is_dir() { 0 } else { entry.atime_nsec() };
    format!(
        "{:?} inode {} mode {:o} links {} owner {}:{} size {} changed {}.{} and {}.{}, read {read}",
        entry.file_type(),
        entry.ino(),
        entry.mode(),
        entry.nlink(),
        entry.uid(),
        entry.gid(),
        entry.len(),
        entry.mtime(),
        entry.mtime_nsec(),
        entry.ctime(),
        entry.ctime_nsec(),
    )
}

/// The hosts, whose wire is gone; none, with a word about why, if this user may not build them.
pub(crate) fn hosts() -> Option<TwoHosts> {
    let hosts = pair::hosts()?;
    sh(&hosts.a, "ip link delete eth0");
    Some(hosts)
}

/// The configuration of the host with `number`, with more lines in `[device]` and `[local]`, and with these peers.
pub(crate) fn toml(
    number: u8,
    folder: &Folder,
    device: &str,
    local: &str,
    peers: &[String],
) -> String {
    let key = format!("private-key-file = \"{number}.key\"");
    plain(number, folder, device, &format!("{key}\n{local}"), peers)
}

/// The same without security.
pub(crate) fn open_toml(number: u8, folder: &Folder, device: &str) -> String {
    let peer = format!("[[peer]]\nname = \"peer\"\nendpoints = [\"{}\"]\n", folder.url());
    plain(number, folder, device, "security = \"none\"", &[peer])
}

fn plain(number: u8, folder: &Folder, device: &str, local: &str, peers: &[String]) -> String {
    let [v4, v6] = Family::BOTH.map(|family| family.inner(number));
    let (url, peers) = (folder.url(), peers.concat());
    format!(
        "[device]\nname = \"{DEVICE}\"\naddresses = [\"{v4}/24\", \"{v6}/64\"]\n{device}\n\
         [local]\nlisten = [\"{url}\"]\n{local}\n{peers}"
    )
}

/// The peer that is the host with `number`, alone on its device.
pub(crate) fn only_peer(number: u8, folder: &Folder) -> String {
    let (key, url) = (keys(number).public, folder.url());
    format!("[[peer]]\nname = \"peer-{number}\"\npublic-key = \"{key}\"\nendpoints = [\"{url}\"]\n")
}

/// The peer that is the host with `number`, one of several; `more` are other prefixes that it owns.
pub(crate) fn peer(number: u8, folder: &Folder, more: &[&str]) -> String {
    let [v4, v6] = Family::BOTH.map(|family| family.inner(number));
    let own = [format!("{v4}/32"), format!("{v6}/128")];
    let prefixes: Vec<_> = own.iter().map(String::as_str).chain(more.iter().copied()).collect();
    format!("{}allowed-ips = {prefixes:?}\n", only_peer(number, folder))
}

/// Two hosts, each with its end of a tunnel through a folder; tunnels end first.
#[derive(Debug)]
pub(crate) struct FolderPair {
    pub(crate) a: Station,
    pub(crate) b: Station,
    pub(crate) hosts: TwoHosts,
    pub(crate) folder: Folder,
}

impl FolderPair {
    /// With everything by default; none, with a word about why, if this user may not build it.
    pub(crate) fn up() -> Option<Self> {
        Self::with(["", ""])
    }

    /// With more lines in `[device]` of each.
    pub(crate) fn with(device: [&str; 2]) -> Option<Self> {
        Self::of(Folder::new(), |folder| tomls(folder, device))
    }

    /// Without security, and with more lines in `[device]` of each.
    pub(crate) fn open(device: [&str; 2]) -> Option<Self> {
        Self::of(Folder::new(), |folder| {
            [open_toml(1, folder, device[0]), open_toml(2, folder, device[1])]
        })
    }

    /// Through `folder`, with whatever configurations; waits until something passes.
    pub(crate) fn of(folder: Folder, tomls: impl Fn(&Folder) -> [String; 2]) -> Option<Self> {
        let hosts = hosts()?;
        let [one, other] = tomls(&folder);
        let a = Station::up(&hosts.a, 1, &one);
        let b = Station::up(&hosts.b, 2, &other);
        let pair = Self { a, b, hosts, folder };
        pair.wait_for_answers();
        Some(pair)
    }

    /// Waits until each host answers the other.
    pub(crate) fn wait_for_answers(&self) {
        for inner in Family::BOTH {
            Pinger::new(&self.hosts.a, inner.inner(2)).wait_for_answer();
            Pinger::new(&self.hosts.b, inner.inner(1)).wait_for_answer();
        }
    }
}

/// The configurations of both ends, with more lines in `[device]` of each.
pub(crate) fn tomls(folder: &Folder, device: [&str; 2]) -> [String; 2] {
    [
        toml(1, folder, device[0], "", &[only_peer(2, folder)]),
        toml(2, folder, device[1], "", &[only_peer(1, folder)]),
    ]
}

/// How a tunnel comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As everybody ends it: SIGTERM.
    Asked,
    /// Both its processes are killed at once: SIGKILL.
    Killed,
}

impl End {
    pub(crate) const ALL: [Self; 2] = [Self::Asked, Self::Killed];

    /// Ends the tunnel.
    pub(crate) fn meet(self, tunnel: Tunnel) {
        match self {
            Self::Asked => {
                let ended = tunnel.end(Signal::TERM);
                assert_eq!(ended.code, Some(0), "{}", ended.said);
            }
            Self::Killed => {
                let worker = tunnel.worker().and_then(|pid| {
                    pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()
                });
                tunnel.signal(Signal::KILL);
                // The kernel may have been faster.
                let _ = worker.as_ref().map(|worker| pidfd_send_signal(worker, Signal::KILL));
                let ended = tunnel.wait();
                assert_eq!(ended.code, None, "{}", ended.said);
                if let Some(worker) = worker {
                    super::soon().wait_readable(&[std::os::fd::AsFd::as_fd(&worker)]).unwrap();
                }
            }
        }
    }
}

impl Station {
    /// Ends the tunnel.
    pub(crate) fn end(self, end: End) -> Stopped {
        let Self { tunnel, files, number } = self;
        end.meet(tunnel);
        Stopped { files, number }
    }

    /// Ends the tunnel and starts it again.
    pub(crate) fn restart(self, host: &Host, end: End) -> Self {
        self.end(end).start(host)
    }
}

/// Ends tunnels as everybody ends them.
pub(crate) fn end_all<const COUNT: usize>(stations: [Station; COUNT]) {
    for station in stations {
        station.end(End::Asked);
    }
}

/// A station whose tunnel has ended.
#[derive(Debug)]
pub(crate) struct Stopped {
    files: Files,
    number: u8,
}

impl Stopped {
    /// Starts the tunnel again, with the configuration that it had.
    pub(crate) fn start(self, host: &Host) -> Station {
        let Self { files, number } = self;
        let name = sealed::name(number);
        let toml = fs::read_to_string(files.path().join(format!("{name}.toml"))).unwrap();
        let tunnel = Tunnel::up(host, &files, name, &toml);
        Station { tunnel, files, number }
    }
}

impl Stopped {
    /// What it leaves to look at.
    pub(crate) fn into_files(self) -> Files {
        self.files
    }
}
