//! The file of a journal: opened, checked, locked, and put in the place of another.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags};
use rustix::fs::{fallocate, flock, renameat_with};
use rustix::io::Errno;

use super::{JournalError, NAME_LIMIT, RESERVED_OCTETS, SIZE_LIMIT};

pub(super) const MODE: u32 = 0o600;

/// How often a path is opened again because its file was replaced while the lock was taken.
const ATTEMPTS: usize = 16;

/// How often a draft is tried that another process is writing, and how long is waited in between: it
/// is done as soon as it has synced.
const DRAFT_PATIENCE: (u32, Duration) = (500, Duration::from_millis(1));

/// Whether a file may take the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The path has to be free.
    Free,
    /// What is there is replaced.
    Taken,
}

/// The path of the journal of that name.
pub(super) fn path(directory: &Path, name: &str) -> Result<PathBuf, JournalError> {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    let good = (1..=NAME_LIMIT).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with(['.', '-']);
    if !good {
        return Err(JournalError::Name { name: name.to_owned() });
    }
    Ok(directory.join(format!("{name}.journal")))
}

/// Where a journal is written before it takes its place; no journal can have this name.
pub(super) fn draft_path(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push("~");
    PathBuf::from(draft)
}

/// Opens a journal; none if there is none.
fn open(path: &Path) -> Result<Option<File>, JournalError> {
    match options().open(path) {
        Ok(file) => {
            check(&file, path)?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            let fault = "is a symbolic link";
            Err(JournalError::Untrusted { path: path.to_owned(), fault })
        }
        Err(source) => Err(failed("open", path, source)),
    }
}

/// Opens a journal and takes its lock; none if there is none.
pub(super) fn open_locked(path: &Path) -> Result<Option<File>, JournalError> {
    for _ in 0..ATTEMPTS {
        let Some(file) = open(path)? else { return Ok(None) };
        lock(&file, path)?;
        if is_at(&file, path) {
            return Ok(Some(file));
        }
    }
    Err(JournalError::InUse { path: path.to_owned() })
}

/// Opens a journal whose lock someone else has; none if there is no such.
pub(super) fn open_held(path: &Path) -> Result<Option<File>, JournalError> {
    for _ in 0..ATTEMPTS {
        let Some(file) = open(path)? else { return Ok(None) };
        if is_locked(&file, path)? {
            return Ok(Some(file));
        }
        if is_at(&file, path) {
            return Ok(None);
        }
    }
    Err(JournalError::InUse { path: path.to_owned() })
}

/// Opens an empty file, locked and with room set aside, that can become the journal `path`.
///
/// What a crash left of another draft is used again.
pub(super) fn draft(path: &Path) -> Result<File, JournalError> {
    let draft = draft_path(path);
    for attempt in 0.. {
        let file = options()
            .create(true)
            .truncate(false)
            .mode(MODE)
            .open(&draft)
            .map_err(|source| failed("create", path, source))?;
        if let Err(error) = lock(&file, path) {
            // Another tunnel of that name tries to begin, and is writing its own.
            let in_use = matches!(error, JournalError::InUse { .. });
            if !in_use || attempt >= DRAFT_PATIENCE.0 {
                return Err(error);
            }
            thread::sleep(DRAFT_PATIENCE.1);
            continue;
        }
        // Whoever had the lock before may have renamed the file meanwhile: it is a journal then.
        if is_at(&file, &draft) {
            let prepared = prepare(&file, path);
            return prepared.map(|()| file).inspect_err(|_| discard(path));
        }
        if attempt >= DRAFT_PATIENCE.0 {
            break;
        }
    }
    Err(JournalError::InUse { path: path.to_owned() })
}

/// Puts a draft that is written in its place. Its lock goes with it.
pub(super) fn publish(file: &File, path: &Path, place: Place) -> Result<(), JournalError> {
    let published = file.sync_all().and_then(|()| {
        let flags = match place {
            Place::Free => RenameFlags::NOREPLACE,
            Place::Taken => RenameFlags::empty(),
        };
        Ok(renameat_with(CWD, draft_path(path), CWD, path, flags)?)
    });
    published.map_err(|source| {
        discard(path);
        match source.kind() {
            io::ErrorKind::AlreadyExists => JournalError::Exists { path: path.to_owned() },
            _ => failed("put in place", path, source),
        }
    })
}

/// Removes the draft that a crash left, and not one that somebody is writing.
pub(super) fn discard_left_behind(path: &Path) {
    let draft = draft_path(path);
    let Ok(file) = options().open(&draft) else { return };
    if lock(&file, path).is_ok() && is_at(&file, &draft) {
        discard(path);
        unlock(&file);
    }
}

/// Removes the draft that the caller has locked. If that fails too, the next one uses it again.
pub(super) fn discard(path: &Path) {
    let _ = fs::remove_file(draft_path(path));
}

/// Reads a journal from its beginning.
pub(super) fn read(file: &File, path: &Path) -> Result<Vec<u8>, JournalError> {
    let mut text = Vec::new();
    // One more than allowed, in case that the file has grown since it was looked at.
    let read = { file }.take(SIZE_LIMIT + 1).read_to_end(&mut text);
    read.map_err(|source| failed("read", path, source))?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= SIZE_LIMIT) {
        return Ok(text);
    }
    Err(JournalError::TooLarge { path: path.to_owned() })
}

/// Gives the lock back at once.
///
/// A child that another thread has forked and that has not come to exec yet has the descriptor too,
/// and would hold the lock a while longer.
pub(super) fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
}

/// Makes what happened in a journal's directory last.
pub(super) fn sync_directory(path: &Path) -> Result<(), JournalError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| failed("sync directory of", path, source))
}

pub(super) fn failed(call: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { call, path: path.to_owned(), source }
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(JournalError::InUse { path: path.to_owned() }),
        Err(errno) => Err(failed("lock", path, errno.into())),
    }
}

/// Whether someone has the lock of a journal.
fn is_locked(file: &File, path: &Path) -> Result<bool, JournalError> {
    // Shared, so that two who only ask are no obstacle to each other.
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            unlock(file);
            Ok(false)
        }
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(failed("lock", path, errno.into())),
    }
}

/// Whether the file that is open is the one at a path, and not one that was replaced or removed.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn prepare(file: &File, path: &Path) -> Result<(), JournalError> {
    // The mode of open(2) is subject to the umask.
    file.set_permissions(Permissions::from_mode(MODE))
        .map_err(|source| failed("chmod", path, source))?;
    check(file, path)?;
    file.set_len(0).map_err(|source| failed("shorten", path, source))?;
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, RESERVED_OCTETS) {
        // Some file systems cannot set room aside.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(failed("allocate", path, errno.into())),
    }
}

fn check(file: &File, path: &Path) -> Result<(), JournalError> {
    let metadata = file.metadata().map_err(|source| failed("stat", path, source))?;
    let fault = if !metadata.is_file() {
        "is not a regular file"
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if metadata.mode() & 0o7777 != MODE {
        "is not of mode 0600"
    } else if metadata.len() > SIZE_LIMIT {
        return Err(JournalError::TooLarge { path: path.to_owned() });
    } else {
        return Ok(());
    };
    Err(JournalError::Untrusted { path: path.to_owned(), fault })
}

/// Never follows a symbolic link, and never waits for the other end of a FIFO.
fn options() -> OpenOptions {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags.cast_signed());
    options
}
