//! What a ticket's secret becomes: who its holder is, what both sides share, and what they share afterwards.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use crate::enrol::Answer;
use crate::key::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};
use crate::noise::{derive, hash};
use crate::random::Random;

/// What the keys of the ticket itself are derived with.
const TICKET_LABEL: &[u8] = b"adit ticket 1";
/// What the preshared key of the peer is derived with that the ticket makes.
const PEER_LABEL: &[u8] = b"adit ticket 1 peer";

/// The random octets that make a ticket worth something.
#[derive(Clone)]
pub struct TicketSecret(Zeroizing<[u8; KEY_LEN]>);

impl TicketSecret {
    /// Takes these octets, which nobody else has.
    pub fn from_bytes(octets: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// Makes a secret that nobody else has.
    pub fn generate(random: &mut dyn Random) -> Self {
        let mut octets = Zeroizing::new([0; KEY_LEN]);
        random.fill(&mut *octets);
        Self(octets)
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Who the ticket's holder is in the session in which it enrols.
    pub fn identity(&self) -> PrivateKey {
        let [identity, _] = self.derive();
        PrivateKey::from_bytes(*identity)
    }

    /// What is shared in that session beside the keys.
    pub fn preshared_key(&self) -> PresharedKey {
        let [_, shared] = self.derive();
        PresharedKey::from_bytes(*shared)
    }

    fn derive(&self) -> [Zeroizing<[u8; KEY_LEN]>; 2] {
        derive(&Zeroizing::new(hash(&[TICKET_LABEL])), self.as_bytes())
    }
}

/// In constant time.
impl PartialEq for TicketSecret {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.as_bytes(), other.as_bytes()).is_ok()
    }
}

impl Eq for TicketSecret {}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TicketSecret(..)")
    }
}

/// What an inviter keeps of a ticket: enough to know who holds it, too little to be the holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Who the ticket's holder is.
    pub public_key: PublicKey,
    /// What is shared with it.
    pub preshared_key: PresharedKey,
    /// When the ticket's time is over, in seconds since the Unix epoch.
    pub expires: u64,
    /// Whom the ticket has made a peer.
    pub joined: Option<PublicKey>,
}

impl Invitation {
    /// The most invitations that an inviter keeps, ended ones included.
    pub const COUNT_MAX: usize = 64;
    /// So long after its time an invitation is kept, to tell a late holder what became of it.
    pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

    /// The invitation of a ticket with this secret, which nobody has used.
    pub fn new(secret: &TicketSecret, expires: u64) -> Self {
        Self {
            public_key: secret.identity().public_key(),
            preshared_key: secret.preshared_key(),
            expires,
            joined: None,
        }
    }

    /// What its holder is told at `wall` (since the Unix epoch) when it wants to be `joiner`.
    ///
    /// Who was accepted is accepted again, at any time: the answer may have been lost. The caller notes whom it has
    /// accepted in [`Self::joined`], before it says so.
    pub fn answer(&self, wall: Duration, joiner: &PublicKey) -> Answer {
        match &self.joined {
            Some(joined) if joined == joiner => Answer::Accepted(None),
            Some(_) => Answer::Used,
            None if self.has_expired(wall) => Answer::Expired,
            None => Answer::Accepted(None),
        }
    }

    /// Whether nobody can become a peer by it any more.
    pub fn has_expired(&self, wall: Duration) -> bool {
        wall.as_secs() >= self.expires
    }

    /// Whether it need not be kept any longer.
    pub fn is_forgotten(&self, wall: Duration) -> bool {
        wall.as_secs() >= self.expires.saturating_add(Self::KEPT.as_secs())
    }

    /// The preshared key of inviter and joiner from then on, which each side finds out by itself from what the
    /// ticket's holder and the inviter share.
    pub fn peer_key(
        shared: &PresharedKey,
        inviter: &PublicKey,
        joiner: &PublicKey,
    ) -> PresharedKey {
        let [key] = derive(&Zeroizing::new(hash(&[PEER_LABEL])), shared.as_bytes());
        let both = [inviter.as_bytes().as_slice(), joiner.as_bytes()].concat();
        let [key] = derive(&key, &both);
        PresharedKey::from_bytes(*key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Count, ascending};

    fn hex(octets: &[u8; 32]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// From Python's hashlib and hmac.
    #[test]
    fn derived_keys_are_those_of_another_implementation() {
        let secret = TicketSecret::generate(&mut Count(0));
        let (inviter, joiner) = (PublicKey::from(ascending(33)), PublicKey::from(ascending(65)));
        let shared = secret.preshared_key();
        let keys = [
            hex(secret.identity().as_bytes()),
            hex(shared.as_bytes()),
            hex(Invitation::peer_key(&shared, &inviter, &joiner).as_bytes()),
        ];
        let expected = [
            "b85fd66e39acd766ede81218da48d8222ccc0382295a073ab7510d6e928ff86d",
            "61e3dc86e3b34ee7337d61a3d4b44c6d33c924cd259af46ab8312ddd29ad7a0a",
            "b85955eb682d77c419c92137efe6d5445607b83c80e55967d0addb0cfb03edcc",
        ];
        assert_eq!(keys, expected);
        assert_ne!(
            Invitation::peer_key(&shared, &inviter, &joiner),
            Invitation::peer_key(&shared, &joiner, &inviter)
        );
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = TicketSecret::generate(&mut Count(0));
        assert_eq!(format!("{secret:?}"), "TicketSecret(..)");
        let shown = format!("{:?}", Invitation::new(&secret, 5));
        assert!(shown.contains("PresharedKey(..)"), "{shown}");
    }

    #[test]
    fn an_invitation_accepts_one_key_and_that_again() {
        let secret = TicketSecret::generate(&mut Count(0));
        let (first, second) = (PublicKey::from([1; 32]), PublicKey::from([2; 32]));
        let mut invitation = Invitation::new(&secret, 1000);
        let (early, late) = (Duration::from_millis(999_999), Duration::from_secs(1000));
        assert_eq!(invitation.answer(early, &first), Answer::Accepted(None));
        assert_eq!(invitation.answer(late, &first), Answer::Expired);
        invitation.joined = Some(first);
        assert_eq!(invitation.answer(late, &first), Answer::Accepted(None));
        assert_eq!(invitation.answer(early, &second), Answer::Used);
        let kept = late + Invitation::KEPT;
        assert!(invitation.is_forgotten(kept) && !invitation.is_forgotten(kept - early / 999));
    }
}
