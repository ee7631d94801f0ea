//! The four messages of WireGuard on the wire: two that make keys, one that answers under load, one
//! that carries data.
//!
//! Every message starts with its type and three reserved octets of zero. Integers are little-endian.
//! Keys, authenticators and ciphertext are octets that mean nothing here: this module knows where they
//! stand, and `proto` what they say.
//!
//! ```text
//!  initiation, 148 octets             response, 92 octets               cookie reply, 64 octets
//!    0   1  type: 1                     0   1  type: 2                    0   1  type: 3
//!    1   3  reserved: 0                 1   3  reserved: 0                1   3  reserved: 0
//!    4   4  sender's index              4   4  sender's index             4   4  receiver's index
//!    8  32  ephemeral public key        8   4  receiver's index           8  24  nonce
//!   40  48  static public key, sealed  12  32  ephemeral public key      32  32  cookie, sealed
//!   88  28  timestamp, sealed          44  16  nothing, sealed
//!  116  16  mac1                       60  16  mac1
//!  132  16  mac2                       76  16  mac2
//!
//!  data, 32 octets and more
//!    0   1  type: 4
//!    1   1  cipher: 0 ChaCha20-Poly1305, 1 AES-256-GCM
//!    2   2  reserved: 0
//!    4   4  receiver's index
//!    8   8  counter
//!   16   n  plaintext, sealed, padded to a multiple of 16 octets where it is an IP packet
//!  +16  16  tag
//! ```
//!
//! What is sealed has 16 octets of tag at its end; a sealed message without plaintext is a keepalive.
//!
//! The cipher of a data message is the one octet in which this table goes beyond WireGuard: its peers
//! have reserved it, write 0 and drop everything else, so 1 is for peers that have asked for it.
//!
//! References: J. Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", sections 5.4.2 to 5.4.7;
//! Linux `drivers/net/wireguard/messages.h`.

use std::fmt;

/// Length of an initiation in octets.
pub const INITIATION_LEN: usize = 148;
/// Length of a response in octets.
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply in octets.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Length of what stands before the ciphertext of a data message in octets.
pub const DATA_HEADER_LEN: usize = 16;
/// Length of the authenticator behind every ciphertext in octets.
pub const TAG_LEN: usize = 16;
/// Octets by which a data message is longer than its plaintext with padding.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;
/// The plaintext of an IP packet is padded to a multiple of this many octets (whitepaper, section 5.4.6;
/// `MESSAGE_PADDING_MULTIPLE` in Linux).
pub const PADDING: usize = 16;

/// Type and reserved octets.
const PREFIX_LEN: usize = 4;

/// The cipher that sealed a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// That of every WireGuard peer (RFC 8439), written as 0.
    ChaCha20Poly1305,
    /// That of two peers which both have it in hardware (NIST SP 800-38D), written as 1.
    Aes256Gcm,
}

/// The four messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The first message of a handshake.
    Initiation,
    /// The second, which completes it.
    Response,
    /// What a responder under load answers instead of a response.
    CookieReply,
    /// A sealed packet or frame, or a keepalive.
    Data,
}

/// The first message of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initiation {
    /// By what the sender will know messages of this session.
    pub sender: u32,
    /// A public key made for this handshake.
    pub ephemeral: [u8; 32],
    /// The sender's public key.
    pub encrypted_static: [u8; 32 + TAG_LEN],
    /// The time of sending as TAI64N.
    pub encrypted_timestamp: [u8; 12 + TAG_LEN],
    /// Shows that the sender knows the receiver's public key.
    pub mac1: [u8; 16],
    /// Shows that the sender receives at its address; zero without a cookie.
    pub mac2: [u8; 16],
}

/// The second message of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// By what the sender will know messages of this session.
    pub sender: u32,
    /// The `sender` of the initiation.
    pub receiver: u32,
    /// A public key made for this handshake.
    pub ephemeral: [u8; 32],
    /// Shows that the sender has the key that the initiation was made for.
    pub encrypted_nothing: [u8; TAG_LEN],
    /// As in [`Initiation`].
    pub mac1: [u8; 16],
    /// As in [`Initiation`].
    pub mac2: [u8; 16],
}

/// What a responder under load answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The `sender` of the message that it answers.
    pub receiver: u32,
    /// The nonce of the cookie's encryption.
    pub nonce: [u8; 24],
    /// What to make mac2 with.
    pub encrypted_cookie: [u8; 16 + TAG_LEN],
}

/// What stands before the ciphertext of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// What sealed the message.
    pub cipher: Cipher,
    /// By what the receiver knows messages of this session.
    pub receiver: u32,
    /// The number of the message, its nonce.
    pub counter: u64,
}

