//! The directory in which tunnels that were made on the command line keep what must outlive a boot: their configuration,
//! their keys, and who was invited.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use thiserror::Error;

use crate::runtime::choose;

/// The directory of root's tunnels.
const SYSTEM: &str = "/var/lib/adit";

/// Where below the home directory a user's state is unless told otherwise (XDG Base Directory Specification).
const BELOW_HOME: &str = ".local/state";

/// There is no directory for a tunnel's files.
#[derive(Debug, Error)]
pub enum StateError {
    /// An unprivileged user without a home.
    #[error("find a directory for the tunnel's files: neither XDG_STATE_HOME nor HOME is set")]
    Unset,
    /// The directory cannot be made.
    #[error("create directory {path}", path = .path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directory of all such tunnels, whether it is there or not: `$STATE_DIRECTORY`, which a service sets
/// (systemd.exec(5)), else `/var/lib/adit` for root and `$XDG_STATE_HOME/adit` or `~/.local/state/adit` for others.
///
/// # Errors
///
/// [`StateError::Unset`] for a user other than root who has none.
pub fn directory() -> Result<PathBuf, StateError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").map(|home| Path::new(&home).join(BELOW_HOME).into_os_string());
    choose(
        SYSTEM,
        variable("STATE_DIRECTORY").as_deref(),
        geteuid().is_root(),
        variable("XDG_STATE_HOME").or(home).as_deref(),
    )
    .ok_or(StateError::Unset)
}

/// Makes a directory for secrets, and those above it, unless it is there.
///
/// # Errors
///
/// [`StateError::Create`].
pub fn create(path: &Path) -> Result<(), StateError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StateError::Create { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_services_directory_comes_before_the_systems_and_a_users() {
        let chosen = |service: Option<&str>, root, user: Option<&str>| {
            choose(SYSTEM, service.map(OsStr::new), root, user.map(OsStr::new))
        };
        assert_eq!(chosen(Some("/var/lib/x:/y"), true, None), Some("/var/lib/x".into()));
        assert_eq!(chosen(None, true, Some("/home/a/.local/state")), Some("/var/lib/adit".into()));
        let user = Some("/home/a/.local/state/adit".into());
        assert_eq!(chosen(None, false, Some("/home/a/.local/state")), user);
        assert_eq!(chosen(None, false, None), None);
    }
}
