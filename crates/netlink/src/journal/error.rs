//! Why a journal could not be written or used.

use std::io;
use std::path::PathBuf;

use super::{NAME_LIMIT, SIZE_LIMIT};

/// A journal could not be written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// This cannot be the name of a journal.
    #[error(
        "journal name {name:?} is not 1 to {NAME_LIMIT} letters, digits, dots, hyphens or underscores, \
         of which neither a dot nor a hyphen comes first"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// There is a journal already: something was left behind, or a tunnel is running.
    #[error("create journal {path}: it exists already", path = .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A running tunnel has the journal open.
    #[error("journal {path} is in use", path = .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not one that this program would have written.
    #[error("journal {path} {fault}", path = .path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The journal is longer than [`SIZE_LIMIT`], or would be.
    #[error("journal {path} has more than {SIZE_LIMIT} octets", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line other than the last cannot be read.
    #[error("journal {path} line {line}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The journal was written before the last boot; what it would undo is gone.
    #[error("journal {path} is of an earlier boot", path = .path.display())]
    OtherBoot {
        /// The file.
        path: PathBuf,
    },
    /// The journal belongs to another network namespace.
    #[error("journal {path} is of network namespace {netns}", path = .path.display())]
    OtherNamespace {
        /// The file.
        path: PathBuf,
        /// The inode of the namespace.
        netns: u64,
    },
    /// The journal is of a version that this program does not know.
    #[error("journal {path} has version {version}", path = .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The file or its directory could not be used.
    #[error("{call} journal {path}", path = .path.display())]
    Io {
        /// What was attempted.
        call: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
