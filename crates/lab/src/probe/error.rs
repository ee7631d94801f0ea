//! What ends a probe early, and what it only counts.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use serde::Serialize;
use thiserror::Error;

/// Why a source or a sink could not start or go on.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The local socket could not be made.
    #[error("open UDP socket on {address}")]
    Bind {
        /// The local address that was asked for.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No local address was given.
    #[error("sink has no address to listen on")]
    NoAddress,
    /// More local addresses were given than a sink serves.
    #[error("sink has {given} addresses to listen on; at most {limit} are possible")]
    TooManyAddresses {
        /// How many were given.
        given: usize,
        /// How many are possible.
        limit: usize,
    },
    /// The socket could not be directed at the target.
    #[error("connect UDP socket to {target}")]
    Connect {
        /// Where the messages should go.
        target: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Receiving failed for a reason that does not pass.
    #[error("receive on {local}")]
    Receive {
        /// The local address.
        local: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Waiting failed.
    #[error("wait for the socket")]
    Wait(#[source] io::Error),
}

/// Socket errors that a probe survives, counted by kind ("connection refused").
///
/// Bounded by the number of error codes that the kernel knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SocketErrors(BTreeMap<String, u64>);

impl SocketErrors {
    /// Counts one error.
    pub fn count(&mut self, error: &io::Error) {
        *self.0.entry(kind_of(error)).or_default() += 1;
    }

    /// How often each kind occurred, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(kind, count)| (kind.as_str(), *count))
    }

    /// How many errors of all kinds there were.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// The words of the standard library where it knows the error, those of the kernel elsewhere.
fn kind_of(error: &io::Error) -> String {
    let kind = error.kind().to_string();
    let vague = matches!(kind.as_str(), "other error" | "uncategorized error");
    match error.raw_os_error() {
        Some(_) if vague => error.to_string(),
        _ => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_kind() {
        let mut errors = SocketErrors::default();
        errors.count(&rustix::io::Errno::CONNREFUSED.into());
        errors.count(&rustix::io::Errno::CONNREFUSED.into());
        errors.count(&rustix::io::Errno::NOBUFS.into());
        assert_eq!(
            errors.iter().collect::<Vec<_>>(),
            [("No buffer space available (os error 105)", 1), ("connection refused", 2)]
        );
        assert_eq!(errors.total(), 3);
        assert_eq!(
            serde_json::to_string(&errors).unwrap(),
            r#"{"No buffer space available (os error 105)":1,"connection refused":2}"#
        );
    }
}
