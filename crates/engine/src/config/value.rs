//! Values that both formats write alike.

use std::ops::RangeInclusive;
use std::str::FromStr;

use device::{DeviceName, MAX_NAME, NameError};

use super::error::Quoted;

/// The MTU of an interface: the least that IPv4 allows (RFC 791, section 3.2), and the most that the
/// kernel's tun driver does (`drivers/net/tun.c`, `MAX_MTU`).
pub(super) const MTU: RangeInclusive<u32> = 68..=65535;

/// The characters of a key of 32 octets in base64.
const KEY_LENGTH: usize = 44;

/// Reads the name of an interface.
pub(super) fn parse_device_name(text: &str) -> Result<DeviceName, String> {
    let name = Quoted(text);
    DeviceName::parse(text).map_err(|error| match error {
        NameError::TooLong { .. } => {
            format!("{name} has {} octets; the kernel allows {MAX_NAME}", text.len())
        }
        NameError::Character { character, .. } => {
            format!("{name} contains {character:?}, which is not allowed")
        }
        _ => format!("{name} cannot name an interface"),
    })
}

/// Reads a key. The text of a wrong one is never repeated, since it may be a secret.
pub(super) fn parse_key<K: FromStr>(text: &str) -> Result<K, String> {
    let count = text.chars().count();
    if count != KEY_LENGTH {
        return Err(format!("has {count} characters; a key has {KEY_LENGTH}"));
    }
    text.parse().map_err(|_| "is not the base64 of 32 octets".to_owned())
}