/// Why octets are not the message that a `parse` expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The message has another length; `needs` is the least for data and exact otherwise.
    #[error("{kind} of {has} octets, where it needs {needs}")]
    Length {
        /// The message that was read.
        kind: Kind,
        /// Octets that it needs.
        needs: usize,
        /// Octets that are there.
        has: usize,
    },
    /// Type or reserved octets have other values than the message's.
    #[error("{kind}, type and reserved octets {found:02x?}")]
    Prefix {
        /// The message that was read.
        kind: Kind,
        /// The first four octets.
        found: [u8; PREFIX_LEN],
    },
}

/// What a datagram is by its type, its reserved octets and its length; nothing if no message is like it.
#[inline]
#[must_use]
pub fn kind(datagram: &[u8]) -> Option<Kind> {
    let kind = Kind::of_prefix(*datagram.first_chunk()?)?;
    kind.check_len(datagram).is_ok().then_some(kind)
}

impl Kind {
    /// Length of the message in octets; the least for data.
    #[must_use]
    pub const fn min_len(self) -> usize {
        match self {
            Self::Initiation => INITIATION_LEN,
            Self::Response => RESPONSE_LEN,
            Self::CookieReply => COOKIE_REPLY_LEN,
            Self::Data => DATA_OVERHEAD,
        }
    }

    #[inline]
    fn of_prefix(prefix: [u8; PREFIX_LEN]) -> Option<Self> {
        match prefix {
            [4, cipher, 0, 0] => Cipher::of_octet(cipher).map(|_| Self::Data),
            [1, 0, 0, 0] => Some(Self::Initiation),
            [2, 0, 0, 0] => Some(Self::Response),
            [3, 0, 0, 0] => Some(Self::CookieReply),
            _ => None,
        }
    }

    #[inline]
    fn check_len(self, message: &[u8]) -> Result<(), MessageError> {
        let (needs, has) = (self.min_len(), message.len());
        let is_right = if self == Self::Data { has >= needs } else { has == needs };
        is_right.then_some(()).ok_or(MessageError::Length { kind: self, needs, has })
    }
}

impl Cipher {
    #[inline]
    const fn of_octet(octet: u8) -> Option<Self> {
        match octet {
            0 => Some(Self::ChaCha20Poly1305),
            1 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    #[inline]
    const fn octet(self) -> u8 {
        match self {
            Self::ChaCha20Poly1305 => 0,
            Self::Aes256Gcm => 1,
        }
    }
}

impl Initiation {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if its length, type or reserved octets are another message's.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let mut fields = Fields::of(Kind::Initiation, message)?;
        Ok(Self {
            sender: fields.next_u32(),
            ephemeral: fields.next(),
            encrypted_static: fields.next(),
            encrypted_timestamp: fields.next(),
            mac1: fields.next(),
            mac2: fields.next(),
        })
    }

    /// The message as it is sent.
    #[must_use]
    pub fn emit(&self) -> [u8; INITIATION_LEN] {
        join(&[
            &[1, 0, 0, 0],
            &self.sender.to_le_bytes(),
            &self.ephemeral,
            &self.encrypted_static,
            &self.encrypted_timestamp,
            &self.mac1,
            &self.mac2,
        ])
    }
}

impl Response {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if its length, type or reserved octets are another message's.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let mut fields = Fields::of(Kind::Response, message)?;
        Ok(Self {
            sender: fields.next_u32(),
            receiver: fields.next_u32(),
            ephemeral: fields.next(),
            encrypted_nothing: fields.next(),
            mac1: fields.next(),
            mac2: fields.next(),
        })
    }

    /// The message as it is sent.
    #[must_use]
    pub fn emit(&self) -> [u8; RESPONSE_LEN] {
        join(&[
            &[2, 0, 0, 0],
            &self.sender.to_le_bytes(),
            &self.receiver.to_le_bytes(),
            &self.ephemeral,
            &self.encrypted_nothing,
            &self.mac1,
            &self.mac2,
        ])
    }
}

impl CookieReply {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if its length, type or reserved octets are another message's.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let mut fields = Fields::of(Kind::CookieReply, message)?;
        Ok(Self {
            receiver: fields.next_u32(),
            nonce: fields.next(),
            encrypted_cookie: fields.next(),
        })
    }

    /// The message as it is sent.
    #[must_use]
    pub fn emit(&self) -> [u8; COOKIE_REPLY_LEN] {
        join(&[&[3, 0, 0, 0], &self.receiver.to_le_bytes(), &self.nonce, &self.encrypted_cookie])
    }
}

