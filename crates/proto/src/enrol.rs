//! What the holder of a ticket and the inviter say to each other.
//!
//! # Theory of operation
//!
//! The joiner has a tunnel whose private key is the ticket's identity, and in it one peer, the inviter. The inviter has the
//! identity as one peer of many. Both have [`invitation`](crate::tunnel::PeerConfig::invitation) set for each other: such a session
//! carries these messages and no data.
//!
//! ```text
//! joiner                                                                  inviter
//!   Tunnel::initiate        initiation  ---------------------------->
//!                           <----------------------------  response
//!                           keepalive   ---------------------------->
//!   Event::Greeted          <----------------------------  hello
//!                           hello       ---------------------------->      Event::Greeted
//!   Tunnel::say(Enrol)      enrol       ---------------------------->      Event::Said(Enrol): judges, notes, adds the peer
//!   Event::Said(Enrolled)   <----------------------------  enrolled        Tunnel::say(Enrolled)
//! ```
//!
//! Then the joiner starts its own tunnel with its own key. Two joiners with the same ticket are the same peer with two
//! keypairs, so events name the keypair by its receiver index, and an answer goes to the keypair that was asked with, where
//! its last control frame came from.
//!
//! A message arrives, or an [`Event::Unsaid`](crate::tunnel::Event::Unsaid) says that nobody knows whether it has. Asking again, in the
//! same session or in another one, is always right: who was accepted is accepted again. A handshake without an
//! answer is repeated, and so is one without a hello, until [`Event::GaveUp`](crate::tunnel::Event::GaveUp): the inviter is not there, or does
//! not know the ticket. It cannot say which, as it does not answer strangers.

use std::time::Duration;

use wire::frame::{ControlKind, Enrol, EnrolStatus, Enrolled, FrameError};

use crate::key::PublicKey;
use crate::ticket::{Settings, TicketError, is_name};

/// A joiner that has no answer for so long makes new keys and asks again: the inviter may have lost the answer when it was
/// started anew.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// The most messages of the peer that are heard with one keypair.
pub const MESSAGES_MAX: u32 = 8;

/// A message between joiner and inviter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The joiner asks.
    Enrol(Enrolment),
    /// The inviter answers.
    Enrolled(Answer),
}

/// What a joiner asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// By what it will be known. That it has the private key is shown by its next handshake only.
    pub public_key: PublicKey,
    /// What it proposes to be called ([`is_name`]).
    pub name: Option<String>,
}

/// Whether a joiner is a peer from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is, with these settings, or those of the ticket; empty ones stand for those of the ticket, too.
    Accepted(Option<Box<Settings>>),
    /// The ticket has made somebody else a peer.
    Used,
    /// The ticket's time is over.
    Expired,
    /// For this reason it is not, said to people in up to 200 octets without control characters.
    Refused(String),
}

