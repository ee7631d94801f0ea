//! Signals, as something to wait for.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take the tunnel down: SIGINT, SIGTERM.
    Stop,
    /// Read the configuration again: SIGHUP.
    Reload,
    /// Say what was carried and dropped so far: SIGUSR1.
    Report,
}

/// Catches signals from its making on.
#[derive(Debug)]
pub struct Signals {
    pipe: UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    report: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to catch signals.
    ///
    /// # Errors
    ///
    /// Those of sigaction(2) and socketpair(2).
    pub fn catch() -> io::Result<Self> {
        let (pipe, writer) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let signals =
            Self { pipe, stop: Arc::default(), reload: Arc::default(), report: Arc::default() };
        for (signal, flag) in [
            (SIGINT, &signals.stop),
            (SIGTERM, &signals.stop),
            (SIGHUP, &signals.reload),
            (SIGUSR1, &signals.report),
        ] {
            // Handlers run in the order of registration: the flag is set when the pipe wakes us.
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(signals)
    }

    /// What was asked for since the last call; to stop comes first.
    pub fn take(&mut self) -> Option<Request> {
        let mut octets = [0; 64];
        while matches!(self.pipe.read(&mut octets), Ok(1..)) {}
        if self.stop.load(Ordering::Relaxed) {
            Some(Request::Stop)
        } else if self.reload.swap(false, Ordering::Relaxed) {
            Some(Request::Reload)
        } else if self.report.swap(false, Ordering::Relaxed) {
            Some(Request::Report)
        } else {
            None
        }
    }
}

impl AsFd for Signals {
    /// Readable when a signal came.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
