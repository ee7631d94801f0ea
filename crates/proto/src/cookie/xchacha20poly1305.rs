//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), for cookies only.
//!
//! A nonce of 24 octets is long enough to be random. HChaCha20 makes a key of the first 16 octets and the
//! key, and the other 8 become the nonce of ChaCha20-Poly1305 under that key. aws-lc-rs has the latter
//! but not HChaCha20, so that one permutation is here. It runs once per cookie.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wire::message::TAG_LEN;
use zeroize::Zeroizing;

use super::{MAC_LEN, Mac};

const SEALED_LEN: usize = MAC_LEN + TAG_LEN;

/// Seals a cookie, bound to `mac1`.
pub(super) fn seal(key: &[u8; 32], nonce: &[u8; 24], mac1: &Mac, cookie: &Mac) -> [u8; SEALED_LEN] {
    let (cipher, nonce) = derive(key, nonce);
    let mut sealed = [0; SEALED_LEN];
    let (ciphertext, tag) = sealed.split_at_mut(MAC_LEN);
    cipher
        .seal_out_of_place_scatter(nonce, Aad::from(mac1), cookie, ciphertext, &[], tag)
        .expect("a cookie is not too long to seal");
    sealed
}

/// Opens a cookie; none if it was not sealed with this key for this `mac1`.
pub(super) fn open(
    key: &[u8; 32],
    nonce: &[u8; 24],
    mac1: &Mac,
    sealed: &[u8; SEALED_LEN],
) -> Option<Zeroizing<Mac>> {
    let (cipher, nonce) = derive(key, nonce);
    let (ciphertext, tag) = sealed.split_at(MAC_LEN);
    let mut cookie = Zeroizing::new([0; MAC_LEN]);
    cipher.open_separate_gather(nonce, Aad::from(mac1), ciphertext, tag, &mut *cookie).ok()?;
    Some(cookie)
}

fn derive(key: &[u8; 32], nonce: &[u8; 24]) -> (LessSafeKey, Nonce) {
    let [input @ .., a, b, c, d, e, f, g, h] = nonce;
    let key = UnboundKey::new(&CHACHA20_POLY1305, &*hchacha20(key, input));
    let nonce = Nonce::assume_unique_for_key([0, 0, 0, 0, *a, *b, *c, *d, *e, *f, *g, *h]);
    (LessSafeKey::new(key.expect("32 octets are a key of ChaCha20-Poly1305")), nonce)
}

/// HChaCha20 (section 2.2 of the draft): the ChaCha20 block function without the final addition; the
/// first and the last row are the result.
fn hchacha20(key: &[u8; 32], input: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let mut state = Zeroizing::new([0; 16]);
    let words = [b"expand 32-byte k", &key[..], input].concat();
    let words = Zeroizing::new(words);
    for (word, octets) in state.iter_mut().zip(words.as_chunks().0) {
        *word = u32::from_le_bytes(*octets);
    }
    for _ in 0..10 {
        double_round(&mut state);
    }
    let mut result = Zeroizing::new([0; 32]);
    for (octets, word) in result.as_chunks_mut().0.iter_mut().zip(&state[..4]) {
        *octets = word.to_le_bytes();
    }
    for (octets, word) in result.as_chunks_mut().0.iter_mut().skip(4).zip(&state[12..]) {
        *octets = word.to_le_bytes();
    }
    result
}

/// A column round and a diagonal round (RFC 8439, section 2.3).
fn double_round(state: &mut [u32; 16]) {
    for column in 0..4 {
        quarter_round(state, [column, column + 4, column + 8, column + 12]);
    }
    for diagonal in 0..4 {
        let row = |number: usize| 4 * number + (diagonal + number) % 4;
        quarter_round(state, [row(0), row(1), row(2), row(3)]);
    }
}

/// RFC 8439, section 2.1.
fn quarter_round(state: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (x, y, z, left) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        state[x] = state[x].wrapping_add(state[y]);
        state[z] = (state[z] ^ state[x]).rotate_left(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::ascending;

    #[test]
    fn hchacha20_is_that_of_the_draft() {
        // Section 2.2.1.
        let key = ascending(0);
        let input = [0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0, 0x31, 0x41, 0x59, 0x27];
        let expected = [
            0x82, 0x41, 0x3b, 0x42, 0x27, 0xb2, 0x7b, 0xfe, 0xd3, 0x0e, 0x42, 0x50, 0x8a, 0x87,
            0x7d, 0x73, 0xa0, 0xf9, 0xe4, 0xd5, 0x8a, 0x74, 0xa8, 0x53, 0xc1, 0x2e, 0xc4, 0x13,
            0x26, 0xd3, 0xec, 0xdc,
        ];
        assert_eq!(*hchacha20(&key, &input), expected);
    }

    #[test]
    fn the_ciphertext_is_that_of_the_draft() {
        // Appendix A.3.1, of whose plaintext this is the beginning.
        let key = ascending(0x80);
        let nonce = ascending(0x40);
        let sealed = seal(&key, &nonce, &[0; 16], b"Ladies and Gentl");
        let expected = [
            0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b, 0x95, 0x76, 0x57, 0x94, 0x93, 0xc0,
            0xe9, 0x39,
        ];
        assert_eq!(sealed[..16], expected);
    }

    #[test]
    fn only_what_was_sealed_opens() {
        let (key, nonce, mac1, cookie) = ([1; 32], [2; 24], [3; 16], [4; 16]);
        let sealed = seal(&key, &nonce, &mac1, &cookie);
        assert_eq!(*open(&key, &nonce, &mac1, &sealed).unwrap(), cookie);
        assert!(open(&[9; 32], &nonce, &mac1, &sealed).is_none());
        assert!(open(&key, &[9; 24], &mac1, &sealed).is_none());
        assert!(open(&key, &nonce, &[9; 16], &sealed).is_none());
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key, &nonce, &mac1, &forged).is_none(), "bit {bit}");
        }
    }
}
