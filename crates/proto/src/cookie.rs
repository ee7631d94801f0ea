//! The MACs around handshake messages, and cookies, which keep a flooder from wasting our time.
//!
//! # Theory of operation
//!
//! Every handshake message ends in two MACs of 16 octets (whitepaper, sections 5.4.4 and 5.4.7):
//!
//! - `mac1` is keyed with the receiver's public key. A message without it gets no answer, so that who does
//!   not know the key cannot even find out that somebody listens.
//! - `mac2` is keyed with a *cookie*. A responder under load computes nothing for a message without it, but
//!   sends a cookie reply. The cookie is a MAC of the sender's address and port under a secret that changes
//!   every two minutes: who has it can receive at that address, and can be rate-limited by it. The
//!   responder remembers nothing for it.
//!
//! The cookie travels encrypted with XChaCha20-Poly1305 under the responder's public key, bound to
//! the `mac1` of the message that it answers. Who sees neither can neither read nor forge it.
//!
//! | | lifetime |
//! |---|---|
//! | responder's secret | [`COOKIE_SECRET_MAX_AGE`], then as the previous one for another [`COOKIE_SECRET_LATENCY`] |
//! | cookie at its owner | [`COOKIE_SECRET_MAX_AGE`] less [`COOKIE_SECRET_LATENCY`] |

mod checker;
mod stamper;
mod xchacha20poly1305;

use std::time::Duration;

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac as _};

use crate::key::PublicKey;
use crate::noise::{Hash, hash};

pub use checker::Checker;
pub use stamper::Stamper;

/// How long a responder makes cookies with one secret (Linux `messages.h`).
pub const COOKIE_SECRET_MAX_AGE: Duration = Duration::from_secs(120);

/// How long a cookie may be on its way (Linux `messages.h`).
pub const COOKIE_SECRET_LATENCY: Duration = Duration::from_secs(5);

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// Octets in each MAC, and in a cookie.
const MAC_LEN: usize = 16;

type Mac = [u8; MAC_LEN];

fn mac1_key(receiver: &PublicKey) -> Hash {
    hash(&[LABEL_MAC1, receiver.as_bytes()])
}

fn cookie_key(responder: &PublicKey) -> Hash {
    hash(&[LABEL_COOKIE, responder.as_bytes()])
}

/// Keyed BLAKE2s with 16 octets of output (RFC 7693, section 2.9).
fn mac(key: &[u8], octets: &[u8]) -> Mac {
    let mut mac =
        Blake2sMac::<U16>::new_from_slice(key).expect("BLAKE2s takes keys of up to 32 octets");
    mac.update(octets);
    mac.finalize().into_bytes().into()
}

