//! The responder's half.

use std::fmt;
use std::net::SocketAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use wire::message::CookieReply;
use zeroize::Zeroizing;

use super::{COOKIE_SECRET_LATENCY, COOKIE_SECRET_MAX_AGE, MAC_LEN, Mac};
use super::{cookie_key, mac, mac1_key, parts, xchacha20poly1305};
use crate::key::PublicKey;
use crate::noise::Hash;
use crate::path::{RemoteAddr, Side};
use crate::random::Random;
use crate::time::Instant;

/// Checks the MACs of what comes in, and makes cookies.
pub struct Checker {
    mac1_key: Hash,
    cookie_key: Hash,
    current: Option<Secret>,
    previous: Option<Secret>,
}

/// What cookies are made with.
struct Secret {
    octets: Zeroizing<[u8; 32]>,
    born: Instant,
}

impl Checker {
    /// A checker for messages to the owner of `own`.
    pub fn new(own: &PublicKey) -> Self {
        let (mac1_key, cookie_key) = (mac1_key(own), cookie_key(own));
        Self { mac1_key, cookie_key, current: None, previous: None }
    }

    /// Whether the sender knows our public key.
    pub fn check_mac1(&self, message: &[u8]) -> bool {
        parts(message).is_some_and(|(covered, mac1, _)| {
            verify_slices_are_equal(&mac(&self.mac1_key, covered), mac1).is_ok()
        })
    }

    /// Whether the sender has received a cookie of ours at `source`, lately.
    pub fn check_mac2(&self, now: Instant, source: &RemoteAddr, message: &[u8]) -> bool {
        let Some((mac2, covered)) =
            message.split_last_chunk::<MAC_LEN>().map(|(m, mac2)| (mac2, m))
        else {
            return false;
        };
        self.valid(now).any(|secret| {
            verify_slices_are_equal(&mac(&secret.cookie(source), covered), mac2).is_ok()
        })
    }

    /// Answers a handshake message from `source`, whose sender index is `receiver`, with a cookie.
    pub fn reply(
        &mut self,
        now: Instant,
        random: &mut dyn Random,
        source: &RemoteAddr,
        receiver: u32,
        message: &[u8],
    ) -> CookieReply {
        let nonce = random.array();
        let cookie = self.fresh(now, random).cookie(source);
        let mac1 = parts(message).map_or(&[0; MAC_LEN], |(_, mac1, _)| mac1);
        let encrypted_cookie = xchacha20poly1305::seal(&self.cookie_key, &nonce, mac1, &cookie);
        CookieReply { receiver, nonce, encrypted_cookie }
    }

    /// The secrets whose cookies still count.
    fn valid(&self, now: Instant) -> impl Iterator<Item = &Secret> {
        let lasts = COOKIE_SECRET_MAX_AGE + COOKIE_SECRET_LATENCY;
        [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .filter(move |secret| now.since(secret.born) < lasts)
    }

    /// The secret for cookies made at `now`.
    fn fresh(&mut self, now: Instant, random: &mut dyn Random) -> &Secret {
        if self.current.as_ref().is_some_and(|s| now.since(s.born) >= COOKIE_SECRET_MAX_AGE) {
            self.previous = self.current.take();
        }
        self.current
            .get_or_insert_with(|| Secret { octets: Zeroizing::new(random.array()), born: now })
    }
}

impl Secret {
    fn cookie(&self, source: &RemoteAddr) -> Mac {
        let of_port =
            |ip: &[u8], port: u16| mac(&*self.octets, &[ip, &port.to_be_bytes()].concat());
        match source {
            RemoteAddr::Udp(SocketAddr::V4(source)) => {
                of_port(&source.ip().octets(), source.port())
            }
            RemoteAddr::Udp(SocketAddr::V6(source)) => {
                of_port(&source.ip().octets(), source.port())
            }
            RemoteAddr::Side(Side { label, run }) => {
                mac(&*self.octets, &[label.to_be_bytes(), run.to_be_bytes()].concat())
            }
        }
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Checker(..)")
    }
}
