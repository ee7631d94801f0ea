//! Tickets: one line of text with which a machine joins a tunnel.
//!
//! # Theory of operation
//!
//! An *inviter* makes a ticket and gives it to somebody by a way that they trust; the *joiner*, who has nothing else,
//! becomes the inviter's peer with it. A ticket says where the inviter is and by what key it is known, what the joiner is
//! to set up ([`Settings`]), until when it may be used, and a [`TicketSecret`].
//!
//! From the secret both sides derive a private key, the *ticket's identity*, and a preshared key. For the inviter the
//! identity is one more peer ([`Invitation`]) that carries no data. So the joiner proves that it has the ticket by an ordinary
//! handshake, and who has none is a stranger, to whom nobody answers. In that session the joiner says
//! which key it will have from then on ([`enrol`](crate::enrol)); the private part of it never leaves the joiner. The inviter keeps
//! the identity's public key and the preshared key, with which nobody can use the ticket.
//!
//! From the preshared key of the ticket and both public keys comes the preshared key of the peer
//! ([`Invitation::peer_key`]). Who finds a used ticket lacks the joiner's private key and has nothing.
//!
//! # Text
//!
//! `adit_ticket_1_` and base32 in small letters (RFC 4648, section 6) without padding. Letters, digits and `_` are one word to every
//! program in which a double click selects a word, and no mail program breaks a line within it or turns a part of it into a
//! dash or a link; base64 has `-`, `+` and `/`, at which many do. Capital letters are not read, so a ticket has one
//! text. A terminal takes lines of 4095 characters (`N_TTY_BUF_SIZE` in Linux `n_tty.c`); a ticket has at most [`TEXT_MAX`].
//! White space anywhere in it is ignored.
//!
//! The number is the version. What the base32 says:
//!
//! ```text
//!   0   2  length of these two octets and the fields, little-endian
//!   2   n  fields
//! 2+n   5  checksum: the beginning of BLAKE2s of "adit ticket checksum", the text up to the base32, and all before
//! ```
//!
//! The length tells a ticket that was cut off from one that was damaged. A field is its tag, the length of its value, and the
//! value. These come before those of the [`Settings`], which have tags from 16 on:
//!
//! | tag | value | octets | times |
//! |---|---|---|---|
//! | 1 | the inviter's public key | 32 | 1 |
//! | 2 | the secret | 32 | 1 |
//! | 3 | when the ticket's time is over: seconds since the Unix epoch, little-endian | 8 | 1 |
//! | 4 | an endpoint of the inviter, a URL of visible ASCII characters | 1 to 255 | 1 to 8 |

use std::str::FromStr;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::key::PublicKey;
use crate::noise::hash;

mod base32;
mod secret;
mod settings;

pub use secret::{Invitation, TicketSecret};
pub use settings::{Settings, is_name};

use settings::{Field, Fields};

/// The most characters of a ticket, white space not counted.
pub const TEXT_MAX: usize = PREFIX.len() + base32::text_len(BODY_MAX + CHECKSUM_LEN);

/// The most characters that are looked at, white space included.
const INPUT_MAX: usize = 4 * TEXT_MAX;

/// What every ticket of every version begins with.
const FAMILY: &str = "adit_ticket_";
/// What a ticket begins with.
const PREFIX: &str = "adit_ticket_1_";
const VERSION: &str = "1";
/// The most digits of a version.
const VERSION_LEN_MAX: usize = 3;

/// The most octets of the length and the fields.
const BODY_MAX: usize = 2000;
const LENGTH_LEN: usize = 2;
const CHECKSUM_LEN: usize = 5;
const CHECKSUM_LABEL: &[u8] = b"adit ticket checksum";

const INVITER: u8 = 1;
const SECRET: u8 = 2;
const EXPIRES: u8 = 3;
const ENDPOINT: u8 = 4;

/// The most octets of all endpoints with their tags and lengths.
const ENDPOINTS_LEN_MAX: usize = 1000;

