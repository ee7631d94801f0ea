//! What a device tells about itself to everyone, attached or not.
//!
//! The tun driver answers its own ioctls only to who is attached, and attaching takes packets
//! away from the process that is. Ethtool needs neither privilege nor a queue: the driver names
//! itself and the kind of device there, and the offload mask shows as features of the interface.

use std::io;

use crate::sys::EthtoolSocket;
use crate::{DeviceName, Mode, Offload};

/// Who drives an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The tun driver.
    Tun(Mode),
    /// Another one, by its name; empty for an interface without a driver, such as `lo`.
    Other(String),
}

/// Asks who drives the interface `name` in the network namespace of the calling thread.
///
/// Fails with `ENODEV` if there is no such interface.
pub fn driver(name: &DeviceName) -> io::Result<Driver> {
    match EthtoolSocket::open()?.driver(name) {
        Ok((driver, bus)) => Ok(match (driver.as_str(), bus.as_str()) {
            ("tun", "tun") => Driver::Tun(Mode::Tun),
            ("tun", "tap") => Driver::Tun(Mode::Tap),
            _ => Driver::Other(driver),
        }),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Ok(Driver::Other(String::new()))
        }
        Err(error) => Err(error),
    }
}

/// Asks what the kernel leaves undone in the packets that it sends through the interface `name`.
///
/// This is the offload mask that the last process to attach has set, less what was switched off
/// with `ethtool -K`. UDP over IPv4 and over IPv6 are one feature in the kernel. A device on which
/// no mask was set yet shows [`Offload::NONE`].
pub fn transmit_offload(name: &DeviceName) -> io::Result<Offload> {
    let features = EthtoolSocket::open()?.features(name)?;
    let active = |wanted: &str| features.iter().any(|(name, active)| *active && name == wanted);
    let udp = active("tx-udp-segmentation");
    Ok(Offload {
        checksum: active("tx-checksum-ip-generic"),
        tso4: active("tx-tcp-segmentation"),
        tso6: active("tx-tcp6-segmentation"),
        tso_ecn: active("tx-tcp-ecn-segmentation"),
        uso4: udp,
        uso6: udp,
    })
}