/// Why the body of a control frame is no [`Message`], or a message has no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The body is none.
    #[error("read a message of an enrolment")]
    Frame(#[from] FrameError),
    /// The settings are none.
    #[error("read the settings of an enrolment")]
    Settings(#[from] TicketError),
    /// The joiner proposes what cannot be a name.
    #[error("enrolment with a name that is none")]
    Name,
    /// A text has control characters, or is too long.
    #[error("enrolment with a text that cannot be sent")]
    Text,
    /// The control frame is of another kind.
    #[error("control frame that is no enrolment")]
    Kind,
}

impl Message {
    /// Reads the body of a control frame.
    ///
    /// # Errors
    ///
    /// Every [`MessageError`] but [`MessageError::Text`].
    pub fn parse(kind: ControlKind, body: &[u8]) -> Result<Self, MessageError> {
        match kind {
            ControlKind::Enrol => Enrolment::of(&Enrol::parse(body)?).map(Self::Enrol),
            ControlKind::Enrolled => Answer::of(&Enrolled::parse(body)?).map(Self::Enrolled),
            _ => Err(MessageError::Kind),
        }
    }

    /// The kind and the body of the control frame.
    ///
    /// # Errors
    ///
    /// [`MessageError::Name`], [`MessageError::Text`] and [`MessageError::Settings`]: nobody could read it.
    pub fn emit(&self) -> Result<(ControlKind, Vec<u8>), MessageError> {
        match self {
            Self::Enrol(enrolment) => Ok((ControlKind::Enrol, enrolment.emit()?)),
            Self::Enrolled(answer) => Ok((ControlKind::Enrolled, answer.emit()?)),
        }
    }
}

impl Enrolment {
    fn of(body: &Enrol<'_>) -> Result<Self, MessageError> {
        let name = Some(body.name).filter(|name| !name.is_empty());
        if !name.is_none_or(is_name) {
            return Err(MessageError::Name);
        }
        Ok(Self { public_key: body.public_key.into(), name: name.map(str::to_owned) })
    }

    fn emit(&self) -> Result<Vec<u8>, MessageError> {
        if !self.name.as_deref().is_none_or(is_name) {
            return Err(MessageError::Name);
        }
        let name = self.name.as_deref().unwrap_or_default();
        let public_key = *self.public_key.as_bytes();
        let body = Enrol { version: Enrol::VERSION, public_key, name };
        body.emit().ok_or(MessageError::Text)
    }
}

impl Answer {
    fn of(body: &Enrolled<'_>) -> Result<Self, MessageError> {
        Ok(match body.status {
            EnrolStatus::Accepted if body.settings.is_empty() => Self::Accepted(None),
            EnrolStatus::Accepted => {
                Self::Accepted(Some(Box::new(Settings::parse(body.settings)?)))
            }
            EnrolStatus::Used => Self::Used,
            EnrolStatus::Expired => Self::Expired,
            EnrolStatus::Refused | EnrolStatus::Unknown(_) => Self::Refused(body.reason.to_owned()),
        })
    }

    fn emit(&self) -> Result<Vec<u8>, MessageError> {
        let (status, reason, settings) = match self {
            Self::Accepted(None) => (EnrolStatus::Accepted, "", Vec::new()),
            Self::Accepted(Some(settings)) => (EnrolStatus::Accepted, "", settings.emit()?),
            Self::Used => (EnrolStatus::Used, "", Vec::new()),
            Self::Expired => (EnrolStatus::Expired, "", Vec::new()),
            Self::Refused(reason) => (EnrolStatus::Refused, reason.as_str(), Vec::new()),
        };
        let body = Enrolled { version: Enrol::VERSION, status, reason, settings: &settings };
        body.emit().ok_or(MessageError::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrol(name: Option<&str>) -> Message {
        let public_key = PublicKey::from([7; 32]);
        Message::Enrol(Enrolment { public_key, name: name.map(str::to_owned) })
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let settings = Settings { default_route: true, ..Settings::default() };
        let answers = [
            Answer::Accepted(None),
            Answer::Accepted(Some(Box::new(settings))),
            Answer::Used,
            Answer::Expired,
            Answer::Refused("the key is a peer's".into()),
            Answer::Refused(String::new()),
        ];
        let messages = answers.map(Message::Enrolled);
        for message in messages.into_iter().chain([enrol(None), enrol(Some("b.lan"))]) {
            let (kind, body) = message.emit().unwrap();
            assert_eq!(Message::parse(kind, &body), Ok(message));
        }
    }

    #[test]
    fn accepting_with_the_default_route_is_its_literal_octets() {
        let settings = Settings { default_route: true, ..Settings::default() };
        let message = Message::Enrolled(Answer::Accepted(Some(Box::new(settings))));
        assert_eq!(message.emit(), Ok((ControlKind::Enrolled, vec![1, 0, 0, 0, 22, 0])));
    }

    #[test]
    fn what_a_newer_inviter_answers_is_a_refusal() {
        let message = Message::parse(ControlKind::Enrolled, &[1, 77, 2, 0, b'n', b'o']);
        assert_eq!(message, Ok(Message::Enrolled(Answer::Refused("no".into()))));
    }

    #[test]
    fn what_is_no_message_is_neither_read_nor_written() {
        let parse = |kind, body: &[u8]| Message::parse(kind, body).unwrap_err();
        assert_eq!(parse(ControlKind::Hello, &[1; 64]), MessageError::Kind);
        let named = |name: &[u8]| [&[1, 3, 0, 0][..], &[7; 32], name].concat();
        assert_eq!(parse(ControlKind::Enrol, &named(b"a/b")), MessageError::Name);
        assert_eq!(parse(ControlKind::Enrol, &named(b"-ab")), MessageError::Name);
        let newer = MessageError::Settings(TicketError::Newer(99));
        assert_eq!(parse(ControlKind::Enrolled, &[1, 0, 0, 0, 99, 0]), newer);
        assert!(matches!(parse(ControlKind::Enrolled, &[1]), MessageError::Frame(_)));
        assert_eq!(enrol(Some("a b")).emit(), Err(MessageError::Name));
        let long = Message::Enrolled(Answer::Refused("x".repeat(201)));
        assert_eq!(long.emit(), Err(MessageError::Text));
    }
}
