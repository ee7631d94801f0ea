//! What several tests of the lab need.

#![allow(dead_code, reason = "every test program uses a part of it")]

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{Deadline, Host};

/// Whether namespaces can be made. Says why not, and insists on it where `CI` is `true`.
pub(crate) fn privileged() -> bool {
    match Host::new("probe") {
        Ok(_) => true,
        Err(error) => {
            let insisted = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!insisted, "{error}: {:?}", std::error::Error::source(&error));
            eprintln!("skipped: {error}: {:?}", std::error::Error::source(&error));
            false
        }
    }
}

/// The kernel's name of a host's namespace: `net:[4026532000]`.
pub(crate) fn namespace(host: &Host) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", host.as_fd().as_raw_fd())).unwrap()
}

/// Fails unless no thread and no descriptor on this machine holds one of `namespaces` any more.
pub(crate) fn assert_gone(namespaces: &[PathBuf]) {
    let gone = Deadline::after(Duration::from_secs(10))
        .wait_until(|| holders(namespaces).is_empty().then_some(()));
    assert!(gone.is_ok(), "still held by {:?}", holders(namespaces));
}

/// The files below /proc that refer to one of `namespaces`.
pub(crate) fn holders(namespaces: &[PathBuf]) -> Vec<PathBuf> {
    let processes = children(Path::new("/proc")).into_iter().filter(|path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
    });
    processes
        .flat_map(|process| {
            let threads = children(&process.join("task")).into_iter();
            let mut links: Vec<_> = threads.map(|thread| thread.join("ns/net")).collect();
            links.extend(children(&process.join("fd")));
            links
        })
        .filter(|link| fs::read_link(link).is_ok_and(|target| namespaces.contains(&target)))
        .collect()
}

/// The processes that any thread of a process started, and those that they started, and so on.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let lists = children(&Path::new("/proc").join(pid.to_string()).join("task"));
    let lists = lists.into_iter().filter_map(|task| fs::read_to_string(task.join("children")).ok());
    let lists: Vec<_> = lists.collect();
    let own = lists.iter().flat_map(|list| list.split_whitespace());
    own.map(|pid| pid.parse().unwrap())
        .flat_map(|child| [vec![child], descendants(child)].concat())
        .collect()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    // Processes come and go; one that is gone holds nothing.
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Whether the process with that directory in /proc has ended, reaped or not.
pub(crate) fn has_ended(process: &Path) -> bool {
    let Ok(stat) = fs::read_to_string(process.join("stat")) else { return true };
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z"))
}

/// The program `adit`. Says why not, and insists on it where `CI` is `true`.
pub(crate) fn adit() -> Option<PathBuf> {
    match lab::binary() {
        Ok(adit) => Some(adit),
        Err(error) => {
            let insisted = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!insisted, "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// A directory of this test's own, removed in the end.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
