//! The handshake: two messages that make a session out of two static keys.
//!
//! # Theory of operation
//!
//! `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` as WireGuard uses it (whitepaper, sections 5.4.1 to 5.4.5;
//! the Noise Protocol Framework, revision 34). The initiator knows the responder's static public
//! key beforehand. The messages mix into one transcript, in this order:
//!
//! | message | tokens | sealed with the transcript's key |
//! |---|---|---|
//! | initiation | `e`, `es`, `s`, `ss` | the initiator's static public key (after `es`), its timestamp (after `ss`) |
//! | response | `e`, `ee`, `se`, `psk` | nothing: the tag proves that the responder has all keys |
//!
//! A token of two letters is the Diffie-Hellman result of the initiator's and the responder's
//! ephemeral or static keys. From the finished transcript both derive the keys for data.
//!
//! The types are the states, and there is no way around one:
//!
//! ```text
//! initiator   initiate() -> Initiating ------------------------------- complete() -> SessionKeys
//! responder   open_initiation() -> Introduction -> authenticate() -> Responding -> respond() -> SessionKeys
//! ```
//!
//! An [`Introduction`] only says whom the initiator claims to be: anybody who knows a public key can make
//! one. [`Introduction::authenticate`] checks it, with `ss`, which costs no computation because
//! [`StaticShared`] is kept per peer. [`Initiating`] survives a wrong response, so a forger cannot
//! end a handshake.
//!
//! A Diffie-Hellman result of zero, which a public key of small order leads to, is refused: it would
//! contribute no secret. Nothing here says why a message was refused; the sender must not learn it.
//!
//! The MACs around the messages are in [`crate::cookie`].

mod secret;
mod transcript;

use wire::message::{Initiation, Response};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};
use crate::tai64n::Tai64n;

use secret::{Secret, Shared};
use transcript::Transcript;

pub(crate) use transcript::{Hash, derive, hash};

/// What the keys for AES-256-GCM are derived with besides the transcript; ChaCha20-Poly1305 has nothing there.
const AES_LABEL: &[u8] = b"adit AES-256-GCM";

/// A private key with its public key.
#[derive(Debug)]
pub struct Identity {
    secret: Secret,
}

impl Identity {
    /// Computes the public key.
    #[expect(clippy::needless_pass_by_value, reason = "an identity takes the key over")]
    pub fn new(private: PrivateKey) -> Self {
        Self { secret: Secret::new(&private) }
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        self.secret.public()
    }

    /// What this identity and `remote` share, or none if `remote` is degenerate.
    pub fn shared(&self, remote: &PublicKey) -> Option<StaticShared> {
        Some(StaticShared { remote: *remote, shared: self.secret.agree(remote)? })
    }
}

/// The Diffie-Hellman result of two static keys (`ss`), kept per peer.
#[derive(Debug)]
pub struct StaticShared {
    remote: PublicKey,
    shared: Shared,
}

/// The keys of one session, by direction.
#[derive(Debug)]
pub struct SessionKeys {
    /// What this side seals with.
    pub send: CipherKeys,
    /// What this side opens with.
    pub receive: CipherKeys,
}

/// The keys of one direction, by cipher.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CipherKeys {
    /// For ChaCha20-Poly1305 (RFC 8439).
    pub chacha: [u8; KEY_LEN],
    /// For AES-256-GCM (NIST SP 800-38D).
    pub aes: [u8; KEY_LEN],
}

impl std::fmt::Debug for CipherKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CipherKeys(..)")
    }
}

/// Makes an initiation to `remote`, whose MACs are still zero; `ephemeral` must be fresh.
///
/// None if a key of `remote` is degenerate, or `shared` is another peer's.
pub fn initiate(
    local: &Identity,
    remote: &PublicKey,
    shared: &StaticShared,
    ephemeral: PrivateKey,
    sender: u32,
    timestamp: Tai64n,
) -> Option<(Initiation, Initiating)> {
    if shared.remote != *remote {
        return None;
    }
    let ephemeral = Identity::new(ephemeral).secret;
    let mut transcript = Transcript::new(remote);
    transcript.mix_ephemeral(&ephemeral.public());
    transcript.mix_shared(&ephemeral.agree(remote)?);
    let encrypted_static = transcript.seal(local.public().as_bytes())?;
    transcript.mix_shared(&shared.shared);
    let encrypted_timestamp = transcript.seal(timestamp.as_octets())?;
    let initiation = Initiation {
        sender,
        ephemeral: *ephemeral.public().as_bytes(),
        encrypted_static,
        encrypted_timestamp,
        mac1: [0; 16],
        mac2: [0; 16],
    };
    Some((initiation, Initiating { transcript, ephemeral, sender }))
}

