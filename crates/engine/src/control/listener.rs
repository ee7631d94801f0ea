//! A socket file, and who comes to it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use thiserror::Error;

/// Only the owner may connect.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// How many wait to be accepted.
const BACKLOG: i32 = 16;

/// How long nobody is accepted after that has failed, which may be for want of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// A socket cannot be had.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Its directory cannot be made.
    #[error("create directory {path}", path = .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else answers there.
    #[error("listen at {path}: another process does", path = .path.display())]
    Live {
        /// The socket.
        path: PathBuf,
    },
    /// The kernel refused, or something else has that name.
    #[error("listen at {path}", path = .path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that listens, and its file, which goes with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// The file's device and number.
    file: (u64, u64),
    /// When it may be accepted again.
    resume: Option<Instant>,
}

impl Listener {
    /// Listens in `directory`, which is made if need be; a socket there that nobody listens to is replaced.
    ///
    /// Two processes that do this at the same moment may both find nobody. That the name is one's own is
    /// ensured elsewhere: by the journal for a tunnel, by the kernel for a device.
    pub(super) fn open(directory: &Path, name: &str) -> Result<Self, ControlError> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
        made.map_err(|source| ControlError::Directory { path: directory.to_owned(), source })?;
        let path = super::path(directory, name).ok_or_else(|| ControlError::Listen {
            path: directory.join(name),
            source: io::ErrorKind::InvalidInput.into(),
        })?;
        let failed = |source| ControlError::Listen { path: path.clone(), source };
        if !remove_stale(&path).map_err(failed)? {
            return Err(ControlError::Live { path });
        }
        let socket = listen_at(&path).map_err(|errno| failed(errno.into()))?;
        let file = identity(&path).map_err(failed)?;
        Ok(Self { socket, path, file, resume: None })
    }

    /// Accepts a client, if one waits.
    pub(super) fn accept(&mut self, now: Instant) -> Option<UnixStream> {
        if self.resume.is_some_and(|resume| now < resume) {
            return None;
        }
        self.resume = None;
        match self.socket.accept() {
            Ok((client, _)) => client.set_nonblocking(true).is_ok().then_some(client),
            Err(error) => {
                let is_over = matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionAborted
                );
                if !is_over {
                    tracing::warn!("accept at {}: {error}", self.path.display());
                    self.resume = Some(now + PAUSE);
                }
                None
            }
        }
    }

    /// What becomes readable when a client waits; `None` during a pause.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.resume.is_none().then(|| self.socket.as_fd())
    }

    /// When a pause ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.resume
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody may have put another in its place.
        if identity(&self.path).ok() == Some(self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that nobody listens to; whether the name is free then.
fn remove_stale(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map(|()| true),
        // Somebody has removed it meanwhile.
        Err(Errno::NOENT) => Ok(true),
        // AGAIN: more wait already than may.
        Ok(()) | Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn listen_at(path: &Path) -> Result<UnixListener, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file gets the mode of the socket (`unix_bind_bsd` in net/unix/af_unix.c): so it is never open to others.
    fchmod(&socket, MODE)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}
