//! What the first thread has to say to sides of a folder, on its way to the folder's thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use proto::Side;
use rustix::event::{EventfdFlags, eventfd};

/// The most messages that wait. Who does not get one asks again.
const MOST: usize = 1024;

/// A message, and for whom.
pub(crate) type Letter = (Side, Box<[u8]>);

/// Messages that wait.
#[derive(Debug)]
pub(crate) struct Mail {
    event: OwnedFd,
    letters: Mutex<VecDeque<Letter>>,
}

impl Mail {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, letters: Mutex::default() })
    }

    /// Leaves a message; when too many wait, the oldest goes.
    pub(crate) fn post(&self, to: Side, message: &[u8]) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.len() == MOST {
            letters.pop_front();
        }
        letters.push_back((to, message.into()));
        // A full counter means that it is woken already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Takes all.
    pub(super) fn take(&self) -> VecDeque<Letter> {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Mail {
    /// Readable when something waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_goes_the_oldest_first() {
        let mail = Mail::new().unwrap();
        for run in 0..=MOST as u64 {
            mail.post(Side { label: 1, run }, b"x");
        }
        let taken = mail.take();
        assert_eq!(taken.len(), MOST);
        assert_eq!(taken[0].0.run, 1);
        assert!(mail.take().is_empty());
    }
}
