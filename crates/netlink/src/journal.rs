//! The write-ahead record of what undoes the changes to the host.
//!
//! # Theory of operation
//!
//! A journal is the file `NAME.journal`. Its first line says which version it is, and of which network
//! namespace and boot; each further line is one [`Undo`] as JSON. A line is written and synced *before*
//! its operation is applied, so after a crash at any moment the journal holds at least what was
//! applied. What it holds too much is harmless, since [`revert`](crate::plan::revert) takes back only
//! what it finds.
//!
//! ```text
//! create ── record, apply ── record, apply ── … ── revert, revert ── forget_all
//!                    crash ┄┄┄┄┄ load ── revert, revert ── forget_all
//! ```
//!
//! Only the last line can be torn, because every line is synced before the next is begun. It is one
//! whose operation was never applied, and is passed over. Any other line that cannot be read means
//! that the file is not what was written, and nothing of it is used.
//!
//! Room is set aside when the journal is created ([`RESERVED_OCTETS`]), so that a full disk is found
//! while nothing has been changed yet.
//!
//! # Invariants
//!
//! A journal belongs to one [`Place`]: after a reboot, or in another namespace, the numbers of its links
//! mean others or nothing, and [`Journal::load`] refuses it. While a journal is open the file is locked
//! (flock(2)): that of a running tunnel cannot be loaded. The file is a regular one of mode 0600 that
//! belongs to the caller; no symbolic link is followed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::plan::Undo;

/// The largest journal, in octets.
pub const SIZE_LIMIT: u64 = 1 << 20;

/// The room that is set aside for a journal, in octets: some hundred steps.
pub const RESERVED_OCTETS: u64 = 64 * 1024;

/// The longest name, in octets.
pub const NAME_LIMIT: usize = 64;

const VERSION: u32 = 1;

const MODE: u32 = 0o600;

/// Where and when a journal holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The network namespace: the inode of `/proc/thread-self/ns/net`.
    pub netns: u64,
    /// The boot: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// The octets of whole lines.
    length: u64,
    /// Where the line of the last step begins; none if there is none to strike.
    last: Option<u64>,
}

/// What a journal holds that a crash left behind.
#[derive(Debug)]
pub struct Recovered {
    /// The steps in the order of their operations; they are reverted from the last to the first.
    pub steps: Vec<Undo>,
    /// How many lines were torn: 0 or 1.
    pub torn: usize,
    /// The journal, to be forgotten once everything is reverted.
    pub journal: Journal,
}

