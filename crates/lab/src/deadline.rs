//! Waiting that always ends: at a time, or when the user wants it to.
//!
//! Everything in this crate that waits takes a [`Deadline`]. A deadline that knows of an
//! [`Interrupt`] also ends when SIGINT or SIGTERM arrived, so that whoever waits returns an error
//! and everything that was built is dropped on the way out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

/// How often a condition is looked at that no descriptor tells of.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The user's wish to end: SIGINT (Ctrl-C) or SIGTERM.
///
/// From its creation on these signals no longer end the program by themselves. Once one arrived,
/// the wish stands for good.
#[derive(Debug)]
pub struct Interrupt {
    arrived: UnixStream,
    registrations: [SigId; 2],
}

impl Interrupt {
    /// Listens for SIGINT and SIGTERM.
    pub fn on_signals() -> io::Result<Self> {
        let (arrived, sender) = UnixStream::pair()?;
        let on_terminate = sender.try_clone()?;
        let registrations =
            [pipe::register(SIGINT, sender)?, pipe::register(SIGTERM, on_terminate)?];
        Ok(Self { arrived, registrations })
    }

    /// Whether a signal has arrived.
    pub fn has_arrived(&self) -> bool {
        // Nobody reads the octet that the signal wrote, so it is seen by every poll.
        let mut fds = [PollFd::new(&self.arrived, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Waits until a signal arrives, for as long as it takes.
    pub fn wait(&self) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(&self.arrived, PollFlags::IN)], None) {
                Err(Errno::INTR) => {}
                result => return result.map(|_| ()).map_err(io::Error::from),
            }
        }
    }
}

impl AsFd for Interrupt {
    /// Readable when a signal has arrived.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for registration in self.registrations {
            unregister(registration);
        }
    }
}

/// When waiting ends without what was waited for.
#[derive(Clone, Copy, Debug)]
pub struct Deadline<'a> {
    at: Instant,
    interrupt: Option<&'a Interrupt>,
}

/// Why a wait ended without what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The time is over.
    #[error("took too long")]
    TimedOut,
    /// The user wants to end.
    #[error("interrupted")]
    Interrupted,
    /// Waiting itself failed.
    #[error("poll")]
    Poll(#[source] io::Error),
}

impl Deadline<'static> {
    /// `patience` from now, whatever signal arrives.
    pub fn after(patience: Duration) -> Self {
        Self { at: Instant::now() + patience, interrupt: None }
    }
}

impl<'a> Deadline<'a> {
    /// `patience` from now, or when `interrupt` arrives.
    pub fn after_or(patience: Duration, interrupt: &'a Interrupt) -> Self {
        Self { at: Instant::now() + patience, interrupt: Some(interrupt) }
    }

    /// The time that is left.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Waits until one of `sources` can be read or was hung up.
    pub fn wait_readable(&self, sources: &[BorrowedFd<'_>]) -> Result<(), WaitError> {
        self.wait_for(sources, PollFlags::IN, self.remaining())?
            .then_some(())
            .ok_or(WaitError::TimedOut)
    }

    /// Waits until `sink` can be written or was hung up.
    pub fn wait_writable(&self, sink: BorrowedFd<'_>) -> Result<(), WaitError> {
        self.wait_for(&[sink], PollFlags::OUT, self.remaining())?
            .then_some(())
            .ok_or(WaitError::TimedOut)
    }

    /// Waits until `condition` gives something.
    ///
    /// For conditions of the kernel that no descriptor tells of; it is looked at every 2 ms.
    pub fn wait_until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> Result<T, WaitError> {
        loop {
            if let Some(found) = condition() {
                return Ok(found);
            }
            let left = self.remaining();
            if left.is_zero() {
                return Err(WaitError::TimedOut);
            }
            self.wait_for(&[], PollFlags::IN, left.min(LOOK_EVERY))?;
        }
    }

    /// Whether one of `descriptors` became ready for `what` within `time`.
    fn wait_for(
        &self,
        descriptors: &[BorrowedFd<'_>],
        what: PollFlags,
        time: Duration,
    ) -> Result<bool, WaitError> {
        let end = Instant::now() + time;
        let mut fds: Vec<_> =
            descriptors.iter().map(|descriptor| PollFd::new(descriptor, what)).collect();
        fds.extend(self.interrupt.map(|interrupt| PollFd::new(interrupt, PollFlags::IN)));
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| WaitError::TimedOut)?;
            match poll(&mut fds, Some(&timeout)) {
                Err(Errno::INTR) => continue,
                Err(error) => return Err(WaitError::Poll(error.into())),
                Ok(_) if self.interrupt.is_some_and(Interrupt::has_arrived) => {
                    return Err(WaitError::Interrupted);
                }
                Ok(ready) => return Ok(ready > 0),
            }
        }
    }
}
