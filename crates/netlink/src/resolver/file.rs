//! Reading and replacing a file that others read at any moment.
//!
//! A file is filled under another name in the same directory and renamed, so that whoever reads sees
//! the former or the new one. A file that is a mount point cannot be renamed over (`EBUSY`), as in
//! containers and in `ip netns exec`; it is written in place, and for a moment is a prefix of what it
//! shall be.
//!
//! Only regular files are opened for reading: a descriptor is first taken with `O_PATH`, which touches
//! nothing, and looked at.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open, readlinkat};
use rustix::io::Errno;

use super::{Former, Octets, ResolverError};

/// The largest file, in octets.
const SIZE_LIMIT: u64 = 64 * 1024;

/// The permissions of a file where none was (those of every resolv.conf: all programs read it).
const MODE: u32 = 0o644;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The path.
    pub(super) path: PathBuf,
    /// What is there itself.
    pub(super) former: Former,
    /// What a reader gets who follows links; empty if there is nothing.
    pub(super) contents: Vec<u8>,
    /// Where it leads to when all links are followed.
    pub(super) leads_to: Option<PathBuf>,
}

pub(super) fn read(path: &Path) -> Result<Found, ResolverError> {
    let found = |former, contents| {
        let leads_to = fs::canonicalize(path).ok();
        Found { path: path.to_owned(), former, contents, leads_to }
    };
    let failed = |source| ResolverError::Read { path: path.to_owned(), source };
    let Some(itself) = look(path, OFlags::NOFOLLOW).map_err(failed)? else {
        return Ok(found(Former::Missing, Vec::new()));
    };
    let stat = fstat(&itself).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        let contents = contents(path, &itself)?;
        let former = Former::File {
            contents: Octets(contents.clone()),
            mode: stat.st_mode & 0o7777,
            owner: stat.st_uid,
            group: stat.st_gid,
        };
        return Ok(found(former, contents));
    }
    let target = readlinkat(&itself, "", Vec::new()).map_err(|errno| failed(errno.into()))?;
    let former = Former::Symlink { target: Octets(target.into_bytes()) };
    let end = look(path, OFlags::empty()).map_err(failed)?;
    let contents = end.map_or_else(|| Ok(Vec::new()), |end| contents(path, &end))?;
    Ok(found(former, contents))
}

/// Takes hold of what is at a path without opening it.
fn look(path: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    match open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty()) {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn contents(path: &Path, file: &OwnedFd) -> Result<Vec<u8>, ResolverError> {
    let failed = |source| ResolverError::Read { path: path.to_owned(), source };
    let stat = fstat(file).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ResolverError::NotRegular { path: path.to_owned() });
    }
    let mut contents = Vec::new();
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .and_then(|file| file.take(SIZE_LIMIT + 1).read_to_end(&mut contents))
        .map_err(failed)?;
    if contents.len() as u64 > SIZE_LIMIT {
        return Err(ResolverError::TooLarge { path: path.to_owned() });
    }
    Ok(contents)
}

/// Puts a file in the place of what was there, with its permissions and owner if it was one.
pub(super) fn replace(
    path: &Path,
    contents: &[u8],
    attributes: &Former,
) -> Result<(), ResolverError> {
    let renamed = by_rename(path, |temporary| fill(temporary, contents, attributes));
    let outcome = match renamed {
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            in_place(path, contents)
        }
        outcome => outcome,
    };
    outcome.map_err(|source| ResolverError::Write { path: path.to_owned(), source })
}

/// Puts there again what was there before.
pub(super) fn restore(path: &Path, before: &Former) -> Result<(), ResolverError> {
    let outcome = match before {
        Former::File { contents, .. } => return replace(path, &contents.0, before),
        Former::Symlink { target } => {
            by_rename(path, |temporary| symlink(OsStr::from_bytes(&target.0), temporary))
        }
        Former::Missing => fs::remove_file(path).and_then(|()| sync_directory(path)),
    };
    outcome.map_err(|source| ResolverError::Write { path: path.to_owned(), source })
}

fn by_rename(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary(path);
    // One that a crash left behind.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let outcome = make(&temporary).and_then(|()| fs::rename(&temporary, path));
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome.and_then(|()| sync_directory(path))
}

fn fill(temporary: &Path, contents: &[u8], attributes: &Former) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(contents)?;
    let mode = match *attributes {
        Former::File { mode, owner, group, .. } => {
            fchown(&file, Some(owner), Some(group))?;
            mode
        }
        _ => MODE,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

fn in_place(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let mut file = options.write(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    file.set_len(0)?;
    file.write_all(contents)?;
    file.sync_all()
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".adit");
    path.with_file_name(name)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
}
