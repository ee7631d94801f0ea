//! Keys, as they travel between the processes.

use std::fmt;

use base64ct::{Base64, Encoding};
use proto::key::{PresharedKey, PrivateKey, PublicKey};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Octets of a key.
const OCTETS: usize = 32;

/// Characters of a key.
const TEXT: usize = 44;

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Key(pub(crate) PublicKey);

/// A key that nobody else may know: neither its text nor its octets stay in memory.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret([u8; OCTETS]);

impl From<&PrivateKey> for Secret {
    fn from(key: &PrivateKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl From<&PresharedKey> for Secret {
    fn from(key: &PresharedKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl From<&Secret> for PrivateKey {
    fn from(secret: &Secret) -> Self {
        Self::from_bytes(secret.0)
    }
}

impl From<&Secret> for PresharedKey {
    fn from(secret: &Secret) -> Self {
        Self::from_bytes(secret.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        emit(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyText).map(|octets| Self(*octets))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        emit(self.0.as_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyText).map(|octets| Self(PublicKey::from(*octets)))
    }
}

fn emit<S: Serializer>(octets: &[u8; OCTETS], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = Zeroizing::new([0; TEXT]);
    match Base64::encode(octets, &mut *text) {
        Ok(text) => serializer.serialize_str(text),
        Err(error) => Err(serde::ser::Error::custom(error)),
    }
}

/// Base64 of a key, taken from where it stands: JSON without escapes is not copied.
struct KeyText;

impl Visitor<'_> for KeyText {
    type Value = Zeroizing<[u8; OCTETS]>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let mut octets = Zeroizing::new([0; OCTETS]);
        match Base64::decode(text, &mut *octets) {
            Ok(decoded) if decoded.len() == OCTETS => Ok(octets),
            // What it was is not told: it may have been a key.
            _ => Err(E::custom("not a key")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_arrives_and_is_never_shown() {
        let secret = Secret([7; OCTETS]);
        let json = serde_json::to_string(&secret).unwrap();
        assert_eq!(json, "\"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"");
        assert_eq!(serde_json::from_str::<Secret>(&json).unwrap(), secret);
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn what_is_no_key_is_not_repeated() {
        for text in ["\"\"", "\"AAAA\"", "\"c2VjcmV0\"", "7"] {
            let error = serde_json::from_str::<Secret>(text).unwrap_err().to_string();
            assert!(!error.contains("c2Vj"), "{error}");
        }
    }
}