impl DataHeader {
    /// Reads the header of a whole data message; ciphertext and tag follow at [`DATA_HEADER_LEN`].
    ///
    /// # Errors
    ///
    /// [`MessageError`] if there is no room for a tag, or type, cipher or reserved octets are not those
    /// of a data message.
    #[inline]
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let kind = Kind::Data;
        kind.check_len(message)?;
        let header: [u8; DATA_HEADER_LEN] = message.first_chunk().copied().unwrap_or_default();
        let [t, c, z0, z1, r0, r1, r2, r3, counter @ ..] = header;
        let wrong = MessageError::Prefix { kind, found: [t, c, z0, z1] };
        let cipher = Cipher::of_octet(c).filter(|_| [t, z0, z1] == [4, 0, 0]).ok_or(wrong)?;
        let receiver = u32::from_le_bytes([r0, r1, r2, r3]);
        Ok(Self { cipher, receiver, counter: u64::from_le_bytes(counter) })
    }

    /// The header as it is sent.
    #[inline]
    #[must_use]
    pub fn emit(&self) -> [u8; DATA_HEADER_LEN] {
        let [r0, r1, r2, r3] = self.receiver.to_le_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_le_bytes();
        [4, self.cipher.octet(), 0, 0, r0, r1, r2, r3, c0, c1, c2, c3, c4, c5, c6, c7]
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Self::Aes256Gcm => "AES-256-GCM",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initiation => "initiation",
            Self::Response => "response",
            Self::CookieReply => "cookie reply",
            Self::Data => "data message",
        })
    }
}

/// The fields of a message behind its prefix, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Checks prefix and length, so that every field is there.
    fn of(kind: Kind, message: &'a [u8]) -> Result<Self, MessageError> {
        kind.check_len(message)?;
        let (prefix, rest) = message.split_first_chunk().unwrap_or((&[0; PREFIX_LEN], &[]));
        let is_right = Kind::of_prefix(*prefix) == Some(kind);
        is_right.then_some(Self(rest)).ok_or(MessageError::Prefix { kind, found: *prefix })
    }

    /// The next field; zeros beyond the end, which [`Self::of`] has excluded.
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }

    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.next())
    }
}

