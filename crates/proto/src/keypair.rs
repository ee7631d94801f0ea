//! The keys of one session at work: sealing and opening data messages, on any number of threads.
//!
//! # Theory of operation
//!
//! A handshake yields one keypair on each side. Everything happens through `&self`, without a lock and
//! without an allocation:
//!
//! - **Sealing.** A thread reserves as many counters as it has messages ([`Keypair::reserve`]), and seals
//!   each message with one of them. The counter is the nonce: each may be used once, and none
//!   is handed out twice, whatever happens.
//! - **Opening.** A message is opened in place. Only an authentic one may claim its counter in the
//!   [`Window`], and only who claims it may use the plaintext.
//!
//! A keypair dies of age, of messages, or by [`Keypair::retire`] (whitepaper, section 6.1):
//!
//! | | time | messages | blocks sealed with AES-256-GCM |
//! |---|---|---|---|
//! | new keys wanted | [`REKEY_AFTER_TIME`], initiator only | [`REKEY_AFTER_MESSAGES`] | [`REKEY_AFTER_BLOCKS`] |
//! | no longer used | [`REJECT_AFTER_TIME`] | [`REJECT_AFTER_MESSAGES`] | [`REJECT_AFTER_BLOCKS`] |
//!
//! # Ciphers
//!
//! Every peer opens ChaCha20-Poly1305. Once the peer has said in its hello that it opens AES-256-GCM, and
//! [`Ciphers`] allows it, that is used for sealing. Octet 1 of the header says which. Each cipher has keys of
//! its own, so that one counter for both repeats no nonce.
//!
//! # Layout
//!
//! What senders write, what receivers write, and what all only read, are on cache lines of their own.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use aws_lc_rs::aead::{self, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wire::frame::Features;
use wire::message::{Cipher, DATA_HEADER_LEN, DATA_OVERHEAD, DataHeader, PADDING};

use crate::drop_reason::DropReason;
use crate::key::KEY_LEN;
use crate::noise::{CipherKeys, SessionKeys};
use crate::replay::Window;
use crate::time::Instant;

/// At this age the initiator of a keypair that it sends with wants new keys (whitepaper, section 6.1).
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);

/// At this age a keypair is no longer used (whitepaper, section 6.1).
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

/// After so many messages either side wants new keys (whitepaper, section 6.1).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// So many messages may be sealed with a keypair (whitepaper, section 6.1).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// After so many blocks sealed with AES-256-GCM either side wants new keys; half of what is allowed.
pub const REKEY_AFTER_BLOCKS: u64 = 1 << 33;

/// So many blocks of 16 octets may be sealed with one key of AES-256-GCM. RFC 8446, section 5.5, allows 2^24.5
/// records of 2^10 blocks, from the bounds on usage of AES-GCM (Luykx and Paterson, 2017).
pub const REJECT_AFTER_BLOCKS: u64 = 1 << 34;

/// A peer that hears nothing for so long hears a keepalive (whitepaper, section 6.1).
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// An unanswered initiation is repeated after so long (whitepaper, section 6.1).
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// At this age an initiator that only receives wants new keys, so that they are there in time for a
/// keepalive and one lost initiation (whitepaper, section 6.2).
const REKEY_ON_RECEIVE: Duration = Duration::from_secs(
    REJECT_AFTER_TIME.as_secs() - KEEPALIVE_TIMEOUT.as_secs() - REKEY_TIMEOUT.as_secs(),
);

const BLOCK_LEN: usize = 16;

/// Who began the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This side.
    Initiator,
    /// The peer.
    Responder,
}

/// What may be sealed with: what the configuration allows, and what the hardware does well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ciphers {
    /// ChaCha20-Poly1305 for data. Control frames and keepalives before the peer's hello always use it.
    pub chacha: bool,
    /// AES-256-GCM, with peers that open it.
    pub aes: bool,
}

/// The keys of one session, shared by all threads.
pub struct Keypair {
    local: u32,
    remote: u32,
    role: Role,
    born: Instant,
    rekey_after: Duration,
    chacha_for_data: bool,
    chacha: Direction,
    aes: Option<Direction>,
    features: AtomicU32,
    confirmed: AtomicBool,
    retired: AtomicBool,
    sent: Apart<Sent>,
    received: Apart<Window>,
}

/// The keys of one cipher. aws-lc overwrites their memory when it frees it.
struct Direction {
    seal: LessSafeKey,
    open: LessSafeKey,
}

/// What senders write.
#[derive(Default)]
struct Sent {
    /// The next counter.
    counter: AtomicU64,
    /// Blocks sealed with AES-256-GCM.
    blocks: AtomicU64,
}

/// Keeps what some threads write off the cache lines of what others read; x86 fetches lines of 64 octets in
/// pairs.
#[repr(align(128))]
struct Apart<T>(T);

