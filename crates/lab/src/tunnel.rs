//! A tunnel that runs in a host: `adit up` with a configuration file of its own.
//!
//! It is two processes: a *supervisor*, which is the one that was started, and its only child, the
//! *worker*, which carries the packets. What the supervisor has changed stands in a journal in the
//! directory of the configuration file, never in that of the machine's own tunnels.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::deadline::{Deadline, WaitError};
use crate::host::Host;
use crate::process::{GRACE, Process, ProcessError};

/// The TUN device of every tunnel in a lab.
pub const DEVICE: &str = "adit0";

/// The port of every tunnel in a lab.
pub(crate) const PORT: u16 = 4740;

/// Where `adit` keeps what it must remember at run time (systemd.exec(5)).
pub(crate) const RUNTIME_DIRECTORY: &str = "RUNTIME_DIRECTORY";

/// One end of a tunnel: what its configuration file is to say.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// The tunnel's name, unique in the lab.
    pub(crate) name: &'static str,
    /// The configuration file.
    pub(crate) config: Cow<'static, str>,
    /// What the file beside it, `NAME.key`, holds, if the tunnel is one of sessions.
    pub(crate) private_key: Option<&'static str>,
}

/// A running `adit up`; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    process: Process,
}

/// The process of a tunnel that carries the packets, running or ended.
#[derive(Debug)]
pub(crate) struct Worker {
    pid: Pid,
    pidfd: OwnedFd,
}

/// Why a tunnel does not run.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// Its configuration file could not be written.
    #[error("write {}", .file.display())]
    Configure {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It could not be started, or did not come up.
    #[error("tunnel {name:?} in host {host}")]
    Start {
        /// The tunnel's name.
        name: &'static str,
        /// The host's name.
        host: &'static str,
        /// The cause.
        source: ProcessError,
    },
}

impl End {
    /// Writes the file to `directory`, starts the program `adit` in `host`, and waits until the
    /// tunnel is up.
    pub(crate) fn start(
        self,
        adit: &Path,
        host: &Host,
        directory: &Path,
        deadline: Deadline<'_>,
    ) -> Result<Tunnel, TunnelError> {
        let Self { name, config, private_key } = self;
        if let Some(key) = private_key {
            let file = directory.join(format!("{name}.key"));
            write_secret(&file, key).map_err(|source| TunnelError::Configure { file, source })?;
        }
        let file = directory.join(format!("{name}.toml"));
        fs::write(&file, &*config)
            .map_err(|source| TunnelError::Configure { file: file.clone(), source })?;
        let failed = |source| TunnelError::Start { name, host: host.name(), source };
        let mut command = program(adit, directory);
        command.arg("up").arg(file);
        let mut process = host.spawn(command).map_err(failed)?;
        process.wait_for_line(&format!("tunnel {name:?} is up"), deadline).map_err(failed)?;
        Ok(Tunnel { process })
    }
}

impl Tunnel {
    /// Ends the tunnel as SIGTERM does, and says how it ended.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus, ProcessError> {
        self.process.stop(GRACE)
    }

    /// Ends the supervisor as `kill -9` does.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus, ProcessError> {
        self.process.kill()
    }

    /// The worker, if there is one at the moment.
    pub(crate) fn worker(&self) -> Option<Worker> {
        let pid = only_child_of(self.process.id())?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // If it still is the child, the descriptor is that of no later process with its number.
        (only_child_of(self.process.id()) == Some(pid)).then_some(Worker { pid, pidfd })
    }
}

impl Worker {
    /// The process id.
    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Ends it as `kill -9` does, and waits for its end.
    pub(crate) fn kill(&self, deadline: Deadline<'_>) -> Result<(), WaitError> {
        // Fails only when the worker is gone, which is what the signal is for.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.wait(deadline)
    }

    /// Waits for its end.
    pub(crate) fn wait(&self, deadline: Deadline<'_>) -> Result<(), WaitError> {
        deadline.wait_readable(&[self.pidfd.as_fd()])
    }
}

/// Writes a file that only its owner may read.
fn write_secret(file: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())
}

/// The program `adit`, keeping its journals in `directory`.
pub(crate) fn program(adit: &Path, directory: &Path) -> Command {
    let mut command = Command::new(adit);
    command.env(RUNTIME_DIRECTORY, directory);
    command
}

/// The child of any thread of a process (proc_pid_tid_children(5)), if there is exactly one.
fn only_child_of(parent: u32) -> Option<Pid> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).ok()?;
    let lists = tasks.flatten().map(|task| fs::read_to_string(task.path().join("children")));
    let children: Vec<String> = lists.flatten().collect();
    let mut children = children.iter().flat_map(|list| list.split_ascii_whitespace());
    let only = children.next().filter(|_| children.next().is_none())?;
    Pid::from_raw(only.parse().ok()?)
}