/// A handshake message in its parts: what `mac1` covers, `mac1`, `mac2`.
fn parts(message: &[u8]) -> Option<(&[u8], &Mac, &Mac)> {
    let (rest, mac2) = message.split_last_chunk()?;
    let (covered, mac1) = rest.split_last_chunk()?;
    Some((covered, mac1, mac2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;
    use crate::path::RemoteAddr;
    use crate::random::{Count, ascending};
    use crate::time::Instant;

    const SOURCE: &str = "192.0.2.7:51820";

    fn public() -> PublicKey {
        PrivateKey::from_bytes([7; 32]).public_key()
    }

    fn source(text: &str) -> RemoteAddr {
        text.parse().unwrap()
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// A sender and its responder, and one message, stamped.
    struct Pair {
        stamper: Stamper,
        checker: Checker,
        message: [u8; 148],
        random: Count,
    }

    impl Pair {
        fn new() -> Self {
            let mut stamper = Stamper::new(&public());
            let mut message = [0xa5; 148];
            stamper.stamp(at(0), &mut message);
            Self { stamper, checker: Checker::new(&public()), message, random: Count(0) }
        }

        fn reply(&mut self, now: Instant) -> wire::message::CookieReply {
            self.checker.reply(now, &mut self.random, &source(SOURCE), 7, &self.message)
        }

        fn give_cookie(&mut self, now: Instant) {
            let reply = self.reply(now);
            assert!(self.stamper.handle_reply(now, &reply));
        }

        /// Whether a message stamped at `now` has a cookie that counts.
        fn has_cookie(&mut self, now: Instant) -> bool {
            self.stamper.stamp(now, &mut self.message);
            self.checker.check_mac2(now, &source(SOURCE), &self.message)
        }
    }

    #[test]
    fn a_keyed_mac_is_that_of_another_implementation() {
        // From Python's hashlib.
        let key: [u8; 32] = ascending(0);
        let expected = 0x61ba_5f16_5c19_4692_e09d_1252_0cc4_c74a_u128;
        assert_eq!(mac(&key, b"abc"), expected.to_be_bytes());
    }

    #[test]
    fn mac1_covers_all_before_it() {
        let Pair { checker, message, .. } = Pair::new();
        assert!(checker.check_mac1(&message));
        assert_eq!(message[132..], [0; 16]);
        for bit in 0..132 * 8 {
            let mut forged = message;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!checker.check_mac1(&forged), "bit {bit}");
        }
        assert!(!Checker::new(&PublicKey::from([9; 32])).check_mac1(&message));
    }

    #[test]
    fn short_messages_neither_pass_nor_panic() {
        let Pair { mut stamper, checker, .. } = Pair::new();
        for len in 0..32 {
            let mut message = vec![0; len];
            stamper.stamp(at(0), &mut message);
            assert_eq!(message, vec![0; len]);
            assert!(!checker.check_mac1(&message));
            assert!(!checker.check_mac2(at(0), &source(SOURCE), &message));
        }
    }

    #[test]
    fn without_a_cookie_there_is_no_mac2() {
        assert!(!Pair::new().has_cookie(at(0)));
    }

    #[test]
    fn a_cookie_counts_at_its_address_and_port_only() {
        let mut pair = Pair::new();
        pair.give_cookie(at(0));
        assert!(pair.has_cookie(at(1)));
        for other in ["192.0.2.7:51821", "192.0.2.8:51820", "[2001:db8::7]:51820"] {
            assert!(!pair.checker.check_mac2(at(1), &source(other), &pair.message), "{other}");
        }
        for bit in 0..148 * 8 {
            let mut forged = pair.message;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!pair.checker.check_mac2(at(1), &source(SOURCE), &forged), "bit {bit}");
        }
    }

    #[test]
    fn a_cookie_is_bound_to_the_last_message_and_taken_once() {
        let mut pair = Pair::new();
        let reply = pair.reply(at(0));
        let mut other = [0x5a; 148];
        pair.stamper.stamp(at(0), &mut other);
        assert!(!pair.stamper.handle_reply(at(0), &reply));
        pair.stamper.stamp(at(0), &mut pair.message);
        assert!(pair.stamper.handle_reply(at(0), &reply));
        assert!(!pair.stamper.handle_reply(at(0), &reply));
        assert!(!Stamper::new(&public()).handle_reply(at(0), &reply));
    }

    #[test]
    fn a_forged_reply_does_not_replace_the_cookie() {
        let mut pair = Pair::new();
        pair.give_cookie(at(0));
        pair.stamper.stamp(at(1), &mut pair.message);
        let mut forged = pair.reply(at(1));
        forged.encrypted_cookie[0] ^= 1;
        assert!(!pair.stamper.handle_reply(at(1), &forged));
        assert!(pair.has_cookie(at(1)));
    }

    #[test]
    fn the_owner_of_a_cookie_uses_it_for_115_seconds() {
        let mut pair = Pair::new();
        pair.give_cookie(at(0));
        assert!(pair.has_cookie(at(114)));
        assert!(!pair.has_cookie(at(115)));
        assert_eq!(pair.message[132..], [0; 16]);
    }

    #[test]
    fn a_secret_is_replaced_after_120_seconds_and_counts_for_5_more() {
        let mut pair = Pair::new();
        pair.give_cookie(at(0));
        pair.stamper.stamp(at(100), &mut pair.message);
        let early = pair.message;
        pair.give_cookie(at(119));
        assert!(pair.has_cookie(at(119)));
        let late = pair.message;
        assert_eq!(early, late, "one secret makes one cookie for one address");
        pair.give_cookie(at(120));
        assert!(pair.has_cookie(at(120)));
        assert_ne!(pair.message, late);
        assert!(pair.checker.check_mac2(at(124), &source(SOURCE), &late));
        assert!(!pair.checker.check_mac2(at(125), &source(SOURCE), &late));
        assert!(pair.checker.check_mac2(at(125), &source(SOURCE), &pair.message));
    }
}
