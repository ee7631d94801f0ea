//! A private directory for the files of a run.
//!
//! It is removed when it is dropped. What a killed run left is removed by the next one: the name
//! holds the identity of the run's process.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::geteuid;

use crate::identity::Identity;

const PREFIX: &str = "adit-lab-";

/// A directory that only this user may enter.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory below the system's temporary directory.
    pub(crate) fn create() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let above = std::env::temp_dir();
        sweep(&above);
        let Identity { pid, start_time } = Identity::own()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = above.join(format!("{PREFIX}{pid}-{start_time}-{count}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("remove {}: {error}", self.0.display());
        }
    }
}

/// Removes the directories of this user's runs that have ended.
fn sweep(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let owner = entry.metadata().ok().filter(fs::Metadata::is_dir).map(|entry| entry.uid());
        let run = entry.file_name().to_str().and_then(run_of);
        if owner == Some(geteuid().as_raw()) && run.is_some_and(|run| run.open().is_none()) {
            // Another run may be at it as well.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The process whose directory has that name.
fn run_of(name: &str) -> Option<Identity> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (pid, start_time) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Identity { pid, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_vanishes_with_its_owner_and_not_with_others() {
        let (one, other) = (Scratch::create().unwrap(), Scratch::create().unwrap());
        let path = one.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(one);
        assert!(!path.exists());
        assert!(other.path().is_dir());
    }

    #[test]
    fn what_a_killed_run_left_is_swept_and_nothing_else() {
        let above = Scratch::create().unwrap();
        let Identity { pid, start_time } = Identity::own().unwrap();
        let of_the_dead = above.path().join(format!("{PREFIX}{pid}-{}-0", start_time + 1));
        let of_the_living = above.path().join(format!("{PREFIX}{pid}-{start_time}-0"));
        let of_others = above.path().join("adit-lab-notes");
        for path in [&of_the_dead, &of_the_living, &of_others] {
            fs::create_dir(path).unwrap();
        }
        sweep(above.path());
        assert!(!of_the_dead.exists());
        assert!(of_the_living.exists() && of_others.exists());
    }
}
