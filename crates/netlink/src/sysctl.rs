//! Settings of the kernel under `/proc/sys` (sysctl(8)).
//!
//! A key is a path with dots for slashes: `net.ipv4.ip_forward`. Interface names may contain dots; in
//! a key they stand as slashes, as sysctl(8) has it: `net.ipv4.conf.eth0/5.rp_filter` is the
//! `rp_filter` of `eth0.5`. [`key_for_interface`] writes such keys.
//!
//! Keys under `net` belong to a network namespace, and it is that of the *thread* that looks them up:
//! the kernel resolves `/proc/sys/net` by `current->nsproxy->net_ns` (`net_ctl_header_lookup` in
//! net/sysctl_net.c), so a thread that has entered a namespace needs no other path.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

const ROOT: &str = "/proc/sys";

/// The longest value read, in octets; the kernel hands out a page at a time.
const VALUE_LIMIT: u64 = 64 * 1024;

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// The key has an empty component, or one that would lead out of `/proc/sys`.
    #[error("sysctl key {key:?} is malformed")]
    Key {
        /// The key.
        key: String,
    },
    /// The setting could not be read.
    #[error("read sysctl {key}")]
    Read {
        /// The key.
        key: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The setting could not be written.
    #[error("write sysctl {key} = {value}")]
    Write {
        /// The key.
        key: String,
        /// The value that was to be set.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SysctlError {
    /// Whether the kernel has no such setting, or none for such an interface.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Key { .. } => false,
            Self::Read { source, .. } | Self::Write { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
            }
        }
    }
}

/// Reads a setting, without the newline at its end.
pub fn read(key: &str) -> Result<String, SysctlError> {
    let path = path(key)?;
    read_value(&path).map_err(|source| SysctlError::Read { key: key.to_owned(), source })
}

/// Writes a setting.
pub fn write(key: &str, value: &str) -> Result<(), SysctlError> {
    let path = path(key)?;
    write_value(&path, value).map_err(|source| SysctlError::Write {
        key: key.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// The key of an interface's setting: `net.ipv4.conf`, `eth0.5`, `rp_filter` become
/// `net.ipv4.conf.eth0/5.rp_filter`.
pub fn key_for_interface(prefix: &str, interface: &str, setting: &str) -> String {
    format!("{prefix}.{}.{setting}", interface.replace('.', "/"))
}

fn read_value(path: &Path) -> io::Result<String> {
    let mut value = String::new();
    fs::File::open(path)?.take(VALUE_LIMIT).read_to_string(&mut value)?;
    value.truncate(value.trim_end_matches('\n').len());
    Ok(value)
}

/// Never creates a file, so that a wrong key is an error wherever `/proc` is.
fn write_value(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn path(key: &str) -> Result<PathBuf, SysctlError> {
    let mut path = PathBuf::from(ROOT);
    for component in key.split('.') {
        let component = component.replace('/', ".");
        if matches!(component.as_str(), "" | "." | "..") || component.contains('\0') {
            return Err(SysctlError::Key { key: key.to_owned() });
        }
        path.push(component);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_become_slashes_and_slashes_become_dots() {
        assert_eq!(
            path("net.ipv4.ip_forward").unwrap(),
            Path::new("/proc/sys/net/ipv4/ip_forward")
        );
        let key = key_for_interface("net.ipv4.conf", "eth0.5", "rp_filter");
        assert_eq!(key, "net.ipv4.conf.eth0/5.rp_filter");
        assert_eq!(path(&key).unwrap(), Path::new("/proc/sys/net/ipv4/conf/eth0.5/rp_filter"));
    }

    #[test]
    fn no_key_leads_out_of_proc_sys() {
        for key in ["", ".", "net..forward", "//.//.etc.passwd", "/", "net.ipv4.", ".net", "a\0b"] {
            assert!(matches!(path(key), Err(SysctlError::Key { .. })), "{key:?}");
        }
        assert_eq!(path("/etc/passwd").unwrap(), Path::new("/proc/sys/.etc.passwd"));
    }
}