impl Keypair {
    /// A keypair whose messages the peer addresses to `local` and we to `remote`.
    #[expect(clippy::needless_pass_by_value, reason = "the keys are wiped when they are in use")]
    pub fn new(
        keys: SessionKeys,
        local: u32,
        remote: u32,
        role: Role,
        born: Instant,
        ciphers: Ciphers,
    ) -> Self {
        let SessionKeys { send, receive } = &keys;
        Self {
            local,
            remote,
            role,
            born,
            rekey_after: REKEY_AFTER_TIME,
            chacha_for_data: ciphers.chacha,
            chacha: Direction::new(&CHACHA20_POLY1305, send, receive, |keys| &keys.chacha),
            aes: ciphers.aes.then(|| Direction::new(&AES_256_GCM, send, receive, |keys| &keys.aes)),
            features: AtomicU32::new(0),
            confirmed: AtomicBool::new(role == Role::Initiator),
            retired: AtomicBool::new(false),
            sent: Apart(Sent::default()),
            received: Apart(Window::new()),
        }
    }

    /// The same keypair with another age for [`Self::needs_rekey`] than [`REKEY_AFTER_TIME`].
    #[must_use]
    pub fn with_rekey_after(self, age: Duration) -> Self {
        Self { rekey_after: age, ..self }
    }

    /// The receiver index in messages to us.
    #[inline]
    pub fn local(&self) -> u32 {
        self.local
    }

    /// The receiver index in messages to the peer.
    #[inline]
    pub fn remote(&self) -> u32 {
        self.remote
    }

    /// Who began the handshake.
    pub fn role(&self) -> Role {
        self.role
    }

    /// When the handshake was completed here.
    pub fn born(&self) -> Instant {
        self.born
    }

    /// Whether messages may be opened: neither too old nor retired.
    #[inline]
    pub fn is_alive(&self, now: Instant) -> bool {
        now.since(self.born) < REJECT_AFTER_TIME && !self.retired.load(Acquire)
    }

    /// Whether messages may be sealed: alive, and neither messages nor blocks are used up.
    #[inline]
    pub fn is_usable(&self, now: Instant) -> bool {
        self.is_alive(now)
            && self.sent.0.counter.load(Relaxed) < REJECT_AFTER_MESSAGES
            && self.sent.0.blocks.load(Relaxed) < REJECT_AFTER_BLOCKS
    }

    /// Ends the keypair for all threads.
    pub fn retire(&self) {
        self.retired.store(true, Release);
    }

    /// Reserves counters for `messages` messages, and returns the first; none if there are not as many.
    #[inline]
    pub fn reserve(&self, messages: usize) -> Option<u64> {
        let messages = u64::try_from(messages).ok()?;
        let after = |first: u64| {
            first.checked_add(messages).filter(|&after| after <= REJECT_AFTER_MESSAGES)
        };
        self.sent.0.counter.fetch_update(Relaxed, Relaxed, after).ok()
    }

    /// How many counters have been reserved.
    pub fn reserved(&self) -> u64 {
        self.sent.0.counter.load(Relaxed)
    }

    /// Seals `plaintext` and `padding` zeroes (at most [`PADDING`]) into a data message at the beginning of
    /// `out`, and returns its length: [`DATA_OVERHEAD`] more than both.
    ///
    /// `counter` must be reserved and not used before. None if `out` is too short, or the keypair
    /// may seal no more.
    #[inline]
    pub fn seal(
        &self,
        counter: u64,
        plaintext: &[u8],
        padding: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let (cipher, key) = self.sealing();
        let zeroes = [0; PADDING];
        let zeroes = zeroes.get(..padding)?;
        let padded = plaintext.len() + padding;
        let len = DATA_OVERHEAD + padded;
        let (header, sealed) = out.get_mut(..len)?.split_at_mut(DATA_HEADER_LEN);
        if cipher == Cipher::Aes256Gcm && !self.count_blocks(padded) {
            return None;
        }
        header.copy_from_slice(&DataHeader { cipher, receiver: self.remote, counter }.emit());
        let (nonce, (text, rest)) = (nonce(counter), sealed.split_at_mut(plaintext.len()));
        if padding == 0 || cipher == Cipher::Aes256Gcm {
            key.seal_out_of_place_scatter(nonce, Aad::empty(), plaintext, text, zeroes, rest)
                .ok()?;
        } else {
            // aws-lc takes a second part of the plaintext octet by octet with this cipher; a copy costs less.
            text.copy_from_slice(plaintext);
            rest[..padding].copy_from_slice(zeroes);
            let (padded, tag) = sealed.split_at_mut(padded);
            let made = key.seal_in_place_separate_tag(nonce, Aad::empty(), padded).ok()?;
            tag.copy_from_slice(made.as_ref());
        }
        Some(len)
    }

