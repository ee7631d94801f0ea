//! Where a secret key is: in a file of its own, or in the configuration itself.

use std::fmt;
use std::path::PathBuf;

use proto::key::{PresharedKey, PrivateKey};

/// Where a secret key is. [`crate::keyfile`] reads it; it is never part of a message.
#[derive(Clone)]
pub enum KeySource<K> {
    /// The only line of this file; absolute if the origin's directory is.
    File(PathBuf),
    /// The configuration itself, as wg-quick's format has it.
    Inline(K),
}

impl<K> fmt::Debug for KeySource<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(_) => f.write_str("Inline(..)"),
        }
    }
}

impl PartialEq for KeySource<PrivateKey> {
    /// Two private keys are one if their public keys are, of which the comparison tells nothing.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a == b,
            (Self::Inline(a), Self::Inline(b)) => a.public_key() == b.public_key(),
            _ => false,
        }
    }
}

impl Eq for KeySource<PrivateKey> {}

impl PartialEq for KeySource<PresharedKey> {
    /// In constant time, as far as keys are concerned.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a == b,
            (Self::Inline(a), Self::Inline(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for KeySource<PresharedKey> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_equal_if_they_hold_the_same_key_and_never_show_it() {
        let inline = |octet| KeySource::Inline(PresharedKey::from_bytes([octet; 32]));
        assert_eq!(inline(1), inline(1));
        assert_ne!(inline(1), inline(2));
        assert_ne!(inline(1), KeySource::File("1".into()));
        assert_eq!(format!("{:?}", inline(1)), "Inline(..)");
        let inline = |octet| KeySource::Inline(PrivateKey::from_bytes([octet; 32]));
        assert_eq!(inline(8), inline(8));
        assert_ne!(inline(8), inline(16));
        assert_eq!(format!("{:?}", inline(8)), "Inline(..)");
    }
}