/// An initiator that waits for the response.
#[derive(Debug)]
pub struct Initiating {
    transcript: Transcript,
    ephemeral: Secret,
    sender: u32,
}

impl Initiating {
    /// The sender index of the initiation, which is the receiver index of the response.
    pub fn sender(&self) -> u32 {
        self.sender
    }

    /// Takes the response; none if it is not the answer to this initiation by the peer that it was for.
    pub fn complete(
        &self,
        local: &Identity,
        psk: &PresharedKey,
        message: &Response,
    ) -> Option<SessionKeys> {
        if message.receiver != self.sender {
            return None;
        }
        let remote = PublicKey::from(message.ephemeral);
        let mut transcript = self.transcript.clone();
        transcript.mix_ephemeral(&remote);
        transcript.mix_shared(&self.ephemeral.agree(&remote)?);
        transcript.mix_shared(&local.secret.agree(&remote)?);
        transcript.mix_preshared(psk);
        transcript.open::<0, 16>(&message.encrypted_nothing)?;
        let (send, receive) = transcript.split();
        Some(SessionKeys { send, receive })
    }
}

/// Finds out whom an initiation claims to be from; none if it is not for `local`.
pub fn open_initiation(local: &Identity, message: &Initiation) -> Option<Introduction> {
    let ephemeral = PublicKey::from(message.ephemeral);
    let mut transcript = Transcript::new(&local.public());
    transcript.mix_ephemeral(&ephemeral);
    transcript.mix_shared(&local.secret.agree(&ephemeral)?);
    let remote = PublicKey::from(*transcript.open::<32, 48>(&message.encrypted_static)?);
    Some(Introduction {
        transcript,
        ephemeral,
        remote,
        sender: message.sender,
        encrypted_timestamp: message.encrypted_timestamp,
    })
}

/// An initiation whose sender is claimed, but not yet proved.
#[derive(Debug)]
pub struct Introduction {
    transcript: Transcript,
    ephemeral: PublicKey,
    remote: PublicKey,
    sender: u32,
    encrypted_timestamp: [u8; 28],
}

impl Introduction {
    /// Whom the initiation claims to be from.
    pub fn public_key(&self) -> PublicKey {
        self.remote
    }

    /// Checks the claim with what we share with the claimed peer; none if it is wrong.
    ///
    /// The timestamp may still be that of a replay.
    pub fn authenticate(self, shared: &StaticShared) -> Option<(Tai64n, Responding)> {
        if shared.remote != self.remote {
            return None;
        }
        let Self { mut transcript, ephemeral, remote, sender, encrypted_timestamp } = self;
        transcript.mix_shared(&shared.shared);
        let timestamp = transcript.open::<12, 28>(&encrypted_timestamp)?;
        let responding = Responding { transcript, ephemeral, remote, receiver: sender };
        Some((Tai64n::from_octets(*timestamp), responding))
    }
}

/// A responder that knows its initiator.
#[derive(Debug)]
pub struct Responding {
    transcript: Transcript,
    ephemeral: PublicKey,
    remote: PublicKey,
    receiver: u32,
}

impl Responding {
    /// The sender index of the initiation, which becomes the receiver index of the response.
    pub fn receiver(&self) -> u32 {
        self.receiver
    }

    /// Makes the response, whose MACs are still zero; `ephemeral` must be fresh.
    ///
    /// None if a key of the initiator is degenerate.
    pub fn respond(
        self,
        ephemeral: PrivateKey,
        psk: &PresharedKey,
        sender: u32,
    ) -> Option<(Response, SessionKeys)> {
        let Self { mut transcript, ephemeral: initiator, remote, receiver } = self;
        let ephemeral = Identity::new(ephemeral).secret;
        transcript.mix_ephemeral(&ephemeral.public());
        transcript.mix_shared(&ephemeral.agree(&initiator)?);
        transcript.mix_shared(&ephemeral.agree(&remote)?);
        transcript.mix_preshared(psk);
        let encrypted_nothing = transcript.seal(&[])?;
        let response = Response {
            sender,
            receiver,
            ephemeral: *ephemeral.public().as_bytes(),
            encrypted_nothing,
            mac1: [0; 16],
            mac2: [0; 16],
        };
        let (receive, send) = transcript.split();
        Some((response, SessionKeys { send, receive }))
    }
}

#[cfg(test)]
mod tests;
