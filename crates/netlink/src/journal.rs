//! The write-ahead record of what undoes the changes to the host.
//!
//! # Theory of operation
//!
//! A journal is the file `NAME.journal`. Its first line, the [`Header`], says which version it is, of
//! which network namespace and boot, and who holds it; each further line is one [`Undo`] as JSON. A
//! line is written and synced *before* its operation is applied, so after a crash at any moment the
//! journal holds at least what was applied. What it holds too much is harmless, since
//! [`revert`](crate::plan::Host::revert) takes back only what it finds.
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
//! A tunnel that runs for long withdraws steps. [`Journal::rewrite`] then writes the rest to a *draft*,
//! the file `NAME.journal~`, syncs it and renames it to the journal, so that a crash leaves either. A
//! journal is created in the same way and never seen without its header. A draft that a crash left is
//! never read; the next one is written over it.
//!
//! Room is set aside in every draft ([`RESERVED_OCTETS`]), so that a full disk is found while nothing
//! has been changed yet.
//!
//! # Invariants
//!
//! A journal belongs to one [`Place`]: after a reboot, or in another namespace, the numbers of its links
//! mean others or nothing, and [`Journal::load`] refuses it. While a journal is open the file is locked
//! (flock(2)), from before it has its name: that of a running tunnel cannot be loaded, and
//! [`Journal::holder`] tells who runs it. Whoever gets a lock looks whether the file still has the
//! name. The file is a regular one of mode 0600 that belongs to the caller; no symbolic link is
//! followed.

mod error;
mod file;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::plan::Undo;

pub use self::error::JournalError;

/// The largest journal, in octets: room for as many routes as there can be peers.
pub const SIZE_LIMIT: u64 = 16 << 20;

/// The room that is set aside for a journal, in octets: some hundred steps.
pub const RESERVED_OCTETS: u64 = 64 * 1024;

/// The longest name, in octets.
pub const NAME_LIMIT: usize = 64;

const VERSION: u32 = 1;

/// Where and when a journal holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The network namespace: the inode of `/proc/thread-self/ns/net`.
    pub netns: u64,
    /// The boot: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

/// Whose journal it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Where and when it holds.
    pub place: Place,
    /// The process that holds it, or that held it when it crashed.
    pub pid: u32,
    /// The tunnel's configuration; octets that are not UTF-8 are replaced.
    #[serde(serialize_with = "lossy")]
    pub config: Option<PathBuf>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// None if not even the header is whole.
    header: Option<Header>,
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

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    journal: u32,
    of: Header,
}

/// A line that tells its version, whatever else it tells.
#[derive(Deserialize)]
struct Version {
    journal: u32,
}

impl Drop for Journal {
    fn drop(&mut self) {
        file::unlock(&self.file);
    }
}

impl Journal {
    /// Creates the journal `NAME.journal` in `directory`, with room set aside, and syncs both.
    ///
    /// # Errors
    ///
    /// [`JournalError::Exists`] if there is one; [`JournalError::Io`] if the directory is missing,
    /// read-only or full. No file is left then.
    pub fn create(directory: &Path, name: &str, header: &Header) -> Result<Self, JournalError> {
        let path = file::path(directory, name)?;
        if fs::symlink_metadata(&path).is_ok() {
            return Err(JournalError::Exists { path });
        }
        let journal = Self::write(&path, Some(header), &[], file::Place::Free)?;
        file::sync_directory(&path).inspect_err(|_| {
            // The file that may not last is of no use; the first error says why.
            let _ = fs::remove_file(&path);
        })?;
        Ok(journal)
    }

    /// Loads what a crash left of the journal `NAME.journal` in `directory`; `None` if there is none.
    pub fn load(
        directory: &Path,
        name: &str,
        place: &Place,
    ) -> Result<Option<Recovered>, JournalError> {
        let path = file::path(directory, name)?;
        let Some(file) = file::open_locked(&path)? else {
            // What was killed before it had a journal may have left the draft of one.
            file::discard_left_behind(&path);
            return Ok(None);
        };
        let text = file::read(&file, &path)?;
        let mut journal = Self { path, file, header: None, length: 0, last: None };
        let (steps, torn) = journal.parse(&text, place)?;
        journal.hold(&steps);
        Ok(Some(Recovered { steps, torn, journal }))
    }

    /// Who holds the journal `NAME.journal` in `directory`: the running tunnel of that name. `None` if
    /// there is no journal, or nobody holds it because its tunnel crashed.
    ///
    /// While this looks, a [`Journal::load`] of another process may find the journal in use.
    pub fn holder(directory: &Path, name: &str) -> Result<Option<Header>, JournalError> {
        let path = file::path(directory, name)?;
        let Some(file) = file::open_held(&path)? else { return Ok(None) };
        let text = file::read(&file, &path)?;
        let first = text.split_inclusive(|&octet| octet == b'\n').next();
        first.map(|line| parse_header(&path, line)).transpose()
    }

    /// Whose it is; none if a crash has left less than the first line.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Writes and syncs a step. Only then may its operation be applied.
    pub fn record(&mut self, undo: &Undo) -> Result<(), JournalError> {
        let start = self.length;
        let line = line(&self.path, undo)?;
        self.append(&line)?;
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
        struck.map_err(|source| file::failed("shorten", &self.path, source))?;
        self.length = start;
        Ok(())
    }

