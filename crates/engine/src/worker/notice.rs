//! What the threads of a worker cannot treat themselves, on its way to the first thread.
//!
//! Off the fast path: a notice is sent when a peer speaks for the first time, and when a thread ends.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// What a thread cannot treat itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A peer without endpoint has one now.
    PathLearned,
    /// A thread has ended.
    ThreadEnded,
}

/// Notices on their way to the first thread; at most one of each kind waits.
#[derive(Debug)]
pub(crate) struct Notices {
    pub(crate) event: OwnedFd,
    waiting: Mutex<Vec<Notice>>,
}

impl Notices {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, waiting: Mutex::default() })
    }

    pub(crate) fn send(&self, notice: Notice) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.contains(&notice) {
            waiting.push(notice);
        }
        // A full counter means that it is woken already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    pub(crate) fn take(&self) -> Vec<Notice> {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
