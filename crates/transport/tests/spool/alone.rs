//! Tests that mount: each in a process of its own, in a mount namespace of its own, which ends with it.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Which test the process in the namespace is for.
const ALONE: &str = "ADIT_SPOOL_ALONE";

/// How long a file system may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `body` in a child process that is this test, `name`, once more, in a mount namespace from which
/// nothing gets out.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var(ALONE).as_deref() == Ok(name) {
        return body();
    }
    let child = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, name)
        .output();
    match child {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "{text}");
            print!("{text}");
        }
        // The code with which a test fails; any other is unshare's.
        Ok(output) if output.status.code() == Some(101) => {
            let (out, err) = (&output.stdout, &output.stderr);
            panic!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
        }
        refused => skip(&format!("no mount namespace can be made: {refused:?}")),
    }
}

/// Says why a test cannot run, which must not happen unnoticed where it always can.
pub(crate) fn skip(why: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
    println!("skipped: {why}");
}

/// Something that is mounted as long as this lives, and who serves it.
pub(crate) struct Mount<'a> {
    target: &'a Path,
    server: Option<Child>,
}

impl<'a> Mount<'a> {
    /// Mounts a file system of the kernel; `None`, having said why, if that is not possible.
    pub(crate) fn new(kind: &str, options: &str, target: &'a Path) -> Option<Self> {
        let data = std::ffi::CString::new(options).unwrap();
        match mount("none", target, kind, MountFlags::empty(), data.as_c_str()) {
            Ok(()) => Some(Self { target, server: None }),
            Err(error) => {
                skip(&format!("no {kind} can be mounted: {error}"));
                None
            }
        }
    }

    /// What `mount` or a program that serves a file system has mounted, or is about to.
    pub(crate) fn made_by(server: Child, target: &'a Path) -> Self {
        let mount = Self { target, server: Some(server) };
        let start = Instant::now();
        while !is_mounted(target) {
            assert!(start.elapsed() < PATIENCE, "{} is not mounted", target.display());
            std::thread::yield_now();
        }
        mount
    }

    /// Kills who serves it, and leaves the mount.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.target, UnmountFlags::DETACH);
        self.kill();
    }
}

fn is_mounted(target: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == target.to_str())
}
