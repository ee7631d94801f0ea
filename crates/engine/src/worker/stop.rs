//! How the threads of a worker are told to end.
//!
//! A busy thread never waits, so it looks at a flag; an idle one waits in poll(2), so there is a
//! descriptor that becomes readable and stays so.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use crate::poll::poll_until;

/// Shared by the threads and whoever ends them.
#[derive(Debug)]
pub(crate) struct Stop {
    event: OwnedFd,
    flag: AtomicBool,
}

/// Why a wait came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The descriptor is ready.
    Ready,
    /// The descriptor has an error or was hung up; for a device this means that it is gone.
    Broken,
    /// The thread shall end.
    Stop,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, flag: AtomicBool::new(false) })
    }

    /// Ends all threads.
    pub(crate) fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
        // The counter cannot overflow: it is written once for each stop.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Whether the threads shall end.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Waits until `fd` has one of `flags`, or the end has come.
    pub(crate) fn wait(&self, fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<Wake> {
        let mut fds =
            [PollFd::from_borrowed_fd(fd, flags), PollFd::new(&self.event, PollFlags::IN)];
        poll_until(&mut fds, None)?;
        if !fds[1].revents().is_empty() {
            Ok(Wake::Stop)
        } else if fds[0].revents().intersects(flags) {
            Ok(Wake::Ready)
        } else {
            Ok(Wake::Broken)
        }
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
