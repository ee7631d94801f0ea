//! Why a device could not be opened.
//!
//! The driver answers `EINVAL` to a wrong mode, a wrong number of queues and an interface of
//! another driver, `EBUSY` to an exclusive creation of what exists and to a queue that is taken,
//! and `EPERM` to whoever may not create and to whoever is not the owner. [`explain`] tells them
//! apart by [`Facts`] that are gathered after the failure. They may have changed by then: the cause
//! is then the nearest, and at worst [`OpenError::Refused`] with what the kernel said.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::{DeviceName, Driver, Holder, MAX_QUEUES, Mode, Observed, holders};

/// What was attempted when opening failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// To create the device, not to attach to one that is there.
    pub create: bool,
    /// The kind of device.
    pub mode: Mode,
    /// Its name, or the pattern of it.
    pub name: DeviceName,
}

/// As in `create TUN device "tun0"`.
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.create { "create" } else { "attach to" };
        write!(f, "{verb} {} device \"{}\"", self.mode, self.name)
    }
}

/// Why a device could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The node of the driver does not exist, or exists without a driver behind it: the module
    /// `tun` is not loaded, or a container was not given the node.
    #[error("open \"{}\"", node.display())]
    NodeMissing {
        /// The node.
        node: PathBuf,
        /// `ENOENT`, `ENODEV` or `ENXIO`.
        source: io::Error,
    },
    /// The user may not open the node of the driver.
    #[error("open \"{}\"", node.display())]
    NodeForbidden {
        /// The node.
        node: PathBuf,
        /// `EACCES` or `EPERM`.
        source: io::Error,
    },
    /// The node of the driver cannot be opened for another reason.
    #[error("open \"{}\"", node.display())]
    Node {
        /// The node.
        node: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was opened is not the character device 10:200.
    #[error("open \"{}\": it is not the node of the tun driver", node.display())]
    NodeForeign {
        /// What was opened.
        node: PathBuf,
    },
    /// To create a device needs `CAP_NET_ADMIN` in the user namespace of the network namespace.
    #[error("{attempt}")]
    NotPermitted {
        /// What was attempted.
        attempt: Attempt,
        /// `EPERM`.
        source: io::Error,
    },
    /// The device belongs to someone else, and there is no `CAP_NET_ADMIN`.
    #[error("{attempt}")]
    NotOwner {
        /// What was attempted.
        attempt: Attempt,
        /// The user that may attach, when known and set.
        owner: Option<u32>,
        /// The group whose members may attach, when known and set.
        group: Option<u32>,
        /// `EPERM`.
        source: io::Error,
    },
    /// Someone else is attached.
    #[error("{attempt}: {}", in_use(.holders))]
    Busy {
        /// What was attempted.
        attempt: Attempt,
        /// The processes that are attached, as far as they are visible.
        holders: Vec<Holder>,
    },
    /// The device is of the other mode.
    #[error("{attempt}: it is a {actual} device")]
    WrongMode {
        /// What was attempted.
        attempt: Attempt,
        /// What the device is.
        actual: Mode,
    },
    /// The device has one queue and several were asked for, or the other way round.
    #[error("{attempt}: it was made {}", queues(!.asked_multi_queue))]
    WrongQueues {
        /// What was attempted.
        attempt: Attempt,
        /// Whether a queue of a multi-queue device was asked for.
        asked_multi_queue: bool,
    },
    /// The interface of that name is not of the tun driver.
    #[error("{attempt}: it is an interface of another kind{}", of_driver(.driver))]
    NotTun {
        /// What was attempted.
        attempt: Attempt,
        /// The driver of the interface, where it has one.
        driver: String,
    },
    /// The device was to be created, and an interface of that name exists.
    #[error("{attempt}: an interface of that name exists")]
    Exists {
        /// What was attempted.
        attempt: Attempt,
    },
    /// The device was to be attached to, and it does not exist.
    #[error("{attempt}: there is no such device")]
    Missing {
        /// What was attempted.
        attempt: Attempt,
    },
    /// The device would have more than [`MAX_QUEUES`] queues.
    #[error("{attempt}: it would have more than {MAX_QUEUES} queues")]
    TooManyQueues {
        /// What was attempted.
        attempt: Attempt,
    },
    /// The kernel did not do what it was asked, and did not say so.
    #[error("{attempt}: asked for flags {asked:#06x}, got {got:#06x}")]
    KernelRefusedFlags {
        /// What was attempted.
        attempt: Attempt,
        /// The flags of `TUNSETIFF`.
        asked: u16,
        /// The flags of `TUNGETIFF`.
        got: u16,
    },
    /// The device was opened but one of its settings was refused.
    #[error("{attempt}: set {setting}")]
    Setting {
        /// What was attempted.
        attempt: Attempt,
        /// The setting, in words.
        setting: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused for a reason that is not known here.
    #[error("{attempt}")]
    Refused {
        /// What was attempted.
        attempt: Attempt,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What can be known of a device when the driver has refused it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Who drives the interface of that name, if there is one.
    pub(crate) driver: Option<Driver>,
    /// What the caller knows of the device.
    pub(crate) observed: Option<Observed>,
    /// Who is attached.
    pub(crate) holders: Vec<Holder>,
}

impl Facts {
    pub(crate) fn gather(name: &DeviceName, observed: Option<Observed>) -> Self {
        Self { driver: crate::driver(name).ok(), observed, holders: holders_of(name) }
    }
}

/// The visible processes that are attached to the device `name`.
pub(crate) fn holders_of(name: &DeviceName) -> Vec<Holder> {
    let of_device = holders().into_iter().filter(|(device, _)| device == name.as_str());
    of_device.map(|(_, holder)| holder).collect()
}

/// The cause of a failure to open the node of the driver.
pub(crate) fn explain_node(node: PathBuf, source: io::Error) -> OpenError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => OpenError::NodeMissing { node, source },
        Some(libc::EACCES | libc::EPERM) => OpenError::NodeForbidden { node, source },
        _ => OpenError::Node { node, source },
    }
}

