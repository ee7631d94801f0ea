//! What was at the file's path before, as plain data.

use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Serialize};

/// What is at a path, as far as it can be put there again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Former {
    /// Nothing.
    Missing,
    /// A symbolic link.
    Symlink {
        /// Where it leads to.
        target: Octets,
    },
    /// A regular file.
    File {
        /// All that is in it.
        contents: Octets,
        /// Its permissions (`st_mode` without the type).
        mode: u32,
        /// The user that it belongs to.
        owner: u32,
        /// The group that it belongs to.
        group: u32,
    },
}

/// Octets that are kept as text where they are text, else in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Encoded", into = "Encoded")]
pub struct Octets(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Encoded {
    Text(String),
    Base64(String),
}

impl From<Octets> for Encoded {
    fn from(Octets(octets): Octets) -> Self {
        String::from_utf8(octets)
            .map_or_else(|error| Self::Base64(Base64::encode_string(error.as_bytes())), Self::Text)
    }
}

impl TryFrom<Encoded> for Octets {
    type Error = base64ct::Error;

    fn try_from(encoded: Encoded) -> Result<Self, Self::Error> {
        match encoded {
            Encoded::Text(text) => Ok(Self(text.into_bytes())),
            Encoded::Base64(text) => Base64::decode_vec(&text).map(Self),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_stays_readable_and_the_rest_is_base64() {
        let json = |octets: &[u8]| serde_json::to_string(&Octets(octets.to_vec())).unwrap();
        assert_eq!(json(b"nameserver 1.1.1.1\n"), r#"{"text":"nameserver 1.1.1.1\n"}"#);
        assert_eq!(json(&[0xff, 0x00]), r#"{"base64":"/wA="}"#);
        assert!(serde_json::from_str::<Octets>(r#"{"base64":"/w"}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_octets_come_back(octets: Vec<u8>) {
            let json = serde_json::to_string(&Octets(octets.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Octets>(&json).unwrap().0, octets);
        }
    }
}
