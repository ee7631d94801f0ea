//! Where a secret key goes: to standard output, or to a file of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};

use crate::output::Output;

/// Bits of a mode that let everybody read or write.
const EVERYBODY: u32 = 0o006;

/// Where a secret key goes.
pub(super) enum Sink {
    StandardOutput,
    /// A file that was made for it.
    File {
        path: PathBuf,
        file: File,
    },
}

/// A key cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    /// The file cannot be made, or is there already.
    #[error("create key file {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file was made and removed again, since the key did not fit into it.
    #[error("write key file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl Sink {
    /// Makes the file at `path`, if there is one, and warns if standard output is no place for a secret.
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, SinkError> {
        let Some(path) = path else {
            if let Some(warning) = warning() {
                tracing::warn!("{warning}");
            }
            return Ok(Self::StandardOutput);
        };
        match create(&path) {
            Ok(file) => Ok(Self::File { path, file }),
            Err(source) => Err(SinkError::Create { path, source }),
        }
    }

    /// Writes a key and the end of its line.
    pub(super) fn write(self, key: &str, output: &mut Output) -> Result<(), SinkError> {
        match self {
            Self::StandardOutput => Ok(output.line(key)?),
            Self::File { path, mut file } => {
                let written = file.write_all(key.as_bytes()).and_then(|()| file.write_all(b"\n"));
                written.and_then(|()| file.sync_all()).map_err(|source| {
                    // The first error is the one to tell; half a key is of no use to anybody.
                    let _ = fs::remove_file(&path);
                    SinkError::Write { path, source }
                })
            }
        }
    }
}

/// A file that was not there, and that only its owner may read from the start.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// What is wrong with standard output as a place for a secret.
fn warning() -> Option<&'static str> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Some("the secret key is shown on a terminal; -o FILE keeps it in a file");
    }
    let mode = fstat(&stdout).ok()?.st_mode;
    let is_open = FileType::from_raw_mode(mode).is_file() && mode & EVERYBODY != 0;
    is_open.then_some(
        "the secret key goes to a file that everybody may read or write; -o FILE makes one that only its owner \
         may",
    )
}
