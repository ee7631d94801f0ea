//! A tunnel that runs in a host: `adit up` with a configuration file of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::deadline::Deadline;
use crate::host::Host;
use crate::process::{GRACE, Process, ProcessError};

/// The TUN device of every tunnel in a lab.
pub const DEVICE: &str = "adit0";

/// One end of a tunnel: what its configuration file is to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// The tunnel's name, unique in the lab.
    pub(crate) name: &'static str,
    /// The configuration file.
    pub(crate) config: &'static str,
}

/// A running `adit up`; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    process: Process,
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
        let Self { name, config } = self;
        let file = directory.join(format!("{name}.toml"));
        fs::write(&file, config)
            .map_err(|source| TunnelError::Configure { file: file.clone(), source })?;
        let failed = |source| TunnelError::Start { name, host: host.name(), source };
        let mut command = Command::new(adit);
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
}
