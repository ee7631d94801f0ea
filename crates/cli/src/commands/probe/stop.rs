//! The descriptor that ends a probe: readable after SIGINT or SIGTERM, or when we say so.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

pub(super) struct Stop {
    reader: UnixStream,
    writer: UnixStream,
}

impl Stop {
    /// From here on, SIGINT and SIGTERM make the descriptor readable and do nothing else.
    pub(super) fn on_signals() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self { reader, writer })
    }

    /// The descriptor to wait for; nobody must read it.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Ends the probe as a signal does.
    pub(super) fn now(&self) {
        // A full socket is readable already.
        let _ = (&self.writer).write(&[0]);
    }
}
