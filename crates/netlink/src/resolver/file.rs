//! Reading and replacing a file that others read at any moment.
//!
//! A file is filled under another name in the same directory and renamed, so that whoever reads sees
//! the former or the new one. A file that is a mount point cannot be renamed over (`EBUSY`), as in
//! containers and in `ip netns exec`; it is written in place.
//!
//! Writing in place takes three steps, each synced before the next. At no moment is the file empty, and a
//! crash at any moment leaves a [record](super::record) of what was there before the tunnel came:
//!
//! ```text
//!   what is there                     before: the former file; or ours, which ends with a record
//!   what is there   ……………   record    1. a spare record is put behind the longer of both
//!   what shall be   ……………   record    2. blank lines fill what is left
//!   what shall be                     3. the rest is cut off
//! ```
//!
//! A crash in the first step of the first change leaves a part of the record behind the former contents:
//! comment lines that mean nothing.
//!
//! Only regular files are opened for reading: a descriptor is first taken with `O_PATH`, which touches
//! nothing, and looked at.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open, readlinkat};
use rustix::io::Errno;

use super::record::Spare;
use super::{Former, Octets, ResolverError};

/// The largest file that is replaced, in octets.
pub(super) const FORMER_LIMIT: usize = 64 * 1024;

/// The largest file that is read, in octets: one that keeps a former one of nothing but line ends.
const SIZE_LIMIT: u64 = 4 * 64 * 1024;

/// The identifier of this boot (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// What of a file a crash leaves whole: a sector.
const SECTOR: usize = 512;

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
    /// The boot of the host, by which the next one is told from this.
    pub(super) boot: String,
}

pub(super) fn read(path: &Path) -> Result<Found, ResolverError> {
    let boot = boot()?;
    let found = |former, contents| {
        let leads_to = fs::canonicalize(path).ok();
        Found { path: path.to_owned(), former, contents, leads_to, boot }
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

/// Which boot this is.
fn boot() -> Result<String, ResolverError> {
    let failed = |source| ResolverError::Read { path: PathBuf::from(BOOT), source };
    fs::read_to_string(BOOT).map(|boot| boot.trim_end().to_owned()).map_err(failed)
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

/// Puts a file in the place of what was there, with its permissions and owner if it was one. `spare` is
/// for the case that the file has to be written in place.
pub(super) fn replace(
    path: &Path,
    contents: &[u8],
    attributes: &Former,
    spare: &Spare,
) -> Result<(), ResolverError> {
    let renamed = by_rename(path, |temporary| fill(temporary, contents, attributes));
    let outcome = match renamed {
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            in_place(path, contents, spare)
        }
        outcome => outcome,
    };
    outcome.map_err(|source| ResolverError::Write { path: path.to_owned(), source })
}

/// Puts there again what was there before; `spare` is that of what is there.
pub(super) fn restore(path: &Path, before: &Former, spare: &Spare) -> Result<(), ResolverError> {
    let outcome = match before {
        Former::File { contents, .. } => return replace(path, &contents.0, before, spare),
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

fn in_place(path: &Path, contents: &[u8], spare: &Spare) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = options.write(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let length = metadata.len();
    put_behind(&file, length, spare).inspect_err(|_| {
        // A full disk; the first error says why.
        let _ = file.set_len(length);
    })?;
    file.write_all_at(&padded(contents, spare.offset), 0)?;
    file.sync_all()?;
    file.set_len(contents.len() as u64)?;
    file.sync_all()
}

fn put_behind(file: &File, length: u64, spare: &Spare) -> io::Result<()> {
    // Of an earlier attempt that a crash ended, it may be there already.
    let start = length.min(spare.offset as u64);
    let gap = spare.offset - usize::try_from(start).map_err(io::Error::other)?;
    file.write_all_at(&[padded(b"", gap), spare.text.clone()].concat(), start)?;
    file.sync_all()
}

/// Whether a crash may have left this, while `ours` took the place of `former` or the other way round.
///
/// Where writes are not in the order of their syncs, a file may also be a beginning of either.
pub(super) fn is_torn(found: &[u8], ours: &[u8], former: &[u8], spare: &Spare) -> bool {
    let extended = |contents| [padded(contents, spare.offset), spare.text.clone()].concat();
    let (ours_extended, former_extended) = (extended(ours), extended(former));
    let sectors = ours_extended.chunks(SECTOR).zip(former_extended.chunks(SECTOR));
    let mut pairs = found.chunks(SECTOR).zip(sectors);
    let mixed = found.len() <= ours_extended.len()
        && pairs
            .all(|(found, (ours, former))| ours.starts_with(found) || former.starts_with(found));
    mixed || ours.starts_with(found) || former.starts_with(found)
}

/// Contents, and blank lines up to that length.
fn padded(contents: &[u8], length: usize) -> Vec<u8> {
    let mut padded = contents.to_vec();
    padded.resize(length.max(contents.len()), b'\n');
    padded
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
