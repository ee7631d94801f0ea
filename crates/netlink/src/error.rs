//! What went wrong with a request to the kernel.

use rustix::io::Errno;

/// A failed operation, in the words of ip(8), and its cause.
///
/// ```text
/// add route 10.9.0.0/16 dev tun0: Network is unreachable (os error 101): kernel says "Nexthop has invalid gateway"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {cause}")]
pub struct Error {
    operation: String,
    cause: Cause,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The kernel refused the request.
    #[error("{errno}{}", quote(.says.as_deref()))]
    Refused {
        /// The error number of the answer.
        errno: Errno,
        /// The text of the extended acknowledgement, when the kernel gave one.
        says: Option<String>,
    },
    /// A system call on the netlink socket failed.
    #[error("{call}: {errno}")]
    Socket {
        /// The system call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
    /// The kernel's answer does not follow the protocol.
    #[error("malformed netlink answer: {0}")]
    Malformed(String),
    /// The request ended without the object that it asked for.
    #[error("the kernel acknowledged without an answer")]
    NoAnswer,
    /// No answer came within the time limit.
    #[error("no answer within {} s", crate::channel::ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    /// What was listed kept changing while it was listed.
    #[error("interrupted by changes {} times", crate::connection::DUMP_ATTEMPTS)]
    Interrupted,
    /// The list is longer than the limit.
    #[error("more than {} entries", crate::exchange::DUMP_LIMIT)]
    TooMany,
    /// This cannot be the name of a link.
    #[error("a link's name has 1 to {} octets, none of them zero", crate::link::NAME_LIMIT)]
    Name,
    /// The kernel lacks something, which it says with an error number that can mean much else.
    #[error("the kernel has no {what}: {errno}")]
    Unsupported {
        /// What it lacks.
        what: &'static str,
        /// The error number of its answer.
        errno: Errno,
    },
    /// This cannot be the name of a table.
    #[error(
        "a table's name is {:?} and 1 to {} letters, digits, dots, dashes or underscores",
        crate::nftables::TABLE_PREFIX,
        crate::nftables::TABLE_NAME_LIMIT - crate::nftables::TABLE_PREFIX.len()
    )]
    TableName,
    /// A rule translates addresses of one family to one of the other.
    #[error("the source and what it is translated to are of different families")]
    MixedFamilies,
    /// A table has more rules than fit into a transaction.
    #[error("more than {} rules", crate::nftables::RULE_LIMIT)]
    TooManyRules,
}

impl Error {
    pub(crate) fn new(operation: impl Into<String>, cause: Cause) -> Self {
        Self { operation: operation.into(), cause }
    }

    /// What was attempted, with its object: `add address 192.0.2.1/24 dev tun0`.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// Why it failed.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// The error number of the kernel's refusal or of the failed system call.
    pub fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }

    /// Whether the object to be added is there already (`EEXIST`).
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    /// Whether the object to be changed or deleted is not there.
    ///
    /// The kernel says `ENODEV` for links, `EADDRNOTAVAIL` for addresses, `ESRCH` for routes and
    /// `ENOENT` for some others.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::NODEV | Errno::ADDRNOTAVAIL | Errno::SRCH | Errno::NOENT)
        )
    }

    /// Whether the kernel lacks what an operation of [`crate::nftables`] needs: nf_tables itself, or
    /// a kind of chain, match or statement.
    ///
    /// The kernel says `EPROTONOSUPPORT` without netfilter, `EOPNOTSUPP` without nf_tables and
    /// `ENOENT` without a module that a chain or a rule needs. Of other operations this is
    /// meaningless, as `ENOENT` is.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.cause, Cause::Unsupported { .. })
            || matches!(self.errno(), Some(Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::NOENT))
    }
}

impl Cause {
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. }
            | Self::Socket { errno, .. }
            | Self::Unsupported { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl From<netlink_packet_core::DecodeError> for Cause {
    fn from(error: netlink_packet_core::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

fn quote(says: Option<&str>) -> String {
    says.map_or_else(String::new, |text| format!(": kernel says {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_operation_errno_and_the_kernels_text() {
        let says = Some("Nexthop has invalid gateway".to_owned());
        let cause = Cause::Refused { errno: Errno::NETUNREACH, says };
        let error = Error::new("add route 10.9.0.0/16 dev tun0", cause);
        assert_eq!(
            error.to_string(),
            "add route 10.9.0.0/16 dev tun0: Network is unreachable (os error 101): \
             kernel says \"Nexthop has invalid gateway\""
        );
        assert_eq!(error.errno(), Some(Errno::NETUNREACH));
        assert!(!error.is_exists());
    }

    #[test]
    fn each_kind_of_object_has_its_own_errno_for_not_found() {
        let refused = |errno| Error::new("x", Cause::Refused { errno, says: None });
        for errno in [Errno::NODEV, Errno::ADDRNOTAVAIL, Errno::SRCH, Errno::NOENT] {
            assert!(refused(errno).is_not_found(), "{errno}");
        }
        assert!(!refused(Errno::PERM).is_not_found());
        assert!(refused(Errno::EXIST).is_exists());
    }
}
