//! Building networks without being root.
//!
//! A user may make a *user namespace* and is root inside (user_namespaces(7)): network namespaces
//! made there are the user's own, with devices, routes and sysctls. Nothing outside changes, and
//! files that the user makes still belong to the user. What can stand in the way is looked at before
//! anything is made, each obstacle with its own error.

use std::fs::{self, OpenOptions};
use std::io;

use rustix::process::{getegid, geteuid};

use crate::sys;

/// Opening it is what a TUN device begins with.
const TUN_NODE: &str = "/dev/net/tun";

/// Obstacle sysctls: the file, and the value that forbids user namespaces to ordinary users.
const MAX_USER_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";
const UNPRIVILEGED_CLONE: &str = "/proc/sys/kernel/unprivileged_userns_clone";
const APPARMOR_RESTRICTION: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// What a user who is not root lacks.
#[derive(Debug, thiserror::Error)]
pub enum RootlessError {
    /// The user may not open the node of the tun driver.
    #[error("open {TUN_NODE} as user {user}")]
    TunNode {
        /// The effective user id.
        user: u32,
        /// The cause.
        source: io::Error,
    },
    /// The machine allows no user namespaces at all.
    #[error("create user namespace: user.max_user_namespaces is 0")]
    NoUserNamespaces,
    /// The machine allows them to root only (a setting of Debian's kernels).
    #[error("create user namespace: kernel.unprivileged_userns_clone is 0")]
    PrivilegedOnly,
    /// AppArmor takes all power from programs without a profile (Ubuntu from 23.10 on).
    #[error("create user namespace: kernel.apparmor_restrict_unprivileged_userns is 1")]
    AppArmor,
    /// The kernel refused for another reason.
    #[error("create user and network namespace as user {user}")]
    Unshare {
        /// The effective user id.
        user: u32,
        /// The cause.
        source: io::Error,
    },
    /// The user could not be made root inside.
    #[error("write {file}")]
    Map {
        /// The file of the identity map.
        file: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Lets the calling process build networks: root may already, other users get a user namespace.
///
/// Returns whether a user namespace was entered. The process must have one thread only, and is in an
/// empty network namespace afterwards if it was not root.
pub fn enter() -> Result<bool, RootlessError> {
    if geteuid().is_root() {
        return Ok(false);
    }
    check()?;
    enter_user_namespace()?;
    Ok(true)
}

/// Moves the calling process, which must have one thread only, to a user namespace where its user
/// is root, and to an empty network namespace there.
pub fn enter_user_namespace() -> Result<(), RootlessError> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare_user_and_network().map_err(|source| RootlessError::Unshare { user, source })?;
    // Without `deny` a user could shed a group that takes rights away, so gid_map is refused.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {user} 1"))?;
    write("/proc/self/gid_map", &format!("0 {group} 1"))
}

/// Looks for what would keep a user who is not root from building networks; makes nothing.
pub fn check() -> Result<(), RootlessError> {
    let user = geteuid().as_raw();
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(TUN_NODE)
        .map_err(|source| RootlessError::TunNode { user, source })?;
    if reads(MAX_USER_NAMESPACES, "0") {
        return Err(RootlessError::NoUserNamespaces);
    }
    if reads(UNPRIVILEGED_CLONE, "0") {
        return Err(RootlessError::PrivilegedOnly);
    }
    if reads(APPARMOR_RESTRICTION, "1") {
        return Err(RootlessError::AppArmor);
    }
    Ok(())
}

/// Whether `file` holds `value`; a kernel without the file does not.
fn reads(file: &str, value: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|content| content.trim() == value)
}

fn write(file: &'static str, content: &str) -> Result<(), RootlessError> {
    fs::write(file, content).map_err(|source| RootlessError::Map { file, source })
}
