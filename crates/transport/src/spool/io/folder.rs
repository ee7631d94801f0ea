//! A directory, and what may be done in it: nothing that follows a link, leaves the directory or waits for
//! somebody.
//!
//! A name is asked about before it is opened: opening a device or a FIFO already does something, to the
//! device or to who waits at the other end.
//!
//! Where other machines change the files too, what this one knows of them may be old (sshfs remembers names,
//! attributes and listings for 20 seconds). What nobody asked for before is not remembered, nor what is
//! opened, nor a directory that was just changed from here. So a listing first touches its directory, and
//! [`Folder::has`] opens the file.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, Statx, StatxFlags,
    Timestamps, UTIME_NOW,
};
use rustix::io::{Errno, Result};
use rustix::time::Timespec;

use super::filesystem::Filesystem;

/// Octets of names that are read at once.
const LISTING_OCTETS: usize = 16 * 1024;

/// How many names one step of a listing goes through at least, if there are so many.
const STEP: usize = 256;

/// Whether the kernel lacks openat2(2) (before Linux 5.6).
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// An open directory.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    filesystem: Filesystem,
}

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) octets: u64,
    pub(super) inode: u64,
    /// Regular, and with this name only: what may be ours.
    pub(super) plain: bool,
    /// Regular, and with one other name: what a server may be renaming by linking and unlinking it.
    pub(super) linked: bool,
}

/// A pass through the names of a directory.
pub(super) struct Listing {
    fd: OwnedFd,
}

/// Where a listing puts names.
pub(super) struct ListingBuffer(Box<[MaybeUninit<u8>]>);

impl Folder {
    /// The directory that `fd` is.
    pub(super) fn new(fd: OwnedFd) -> Self {
        let filesystem = Filesystem::of(&fd);
        Self { fd, filesystem }
    }

    /// What it is on.
    pub(super) fn filesystem(&self) -> Filesystem {
        self.filesystem
    }

    /// The directory of this name in here, to read and write in.
    pub(super) fn folder(&self, name: &str) -> Result<Self> {
        self.subfolder(name, OFlags::RDONLY)
    }

    /// The directory of this name in here, to write in: who may do only that may open it.
    pub(super) fn folder_to_write(&self, name: &str) -> Result<Self> {
        self.subfolder(name, OFlags::PATH)
    }

