//! Spool: records handed over as files in a shared folder.
//!
//! # Theory of operation
//!
//! A *side* is one tunnel in the folder. It is found by its *label*; each of its lives is a *run*. A run has
//! an *inbox*, a directory that only its owner makes, reads and empties; the other sides put files into it.
//! So whatever lies in an inbox is for one run of one side, and a restart never meets what was meant for its
//! predecessor.
//!
//! ```text
//!  FOLDER/adit1-home-5be0…/                            inbox of home
//!  FOLDER/adit1-office-91c4…/                          inbox of office
//!        alive                                         locked by office
//!        5be0…-00-0000000000000001.batch               ◀ written by home
//!        5be0…-00-0000000000000002.part                ◀ being written
//!        minutes.txt                                   not ours: never read, never removed
//! ```
//!
//! A [`Writer`] collects *records* for one side, as many as are waiting, and publishes them as one file: it
//! writes `.part` and renames it to `.batch`, so that no reader sees it before it is whole, at least where
//! renaming works as it should. Each writer is a *stream* of its own with numbers from 1 for each side,
//! and shares nothing with others.
//!
//! A [`Reader`] takes the files of each stream in the order of their numbers, checks them ([`mod@file`]), hands
//! their records over and removes them. The order, and what late, missing, torn and repeated files mean, is
//! the [`inbox`]'s; when to look is the [`pace`]'s.
//!
//! *Bounds.* A writer has at most [`outbox::Bound`] outstanding to each side: files that it published and
//! that are still there. At the bound nothing is published, and the caller may wait or drop. A file has at
//! most [`FILE_MAX`] octets, a record [`RECORD_MAX`].
//!
//! *Trust.* Everybody who can write in the folder can lose, repeat and invent files, and label them as he
//! likes. Here that costs no more than what was lost, bounded memory and bounded time; whether a record is
//! genuine is for the session above.
//!
//! *Old answers.* Where other machines change the files, this one may remember for long what was there. What
//! is asked by name for the first time is not remembered, so there the next file of each stream is asked for,
//! and a listing, which finds new streams, follows a change of the directory's times.
//!
//! *Faults.* Whatever the file system refuses is a [`Fault`], the records concerned are dropped and counted,
//! and it is tried again after a growing pause. A side whose inbox is gone has ended. The own inbox being
//! gone is reported, and it can be made again.
//!
//! *System calls.* Nothing here waits but for the file system. After [`Spool::open`] these are made:
//! openat, openat2, close, statx, fstat, pread64, pwrite64, read, renameat2, unlinkat, getdents64, fchmod, and
//! utimensat where other machines change the files; inotify_init1 and inotify_add_watch by
//! [`Spool::reader`]; mkdirat and flock too by [`Reader::renew`].
//!
//! Time is an argument everywhere: the time since some beginning, on a clock that never goes back, the same
//! for all calls on one spool.
//!
//! # Two halves
//!
//! [`mod@file`], [`inbox`], [`name`], [`outbox`] and [`pace`] know no file system and no clock; they are
//! simulated with every misfortune. `io` does what they say.
//!
//! References: rename(2), openat2(2), inotify(7), flock(2), statx(2).

pub mod file;
mod health;
pub mod inbox;
mod io;
pub mod name;
pub mod outbox;
pub mod pace;
mod recv;
mod side;
mod skip;

pub use file::{FILE_MAX, RECORD_MAX};
pub use io::{
    Character, Counters, Fault, Full, Limits, OpenError, Outcome, Outstanding, Reader, Spool,
    Status, Writer,
};
pub use recv::RecvBatch;
pub use side::{Label, LabelError, RunId, Side};
pub use skip::{Skip, Skipped};
