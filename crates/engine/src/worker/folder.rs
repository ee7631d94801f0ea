//! Shared folders, as a worker has them.
//!
//! # Theory of operation
//!
//! A folder is one transport like a socket, but for three things. Its file system may take its time, so it
//! has a thread of its own, which takes what comes in ([`thread`]) and puts into it what the first thread has to
//! say ([`mail`]); lanes write what their device hands out, each as a stream of its own. A record is as long as
//! a super-packet, so nothing is cut. And a peer is found by its label: which of its runs is there, if
//! nobody has heard of it yet, the folder tells.

pub(super) mod mail;
pub(super) mod thread;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::{RemoteAddr, Side};
use rustix::rand::{GetRandomFlags, getrandom};
use transport::spool::{self, Label, Limits, OpenError, RunId, Spool};

use self::mail::Mail;
use super::clock;
use crate::channel::message::FolderSetup;
use crate::status::FolderStatus;

/// To so many runs of a label something is sent while nobody knows which one lives.
const RUNS: usize = 4;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A folder that the tunnel shares with peers.
#[derive(Debug)]
pub(crate) struct Folder {
    /// What people call it.
    pub(crate) name: String,
    pub(crate) spool: Spool,
    pub(crate) mail: Mail,
    /// Whether it was said that nobody knows who is meant.
    is_crowd_told: AtomicBool,
}

/// More than one side is there, and none of them is meant in particular.
const CROWD: &str =
    "there are several other sides, and without security a peer in a folder must be the only one";

impl Folder {
    /// Becomes a side of the folder.
    pub(crate) fn open(setup: &FolderSetup, folder: OwnedFd) -> Result<Self, OpenError> {
        let mut run = [0; RunId::LEN];
        let filled = getrandom(&mut run, GetRandomFlags::empty());
        filled
            .map_err(|error| OpenError::Unfit { operation: "be random", source: error.into() })?;
        let limits = Limits { poll: setup.poll_max, ..Limits::default() };
        let spool = Spool::open(folder, label(setup.label), RunId::new(run), limits)?;
        let mail = Mail::new();
        let mail =
            mail.map_err(|source| OpenError::Unfit { operation: "make an eventfd", source })?;
        Ok(Self { name: setup.name.clone(), spool, mail, is_crowd_told: AtomicBool::new(false) })
    }

    /// How it stands with it.
    pub(super) fn status(&self) -> FolderStatus {
        let status = self.spool.status(now());
        let octets = status.outstanding.iter().map(|line| line.octets).sum();
        let files: usize = status.outstanding.iter().map(|line| line.files).sum();
        let oldest = status.outstanding.iter().map(|line| line.age).max().unwrap_or_default();
        let skipped = status.counters.skipped.iter().filter(|(_, times)| *times > 0);
        FolderStatus {
            folder: self.name.clone(),
            filesystem: status.character.filesystem.to_owned(),
            up: status.up,
            outstanding_files: files as u64,
            outstanding_octets: octets,
            oldest_milliseconds: u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX),
            dropped: status.counters.records_dropped,
            skipped: skipped.map(|(skip, times)| (skip.name().to_owned(), times)).collect(),
        }
    }

    /// The sides that are meant by `side`: the one if its run is there, all runs of its label otherwise.
    pub(crate) fn find(&self, side: Side) -> Vec<spool::Side> {
        let mut sides = self.spool.sides().unwrap_or_default();
        let wanted = self::side(side);
        if side.run != 0 && sides.contains(&wanted) {
            return vec![wanted];
        }
        if side.label != 0 {
            sides.retain(|there| there.label == wanted.label);
        } else if !sides.is_sorted_by(|one, other| one.label == other.label) {
            if !self.is_crowd_told.swap(true, Ordering::Relaxed) {
                tracing::warn!("folder {}: {CROWD}", self.name);
            }
            sides.clear();
        }
        sides.truncate(RUNS);
        sides
    }
}

/// The time of a spool.
pub(crate) fn now() -> Duration {
    Duration::from_nanos(clock::now().as_nanos())
}

/// A side as the folder names it.
pub(super) fn side(side: Side) -> spool::Side {
    spool::Side { label: label(side.label), run: RunId::new(side.run.to_be_bytes()) }
}

/// A side of the folder, if its label is one of ours.
pub(crate) fn remote(side: &spool::Side) -> Option<RemoteAddr> {
    let label = u64::from_str_radix(side.label.as_str(), 16).ok()?;
    (side.label == self::label(label)).then_some(())?;
    Some(RemoteAddr::Side(Side { label, run: u64::from_be_bytes(side.run.octets()) }))
}

/// The 16 hexadecimal digits of a label, made for each record, so without memory of its own.
fn label(label: u64) -> Label {
    let mut digits = [0; 16];
    for (octet, digit) in label.to_be_bytes().iter().zip(digits.chunks_exact_mut(2)) {
        digit[0] = DIGITS[usize::from(octet >> 4)];
        digit[1] = DIGITS[usize::from(octet & 15)];
    }
    Label::parse(&digits).expect("hexadecimal digits are a label")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_have_the_same_name_here_and_there() {
        let here = Side { label: 0x8000_0000_0000_beef, run: 1 };
        assert_eq!(side(here).to_string(), "adit1-800000000000beef-0000000000000001");
        assert_eq!(remote(&side(here)), Some(RemoteAddr::Side(here)));
        for foreign in ["home", "800000000000BEEF", "beef", "+80000000000beef"] {
            let Some(label) = Label::parse(foreign.as_bytes()) else { continue };
            assert_eq!(remote(&spool::Side { label, run: RunId::new([1; 8]) }), None, "{foreign}");
        }
    }
}
