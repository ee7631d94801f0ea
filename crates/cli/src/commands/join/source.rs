//! Where a ticket comes from, and how it leaves the command line.
//!
//! What stands among the arguments of a process can be read by every user of the machine, as long as the process lives (`cmdline`
//! of proc(5)), and a tunnel lives long. So a process that got its ticket there replaces itself by one that
//! gets it over a pipe, and has "-" among its arguments.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proto::ticket::{Ticket, TicketError};
use zeroize::Zeroizing;

use crate::report::Failure;

/// The most octets that are read, several times those of a ticket.
const OCTETS_MAX: usize = 16 << 10;

/// The argument that stands for standard input.
const STDIN: &str = "-";

/// This program, also when its file was replaced.
const PROGRAM: &str = "/proc/self/exe";

/// There is no ticket.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    /// It cannot be read.
    #[error("read the ticket from {from}")]
    Read {
        /// A file or standard input.
        from: String,
        /// Why.
        source: io::Error,
    },
    /// What was read is none.
    #[error("read the ticket from {from}")]
    Text {
        /// A file or standard input.
        from: String,
        /// What it is.
        source: TicketError,
    },
}

/// The ticket that stands on the command line, in a file, or on standard input.
pub(super) fn ticket(
    argument: Option<Zeroizing<String>>,
    file: Option<&Path>,
) -> Result<Ticket, Failure> {
    match (argument, file) {
        (_, Some(file)) => {
            let from = file.display().to_string();
            parse(&from, read_file(file))
        }
        (None, None) if io::stdin().is_terminal() => {
            Err(Failure::wrong_use("the ticket is missing")
                .hint("\"adit join TICKET\", --ticket-file FILE, or \"-\" for standard input"))
        }
        (argument, None) => match argument.filter(|argument| argument.as_str() != STDIN) {
            None => parse("standard input", read(io::stdin().lock())),
            Some(text) => {
                // What is no ticket has no secret, and is told at once.
                let ticket = of_text("the command line", &text)?;
                let error = hide(&text);
                tracing::warn!(
                    "the ticket can be seen in the list of processes as long as this one lives: {error}"
                );
                Ok(ticket)
            }
        },
    }
}

fn parse(from: &str, octets: io::Result<Zeroizing<Vec<u8>>>) -> Result<Ticket, Failure> {
    let octets = octets.map_err(|source| SourceError::Read { from: from.to_owned(), source })?;
    // What is not UTF-8 is no ticket either.
    of_text(from, std::str::from_utf8(&octets).unwrap_or_default())
}

fn of_text(from: &str, text: &str) -> Result<Ticket, Failure> {
    let ticket = text.parse::<Ticket>();
    ticket.map_err(|source| SourceError::Text { from: from.to_owned(), source }.into())
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = std::fs::File::open(path)?;
    read(file)
}

fn read(source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all that is read, so that no half-read copy stays behind in memory.
    let mut octets = Zeroizing::new(Vec::with_capacity(OCTETS_MAX + 2));
    source.take(OCTETS_MAX as u64).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Replaces this process by one with the same arguments but for the ticket, which it reads from a pipe. Returns only if that
/// fails.
fn hide(ticket: &str) -> io::Error {
    let (reader, mut writer) = match io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => return error,
    };
    // A pipe has room for a ticket, so nobody needs to read at the same time.
    if let Err(error) = writer.write_all(ticket.trim().as_bytes()) {
        return error;
    }
    drop(writer);
    let mut arguments = std::env::args_os();
    let zeroth = arguments.next().unwrap_or_else(|| "adit".into());
    let without = arguments.map(|argument| match argument == *ticket {
        true => OsString::from(STDIN),
        false => argument,
    });
    let program = std::env::current_exe().ok().filter(|path| path.exists());
    let program = program.unwrap_or_else(|| PathBuf::from(PROGRAM));
    Command::new(program).arg0(zeroth).args(without).stdin(Stdio::from(reader)).exec()
}
