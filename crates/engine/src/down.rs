//! Taking a tunnel down from outside, and cleaning up after one that was killed.
//!
//! A running tunnel is known by its journal, which its process holds locked and which says who that is.
//! The process is signalled through a descriptor (pidfd_open(2)), taken before the journal is looked at
//! for the second time: so it is the process that holds the journal, and not one that got its number
//! later.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use netlink::journal::{Header, Journal};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use crate::poll::poll_until;
use crate::runtime;
use crate::supervisor::{CleanUp, HostError, clean_up};

/// How long a tunnel may take to undo what it has changed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What taking a tunnel down came to.
#[derive(Debug)]
pub enum Outcome {
    /// It was running, and has ended.
    Ended {
        /// Its process.
        pid: u32,
    },
    /// It had been killed, and what it had left was taken back.
    CleanedUp(CleanUp),
}

/// A tunnel could not be taken down.
#[derive(Debug, Error)]
pub enum DownError {
    /// No tunnel of that name is running or has left anything.
    #[error("tunnel {tunnel:?} is not running, and has left nothing behind")]
    Nothing {
        /// The tunnel's name.
        tunnel: String,
    },
    /// The process of the tunnel could not be told to end.
    #[error("end tunnel {tunnel:?}: signal process {pid}")]
    Signal {
        /// The tunnel's name.
        tunnel: String,
        /// Its process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// It was told, and did not end.
    #[error("end tunnel {tunnel:?}: process {pid} did not end within {PATIENCE:?}")]
    Stays {
        /// The tunnel's name.
        tunnel: String,
        /// Its process.
        pid: u32,
    },
    /// What it has left could not be found or taken back.
    #[error("clean up after tunnel {tunnel:?}")]
    Host {
        /// The tunnel's name.
        tunnel: String,
        /// Why.
        #[source]
        cause: HostError,
    },
}

/// Takes the tunnel `name` down, or undoes what a killed one has left.
///
/// # Errors
///
/// When there is no such tunnel, it does not end, or what it has left cannot be taken back.
pub fn down(name: &str) -> Result<Outcome, DownError> {
    let tunnel = || name.to_owned();
    let host = |cause| DownError::Host { tunnel: tunnel(), cause };
    if let Some((pid, process)) = running(name).map_err(host)? {
        let failed = |source| DownError::Signal { tunnel: tunnel(), pid, source };
        pidfd_send_signal(&process, Signal::TERM).map_err(|errno| failed(errno.into()))?;
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        return match poll_until(&mut fds, Some(Instant::now() + PATIENCE)).map_err(failed)? {
            0 => Err(DownError::Stays { tunnel: tunnel(), pid }),
            _ => finish(name, pid).map_err(host),
        };
    }
    match clean_up(name).map_err(host)? {
        Some(done) => Ok(Outcome::CleanedUp(done)),
        None => Err(DownError::Nothing { tunnel: tunnel() }),
    }
}

/// Takes back what the process has left although it was asked to undo everything: it may have been another
/// that cleaned up after a killed tunnel, or one that could not undo all.
fn finish(name: &str, pid: u32) -> Result<Outcome, HostError> {
    match clean_up(name) {
        Ok(Some(done)) => Ok(Outcome::CleanedUp(done)),
        // Somebody has brought it up again meanwhile.
        Ok(None) | Err(HostError::Running { .. }) => Ok(Outcome::Ended { pid }),
        Err(error) => Err(error),
    }
}

/// The process that has the tunnel up, if one has.
fn running(name: &str) -> Result<Option<(u32, OwnedFd)>, HostError> {
    let directory = runtime::directory()?;
    let holder = || Journal::holder(&directory, name);
    let Some(Header { pid, .. }) = holder()? else { return Ok(None) };
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(process, PidfdFlags::empty()) {
        Ok(process) if holder()?.is_some_and(|holder| holder.pid == pid) => {
            Ok(Some((pid, process)))
        }
        // It has ended meanwhile.
        _ => Ok(None),
    }
}
