//! Files that are either as they were or as they shall be, whatever happens meanwhile.
//!
//! A file is written under another name beside its place, synced, and renamed; then the directory is synced. Who reads it
//! finds all of one state.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// The mode of a file that holds secrets.
const SECRET: u32 = 0o600;

/// The permission bits that a file keeps.
const PERMISSIONS: u32 = 0o7777;

/// Makes a file that was not there, and that only its owner may read.
pub(crate) fn create(path: &Path, octets: &[u8]) -> io::Result<()> {
    let draft = Draft::new(path, SECRET)?;
    draft.write(octets)?;
    renameat_with(CWD, &draft.path, CWD, path, RenameFlags::NOREPLACE)?;
    draft.settle(path)
}

/// Replaces what is in a file, which keeps its mode and its owner; a symbolic link stays one. A file that was not there is
/// one that only its owner may read.
pub(crate) fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        found => found?,
    };
    let draft = Draft::new(&path, SECRET)?;
    draft.write(octets)?;
    match fs::metadata(&path) {
        Ok(before) => {
            let made = draft.file.metadata()?;
            if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
                fchown(&draft.file, Some(before.uid()), Some(before.gid()))?;
            }
            let mode = before.mode() & PERMISSIONS;
            draft.file.set_permissions(Permissions::from_mode(mode))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    draft.file.sync_all()?;
    fs::rename(&draft.path, &path)?;
    draft.settle(&path)
}

/// A file that has no place yet; dropping it removes it.
struct Draft {
    path: PathBuf,
    file: File,
    placed: bool,
}

impl Draft {
    fn new(place: &Path, mode: u32) -> io::Result<Self> {
        let name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut draft = OsString::from(".");
        draft.push(name);
        draft.push(format!(".{}", std::process::id()));
        let path = place.with_file_name(draft);
        // Of a process that had this number and was killed.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        Ok(Self { path, file, placed: false })
    }

    fn write(&self, octets: &[u8]) -> io::Result<()> {
        (&self.file).write_all(octets)?;
        self.file.sync_all()
    }

    /// It is at `place`, and will be after a power cut.
    fn settle(mut self, place: &Path) -> io::Result<()> {
        self.placed = true;
        let directory = place.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::scratch::Scratch;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & PERMISSIONS
    }

    #[test]
    fn a_file_that_is_there_is_not_made_again() {
        let scratch = Scratch::new("create");
        let path = scratch.path("a.key");
        create(&path, b"one").unwrap();
        assert_eq!(mode(&path), SECRET);
        assert_eq!(create(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(scratch.names(), ["a.key"]);
    }

    #[test]
    fn a_file_keeps_its_mode_and_its_link_when_it_is_replaced() {
        let scratch = Scratch::new("replace");
        let (path, link) = (scratch.path("a.toml"), scratch.path("link"));
        fs::write(&path, "one").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        symlink("a.toml", &link).unwrap();
        replace(&link, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o644);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        replace(&scratch.path("b"), b"new").unwrap();
        assert_eq!(mode(&scratch.path("b")), SECRET);
        assert_eq!(scratch.names(), ["a.toml", "b", "link"]);
    }
}
