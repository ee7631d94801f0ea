//! Programs that tests run, but that must not be installed: systemd-resolved would take over the names of
//! this machine. They are unpacked below `target`, and only ever run in namespaces of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;
use crate::program;

/// The Debian packages; the second holds a library of the first.
const PACKAGES: [&str; 2] = ["systemd-resolved", "libsystemd-shared"];

/// Where systemd-resolved is on a system that has it.
const INSTALLED: &str = "lib/systemd/systemd-resolved";

/// The directory that holds systemd-resolved with its libraries; `None` where the system's own serves, or
/// where it cannot be had.
pub(crate) fn resolved() -> Option<PathBuf> {
    let directory = directory();
    let installed = Path::new("/").join(INSTALLED).exists();
    (!installed && directory.join(INSTALLED).exists()).then_some(directory)
}

/// Fetches and unpacks what is missing.
pub(super) fn fetch() -> Result<(), Failure> {
    let directory = directory();
    let present = |root: &Path| root.join(INSTALLED).exists();
    if present(Path::new("/")) || present(&directory) {
        return Ok(());
    }
    println!("setup: systemd-resolved is missing: it is asked to change the names of a host");
    if program::find("apt-get").is_none() || program::find("dpkg-deb").is_none() {
        println!("setup: it can be fetched on Debian and Ubuntu only");
        return Ok(());
    }
    let packages = directory.join("packages");
    let failed = |error| Failure::of(format!("create {}", packages.display()), error);
    fs::create_dir_all(&packages).map_err(failed)?;
    let mut download = Command::new("apt-get");
    // As root, apt would fetch as a user who may not write there.
    let options = ["--quiet", "-o", "APT::Sandbox::User=root", "download"];
    program::run(download.args(options).args(PACKAGES).current_dir(&packages))?;
    for package in fs::read_dir(&packages).map_err(failed)? {
        let package = package.map_err(failed)?.path();
        program::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&directory))?;
    }
    Ok(())
}

fn directory() -> PathBuf {
    program::root().join("target/unpacked")
}
