//! A file system that passes everything on to another directory, and misbehaves on request.
//!
//! It speaks FUSE with the kernel itself, in a process of its own, so that neither end can hold up the
//! other's death. It lets the kernel remember names and attributes for a second, as virtiofs does. What
//! misbehaves is what somebody else does behind the mount; what the mount itself did looks right.

mod faults;
mod server;
mod wire;

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, mount};

use super::alone::{Mount, skip};
use super::rig::Scratch;
pub(crate) use faults::Faults;

/// Says to the serving process where everything is.
const HOME: &str = "ADIT_SPOOL_FUSE";

/// What is mounted and what is behind it.
pub(crate) struct Folders {
    scratch: Scratch,
    mounted: PathBuf,
    behind: PathBuf,
}

impl Folders {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let (mounted, behind) = (scratch.path().join("mounted"), scratch.path().join("behind"));
        std::fs::create_dir(&mounted).unwrap();
        std::fs::create_dir(&behind).unwrap();
        Self { scratch, mounted, behind }
    }

    /// Where it is mounted.
    pub(crate) fn mounted(&self) -> &Path {
        &self.mounted
    }

    /// The directory that it shows.
    pub(crate) fn behind(&self) -> &Path {
        &self.behind
    }

    /// How it misbehaves from now on.
    pub(crate) fn set(&self, faults: &Faults) {
        faults.write(self.scratch.path());
    }

    /// Mounts it; `None`, having said why, if that is not possible.
    pub(crate) fn mount(&self) -> Option<Mount<'_>> {
        match self.try_mount() {
            Ok(mount) => Some(mount),
            Err(error) => {
                skip(&format!("no FUSE file system can be mounted: {error}"));
                None
            }
        }
    }

    fn try_mount(&self) -> std::io::Result<Mount<'_>> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("adit-test", &self.mounted, "fuse", flags, options.as_c_str())?;
        let server = Command::new(std::env::current_exe()?)
            .args(["--exact", "fuse::serves_in_a_process_of_its_own"])
            .env(HOME, self.scratch.path())
            .stdin(device)
            .stdout(std::process::Stdio::null())
            .spawn()?;
        Ok(Mount::made_by(server, &self.mounted))
    }
}

#[test]
fn serves_in_a_process_of_its_own() {
    if let Some(home) = std::env::var_os(HOME) {
        server::serve(Path::new(&home));
    }
}