/// The cause of a refusal of `TUNSETIFF`.
pub(crate) fn explain(
    attempt: Attempt,
    asked_multi_queue: bool,
    facts: Facts,
    source: io::Error,
) -> OpenError {
    match (source.raw_os_error(), facts.driver) {
        (Some(libc::EPERM), _) if attempt.create => OpenError::NotPermitted { attempt, source },
        (Some(libc::EPERM), _) => {
            let (owner, group) = facts.observed.map_or((None, None), |o| (o.owner, o.group));
            OpenError::NotOwner { attempt, owner, group, source }
        }
        (Some(libc::EBUSY), _) if attempt.create => OpenError::Exists { attempt },
        (Some(libc::EBUSY), _) => OpenError::Busy { attempt, holders: facts.holders },
        (Some(libc::E2BIG), _) => OpenError::TooManyQueues { attempt },
        (Some(libc::EINVAL), Some(Driver::Other(driver))) => OpenError::NotTun { attempt, driver },
        (Some(libc::EINVAL), Some(Driver::Tun(actual))) if actual != attempt.mode => {
            OpenError::WrongMode { attempt, actual }
        }
        (Some(libc::EINVAL), Some(Driver::Tun(_))) => {
            OpenError::WrongQueues { attempt, asked_multi_queue }
        }
        _ => OpenError::Refused { attempt, source },
    }
}

fn in_use(holders: &[Holder]) -> String {
    let Some((first, others)) = holders.split_first() else {
        return "another process is attached".to_owned();
    };
    match others.len() {
        0 => format!("{first} is attached"),
        others => format!("{first} and {others} more are attached"),
    }
}

fn queues(multi_queue: bool) -> &'static str {
    if multi_queue { "for several queues" } else { "for one queue" }
}

fn of_driver(driver: &str) -> String {
    if driver.is_empty() { String::new() } else { format!(" (driver \"{driver}\")") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(create: bool) -> Attempt {
        Attempt { create, mode: Mode::Tun, name: DeviceName::parse("tun0").unwrap() }
    }

    fn explained(create: bool, errno: i32, facts: Facts) -> OpenError {
        explain(attempt(create), true, facts, io::Error::from_raw_os_error(errno))
    }

    fn driven_by(driver: Driver) -> Facts {
        Facts { driver: Some(driver), ..Facts::default() }
    }

    #[test]
    fn the_same_error_number_has_several_causes() {
        let wrong_mode = explained(false, libc::EINVAL, driven_by(Driver::Tun(Mode::Tap)));
        assert_eq!(wrong_mode.to_string(), "attach to TUN device \"tun0\": it is a TAP device");
        let wrong_queues = explained(false, libc::EINVAL, driven_by(Driver::Tun(Mode::Tun)));
        assert_eq!(
            wrong_queues.to_string(),
            "attach to TUN device \"tun0\": it was made for one queue"
        );
        let foreign = explained(false, libc::EINVAL, driven_by(Driver::Other("veth".into())));
        assert_eq!(
            foreign.to_string(),
            "attach to TUN device \"tun0\": it is an interface of another kind (driver \"veth\")"
        );
        let unknown = explained(false, libc::EINVAL, Facts::default());
        assert!(matches!(unknown, OpenError::Refused { .. }), "{unknown:?}");
    }

    #[test]
    fn a_refused_creation_keeps_the_words_of_the_kernel_as_its_source() {
        let error = explained(true, libc::EPERM, Facts::default());
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(
            format!("{error}: {source}"),
            "create TUN device \"tun0\": Operation not permitted (os error 1)"
        );
    }

    #[test]
    fn who_holds_a_busy_device_is_named() {
        let holder = |pid| Holder { pid, command: "openvpn".into(), only_here: true };
        let busy = |holders| explained(false, libc::EBUSY, Facts { holders, ..Facts::default() });
        assert_eq!(
            busy(vec![holder(42)]).to_string(),
            "attach to TUN device \"tun0\": process 42 (openvpn) is attached"
        );
        assert_eq!(
            busy(vec![holder(42), holder(43), holder(44)]).to_string(),
            "attach to TUN device \"tun0\": process 42 (openvpn) and 2 more are attached"
        );
        assert_eq!(
            busy(vec![]).to_string(),
            "attach to TUN device \"tun0\": another process is attached"
        );
    }

    #[test]
    fn a_missing_node_is_told_from_a_forbidden_one() {
        let explained =
            |errno| explain_node("/dev/net/tun".into(), io::Error::from_raw_os_error(errno));
        assert!(matches!(explained(libc::ENOENT), OpenError::NodeMissing { .. }));
        assert!(matches!(explained(libc::ENXIO), OpenError::NodeMissing { .. }));
        assert!(matches!(explained(libc::EACCES), OpenError::NodeForbidden { .. }));
        assert!(matches!(explained(libc::EMFILE), OpenError::Node { .. }));
    }
}
