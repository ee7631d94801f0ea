//! A topology with its tunnel that stays, to be explored.
//!
//! Namespaces live only as long as something refers to them, so a *holder* process keeps them:
//! `adit lab hold NAME`, started by `adit lab up NAME` and detached from its terminal. It builds the
//! topology, runs the tunnel's two ends, and then writes a *state file* `NAME.json` with who it is
//! and which of its descriptors are the hosts. The file appears complete or not at all (it is
//! renamed to its place), and only one can exist for a topology. SIGTERM ends the holder, its tunnels
//! and, with its descriptors, the namespaces.
//!
//! A holder that was killed leaves its state file, and in a private directory the files and journals of
//! its tunnels, which mean nothing without the namespaces. Whoever finds them sees that the process in
//! their names or contents has ended (see [`crate::identity`]) and removes them.
//!
//! To enter a host is to open the holder's descriptor through `/proc/PID/fd` and to move there, first
//! to the holder's user namespace if it has one of its own (see [`crate::rootless`]).

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::{Signal, geteuid, pidfd_send_signal, setsid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::deadline::{Deadline, Interrupt, WaitError};
use crate::identity::Identity;
use crate::rootless::{self, RootlessError};
use crate::run;
use crate::scratch::Scratch;
use crate::topology::{BuildError, Network, Topology};
use crate::tunnel::{RUNTIME_DIRECTORY, Tunnel, TunnelError};

/// Where root's state files are.
const ROOT_DIRECTORY: &str = "/run/adit/lab";

/// How long the holder may take until the topology stands.
const UP_PATIENCE: Duration = Duration::from_secs(30);

/// How long the holder may take to end both tunnels before it is killed.
const DOWN_PATIENCE: Duration = Duration::from_secs(15);

/// The most that is read of a state file or of what the holder says, in octets.
const MAX_TEXT: u64 = 64 << 10;

/// How often a stale state file is removed for a new one; others may be at it too.
const PUBLISH_ATTEMPTS: usize = 3;

/// A topology that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The topology's name.
    pub topology: String,
    /// The process that holds it.
    pub holder: Identity,
    /// Whether the holder is in a user namespace of its own.
    pub user_namespace: bool,
    /// Where the tunnel's configuration files and journals are.
    pub runtime_directory: PathBuf,
    /// The hosts.
    pub hosts: Vec<Place>,
}

/// Where a host is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The host's name.
    pub name: String,
    /// The holder's descriptor of the host's network namespace.
    pub descriptor: RawFd,
}

/// Where state files are.
#[derive(Clone, Debug)]
pub struct Registry {
    directory: PathBuf,
}

