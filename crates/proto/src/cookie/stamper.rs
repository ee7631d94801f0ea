//! The sender's half.

use std::fmt;

use wire::message::CookieReply;
use zeroize::Zeroizing;

use super::{COOKIE_SECRET_LATENCY, COOKIE_SECRET_MAX_AGE, MAC_LEN, Mac};
use super::{cookie_key, mac, mac1_key, xchacha20poly1305};
use crate::key::PublicKey;
use crate::noise::Hash;
use crate::time::Instant;

/// Writes the MACs into what goes out to one peer, and keeps its cookie.
pub struct Stamper {
    mac1_key: Hash,
    cookie_key: Hash,
    cookie: Option<(Zeroizing<Mac>, Instant)>,
    /// Of the last message, while no cookie reply has answered it.
    awaiting: Option<Mac>,
}

impl Stamper {
    /// A stamper for messages to `remote`.
    pub fn new(remote: &PublicKey) -> Self {
        let (mac1_key, cookie_key) = (mac1_key(remote), cookie_key(remote));
        Self { mac1_key, cookie_key, cookie: None, awaiting: None }
    }

    /// Writes both MACs into the last 32 octets of a handshake message; `mac2` is zero without a valid
    /// cookie. A message too short to have MACs is left as it is.
    pub fn stamp(&mut self, now: Instant, message: &mut [u8]) {
        let Some(end) = message.len().checked_sub(MAC_LEN) else { return };
        let Some(start) = end.checked_sub(MAC_LEN) else { return };
        let mac1 = mac(&self.mac1_key, &message[..start]);
        message[start..end].copy_from_slice(&mac1);
        let mac2 = self.cookie(now).map_or([0; MAC_LEN], |cookie| mac(cookie, &message[..end]));
        message[end..].copy_from_slice(&mac2);
        self.awaiting = Some(mac1);
    }

    /// Takes a cookie; false if it is not the answer to the message stamped last, or comes twice.
    pub fn handle_reply(&mut self, now: Instant, reply: &CookieReply) -> bool {
        let Some(mac1) = &self.awaiting else { return false };
        let sealed = &reply.encrypted_cookie;
        let cookie = xchacha20poly1305::open(&self.cookie_key, &reply.nonce, mac1, sealed);
        let Some(cookie) = cookie else { return false };
        self.cookie = Some((cookie, now));
        self.awaiting = None;
        true
    }

    fn cookie(&self, now: Instant) -> Option<&Mac> {
        let (cookie, born) = self.cookie.as_ref()?;
        (now.since(*born) < COOKIE_SECRET_MAX_AGE - COOKIE_SECRET_LATENCY).then_some(cookie)
    }
}

impl fmt::Debug for Stamper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Stamper(..)")
    }
}