    /// Puts these steps in the place of all, at one moment: a crash leaves the old ones or the new
    /// ones. There is nothing to [strike](Self::strike) then.
    ///
    /// # Errors
    ///
    /// The journal holds the old steps if the new ones could not be written, and the new ones if only
    /// the directory could not be synced. It can be used on.
    pub fn rewrite(&mut self, steps: &[Undo]) -> Result<(), JournalError> {
        let written = Self::write(&self.path, self.header.as_ref(), steps, file::Place::Taken)?;
        // The old one is dropped, and with it the lock of a file without a name.
        *self = written;
        file::sync_directory(&self.path)
    }

    /// Removes the file: there is nothing to be undone any more.
    pub fn forget_all(self) -> Result<(), JournalError> {
        file::discard_left_behind(&self.path);
        fs::remove_file(&self.path).map_err(|source| file::failed("remove", &self.path, source))?;
        file::sync_directory(&self.path)
    }

    /// Writes a whole journal and puts it in its place.
    fn write(
        path: &Path,
        header: Option<&Header>,
        steps: &[Undo],
        place: file::Place,
    ) -> Result<Self, JournalError> {
        let mut text = Vec::new();
        if let Some(header) = header {
            text.extend(line(path, &First { journal: VERSION, of: header.clone() })?);
        }
        for step in steps {
            text.extend(line(path, step)?);
        }
        let file = file::draft(path)?;
        let path = path.to_owned();
        let mut journal = Self { path, file, header: header.cloned(), length: 0, last: None };
        journal.append(&text).inspect_err(|_| file::discard(&journal.path))?;
        file::publish(&journal.file, &journal.path, place)?;
        Ok(journal)
    }

    /// Appends whole lines and syncs them.
    fn append(&mut self, lines: &[u8]) -> Result<(), JournalError> {
        let end = self.length.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        if end > SIZE_LIMIT {
            return Err(JournalError::TooLarge { path: self.path.clone() });
        }
        let written = self.file.write_all_at(lines, self.length);
        if let Err(source) = written.and_then(|()| self.file.sync_data()) {
            // A torn line may only be the last. If even this fails, the next line overwrites it.
            let _ = self.file.set_len(self.length);
            return Err(file::failed("write", &self.path, source));
        }
        self.length = end;
        Ok(())
    }

    /// Notes that it is this process that holds the journal. Undoing does not depend on it, so it is
    /// undone as well where that cannot be written.
    fn hold(&mut self, steps: &[Undo]) {
        let pid = std::process::id();
        match &mut self.header {
            Some(header) if header.pid != pid => header.pid = pid,
            _ => return,
        }
        let _ = self.rewrite(steps);
    }

    /// Takes the whole lines of a journal and notes where they end.
    fn parse(&mut self, text: &[u8], place: &Place) -> Result<(Vec<Undo>, usize), JournalError> {
        let whole = text.iter().rposition(|&octet| octet == b'\n').map_or(0, |end| end + 1);
        let (lines, rest) = text.split_at(whole);
        self.length = u64::try_from(whole).unwrap_or(u64::MAX);
        let torn = usize::from(!rest.is_empty());
        let mut lines = lines.split_inclusive(|&octet| octet == b'\n').enumerate();
        let Some((_, first)) = lines.next() else {
            // Not even the header is there, so nothing was applied.
            return Ok((Vec::new(), torn));
        };
        let header = parse_header(&self.path, first)?;
        check_place(&self.path, &header, place)?;
        self.header = Some(header);
        let steps = lines.map(|(index, line)| parse_line(&self.path, index, line));
        Ok((steps.collect::<Result<_, _>>()?, torn))
    }
}

fn check_place(path: &Path, header: &Header, place: &Place) -> Result<(), JournalError> {
    let path = path.to_owned();
    let Place { netns, boot } = &header.place;
    if *boot != place.boot {
        return Err(JournalError::OtherBoot { path });
    }
    if *netns != place.netns {
        return Err(JournalError::OtherNamespace { path, netns: *netns });
    }
    Ok(())
}

fn parse_header(path: &Path, line: &[u8]) -> Result<Header, JournalError> {
    let Version { journal: version } = parse_line(path, 0, line)?;
    if version != VERSION {
        return Err(JournalError::Version { path: path.to_owned(), version });
    }
    parse_line(path, 0, line).map(|First { of, .. }| of)
}

fn parse_line<'a, T: Deserialize<'a>>(
    path: &Path,
    index: usize,
    line: &'a [u8],
) -> Result<T, JournalError> {
    serde_json::from_slice(line).map_err(|source| JournalError::Malformed {
        path: path.to_owned(),
        line: index + 1,
        source,
    })
}

fn line(path: &Path, content: &impl Serialize) -> Result<Vec<u8>, JournalError> {
    let mut octets =
        serde_json::to_vec(content).map_err(|error| file::failed("encode", path, error.into()))?;
    octets.push(b'\n');
    Ok(octets)
}

fn lossy<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

#[cfg(test)]
mod tests;
