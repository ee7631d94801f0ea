//! How who holds a ticket becomes a peer: the bodies of the two control frames for that.
//!
//! ```text
//!  enrol                                          enrolled
//!   0   1  version: 1                              0   1  version: 1
//!   1   1  length of the name, 0 to 64             1   1  status
//!   2   2  reserved                                2   1  length of the reason, 0 to 200
//!   4  32  permanent public key                    3   1  reserved
//!  36   n  name                                    4   n  reason
//!                                                 +n   m  settings
//! ```
//!
//! Names and reasons are UTF-8 without control characters, since people read them. Reserved octets are written
//! as zero and ignored when read, and so is what follows the name. The settings are fields that this crate does not
//! read; without any, those of the ticket hold.

use super::{Control, FrameError};

/// What the holder of a ticket asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrol<'a> {
    /// The version of these bodies, [`Enrol::VERSION`] here.
    pub version: u8,
    /// By what the sender wants to be known from now on.
    pub public_key: [u8; 32],
    /// What the sender proposes to be called, empty for nothing; at most [`Enrol::NAME_MAX`] octets.
    pub name: &'a str,
}

/// What became of an [`Enrol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrolled<'a> {
    /// The version of these bodies, [`Enrol::VERSION`] here.
    pub version: u8,
    /// Whether the key is a peer from now on, and why not.
    pub status: EnrolStatus,
    /// Why in words, empty for nothing; at most [`Enrolled::REASON_MAX`] octets.
    pub reason: &'a str,
    /// What holds in place of the ticket's settings, empty for those.
    pub settings: &'a [u8],
}

/// Whether a key is a peer from now on, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnrolStatus {
    /// It is, written as 0.
    Accepted,
    /// The ticket has made somebody else a peer, written as 1.
    Used,
    /// The ticket's time is over, written as 2.
    Expired,
    /// The reason says why not, written as 3.
    Refused,
    /// Another octet, of a newer peer: a refusal.
    Unknown(u8),
}

impl<'a> Enrol<'a> {
    /// The version that is described here.
    pub const VERSION: u8 = 1;
    /// Length in octets of what every version says.
    pub const LEN: usize = 36;
    /// Length of the longest name in octets.
    pub const NAME_MAX: usize = 64;

    /// Reads the body of an enrol of any version.
    ///
    /// # Errors
    ///
    /// [`FrameError::EnrolLength`], [`FrameError::TextLength`] and [`FrameError::Text`].
    pub fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let short = FrameError::EnrolLength(body.len(), Self::LEN);
        let (&[version, length, _, _, ref key @ ..], rest) =
            body.split_first_chunk::<{ Enrol::LEN }>().ok_or(short)?;
        let (name, _) = split_text(rest, length, Self::NAME_MAX)?;
        Ok(Self { version, public_key: *key, name })
    }

    /// The body of the control frame; none if the name is too long or has control characters.
    #[must_use]
    pub fn emit(&self) -> Option<Vec<u8>> {
        let mut body = vec![self.version, text_length(self.name, Self::NAME_MAX)?, 0, 0];
        body.extend(self.public_key);
        body.extend(self.name.as_bytes());
        Some(body)
    }
}

impl<'a> Enrolled<'a> {
    /// Length in octets of what every version says.
    pub const LEN: usize = 4;
    /// Length of the longest reason in octets.
    pub const REASON_MAX: usize = 200;

    /// Reads the body of an enrolled of any version.
    ///
    /// # Errors
    ///
    /// [`FrameError::EnrolLength`], [`FrameError::TextLength`] and [`FrameError::Text`].
    pub fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let short = FrameError::EnrolLength(body.len(), Self::LEN);
        let (&[version, status, length, _], rest) =
            body.split_first_chunk::<{ Enrolled::LEN }>().ok_or(short)?;
        let (reason, settings) = split_text(rest, length, Self::REASON_MAX)?;
        Ok(Self { version, status: EnrolStatus::of_octet(status), reason, settings })
    }

    /// The body of the control frame; none if the reason is too long or has control characters, or there is no
    /// room for the settings.
    #[must_use]
    pub fn emit(&self) -> Option<Vec<u8>> {
        let length = text_length(self.reason, Self::REASON_MAX)?;
        let mut body = vec![self.version, self.status.octet(), length, 0];
        body.extend(self.reason.as_bytes());
        body.extend(self.settings);
        (body.len() <= Control::BODY_MAX).then_some(body)
    }
}

impl EnrolStatus {
    const fn of_octet(octet: u8) -> Self {
        match octet {
            0 => Self::Accepted,
            1 => Self::Used,
            2 => Self::Expired,
            3 => Self::Refused,
            _ => Self::Unknown(octet),
        }
    }

    const fn octet(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Used => 1,
            Self::Expired => 2,
            Self::Refused => 3,
            Self::Unknown(octet) => octet,
        }
    }
}

