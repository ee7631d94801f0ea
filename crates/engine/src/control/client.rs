//! The side that asks: commands, which may wait.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, socket_with,
};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{MAX_ANSWER, MAX_REQUEST, Request, Response, SUFFIX};
use crate::invite::{Granted, InviteRequest};
use crate::runtime::{self, RuntimeError};
use crate::status::TunnelStatus;

/// How long a tunnel may take to answer; it may have to look up names.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Octets that are read at a time.
const PIECE: usize = 64 << 10;

/// A tunnel did not answer as asked.
#[derive(Debug, Error)]
pub enum AskError {
    /// There is no directory in which running tunnels could be found.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The directory cannot be read.
    #[error("look for running tunnels in {path}", path = .path.display())]
    Look {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers to that name.
    #[error("tunnel {tunnel:?} is not running")]
    NotRunning {
        /// The tunnel's name.
        tunnel: String,
    },
    /// The question did not get there, or the answer back.
    #[error("ask tunnel {tunnel:?}")]
    Exchange {
        /// The tunnel's name.
        tunnel: String,
        /// Why.
        source: io::Error,
    },
    /// The answer is not one to the question.
    #[error("tunnel {tunnel:?} answers what this version of adit does not understand")]
    Unintelligible {
        /// The tunnel's name.
        tunnel: String,
    },
    /// The tunnel did not do what was asked.
    #[error("tunnel {tunnel:?}: {reason}")]
    Refused {
        /// The tunnel's name.
        tunnel: String,
        /// Why, as it says.
        reason: String,
    },
}

/// How `tunnel` is.
///
/// # Errors
///
/// See [`AskError`].
pub fn status(tunnel: &str) -> Result<TunnelStatus, AskError> {
    match ask(tunnel, &Request::Status)? {
        Response::Status(status) => Ok(*status),
        _ => Err(AskError::Unintelligible { tunnel: tunnel.to_owned() }),
    }
}

/// Has `tunnel` read its configuration again; what has changed, a line each.
///
/// # Errors
///
/// See [`AskError`].
pub fn reload(tunnel: &str) -> Result<Vec<String>, AskError> {
    match ask(tunnel, &Request::Reload)? {
        Response::Reloaded { changes } => Ok(changes),
        _ => Err(AskError::Unintelligible { tunnel: tunnel.to_owned() }),
    }
}

/// Has `tunnel` let the holder of a ticket become a peer; what the ticket has to say.
///
/// # Errors
///
/// See [`AskError`].
pub fn invite(tunnel: &str, request: InviteRequest) -> Result<Granted, AskError> {
    match ask(tunnel, &Request::Invite(Box::new(request)))? {
        Response::Invited(granted) => Ok(*granted),
        _ => Err(AskError::Unintelligible { tunnel: tunnel.to_owned() }),
    }
}

/// Asks `tunnel`, and waits for its answer.
///
/// # Errors
///
/// See [`AskError`]; a [`Response::Failed`] is one.
pub fn ask(tunnel: &str, request: &Request) -> Result<Response, AskError> {
    ask_in(&runtime::directory()?, tunnel, request)
}

/// The names of the tunnels that run, in order of the alphabet.
///
/// # Errors
///
/// When there is no directory to look in, or it cannot be read.
pub fn running() -> Result<Vec<String>, AskError> {
    running_in(&runtime::directory()?)
}

pub(super) fn running_in(directory: &Path) -> Result<Vec<String>, AskError> {
    let failed = |source| AskError::Look { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        // One that may not be asked runs all the same, and is told of when it is asked.
        names.extend(name.filter(|name| !is_gone(connect(directory, name))).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

pub(super) fn ask_in(
    directory: &Path,
    tunnel: &str,
    request: &Request,
) -> Result<Response, AskError> {
    let name = || tunnel.to_owned();
    let socket = match connect(directory, tunnel) {
        Ok(socket) => socket,
        Err(error) if means_gone(&error) => return Err(AskError::NotRunning { tunnel: name() }),
        Err(source) => return Err(AskError::Exchange { tunnel: name(), source }),
    };
    let answer = exchange(socket, request)
        .map_err(|source| AskError::Exchange { tunnel: name(), source })?;
    match serde_json::from_slice(&answer) {
        Ok(Response::Failed { reason }) => Err(AskError::Refused { tunnel: name(), reason }),
        Ok(response) => Ok(response),
        Err(_) => Err(AskError::Unintelligible { tunnel: name() }),
    }
}

fn is_gone(connected: io::Result<UnixStream>) -> bool {
    connected.is_err_and(|error| means_gone(&error))
}

fn means_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Connects to a tunnel, which may have to accept others before.
fn connect(directory: &Path, tunnel: &str) -> io::Result<UnixStream> {
    let path = super::path(directory, tunnel).ok_or(io::ErrorKind::NotFound)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_PATIENCE))?;
    connect_to(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// Sends a request, and receives the line that answers it.
fn exchange(mut socket: UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ANSWER_PATIENCE;
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_REQUEST));
    serde_json::to_writer(&mut *line, request)?;
    line.push(b'\n');
    socket.write_all(&line).map_err(timed_out)?;
    let mut answer = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(rest.max(Duration::from_millis(1))))?;
        let count = socket.read(&mut piece).map_err(timed_out)?;
        let piece = piece.get(..count).unwrap_or_default();
        match piece.iter().position(|&octet| octet == b'\n') {
            Some(end) => {
                answer.extend_from_slice(&piece[..end]);
                return Ok(answer);
            }
            None if piece.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            None if answer.len() > MAX_ANSWER => return Err(io::ErrorKind::FileTooLarge.into()),
            None => answer.extend_from_slice(piece),
        }
    }
}

/// A timeout by its name: the kernel calls it by that of a socket that does not wait.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}
