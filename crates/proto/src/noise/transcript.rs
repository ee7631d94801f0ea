//! What both parties of a handshake have seen and share so far: the `SymmetricState` of Noise.
//!
//! Two values of 32 octets: the *chaining key* gathers secrets, the *hash* gathers everything that was
//! sent. Names and formulas are those of the whitepaper, section 5.4.

use std::fmt;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Digest};
use hmac::SimpleHmac;
use zeroize::Zeroizing;

use super::secret::Shared;
use super::{AES_LABEL, CipherKeys};
use crate::key::{KEY_LEN, PresharedKey, PublicKey};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// A BLAKE2s hash (RFC 7693) of 32 octets.
pub(crate) type Hash = [u8; 32];

type Key = Zeroizing<[u8; KEY_LEN]>;

/// The hash of `parts`, one behind the other.
pub(crate) fn hash(parts: &[&[u8]]) -> Hash {
    let mut hash = Blake2s256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

#[derive(Clone)]
pub(super) struct Transcript {
    chaining_key: Key,
    hash: Hash,
    /// What the next [`Self::seal`] or [`Self::open`] takes; each key is used once, with nonce 0.
    key: Key,
}

impl Transcript {
    /// The beginning of every handshake with this responder.
    pub(super) fn new(responder: &PublicKey) -> Self {
        let chaining_key = hash(&[CONSTRUCTION]);
        let hash = hash(&[&hash(&[&chaining_key, IDENTIFIER]), responder.as_bytes()]);
        Self { chaining_key: chaining_key.into(), hash, key: Key::default() }
    }

    /// Mixes in an ephemeral public key. It goes into the chaining key, too, because there is a preshared
    /// key (Noise, section 9.2).
    pub(super) fn mix_ephemeral(&mut self, ephemeral: &PublicKey) {
        self.mix_hash(ephemeral.as_bytes());
        [self.chaining_key] = derive(&self.chaining_key, ephemeral.as_bytes());
    }

    /// Mixes in a Diffie-Hellman result.
    pub(super) fn mix_shared(&mut self, shared: &Shared) {
        [self.chaining_key, self.key] = derive(&self.chaining_key, shared.as_bytes());
    }

    /// Mixes in the preshared key.
    pub(super) fn mix_preshared(&mut self, psk: &PresharedKey) {
        let [chaining_key, hashed, key] = derive(&self.chaining_key, psk.as_bytes());
        self.chaining_key = chaining_key;
        self.mix_hash(&*hashed);
        self.key = key;
    }

    /// Seals `plaintext`; `SEALED` is its length and that of a tag.
    pub(super) fn seal<const SEALED: usize>(&mut self, plaintext: &[u8]) -> Option<[u8; SEALED]> {
        let mut sealed = [0; SEALED];
        let (ciphertext, tag) = sealed.split_at_mut_checked(plaintext.len())?;
        self.cipher()
            .seal_out_of_place_scatter(
                nonce(),
                Aad::from(&self.hash),
                plaintext,
                ciphertext,
                &[],
                tag,
            )
            .ok()?;
        self.mix_hash(&sealed);
        Some(sealed)
    }

    /// Opens what [`Self::seal`] sealed; none if it was not sealed in the same transcript.
    pub(super) fn open<const PLAIN: usize, const SEALED: usize>(
        &mut self,
        sealed: &[u8; SEALED],
    ) -> Option<Zeroizing<[u8; PLAIN]>> {
        let mut plaintext = Zeroizing::new([0; PLAIN]);
        let (ciphertext, tag) = sealed.split_at_checked(PLAIN)?;
        self.cipher()
            .open_separate_gather(nonce(), Aad::from(&self.hash), ciphertext, tag, &mut *plaintext)
            .ok()?;
        self.mix_hash(sealed);
        Some(plaintext)
    }

    /// The keys for data: from initiator to responder, and back.
    pub(super) fn split(&self) -> (CipherKeys, CipherKeys) {
        let [there, back] = derive(&self.chaining_key, &[]);
        let [aes_there, aes_back] = derive(&self.chaining_key, AES_LABEL);
        (
            CipherKeys { chacha: *there, aes: *aes_there },
            CipherKeys { chacha: *back, aes: *aes_back },
        )
    }

    fn mix_hash(&mut self, octets: &[u8]) {
        self.hash = hash(&[&self.hash, octets]);
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*self.key);
        LessSafeKey::new(key.expect("32 octets are a key of ChaCha20-Poly1305"))
    }
}

impl fmt::Debug for Transcript {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Transcript(..)")
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// The function that the whitepaper calls Kdf_N: HKDF (RFC 5869) with `key` as salt and no info.
pub(crate) fn derive<const N: usize>(key: &Key, input: &[u8]) -> [Key; N] {
    let extracted = hmac(&**key, &[input]);
    let mut output = Key::default();
    let mut number = 0;
    std::array::from_fn(|_| {
        let before: &[u8] = if number == 0 { &[] } else { &*output };
        number += 1;
        output = hmac(&*extracted, &[before, &[number]]);
        output.clone()
    })
}

/// HMAC-BLAKE2s (RFC 2104) of `parts`, one behind the other.
fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac =
        SimpleHmac::<Blake2s256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::ascending;

    /// From Python's hashlib and hmac.
    #[test]
    fn hashes_are_those_of_another_implementation() {
        let key: [u8; 32] = ascending(0);
        // RFC 7693, appendix B.
        let abc = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
        assert_eq!(hex(&hash(&[b"a", b"bc"])), abc);
        let mac = "82623be5bc0a391b24dce53e67d028eff92d586de0485ac37822e597d049c74f";
        assert_eq!(hex(&*hmac(&key, &[b"ab", b"", b"c"])), mac);
    }

    #[test]
    fn derived_keys_are_those_of_another_implementation() {
        let key = Zeroizing::new(ascending(0));
        let keys = derive::<3>(&key, b"input").map(|key| hex(&*key));
        let expected = [
            "87b7f70b24183c6db5dc4f6d9f4c47cdb203321aa2a0bef714896adb3107a040",
            "538a02e1eb2e31b7e4d4b82476d1fe2acf50085d3fb584537279195f5d1f5824",
            "9ad858025593be88de0f9442a589cfe84a88dc19e4753d93684d1c5efc4837f9",
        ];
        assert_eq!(keys, expected);
    }

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }
}