    /// What has this name. Asks the server where there is one: what is remembered here may be old.
    pub(super) fn entry(&self, name: &str) -> Result<Entry> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
        let wanted = StatxFlags::TYPE | StatxFlags::NLINK | StatxFlags::SIZE | StatxFlags::INO;
        rustix::fs::statx(&self.fd, name, flags, wanted).map(|stat| Entry::of(&stat))
    }

    /// Whether there is something of this name, in doubt yes.
    pub(super) fn has(&self, name: &str) -> bool {
        let is_gone = |error| matches!(error, Errno::NOENT | Errno::STALE);
        match self.entry(name) {
            Err(error) => !is_gone(error),
            Ok(Entry { plain: true, .. }) if !self.filesystem.local => {
                !self.file(name).is_err_and(is_gone)
            }
            Ok(_) => true,
        }
    }

    /// Opens the file of this name to read it, and says what it is after that.
    pub(super) fn file(&self, name: &str) -> Result<(OwnedFd, Entry)> {
        let fd = self.open(name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&fd)?;
        let regular = FileType::from_raw_mode(stat.st_mode).is_file();
        let entry = Entry {
            octets: u64::try_from(stat.st_size).unwrap_or(0),
            inode: stat.st_ino,
            plain: regular && stat.st_nlink <= 1,
            linked: regular && stat.st_nlink == 2,
        };
        Ok((fd, entry))
    }

    /// Makes a file that was not there, to write it.
    pub(super) fn create(&self, name: &str, mode: Mode) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.fd, name, flags | OFlags::CLOEXEC, mode)
    }

    /// Makes a directory that was not there.
    pub(super) fn make_folder(&self, name: &str, mode: Mode) -> Result<()> {
        rustix::fs::mkdirat(&self.fd, name, mode)
    }

    /// Renames a file; with `exclusive`, only to a name that nothing has.
    pub(super) fn rename(&self, from: &str, to: &str, exclusive: bool) -> Result<()> {
        let flags = if exclusive { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        rustix::fs::renameat_with(&self.fd, from, &self.fd, to, flags)
    }

    /// Removes a file. What is known to be no file of ours must not come here.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        if !self.filesystem.local {
            // Closing is announced to a server and not waited for. libfuse gives a file that seems open
            // another name, for ever if it is closed just then; another question gives it the time.
            let _ = self.entry(name);
        }
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
    }

    /// Removes a file if it is a plain one; whether it did.
    pub(super) fn remove_plain(&self, name: &str) -> Result<bool> {
        if !self.entry(name)?.plain {
            return Ok(false);
        }
        self.remove(name).map(|()| true)
    }

    /// Removes an empty directory.
    pub(super) fn remove_folder(&self, name: &str) -> Result<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
    }

    /// Begins a listing. The directory is opened anew for it: some file systems list what was there when it
    /// was opened.
    pub(super) fn listing(&self) -> Result<Listing> {
        if !self.filesystem.local {
            self.touch();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Listing { fd: rustix::fs::openat(&self.fd, c".", flags, Mode::empty())? })
    }

    /// Calls `see` with at most about `limit` names.
    pub(super) fn list(&self, limit: usize, mut see: impl FnMut(&[u8])) -> Result<()> {
        let mut listing = self.listing()?;
        let mut buffer = ListingBuffer::new();
        let mut names = 0;
        while names < limit
            && listing.step(&mut buffer, |name| {
                names += 1;
                see(name);
            })?
        {}
        Ok(())
    }

    /// Changes the directory a little, if that is allowed, so that what is remembered of it is forgotten.
    fn touch(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _ = rustix::fs::futimens(&self.fd, &times);
    }

    fn subfolder(&self, name: &str, flags: OFlags) -> Result<Self> {
        let fd = self.open(name, flags | OFlags::DIRECTORY)?;
        Ok(Self { fd, filesystem: self.filesystem })
    }

    /// Opens what has this name and lies in here.
    fn open(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if !NO_OPENAT2.load(Ordering::Relaxed) {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            match rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), resolve) {
                Err(Errno::NOSYS) => NO_OPENAT2.store(true, Ordering::Relaxed),
                result => return result,
            }
        }
        // Names here have no slash, so that NOFOLLOW says the same but for mounts.
        rustix::fs::openat(&self.fd, name, flags, Mode::empty())
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Entry {
    fn of(stat: &Statx) -> Self {
        let file_type = FileType::from_raw_mode(u32::from(stat.stx_mode));
        // Some file systems do not count links.
        let plain = file_type.is_file() && stat.stx_nlink <= 1;
        let linked = file_type.is_file() && stat.stx_nlink == 2;
        Self { octets: stat.stx_size, inode: stat.stx_ino, plain, linked }
    }
}

impl Listing {
    /// Calls `see` with the next names; `false` when there were none left.
    pub(super) fn step(
        &mut self,
        buffer: &mut ListingBuffer,
        mut see: impl FnMut(&[u8]),
    ) -> Result<bool> {
        let mut entries = RawDir::new(self.fd.as_fd(), &mut buffer.0);
        let mut names = 0;
        while let Some(entry) = entries.next() {
            names += 1;
            match entry?.file_name().to_bytes() {
                b"." | b".." => {}
                name => see(name),
            }
            // What was read into the buffer does not come again.
            if names >= STEP && entries.is_buffer_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl ListingBuffer {
    pub(super) fn new() -> Self {
        Self(Box::new_uninit_slice(LISTING_OCTETS))
    }
}
