//! inotify(7) on a directory: what is renamed into it here, on this machine.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::{Errno, Result};

use super::folder::Folder;

/// Octets of announcements that are read at once.
const BUFFER_OCTETS: usize = 8 * 1024;

/// How many announcements one call looks at; more stay for the next one.
const ANNOUNCEMENTS: usize = 256;

/// The announcements of one directory.
pub(super) struct Watch {
    fd: OwnedFd,
    buffer: Box<[MaybeUninit<u8>]>,
    watched: bool,
}

impl Watch {
    /// Watches `folder`; where that is not possible there are no announcements.
    ///
    /// Fails only if there is no descriptor.
    pub(super) fn new(folder: &Folder) -> Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // A directory is watched by its path; this is the one of an open directory.
        let path = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd());
        let watched = inotify::add_watch(&fd, path, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR);
        let buffer = Box::new_uninit_slice(BUFFER_OCTETS);
        Ok(Self { fd, buffer, watched: watched.is_ok() })
    }

    /// Calls `see` with each announced name; `false` if announcements were lost.
    pub(super) fn drain(&mut self, mut see: impl FnMut(&[u8])) -> bool {
        let mut complete = true;
        if !self.watched {
            return complete;
        }
        let mut reader = inotify::Reader::new(&self.fd, &mut self.buffer);
        let mut seen = 0;
        // What was read into the buffer must be looked at: it does not come again.
        while seen < ANNOUNCEMENTS || !reader.is_buffer_empty() {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => complete = false,
                Ok(event) => {
                    if let Some(name) = event.file_name() {
                        see(name.to_bytes());
                    }
                }
                Err(Errno::INTR) => continue,
                Err(_) => break,
            }
            seen += 1;
        }
        complete
    }

    /// Whether `name` has been announced.
    pub(super) fn has_seen(&mut self, name: &str) -> bool {
        let mut seen = false;
        self.drain(|announced| seen |= announced == name.as_bytes());
        seen
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
