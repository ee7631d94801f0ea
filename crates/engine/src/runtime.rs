//! The directory in which running tunnels keep their journals, and what a journal is bound to.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use netlink::journal::Place;
use rustix::process::geteuid;
use thiserror::Error;

/// The directory of root's tunnels; tmpfs everywhere, so that it is empty after a boot.
const SYSTEM: &str = "/run/adit";

/// The directory's name below that of a user (XDG Base Directory Specification).
const BELOW_USER: &str = "adit";

/// The identifier of this boot (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The calling thread's network namespace (namespaces(7)).
const NETNS: &str = "/proc/thread-self/ns/net";

/// There is no directory for journals, or nothing to bind them to.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// An unprivileged user without a directory for such files.
    #[error("find a directory for the journal: XDG_RUNTIME_DIR is not set")]
    Unset,
    /// The directory cannot be made.
    #[error("create directory {path}", path = .path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not tell where and when we are.
    #[error("read {path}")]
    Read {
        /// The file below `/proc`.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The directory for journals, whether it is there or not: `$RUNTIME_DIRECTORY`, which a service
/// sets (systemd.exec(5)), else `/run/adit` for root and `$XDG_RUNTIME_DIR/adit` for others.
///
/// # Errors
///
/// [`RuntimeError::Unset`] for a user other than root who has none.
pub fn directory() -> Result<PathBuf, RuntimeError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    choose(
        SYSTEM,
        variable("RUNTIME_DIRECTORY").as_deref(),
        geteuid().is_root(),
        variable("XDG_RUNTIME_DIR").as_deref(),
    )
    .ok_or(RuntimeError::Unset)
}

/// Makes the directory for journals, unless it is there.
pub(crate) fn create_directory() -> Result<PathBuf, RuntimeError> {
    let path = directory()?;
    let made = DirBuilder::new().recursive(true).mode(0o755).create(&path);
    made.map_err(|source| RuntimeError::Create { path: path.clone(), source })?;
    Ok(path)
}

/// The namespace of the calling thread and this boot.
pub(crate) fn place() -> Result<Place, RuntimeError> {
    let failed = |path| move |source| RuntimeError::Read { path, source };
    let boot = std::fs::read_to_string(BOOT).map_err(failed(BOOT))?;
    let netns = std::fs::metadata(NETNS).map_err(failed(NETNS))?.ino();
    Ok(Place { netns, boot: boot.trim_end().to_owned() })
}

/// The directory of this program's among those that a service has (systemd.exec(5)), `system` for root, or the one of
/// its name in that of a user.
pub(crate) fn choose(
    system: &str,
    service: Option<&OsStr>,
    root: bool,
    user: Option<&OsStr>,
) -> Option<PathBuf> {
    match (service, root, user) {
        // Several are separated by colons; the first is the one for tunnels.
        (Some(service), ..) => {
            service.to_str().and_then(|list| list.split(':').next()).map(PathBuf::from)
        }
        (None, true, _) => Some(PathBuf::from(system)),
        (None, false, user) => user.map(|user| Path::new(user).join(BELOW_USER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(service: Option<&str>, root: bool, user: Option<&str>) -> Option<PathBuf> {
        choose(SYSTEM, service.map(OsStr::new), root, user.map(OsStr::new))
    }

    #[test]
    fn a_services_directory_comes_before_the_systems_and_a_users() {
        assert_eq!(chosen(Some("/run/x:/run/y"), true, None), Some("/run/x".into()));
        assert_eq!(chosen(None, true, Some("/run/user/0")), Some("/run/adit".into()));
        assert_eq!(chosen(None, false, Some("/run/user/7")), Some("/run/user/7/adit".into()));
        assert_eq!(chosen(None, false, None), None);
    }
}