    /// Opens the data message `datagram`, whose header is `header`, in place, and returns where in it the
    /// plaintext is, padding included.
    ///
    /// Exactly one call succeeds per counter. After an error the datagram holds nothing of use.
    #[inline]
    pub fn open(
        &self,
        header: &DataHeader,
        datagram: &mut [u8],
    ) -> Result<Range<usize>, DropReason> {
        if self.retired.load(Acquire) || header.counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::KeypairExpired);
        }
        if !self.received.0.check(header.counter) {
            return Err(DropReason::Replayed);
        }
        let key = self.opening(header.cipher).ok_or(DropReason::Undecryptable)?;
        let sealed = datagram.get_mut(DATA_HEADER_LEN..).ok_or(DropReason::NotAMessage)?;
        let plaintext = key
            .open_in_place(nonce(header.counter), Aad::empty(), sealed)
            .map_err(|_| DropReason::Undecryptable)?;
        let plaintext = DATA_HEADER_LEN..DATA_HEADER_LEN + plaintext.len();
        if !self.received.0.accept(header.counter) {
            return Err(DropReason::Replayed);
        }
        Ok(plaintext)
    }

    /// What the peer's hello said; nothing before it.
    #[inline]
    pub fn features(&self) -> Features {
        Features(self.features.load(Relaxed))
    }

    /// Keeps what the peer's hello said.
    pub fn set_features(&self, features: Features) {
        self.features.store(features.0, Relaxed);
    }

    /// What messages are sealed with.
    #[inline]
    pub fn cipher(&self) -> Cipher {
        self.sealing().0
    }

    /// Whether user data may be sealed with [`Self::cipher`]; control frames and keepalives always may.
    #[inline]
    pub fn may_carry_data(&self) -> bool {
        self.chacha_for_data || self.cipher() == Cipher::Aes256Gcm
    }

    /// Whether who sends with this keypair should make a new one.
    #[inline]
    pub fn needs_rekey(&self, now: Instant) -> bool {
        self.role == Role::Initiator && now.since(self.born) >= self.rekey_after
            || self.sent.0.counter.load(Relaxed) > REKEY_AFTER_MESSAGES
            || self.sent.0.blocks.load(Relaxed) > REKEY_AFTER_BLOCKS
    }

    /// Whether who only receives with this keypair should make a new one.
    #[inline]
    pub fn needs_rekey_on_receive(&self, now: Instant) -> bool {
        self.role == Role::Initiator && now.since(self.born) >= REKEY_ON_RECEIVE
    }

    /// Whether both sides are known to have the keys. A responder does not know before the first
    /// data message, and must not seal before (whitepaper, section 5.1).
    #[inline]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed.load(Acquire)
    }

    /// Keeps that the peer has the keys; true for the first caller.
    pub fn confirm(&self) -> bool {
        !self.is_confirmed() && !self.confirmed.swap(true, AcqRel)
    }

    /// One more than the greatest counter received; 0 before the first message.
    pub fn expected(&self) -> u64 {
        self.received.0.greatest().map_or(0, |greatest| greatest + 1)
    }

    fn sealing(&self) -> (Cipher, &LessSafeKey) {
        match &self.aes {
            Some(aes) if self.features().contains(Features::AES_256_GCM) => {
                (Cipher::Aes256Gcm, &aes.seal)
            }
            _ => (Cipher::ChaCha20Poly1305, &self.chacha.seal),
        }
    }

    fn opening(&self, cipher: Cipher) -> Option<&LessSafeKey> {
        match cipher {
            Cipher::ChaCha20Poly1305 => Some(&self.chacha.open),
            Cipher::Aes256Gcm => self.aes.as_ref().map(|aes| &aes.open),
        }
    }

    /// Counts the blocks of a message, and the one for its tag; false if they are used up.
    fn count_blocks(&self, len: usize) -> bool {
        let blocks = len.div_ceil(BLOCK_LEN) as u64 + 1;
        self.sent.0.blocks.fetch_add(blocks, Relaxed) + blocks <= REJECT_AFTER_BLOCKS
    }
}

impl Direction {
    fn new(
        algorithm: &'static aead::Algorithm,
        send: &CipherKeys,
        receive: &CipherKeys,
        choose: fn(&CipherKeys) -> &[u8; KEY_LEN],
    ) -> Self {
        let key = |keys| {
            let key = UnboundKey::new(algorithm, choose(keys));
            LessSafeKey::new(key.expect("both ciphers have keys of 32 octets"))
        };
        Self { seal: key(send), open: key(receive) }
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Keypair")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("role", &self.role)
            .field("born", &self.born)
            .finish_non_exhaustive()
    }
}

/// Four zero octets and the counter (whitepaper, section 5.4.6).
fn nonce(counter: u64) -> Nonce {
    let mut octets = [0; aead::NONCE_LEN];
    octets[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(octets)
}

#[cfg(test)]
mod tests;
