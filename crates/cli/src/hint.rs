//! What a user can do about an error.
//!
//! Libraries say what failed and why; they do not know who uses them. Here the chain of an error is
//! searched for those that are known, and each adds a sentence.

mod device;

use std::error::Error;
use std::io;

use ::device::OpenError;
use engine::tunnel::{AttachError, HostError, UnderlayError};
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

/// What helps against `error` alone.
fn hint(error: &(dyn Error + 'static)) -> Option<String> {
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
    match error.downcast_ref::<HostError>() {
        Some(error) if error.is_not_permitted() => Some(
            "this needs CAP_NET_ADMIN: run as root, or on a device that is set up already".into(),
        ),
        _ => None,
    }
}
