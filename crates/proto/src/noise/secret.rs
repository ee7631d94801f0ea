//! X25519 (RFC 7748), with degenerate results refused.

use std::fmt;

use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use zeroize::Zeroizing;

use crate::key::{KEY_LEN, PrivateKey, PublicKey};

/// A Diffie-Hellman result; never zero.
#[derive(Clone)]
pub(super) struct Shared(Zeroizing<[u8; KEY_LEN]>);

impl Shared {
    pub(super) fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Shared(..)")
    }
}

/// A private key ready to compute with, and its public key.
pub(super) struct Secret {
    // aws-lc overwrites its memory when it frees it.
    key: agreement::PrivateKey,
    public: PublicKey,
}

impl Secret {
    pub(super) fn new(private: &PrivateKey) -> Self {
        let key = agreement::PrivateKey::from_private_key(&X25519, private.as_bytes())
            .expect("any 32 octets are an X25519 key");
        let octets = key.compute_public_key().expect("an X25519 key has a public key");
        let octets: [u8; KEY_LEN] =
            octets.as_ref().try_into().expect("an X25519 public key has 32 octets");
        Self { key, public: octets.into() }
    }

    pub(super) fn public(&self) -> PublicKey {
        self.public
    }

    /// The Diffie-Hellman result with `remote`, or none if that is zero (RFC 7748, section 6.1).
    pub(super) fn agree(&self, remote: &PublicKey) -> Option<Shared> {
        let remote = UnparsedPublicKey::new(&X25519, remote.as_bytes());
        agreement::agree(&self.key, remote, Unspecified, nonzero).ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secret(.., public: {})", self.public)
    }
}

fn nonzero(result: &[u8]) -> Result<Shared, Unspecified> {
    let mut octets = Zeroizing::new([0; KEY_LEN]);
    if result.len() != KEY_LEN || verify_slices_are_equal(result, &*octets).is_ok() {
        return Err(Unspecified);
    }
    octets.copy_from_slice(result);
    Ok(Shared(octets))
}