/// The text at the beginning of `octets`, which is `length` octets long and not longer than `most`, and what follows.
fn split_text(octets: &[u8], length: u8, most: usize) -> Result<(&str, &[u8]), FrameError> {
    let len = usize::from(length);
    let wrong = FrameError::TextLength { said: len, room: octets.len().min(most) };
    let (text, rest) = octets.split_at_checked(len).filter(|_| len <= most).ok_or(wrong)?;
    let text = str::from_utf8(text).map_err(|_| FrameError::Text)?;
    if text.contains(char::is_control) { Err(FrameError::Text) } else { Ok((text, rest)) }
}

/// The octet that says how long a text is, if it may be sent.
fn text_length(text: &str, most: usize) -> Option<u8> {
    let may_be_sent = text.len() <= most && !text.contains(char::is_control);
    u8::try_from(text.len()).ok().filter(|_| may_be_sent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> [u8; 32] {
        std::array::from_fn(|at| u8::try_from(at + 1).unwrap())
    }

    #[test]
    fn an_enrol_is_its_literal_octets() {
        let enrol = Enrol { version: 1, public_key: key(), name: "laptop" };
        let body = enrol.emit().unwrap();
        assert_eq!(body[..4], [1, 6, 0, 0]);
        assert_eq!(body[4..36], key());
        assert_eq!(body[36..], *b"laptop");
        assert_eq!(Enrol::parse(&body), Ok(enrol));
    }

    #[test]
    fn an_enrolled_is_its_literal_octets() {
        let (reason, settings) = ("no", &[7, 7][..]);
        let enrolled = Enrolled { version: 1, status: EnrolStatus::Refused, reason, settings };
        let body = enrolled.emit().unwrap();
        assert_eq!(body, [1, 3, 2, 0, b'n', b'o', 7, 7]);
        assert_eq!(Enrolled::parse(&body), Ok(enrolled));
        let octets =
            [EnrolStatus::Accepted, EnrolStatus::Used, EnrolStatus::Expired].map(|status| {
                Enrolled { version: 1, status, reason: "", settings: &[] }.emit().unwrap()
            });
        assert_eq!(octets, [[1, 0, 0, 0], [1, 1, 0, 0], [1, 2, 0, 0]]);
    }

    #[test]
    fn what_a_newer_peer_adds_is_ignored() {
        let mut body = Enrol { version: 2, public_key: key(), name: "b" }.emit().unwrap();
        body[2..4].fill(0xff);
        body.extend([1, 2, 3]);
        assert_eq!(Enrol::parse(&body), Ok(Enrol { version: 2, public_key: key(), name: "b" }));
        let enrolled = Enrolled::parse(&[2, 9, 0, 0xff]).unwrap();
        assert_eq!(enrolled.status, EnrolStatus::Unknown(9));
    }

    #[test]
    fn what_is_no_body_is_an_error_with_the_values() {
        let error = |body: &[u8]| Enrol::parse(body).unwrap_err().to_string();
        assert_eq!(error(&[1; 35]), "enrolment of 35 octets, where it has 36 or more");
        assert_eq!(error(&[1; 36]), "text of 1 octets, where there is room for 0");
        assert_eq!(error(&[65; 200]), "text of 65 octets, where there is room for 64");
        assert_eq!(error(&[1; 37]), "text that is not UTF-8 or has control characters");
        assert_eq!(error(&[0xff; 300]), "text of 255 octets, where there is room for 64");
        let error = |body: &[u8]| Enrolled::parse(body).unwrap_err().to_string();
        assert_eq!(error(&[1; 3]), "enrolment of 3 octets, where it has 4 or more");
        assert_eq!(error(&[1, 3, 201, 0]), "text of 201 octets, where there is room for 0");
    }

    #[test]
    fn what_would_be_refused_is_not_written() {
        let named = |name| Enrol { version: 1, public_key: key(), name }.emit();
        let long = "a".repeat(65);
        assert!(named(&long[..64]).is_some());
        assert_eq!((named(&long), named("a\nb")), (None, None));
        let (status, long) = (EnrolStatus::Accepted, [0; Control::BODY_MAX]);
        let settled = |settings| {
            Enrolled { version: 1, status, reason: "", settings }.emit().map(|b| b.len())
        };
        assert_eq!(settled(&long[4..]), Some(Control::BODY_MAX));
        assert_eq!(settled(&long[3..]), None);
    }

    proptest! {
        #[test]
        fn enrols_are_read_as_they_were_written(
            version: u8, public_key: [u8; 32], name in "\\PC{0,16}", more: Vec<u8>,
        ) {
            let enrol = Enrol { version, public_key, name: &name };
            let body = [&enrol.emit().unwrap()[..], &more].concat();
            prop_assert_eq!(Enrol::parse(&body), Ok(enrol));
        }

        #[test]
        fn enrolleds_are_read_as_they_were_written(
            version: u8,
            octet: u8,
            reason in "\\PC{0,50}",
            settings in prop::collection::vec(any::<u8>(), 0..800),
        ) {
            let status = EnrolStatus::of_octet(octet);
            let enrolled = Enrolled { version, status, reason: &reason, settings: &settings };
            let body = enrolled.emit().unwrap();
            prop_assert_eq!(Enrolled::parse(&body), Ok(enrolled));
        }

        #[test]
        fn no_octets_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Enrol::parse(&body);
            let _ = Enrolled::parse(&body);
        }
    }
}
