//! What goes wrong with a folder.

use std::io;

use rustix::io::Errno;

use crate::spool::side::{Label, Side};

/// Why a spool does not work at the moment. It is tried again by itself, and works again when it can.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The own inbox was removed or renamed: nobody can write to it. [`Reader::renew`](super::Reader::renew)
    /// makes it again.
    #[error("inbox {0} is gone")]
    InboxGone(Side),
    /// The file system is gone, and with it what the open folder means: it has to be opened anew.
    #[error("{operation} in a folder whose file system is gone")]
    Dead {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The file system refuses.
    #[error("{operation} in the folder")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A stream writes to as many sides as it can.
    #[error("publish for {0} beside as many other sides as a stream can have")]
    Crowded(Side),
}

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A living side on this machine has the label.
    #[error("claim label \"{label}\": {by} has it and is alive")]
    Claimed {
        /// The label.
        label: Label,
        /// Who has it.
        by: Side,
    },
    /// Others remove the inbox as fast as it is made.
    #[error("make inbox {0}: it is removed at once")]
    Contested(Side),
    /// The folder does not do what a spool needs.
    #[error("{operation} in the folder")]
    Unfit {
        /// What does not work.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that was written is read with other octets.
    #[error("read back a file in the folder: {read} of {written} octets are right")]
    ReadBack {
        /// How many octets were written.
        written: usize,
        /// How many of them came back.
        read: usize,
    },
}

impl Fault {
    /// What it means that `operation` failed.
    pub(super) fn of(operation: &'static str, error: Errno) -> Self {
        let source = error.into();
        match error {
            Errno::STALE | Errno::NOTCONN | Errno::SHUTDOWN | Errno::NODEV | Errno::NXIO => {
                Self::Dead { operation, source }
            }
            _ => Self::Io { operation, source },
        }
    }
}

impl OpenError {
    /// For `map_err`: `operation` failed.
    pub(super) fn unfit(operation: &'static str) -> impl Fn(Errno) -> Self {
        move |error| Self::Unfit { operation, source: error.into() }
    }
}