/// A journal could not be written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// This cannot be the name of a journal.
    #[error(
        "journal name {name:?} is not 1 to {NAME_LIMIT} letters, digits, dots, hyphens or underscores, \
         of which neither a dot nor a hyphen comes first"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// There is a journal already: something was left behind, or a tunnel is running.
    #[error("create journal {path}: it exists already", path = .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A running tunnel has the journal open.
    #[error("journal {path} is in use", path = .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not one that this program would have written.
    #[error("journal {path} {fault}", path = .path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The journal is longer than [`SIZE_LIMIT`], or would be.
    #[error("journal {path} has more than {SIZE_LIMIT} octets", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line other than the last cannot be read.
    #[error("journal {path} line {line}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The journal was written before the last boot; what it would undo is gone.
    #[error("journal {path} is of an earlier boot", path = .path.display())]
    OtherBoot {
        /// The file.
        path: PathBuf,
    },
    /// The journal belongs to another network namespace.
    #[error("journal {path} is of network namespace {netns}", path = .path.display())]
    OtherNamespace {
        /// The file.
        path: PathBuf,
        /// The inode of the namespace.
        netns: u64,
    },
    /// The journal is of a version that this program does not know.
    #[error("journal {path} has version {version}", path = .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The file or its directory could not be used.
    #[error("{call} journal {path}", path = .path.display())]
    Io {
        /// What was attempted.
        call: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Drop for Journal {
    fn drop(&mut self) {
        // A child that another thread has forked and that has not come to exec yet has the descriptor
        // too, and would hold the lock a while longer.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    journal: u32,
    place: Place,
}

impl Journal {
    /// Creates the journal `NAME.journal` in `directory`, with room set aside, and syncs both.
    ///
    /// # Errors
    ///
    /// [`JournalError::Exists`] if there is one; [`JournalError::Io`] if the directory is missing,
    /// read-only or full. No file is left then.
    pub fn create(directory: &Path, name: &str, place: &Place) -> Result<Self, JournalError> {
        let path = path(directory, name)?;
        let file =
            options().create_new(true).mode(MODE).open(&path).map_err(|source| {
                match source.kind() {
                    io::ErrorKind::AlreadyExists => JournalError::Exists { path: path.clone() },
                    _ => JournalError::Io { call: "create", path: path.clone(), source },
                }
            })?;
        let mut journal = Self { path, file, length: 0, last: None };
        if let Err(error) = journal.begin(place) {
            // The file that could not be completed is of no use; the first error says why.
            let _ = fs::remove_file(&journal.path);
            return Err(error);
        }
        Ok(journal)
    }

    /// Loads what a crash left of the journal `NAME.journal` in `directory`; `None` if there is none.
    pub fn load(
        directory: &Path,
        name: &str,
        place: &Place,
    ) -> Result<Option<Recovered>, JournalError> {
        let path = path(directory, name)?;
        let file = match options().open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
                return Err(JournalError::Untrusted { path, fault: "is a symbolic link" });
            }
            Err(source) => return Err(JournalError::Io { call: "open", path, source }),
        };
        let mut journal = Self { path, file, length: 0, last: None };
        journal.check_file()?;
        journal.lock()?;
        let text = journal.read()?;
        let (steps, torn) = journal.parse(&text, place)?;
        Ok(Some(Recovered { steps, torn, journal }))
    }

    /// Writes and syncs a step. Only then may its operation be applied.
    pub fn record(&mut self, undo: &Undo) -> Result<(), JournalError> {
        let start = self.length;
        self.append(undo)?;
        self.last = Some(start);
        Ok(())
    }

    /// Takes the step back that was recorded last, because its operation was refused.
    ///
    /// Otherwise the journal would undo what stood in the operation's way: a route of someone else
    /// that looks the same. Does nothing a second time.
    pub fn strike(&mut self) -> Result<(), JournalError> {
        let Some(start) = self.last.take() else {
            return Ok(());
        };
        let struck = self.file.set_len(start).and_then(|()| self.file.sync_data());
        struck.map_err(|source| self.failed("shorten", source))?;
        self.length = start;
        Ok(())
    }

    /// Removes the file: there is nothing to be undone any more.
    pub fn forget_all(self) -> Result<(), JournalError> {
        fs::remove_file(&self.path).map_err(|source| self.failed("remove", source))?;
        self.sync_directory()
    }

    fn begin(&mut self, place: &Place) -> Result<(), JournalError> {
        self.lock()?;
        // The mode of open(2) is subject to the umask.
        self.file
            .set_permissions(Permissions::from_mode(MODE))
            .map_err(|source| self.failed("chmod", source))?;
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, RESERVED_OCTETS) {
            // Some file systems cannot set room aside.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(self.failed("allocate", errno.into())),
        }
        self.append(&Header { journal: VERSION, place: place.clone() })?;
        self.sync_directory()
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), JournalError> {
        let mut octets =
            serde_json::to_vec(line).map_err(|error| self.failed("encode", error.into()))?;
        octets.push(b'\n');
        let end = self.length.saturating_add(u64::try_from(octets.len()).unwrap_or(u64::MAX));
        if end > SIZE_LIMIT {
            return Err(JournalError::TooLarge { path: self.path.clone() });
        }
        let written = self.file.write_all_at(&octets, self.length);
        if let Err(source) = written.and_then(|()| self.file.sync_data()) {
            // A torn line may only be the last. If even this fails, the next line overwrites it.
            let _ = self.file.set_len(self.length);
            return Err(self.failed("write", source));
        }
        self.length = end;
        Ok(())
    }

    fn lock(&self) -> Result<(), JournalError> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(JournalError::InUse { path: self.path.clone() }),
            Err(errno) => Err(self.failed("lock", errno.into())),
        }
    }

    fn check_file(&self) -> Result<(), JournalError> {
        let metadata = self.file.metadata().map_err(|source| self.failed("stat", source))?;
        let fault = if !metadata.is_file() {
            "is not a regular file"
        } else if metadata.uid() != rustix::process::geteuid().as_raw() {
            "belongs to another user"
        } else if metadata.mode() & 0o7777 != MODE {
            "is not of mode 0600"
        } else if metadata.len() > SIZE_LIMIT {
            return Err(JournalError::TooLarge { path: self.path.clone() });
        } else {
            return Ok(());
        };
        Err(JournalError::Untrusted { path: self.path.clone(), fault })
    }

    fn read(&self) -> Result<Vec<u8>, JournalError> {
        let mut text = Vec::new();
        // One more than allowed, in case that the file has grown since it was looked at.
        let read = (&self.file).take(SIZE_LIMIT + 1).read_to_end(&mut text);
        read.map_err(|source| self.failed("read", source))?;
        if u64::try_from(text.len()).is_ok_and(|length| length <= SIZE_LIMIT) {
            return Ok(text);
        }
        Err(JournalError::TooLarge { path: self.path.clone() })
    }

    /// Takes the whole lines of a journal and notes where they end.
    fn parse(&mut self, text: &[u8], place: &Place) -> Result<(Vec<Undo>, usize), JournalError> {
        let whole = text.iter().rposition(|&octet| octet == b'\n').map_or(0, |end| end + 1);
        let (lines, rest) = text.split_at(whole);
        self.length = u64::try_from(whole).unwrap_or(u64::MAX);
        let torn = usize::from(!rest.is_empty());
        let mut lines = lines.split_inclusive(|&octet| octet == b'\n').enumerate();
        let Some((_, header)) = lines.next() else {
            // Not even the header was synced, so nothing was applied.
            return Ok((Vec::new(), torn));
        };
        self.check_header(header, place)?;
        let steps = lines.map(|(index, line)| self.parse_line(index, line));
        Ok((steps.collect::<Result<_, _>>()?, torn))
    }

    fn check_header(&self, line: &[u8], place: &Place) -> Result<(), JournalError> {
        let path = self.path.clone();
        let Header { journal: version, place: written } = self.parse_line(0, line)?;
        if version != VERSION {
            return Err(JournalError::Version { path, version });
        }
        if written.boot != place.boot {
            return Err(JournalError::OtherBoot { path });
        }
        if written.netns != place.netns {
            return Err(JournalError::OtherNamespace { path, netns: written.netns });
        }
        Ok(())
    }

    fn parse_line<'a, T: Deserialize<'a>>(
        &self,
        index: usize,
        line: &'a [u8],
    ) -> Result<T, JournalError> {
        serde_json::from_slice(line).map_err(|source| JournalError::Malformed {
            path: self.path.clone(),
            line: index + 1,
            source,
        })
    }

    fn sync_directory(&self) -> Result<(), JournalError> {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| self.failed("sync directory of", source))
    }

    fn failed(&self, call: &'static str, source: io::Error) -> JournalError {
        JournalError::Io { call, path: self.path.clone(), source }
    }
}

fn path(directory: &Path, name: &str) -> Result<PathBuf, JournalError> {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    let good = (1..=NAME_LIMIT).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with(['.', '-']);
    if !good {
        return Err(JournalError::Name { name: name.to_owned() });
    }
    Ok(directory.join(format!("{name}.journal")))
}

/// Never follows a symbolic link, and never waits for the other end of a FIFO.
fn options() -> OpenOptions {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags.cast_signed());
    options
}

#[cfg(test)]
mod tests;
