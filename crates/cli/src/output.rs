//! Standard output: what a command was asked for, as text or as JSON.
//!
//! Messages about what happens go to standard error through `tracing`; see `messages`.
//! A reader that closes the pipe early (`adit device list | head -1`) is no failure:
//! `report` treats the broken pipe as success.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Standard output.
pub(crate) struct Output {
    verbosity: u8,
    stdout: io::Stdout,
}

impl Output {
    pub(crate) fn new(verbosity: u8) -> Self {
        Self { verbosity, stdout: io::stdout() }
    }

    /// How often `-v` was given.
    pub(crate) fn verbosity(&self) -> u8 {
        self.verbosity
    }

    /// Whether colours, box characters and progress are welcome.
    pub(crate) fn is_terminal(&self) -> bool {
        self.stdout.is_terminal()
    }

    /// Whether to use colours: on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(crate) fn colours(&self) -> bool {
        self.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Writes `text` and the end of the line.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.stdout.lock(), "{text}")
    }

    /// Writes `value` as one JSON object on one line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut stdout = self.stdout.lock();
        serde_json::to_writer(&mut stdout, value)?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }
}