/// Fields one after the other, which have `N` octets together.
fn join<const N: usize>(fields: &[&[u8]]) -> [u8; N] {
    let mut message = [0; N];
    for (place, octet) in message.iter_mut().zip(fields.iter().copied().flatten()) {
        *place = *octet;
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message of `len` octets: those of `start`, then 0x10, 0x11 and so on from the octet behind.
    fn counting<const N: usize>(start: &[u8]) -> [u8; N] {
        let mut octets: [u8; N] =
            std::array::from_fn(|i| (i - start.len().min(i) + 0x10).to_le_bytes()[0]);
        octets[..start.len()].copy_from_slice(start);
        octets
    }

    /// `N` octets that count up from `first`.
    fn from<const N: usize>(first: u8) -> [u8; N] {
        std::array::from_fn(|i| first.wrapping_add(i.to_le_bytes()[0]))
    }

    #[test]
    fn an_initiation_reads_as_its_fields_and_back() {
        let octets: [u8; 148] = counting(&[1, 0, 0, 0, 0x78, 0x56, 0x34, 0x12]);
        let message = Initiation::parse(&octets).unwrap();
        let expected = Initiation {
            sender: 0x1234_5678,
            ephemeral: from(0x10),
            encrypted_static: from(0x30),
            encrypted_timestamp: from(0x60),
            mac1: from(0x7c),
            mac2: from(0x8c),
        };
        assert_eq!(message, expected);
        assert_eq!(message.emit(), octets);
    }

    #[test]
    fn a_response_reads_as_its_fields_and_back() {
        let octets: [u8; 92] = counting(&[2, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5]);
        let message = Response::parse(&octets).unwrap();
        let expected = Response {
            sender: 0x0102_0304,
            receiver: 0x0506_0708,
            ephemeral: from(0x10),
            encrypted_nothing: from(0x30),
            mac1: from(0x40),
            mac2: from(0x50),
        };
        assert_eq!(message, expected);
        assert_eq!(message.emit(), octets);
    }

    #[test]
    fn a_cookie_reply_reads_as_its_fields_and_back() {
        let octets: [u8; 64] = counting(&[3, 0, 0, 0, 4, 3, 2, 1]);
        let message = CookieReply::parse(&octets).unwrap();
        let (nonce, encrypted_cookie) = (from(0x10), from(0x28));
        assert_eq!(message, CookieReply { receiver: 0x0102_0304, nonce, encrypted_cookie });
        assert_eq!(message.emit(), octets);
    }

    #[test]
    fn a_data_header_reads_as_its_fields_and_back() {
        let octets: [u8; 32] = counting(&[4, 1, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1]);
        let header = DataHeader::parse(&octets).unwrap();
        let (receiver, counter) = (0x0102_0304, 0x0102_0304_0506_0708);
        assert_eq!(header, DataHeader { cipher: Cipher::Aes256Gcm, receiver, counter });
        assert_eq!(header.emit(), octets[..16]);
        let stock = DataHeader { cipher: Cipher::ChaCha20Poly1305, ..header };
        assert_eq!(stock.emit()[..4], [4, 0, 0, 0]);
    }

    #[test]
    fn a_datagram_is_a_message_only_with_its_length_and_zeros_in_its_reserved_octets() {
        let kind_of = |prefix: [u8; 4], len: usize| {
            let mut datagram = vec![0; len.max(4)];
            datagram[..4].copy_from_slice(&prefix);
            kind(&datagram[..len])
        };
        for (octet, expected) in
            [(1, Kind::Initiation), (2, Kind::Response), (3, Kind::CookieReply)]
        {
            let len = expected.min_len();
            assert_eq!(kind_of([octet, 0, 0, 0], len), Some(expected));
            assert_eq!(kind_of([octet, 0, 0, 0], len - 1), None);
            assert_eq!(kind_of([octet, 0, 0, 0], len + 1), None);
            for at in 1..4 {
                let mut prefix = [octet, 0, 0, 0];
                prefix[at] = 1;
                assert_eq!(kind_of(prefix, len), None);
            }
        }
        assert_eq!(kind_of([4, 0, 0, 0], 32), Some(Kind::Data));
        assert_eq!(kind_of([4, 1, 0, 0], 65_535), Some(Kind::Data));
        for (prefix, len) in [
            ([4, 0, 0, 0], 31),
            ([4, 2, 0, 0], 32),
            ([4, 0, 1, 0], 32),
            ([4, 0, 0, 1], 32),
            ([0, 0, 0, 0], 32),
            ([5, 0, 0, 0], 148),
            ([4, 0, 0, 0], 3),
        ] {
            assert_eq!(kind_of(prefix, len), None, "{prefix:?}, {len} octets");
        }
        assert_eq!(kind(&[]), None);
    }

    #[test]
    fn another_message_is_an_error_with_the_values() {
        let error = Initiation::parse(&[1; 147]).unwrap_err().to_string();
        assert_eq!(error, "initiation of 147 octets, where it needs 148");
        let error = Response::parse(&[2; 92]).unwrap_err().to_string();
        assert_eq!(error, "response, type and reserved octets [02, 02, 02, 02]");
        let error = DataHeader::parse(&[4; 16]).unwrap_err().to_string();
        assert_eq!(error, "data message of 16 octets, where it needs 32");
        let octets: [u8; 32] = counting(&[4, 2, 0, 0]);
        let error = DataHeader::parse(&octets).unwrap_err().to_string();
        assert_eq!(error, "data message, type and reserved octets [04, 02, 00, 00]");
        let octets: [u8; 64] = counting(&[2, 0, 0, 0]);
        let error = CookieReply::parse(&octets).unwrap_err().to_string();
        assert_eq!(error, "cookie reply, type and reserved octets [02, 00, 00, 00]");
    }

    proptest! {
        #[test]
        fn what_a_parser_takes_is_what_kind_says_and_is_written_as_it_was_read(
            prefix in prop_oneof![(0u8..6, 0u8..3).prop_map(|(t, c)| [t, c, 0, 0]), any::<[u8; 4]>()],
            len in prop::sample::select(vec![0usize, 4, 16, 31, 32, 64, 92, 148, 149, 1452]),
            rest in prop::collection::vec(any::<u8>(), 1452),
        ) {
            let mut octets = [&prefix[..], &rest].concat();
            octets.truncate(len);
            let kind = kind(&octets);
            let is = |expected| kind == Some(expected);
            prop_assert_eq!(Initiation::parse(&octets).is_ok(), is(Kind::Initiation));
            prop_assert_eq!(Response::parse(&octets).is_ok(), is(Kind::Response));
            prop_assert_eq!(CookieReply::parse(&octets).is_ok(), is(Kind::CookieReply));
            prop_assert_eq!(DataHeader::parse(&octets).is_ok(), is(Kind::Data));
            let emitted = match kind {
                Some(Kind::Initiation) => Initiation::parse(&octets).unwrap().emit().to_vec(),
                Some(Kind::Response) => Response::parse(&octets).unwrap().emit().to_vec(),
                Some(Kind::CookieReply) => CookieReply::parse(&octets).unwrap().emit().to_vec(),
                Some(Kind::Data) => {
                    let header = DataHeader::parse(&octets).unwrap().emit();
                    [&header[..], &octets[DATA_HEADER_LEN..]].concat()
                }
                None => octets.clone(),
            };
            prop_assert_eq!(emitted, octets);
        }
    }
}
