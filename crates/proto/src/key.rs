//! Keys and their text form, which is that of `wg`: 44 characters of base64.
//!
//! Secrets have no `Debug` that shows them and no `Display`, and their octets are overwritten when
//! they are dropped. Text is coded in constant time.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use crate::noise::Identity;
use crate::random::Random;

/// Octets in a key of any kind.
pub const KEY_LEN: usize = 32;

/// Characters in the text of a key.
const TEXT_LEN: usize = 44;

/// A text that is no key. It does not say which text: that might be a secret with a slip of the pen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 44 characters of base64, of which the last is \"=\"")]
pub struct KeyError;

/// A point on Curve25519 (RFC 7748), by which a peer is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// The octets as they are sent.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl From<[u8; KEY_LEN]> for PublicKey {
    fn from(octets: [u8; KEY_LEN]) -> Self {
        Self(octets)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(|octets| Self(*octets))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A secret number by which a [`PublicKey`]'s owner proves to be that.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; KEY_LEN]>);

impl PrivateKey {
    /// Makes a key of these octets, clamped (RFC 7748, section 5).
    pub fn from_bytes(octets: [u8; KEY_LEN]) -> Self {
        let mut octets = Zeroizing::new(octets);
        octets[0] &= 0b1111_1000;
        octets[31] = octets[31] & 0b0111_1111 | 0b0100_0000;
        Self(octets)
    }

    /// Makes a key that nobody else has.
    pub fn generate(random: &mut dyn Random) -> Self {
        Self::from_bytes(*Zeroizing::new(random.array()))
    }

    /// The public key that belongs to it.
    pub fn public_key(&self) -> PublicKey {
        Identity::new(self.clone()).public()
    }

    /// The clamped octets.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The key as text, for a file that only its owner reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        encode(&self.0)
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(|octets| Self::from_bytes(*octets))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey(..)")
    }
}

/// A secret that two peers share beforehand; zero stands for none (whitepaper, section 5.2).
#[derive(Clone, Default)]
pub struct PresharedKey(Zeroizing<[u8; KEY_LEN]>);

impl PresharedKey {
    /// Makes a key of these octets.
    pub fn from_bytes(octets: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// Makes a key that nobody else has.
    pub fn generate(random: &mut dyn Random) -> Self {
        let mut octets = Zeroizing::new([0; KEY_LEN]);
        random.fill(&mut *octets);
        Self(octets)
    }

    /// Whether there is none.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The key as text, for a file that only its owner reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        encode(&self.0)
    }
}

/// In constant time.
impl PartialEq for PresharedKey {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.as_bytes(), other.as_bytes()).is_ok()
    }
}

impl Eq for PresharedKey {}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PresharedKey(..)")
    }
}

fn encode(octets: &[u8; KEY_LEN]) -> Zeroizing<String> {
    Zeroizing::new(Base64::encode_string(octets))
}

fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let mut octets = Zeroizing::new([0; KEY_LEN]);
    match Base64::decode(text, &mut *octets) {
        Ok(decoded) if decoded.len() == KEY_LEN && text.len() == TEXT_LEN => Ok(octets),
        _ => Err(KeyError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Count;
    use proptest::prelude::*;

    /// RFC 7748, section 6.1: Alice's keys, the private one clamped as `wg genkey` does.
    const PRIVATE: &str = "cAdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LGo=";
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_public_key_belongs_to_its_private_key() {
        let private: PrivateKey = PRIVATE.parse().unwrap();
        assert_eq!(private.public_key().to_string(), PUBLIC);
        assert_eq!(private.public_key(), PUBLIC.parse().unwrap());
        assert_eq!(*private.to_text(), PRIVATE);
    }

    #[test]
    fn private_keys_are_clamped() {
        let all = PrivateKey::from_bytes([0xff; 32]);
        assert_eq!((all.as_bytes()[0], all.as_bytes()[31]), (0xf8, 0x7f));
        let none = PrivateKey::from_bytes([0; 32]);
        assert_eq!((none.as_bytes()[0], none.as_bytes()[31]), (0, 0x40));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in
            ["", "=", &PUBLIC[..43], &PUBLIC[1..], &format!("{PUBLIC}\n"), &PUBLIC.repeat(2)]
        {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyError), "{text}");
        }
        // Bits behind the last octet are set.
        assert_eq!(PUBLIC.replace("o=", "p=").parse::<PublicKey>(), Err(KeyError));
        // 33 octets.
        assert_eq!("A".repeat(44).parse::<PublicKey>(), Err(KeyError));
    }

    #[test]
    fn secrets_are_not_shown() {
        let private = PrivateKey::generate(&mut Count(0));
        let psk = PresharedKey::generate(&mut Count(0));
        assert_eq!(format!("{private:?} {psk:?}"), "PrivateKey(..) PresharedKey(..)");
        assert!(!format!("{:?}", Identity::new(private)).contains("1, 2"));
    }

    #[test]
    fn the_default_preshared_key_is_none() {
        assert!(PresharedKey::default().is_zero());
        assert!(!PresharedKey::generate(&mut Count(0)).is_zero());
        assert_ne!(PresharedKey::generate(&mut Count(0)), PresharedKey::generate(&mut Count(1)));
    }

    proptest! {
        #[test]
        fn text_and_octets_are_the_same(octets in any::<[u8; 32]>()) {
            let public = PublicKey::from(octets);
            prop_assert_eq!(public.to_string().parse(), Ok(public));
            let psk = PresharedKey::from_bytes(octets);
            prop_assert_eq!(psk.to_text().parse(), Ok(psk));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,60}") {
            let _ = text.parse::<PrivateKey>();
        }
    }
}
