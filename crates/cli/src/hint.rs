//! What a user can do about an error.
//!
//! Libraries say what failed and why; they do not know who uses them. Here the chain of an error is
//! searched for those that are known, and each adds a sentence.

mod device;

use std::error::Error;
use std::io;

use ::device::OpenError;
use engine::config::ConfigError;
use engine::keyfile::KeyFileError;
use engine::runtime::RuntimeError;
use engine::supervisor::{AttachError, HostError, UnderlayError};
use netlink::journal::JournalError;
use netlink::plan::{ChangeError, PlanError};
use netlink::resolver::NamesError;
use netlink::sysctl::SysctlError;
use transport::udp::BindError;

/// What helps against `error` and its causes, outermost first.
pub(crate) fn hints(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut hints = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        hints.extend(hint(error));
        next = error.source();
    }
    hints
}

/// What helps where the host's network cannot be made as it shall be.
fn host(error: &HostError) -> Option<String> {
    Some(match error {
        HostError::Running { tunnel, .. } => format!("\"adit down {tunnel}\" ends it"),
        HostError::Journal(JournalError::OtherNamespace { path, .. }) => format!(
            "run \"adit down\" in that namespace, or remove {} if it is gone; RUNTIME_DIRECTORY names \
             another directory",
            path.display()
        ),
        HostError::Journal(
            JournalError::Malformed { path, .. }
            | JournalError::Version { path, .. }
            | JournalError::TooLarge { path },
        ) => format!(
            "each line of {} names a change that is to be taken back by hand; remove it then",
            path.display()
        ),
        HostError::Runtime(RuntimeError::Create { .. } | RuntimeError::Unset) => {
            "RUNTIME_DIRECTORY names another directory for journals".into()
        }
        HostError::Plan(PlanError::RouteTaken { destination, .. }) => {
            format!("\"ip route show {destination}\" tells more")
        }
        HostError::Plan(PlanError::Names(NamesError::OtherTunnel { tunnel, .. })) => {
            format!("\"adit down {tunnel}\" brings the former file back")
        }
        HostError::Plan(PlanError::NoWay { endpoint, .. }) => {
            format!("this host has no route to {endpoint} at the moment")
        }
        HostError::Change(ChangeError::NoFilter { .. }) => {
            "\"modprobe nf_tables\" may help; without forward and masquerade it is not needed"
                .into()
        }
        HostError::Change(ChangeError::Sysctl(SysctlError::Write { key, source, .. }))
            if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
        {
            format!("a container may not set {key}: set it outside, or when the container is made")
        }
        error if error.is_not_permitted() => {
            "this needs CAP_NET_ADMIN: run as root, or on a device that is set up already".into()
        }
        _ => return None,
    })
}

/// What helps where a secret is none.
fn secret(error: &(dyn Error + 'static)) -> Option<String> {
    let path = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(KeyFileError::Exposed { path, .. }), _) => path.display().to_string(),
        (_, Some(ConfigError::Exposed { file, .. })) => file.clone(),
        _ => return None,
    };
    Some(format!("\"chmod 600 {path}\", and a new key if somebody may have read this one"))
}

/// What helps against `error` alone.
fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(hint) = secret(error) {
        return Some(hint);
    }
    if let Some(error) = error.downcast_ref::<OpenError>() {
        return device::hint(error);
    }
    if let Some(AttachError::Open(error)) = error.downcast_ref() {
        return device::hint(error);
    }
    if let Some(UnderlayError::Bind(BindError::Bind { address, source })) = error.downcast_ref() {
        return match source.kind() {
            io::ErrorKind::AddrInUse => {
                Some(format!("\"ss -ulpn sport = :{}\" tells who listens there", address.port()))
            }
            io::ErrorKind::AddrNotAvailable => {
                Some(format!("this host has no address {} now", address.ip()))
            }
            _ => None,
        };
    }
    error.downcast_ref().and_then(host)
}