const _: () = assert!(
    LENGTH_LEN + 2 * (2 + 32) + (2 + 8) + ENDPOINTS_LEN_MAX + settings::LEN_MAX <= BODY_MAX,
    "a ticket has room for all fields"
);
const _: () = assert!(TEXT_MAX <= 4095, "a terminal takes it as a line");

/// What a machine needs to join a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// By what the inviter is known.
    pub inviter: PublicKey,
    /// What proves that somebody has this ticket.
    pub secret: TicketSecret,
    /// When its time is over, in seconds since the Unix epoch.
    pub expires: u64,
    /// Where the inviter is, as URLs, the best one first; 1 to [`Self::ENDPOINTS_MAX`].
    pub endpoints: Vec<String>,
    /// What the joiner is to set up.
    pub settings: Settings,
}

/// Why a text is no ticket, or a ticket has no text. It never says what is in the ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The text is something else.
    #[error("not a ticket, which begins with {FAMILY:?}")]
    NotATicket,
    /// The ticket is for another version of this program.
    #[error("ticket of version {0}, where version {VERSION} is known")]
    Version(u16),
    /// The end is missing.
    #[error("ticket is cut off")]
    CutOff,
    /// Something is not as the inviter wrote it.
    #[error("ticket is damaged")]
    Damaged,
    /// The text is longer than any ticket, or would be.
    #[error("ticket of more than {TEXT_MAX} characters")]
    TooLong,
    /// The ticket is whole, but what it says makes no sense.
    #[error("ticket with a malformed {0}")]
    Malformed(&'static str),
    /// The ticket has more of something than it may.
    #[error("ticket with too many values of {0}")]
    TooMany(&'static str),
    /// The ticket has a field that must not be ignored, and is not known.
    #[error("ticket with field {0}, which is not known")]
    Newer(u8),
}

impl Ticket {
    /// The most endpoints.
    pub const ENDPOINTS_MAX: usize = 8;

    /// The text, as secret as what is in it.
    ///
    /// # Errors
    ///
    /// [`TicketError::TooLong`], [`TicketError::Malformed`] and [`TicketError::TooMany`]: nobody could read it.
    pub fn to_text(&self) -> Result<Zeroizing<String>, TicketError> {
        let mut octets = Zeroizing::new(Vec::with_capacity(BODY_MAX + CHECKSUM_LEN));
        octets.extend([0; LENGTH_LEN]);
        self.append(&mut octets)?;
        Self::of_fields(&octets[LENGTH_LEN..])?;
        let length = u16::try_from(octets.len()).map_err(|_| TicketError::TooLong)?;
        octets[..LENGTH_LEN].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(&octets);
        octets.extend(checksum);
        let mut text = Zeroizing::new(String::with_capacity(TEXT_MAX));
        text.push_str(PREFIX);
        base32::encode(&octets, &mut text);
        Ok(text)
    }

    /// Whether its time is over at `wall`, the time since the Unix epoch.
    pub fn has_expired(&self, wall: Duration) -> bool {
        wall.as_secs() >= self.expires
    }

    /// What the inviter keeps of it.
    pub fn invitation(&self) -> Invitation {
        Invitation::new(&self.secret, self.expires)
    }

    /// Appends the fields. There is room for them, so the secret is nowhere else in memory.
    fn append(&self, octets: &mut Vec<u8>) -> Result<(), TicketError> {
        let settings = self.settings.emit()?;
        check_endpoints(&self.endpoints)?;
        settings::append(octets, INVITER, self.inviter.as_bytes())?;
        settings::append(octets, SECRET, self.secret.as_bytes())?;
        settings::append(octets, EXPIRES, &self.expires.to_le_bytes())?;
        for endpoint in &self.endpoints {
            settings::append(octets, ENDPOINT, endpoint.as_bytes())?;
        }
        octets.extend(settings);
        Ok(())
    }

    fn of_fields(octets: &[u8]) -> Result<Self, TicketError> {
        let (mut inviter, mut secret, mut expires) = (None, None, None);
        let (mut endpoints, mut settings) = (Vec::new(), Settings::default());
        for field in Fields::new(octets) {
            let Field { tag, value } = field?;
            match tag {
                INVITER => inviter = array(value),
                SECRET => secret = array(value).map(TicketSecret::from_bytes),
                EXPIRES => expires = array(value).map(u64::from_le_bytes),
                ENDPOINT => {
                    settings::push(&mut endpoints, url(value), Self::ENDPOINTS_MAX, "endpoint")?;
                }
                _ => settings.take(Field { tag, value })?,
            }
        }
        check_endpoints(&endpoints)?;
        let inviter = inviter.map(<PublicKey as From<[u8; 32]>>::from);
        Ok(Self {
            inviter: inviter.ok_or(TicketError::Malformed("public key"))?,
            secret: secret.ok_or(TicketError::Malformed("secret"))?,
            expires: expires.ok_or(TicketError::Malformed("time"))?,
            endpoints,
            settings,
        })
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = squeeze(text)?;
        let octets = octets(&text)?;
        let (&length, rest) = octets.split_first_chunk().ok_or(TicketError::CutOff)?;
        let length = usize::from(u16::from_le_bytes(length));
        let fields = length.checked_sub(LENGTH_LEN).ok_or(TicketError::Damaged)?;
        let (fields, sum) = rest.split_at_checked(fields).ok_or(TicketError::CutOff)?;
        if sum.len() < CHECKSUM_LEN {
            return Err(TicketError::CutOff);
        }
        if sum != checksum(&octets[..length]) {
            return Err(TicketError::Damaged);
        }
        Self::of_fields(fields)
    }
}

/// The text without white space.
fn squeeze(text: &str) -> Result<Zeroizing<String>, TicketError> {
    if text.len() > INPUT_MAX {
        return Err(TicketError::TooLong);
    }
    let mut squeezed = Zeroizing::new(String::with_capacity(text.len()));
    squeezed.extend(text.chars().filter(|character| !character.is_whitespace()));
    let is_long = squeezed.len() > TEXT_MAX && squeezed.starts_with(FAMILY);
    if is_long { Err(TicketError::TooLong) } else { Ok(squeezed) }
}

/// What the base32 of a text says, whose version is known.
fn octets(text: &str) -> Result<Zeroizing<Vec<u8>>, TicketError> {
    let rest = text.strip_prefix(FAMILY).ok_or(TicketError::NotATicket)?;
    let (version, base32) = rest.split_once('_').unwrap_or((rest, ""));
    let is_number = (1..=VERSION_LEN_MAX).contains(&version.len())
        && version.bytes().all(|digit| digit.is_ascii_digit())
        && !version.starts_with('0');
    match version.parse() {
        Ok(1_u16) if version == VERSION => {}
        Ok(other) if is_number => return Err(TicketError::Version(other)),
        _ => return Err(TicketError::NotATicket),
    }
    let (octets, rest) = base32::decode(base32.as_bytes()).ok_or(TicketError::Damaged)?;
    let said =
        octets.first_chunk().map_or(usize::MAX, |&length| usize::from(u16::from_le_bytes(length)));
    // Of a text that was cut off the last bits may be anything.
    let is_whole = octets.len() >= said.saturating_add(CHECKSUM_LEN);
    let is_canonical = rest == 0 && base32.len() == base32::text_len(octets.len());
    if is_whole && !is_canonical { Err(TicketError::Damaged) } else { Ok(octets) }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, e, ..] = hash(&[CHECKSUM_LABEL, PREFIX.as_bytes(), body]);
    [a, b, c, d, e]
}

fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

/// Whether there are endpoints, and a ticket has room for them.
fn check_endpoints(endpoints: &[String]) -> Result<(), TicketError> {
    let len: usize = endpoints.iter().map(|endpoint| 2 + endpoint.len()).sum();
    match len {
        0 => Err(TicketError::Malformed("endpoint")),
        1..=ENDPOINTS_LEN_MAX => Ok(()),
        _ => Err(TicketError::TooLong),
    }
}

/// A URL, as far as it is known here.
fn url(value: &[u8]) -> Option<String> {
    let is_visible = !value.is_empty() && value.iter().all(u8::is_ascii_graphic);
    String::from_utf8(value.to_vec()).ok().filter(|_| is_visible)
}

#[cfg(test)]
mod tests;