/// Why a topology does not stand, does not fall or cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// A user who is not root has no directory for state files.
    #[error("find a directory for state files: XDG_RUNTIME_DIR is not set")]
    NoDirectory,
    /// A file or directory could not be used.
    #[error("{operation} {}", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The topology stands already.
    #[error("lab {topology} stands already, held by process {pid}")]
    Stands {
        /// The topology's name.
        topology: &'static str,
        /// The holder's process id.
        pid: i32,
    },
    /// The topology does not stand.
    #[error("lab {topology} does not stand")]
    DoesNotStand {
        /// The topology's name.
        topology: &'static str,
    },
    /// The topology has no such host.
    #[error("lab {topology} has no host {host:?}, only {known}")]
    NoSuchHost {
        /// The topology's name.
        topology: String,
        /// What was asked for.
        host: String,
        /// What there is.
        known: String,
    },
    /// The holder could not be started or made a process of its own.
    #[error("start the holder of lab {topology}")]
    Start {
        /// The topology's name.
        topology: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The holder failed.
    #[error("hold lab {topology}: {said}")]
    Holder {
        /// The topology's name.
        topology: &'static str,
        /// What it said on standard error.
        said: String,
    },
    /// The holder did not come up or go down.
    #[error("wait for the holder of lab {topology}")]
    Wait {
        /// The topology's name.
        topology: &'static str,
        /// The cause.
        source: WaitError,
    },
    /// Namespaces cannot be made by this user.
    #[error(transparent)]
    Rootless(#[from] RootlessError),
    /// The topology could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// There is no place for configuration files.
    #[error("create a private directory")]
    Scratch(#[source] io::Error),
    /// The tunnel did not come up.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// Signals cannot be received.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    /// A host could not be entered.
    #[error("enter host {host}")]
    Enter {
        /// The host's name.
        host: String,
        /// The cause.
        source: io::Error,
    },
    /// The program to run inside a host could not be started.
    #[error("run {program} in host {host}")]
    Run {
        /// The program.
        program: String,
        /// The host's name.
        host: String,
        /// The cause.
        source: io::Error,
    },
}

impl Standing {
    /// The command of nsenter(1) that enters a host.
    pub fn nsenter(&self, host: &Place) -> String {
        let pid = self.holder.pid;
        let user = if self.user_namespace {
            format!("--user=/proc/{pid}/ns/user --preserve-credentials ")
        } else {
            String::new()
        };
        format!("nsenter {user}--net=/proc/{pid}/fd/{}", host.descriptor)
    }

    /// Replaces the calling program by `command`, running in `host`. Returns only if that fails.
    ///
    /// An `adit` that runs there finds the topology's tunnels by their names, and not the machine's.
    ///
    /// The calling process must have one thread only.
    pub fn enter(&self, host: &str, command: &mut Command) -> StandingError {
        let Some(place) = self.hosts.iter().find(|place| place.name == host) else {
            let known: Vec<_> = self.hosts.iter().map(|place| place.name.as_str()).collect();
            let (topology, known) = (self.topology.clone(), known.join(", "));
            return StandingError::NoSuchHost { topology, host: host.to_owned(), known };
        };
        if let Err(source) = self.move_to(place) {
            return StandingError::Enter { host: host.to_owned(), source };
        }
        command.env(RUNTIME_DIRECTORY, &self.runtime_directory);
        let program = command.get_program().to_string_lossy().into_owned();
        StandingError::Run { program, host: host.to_owned(), source: command.exec() }
    }

    fn move_to(&self, place: &Place) -> io::Result<()> {
        let process = PathBuf::from(format!("/proc/{}", self.holder.pid));
        let network = File::open(process.join("fd").join(place.descriptor.to_string()))?;
        let user = self.user_namespace.then(|| File::open(process.join("ns/user"))).transpose()?;
        // If the holder still runs, these were its files and not those of a later process.
        if self.holder.open().is_none() {
            return Err(Errno::SRCH.into());
        }
        if let Some(user) = user {
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?;
        }
        Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

impl Registry {
    /// The state files of this user, which must be asked for before a user namespace is entered.
    pub fn of_user() -> Result<Self, StandingError> {
        if geteuid().is_root() {
            return Ok(Self { directory: ROOT_DIRECTORY.into() });
        }
        let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
        let runtime = PathBuf::from(runtime.ok_or(StandingError::NoDirectory)?);
        Ok(Self { directory: runtime.join("adit/lab") })
    }

    /// The topology, if it stands. A stale state file is as good as none.
    pub fn find(&self, topology: Topology) -> Result<Option<Standing>, StandingError> {
        let state = self.read(topology)?;
        Ok(state.filter(|state| state.holder.open().is_some()))
    }

    /// The topology, which must stand.
    pub fn standing(&self, topology: Topology) -> Result<Standing, StandingError> {
        let topology_name = topology.name();
        self.find(topology)?.ok_or(StandingError::DoesNotStand { topology: topology_name })
    }

    /// Starts `holder`, a command that calls [`Registry::hold`], and waits until the topology stands.
    pub fn up(
        &self,
        topology: Topology,
        holder: &mut Command,
        interrupt: &Interrupt,
    ) -> Result<Standing, StandingError> {
        if let Some(standing) = self.find(topology)? {
            return Err(stands(topology, &standing));
        }
        holder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = holder.spawn();
        let mut child =
            started.map_err(|source| StandingError::Start { topology: topology.name(), source })?;
        let deadline = Deadline::after_or(UP_PATIENCE, interrupt);
        match read_to_end(&mut child, deadline) {
            Ok(said) => match self.find(topology)? {
                Some(standing) if standing.holder.pid.cast_unsigned() == child.id() => Ok(standing),
                _ => Err(StandingError::Holder { topology: topology.name(), said: gist(&said) }),
            },
            Err(source) => {
                // Its programs and namespaces go with it.
                let _ = child.kill();
                let _ = child.wait();
                Err(StandingError::Wait { topology: topology.name(), source })
            }
        }
    }

    /// Holds `topology` until SIGTERM or SIGINT: the life of the holder process, which must have one
    /// thread only. Closes standard error when the topology stands.
    pub fn hold(&self, topology: Topology, adit: &Path) -> Result<(), StandingError> {
        let starting = |source| StandingError::Start { topology: topology.name(), source };
        // Fails for a process that leads its group already, which is detached enough.
        let _ = setsid();
        let user_namespace = rootless::enter()?;
        let interrupt = Interrupt::on_signals().map_err(StandingError::Signals)?;
        let network = topology.build()?;
        let scratch = Scratch::create().map_err(StandingError::Scratch)?;
        let tunnels = start_tunnels(&network, adit, &scratch, &interrupt)?;
        let place = |host: &&crate::Host| Place {
            name: host.name().to_owned(),
            descriptor: host.as_fd().as_raw_fd(),
        };
        let state = Standing {
            topology: topology.name().to_owned(),
            holder: Identity::own().map_err(starting)?,
            user_namespace,
            runtime_directory: scratch.path().to_owned(),
            hosts: network.hosts().iter().map(place).collect(),
        };
        self.publish(topology, &state)?;
        detach_standard_error().map_err(starting)?;
        let waited = interrupt.wait();
        drop(tunnels);
        self.withdraw(topology, state.holder)?;
        waited.map_err(starting)
    }

    /// Ends the holder and waits until it is gone.
    pub fn down(&self, topology: Topology) -> Result<(), StandingError> {
        let missing = || StandingError::DoesNotStand { topology: topology.name() };
        let state = self.read(topology)?.ok_or_else(missing)?;
        let Some(pidfd) = state.holder.open() else {
            self.withdraw(topology, state.holder)?;
            return Err(missing());
        };
        let waiting = |source| StandingError::Wait { topology: topology.name(), source };
        if end(&pidfd, Signal::TERM).is_err() {
            end(&pidfd, Signal::KILL).map_err(waiting)?;
        }
        self.withdraw(topology, state.holder)
    }

    fn file(&self, topology: Topology) -> PathBuf {
        self.directory.join(format!("{}.json", topology.name()))
    }

    /// What the state file says; nothing if there is none or if it is not understood.
    fn read(&self, topology: Topology) -> Result<Option<Standing>, StandingError> {
        let path = self.file(topology);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(file_error("open", &path))?,
        };
        let mut text = String::new();
        file.take(MAX_TEXT).read_to_string(&mut text).map_err(file_error("read", &path))?;
        Ok(serde_json::from_str(&text).ok())
    }

    /// Makes the state file, unless the topology stands already.
    fn publish(&self, topology: Topology, state: &Standing) -> Result<(), StandingError> {
        let path = self.file(topology);
        let draft = self.directory.join(format!(".{}.{}", topology.name(), state.holder.pid));
        create_private(&self.directory).map_err(file_error("create", &self.directory))?;
        let text = serde_json::to_vec(state).map_err(io::Error::from);
        text.and_then(|text| fs::write(&draft, text)).map_err(file_error("write", &draft))?;
        for _ in 0..PUBLISH_ATTEMPTS {
            match renameat_with(CWD, &draft, CWD, &path, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) if self.find(topology)?.is_none() => {
                    let _ = fs::remove_file(&path);
                }
                Err(Errno::EXIST) => break,
                Err(error) => {
                    let _ = fs::remove_file(&draft);
                    return Err(file_error("create", &path)(error.into()));
                }
            }
        }
        let _ = fs::remove_file(&draft);
        Err(stands(topology, &self.standing(topology)?))
    }

    /// Removes the state file if it is that of `holder`.
    fn withdraw(&self, topology: Topology, holder: Identity) -> Result<(), StandingError> {
        let path = self.file(topology);
        if self.read(topology)?.is_none_or(|state| state.holder != holder) {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_error("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

fn start_tunnels(
    network: &Network,
    adit: &Path,
    scratch: &Scratch,
    interrupt: &Interrupt,
) -> Result<Vec<Tunnel>, StandingError> {
    let deadline = Deadline::after_or(UP_PATIENCE, interrupt);
    let mut tunnels = Vec::new();
    for (end, host) in run::prepare(network)? {
        tunnels.push(end.start(adit, host, scratch.path(), deadline)?);
    }
    Ok(tunnels)
}

fn stands(topology: Topology, standing: &Standing) -> StandingError {
    StandingError::Stands { topology: topology.name(), pid: standing.holder.pid }
}

fn file_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StandingError {
    move |source| StandingError::File { operation, path: path.to_owned(), source }
}

/// Sends `signal` and waits for the end.
fn end(pidfd: &OwnedFd, signal: Signal) -> Result<(), WaitError> {
    match pidfd_send_signal(pidfd, signal) {
        Err(Errno::SRCH) => return Ok(()),
        result => result.map_err(|error| WaitError::Poll(error.into()))?,
    }
    Deadline::after(DOWN_PATIENCE).wait_readable(&[pidfd.as_fd()])
}

/// What the holder says until it closes its standard error, which it does in any case.
fn read_to_end(holder: &mut Child, deadline: Deadline<'_>) -> Result<String, WaitError> {
    let mut said = Vec::new();
    let Some(mut pipe) = holder.stderr.take() else { return Ok(String::new()) };
    let mut buffer = [0; 1024];
    loop {
        deadline.wait_readable(&[pipe.as_fd()])?;
        match pipe.read(&mut buffer).map_err(WaitError::Poll)? {
            0 => return Ok(String::from_utf8_lossy(&said).into_owned()),
            count if (said.len() as u64) < MAX_TEXT => {
                said.extend(buffer.get(..count).unwrap_or_default());
            }
            _ => {}
        }
    }
}

/// The error in what the holder said.
fn gist(said: &str) -> String {
    let error = said.lines().find_map(|line| line.strip_prefix("error: "));
    let last = || said.lines().rev().find(|line| !line.trim().is_empty());
    error.or_else(last).unwrap_or("it ended without a word").to_owned()
}

/// Makes `directory`, which only its owner may use, and what is above it.
fn create_private(directory: &Path) -> io::Result<()> {
    if let Some(above) = directory.parent() {
        fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Whoever reads the holder's standard error finds its end.
fn detach_standard_error() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}
