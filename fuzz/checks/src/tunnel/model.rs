//! What must hold of tunnels, written down from the whitepaper of WireGuard and not from the code.
//!
//! # Theory of operation
//!
//! The model knows no key and opens nothing. It is told what hosts are told, and it sees the wire: each datagram that was
//! ever sent is a *letter*, whose meaning follows from what its sender was told and did before. So when a letter
//! arrives anywhere, unchanged or changed, early, late or again, the model says first what must become of it.
//! Then it holds that against what the tunnel does. It foretells
//!
//! - which data messages are opened, and which packet the device gets of each, if any;
//! - which initiations and responses are accepted, but under load, where it only learns;
//! - which packets wait, which are sealed in what order, and which are dropped for what reason;
//! - which keypairs there are, and where each peer is.
//!
//! What depends on the jitter of timers it does not foretell; there it knows what may be: an initiation needs a cause and
//! 5 seconds since the last, a keepalive data that waits for it.
//!
//! A [`Side`] is one host, a [`Link`] one peer of a host. Every number here stands in the whitepaper, section 6.1 if
//! nothing else is said.

mod link;
mod side;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use link::{Key, Link};
pub(crate) use side::{Side, Told};

/// Since virtual time began.
pub(crate) type At = Duration;

/// A message dies with its keypair at this age: `Reject-After-Time`.
pub(crate) const REJECT_AFTER: Duration = Duration::from_secs(180);
/// An initiator that sends makes new keys: `Rekey-After-Time`.
pub(crate) const REKEY_AFTER: Duration = Duration::from_secs(120);
/// An initiator that only receives does: `Reject-After-Time` less `Keepalive-Timeout` and `Rekey-Timeout`
/// (section 6.2).
pub(crate) const REKEY_ON_RECEIVE: Duration = Duration::from_secs(165);
/// An attempt ends: `Rekey-Attempt-Time`.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(90);
/// Between two initiations to one peer: `Rekey-Timeout`.
pub(crate) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Data that was received is acknowledged: `Keepalive-Timeout`.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(10);
/// Data that was sent has no answer: `Keepalive-Timeout` and `Rekey-Timeout` (section 6.5).
pub(crate) const ANSWER: Duration = Duration::from_secs(15);
/// Keys are erased (section 6.3).
pub(crate) const ERASE: Duration = Duration::from_secs(540);
/// What is late at random is at most so late (`REKEY_TIMEOUT_JITTER_MAX_JIFFIES` in Linux `messages.h`).
pub(crate) const JITTER: Duration = Duration::from_millis(334);
/// A peer's initiations are answered so often (`INITIATIONS_PER_SECOND` in Linux `messages.h`).
pub(crate) const ANSWERS: Duration = Duration::from_millis(20);
/// Packets that wait for a peer (`MAX_STAGED_PACKETS` in Linux `messages.h`).
pub(crate) const STAGED: usize = 128;
/// How far behind the greatest counter a new one may be: RFC 6479 with 8192 bits in words of 32, of which one is
/// in use in part.
pub(crate) const WINDOW: u64 = 8160;
/// How often adit sends a hello.
pub(crate) const HELLOS: u32 = 8;

/// Lengths of a hello and an acknowledgment inside adit's session; no packet is as short.
pub(crate) const HELLO_LEN: usize = 24;
pub(crate) const ACKNOWLEDGMENT_LEN: usize = 12;

/// A datagram that was sent, its place among all letters being its number.
pub(crate) struct Letter {
    pub(crate) from: usize,
    pub(crate) datagram: Vec<u8>,
    pub(crate) meaning: Meaning,
}

/// What a letter means to whom it is for.
#[derive(Clone, Debug)]
pub(crate) enum Meaning {
    Initiation {
        to: usize,
        index: u32,
    },
    /// `psk` is the sender's at that time.
    Response {
        to: usize,
        initiation: usize,
        index: u32,
        psk: u8,
    },
    CookieReply,
    /// A session has the number of the response that made it.
    Data {
        session: usize,
        counter: u64,
        inner: Inner,
    },
}

/// What is sealed in a data message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inner {
    Keepalive,
    Hello,
    Acknowledgment,
    /// A packet and the zeroes behind it.
    Packet(Vec<u8>),
}

/// What must become of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
    /// The model cannot know.
    Open,
}

/// A message that arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) letter: usize,
    pub(crate) to: usize,
    pub(crate) from: SocketAddr,
    pub(crate) now: At,
}

/// What is known of all hosts, and all that was ever sent.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) sides: Vec<Side>,
    pub(crate) letters: Vec<Letter>,
}

impl Model {
    /// Which peer's data message this is for `to`, if it must be opened.
    pub(crate) fn judge_data(&self, arrival: Arrival) -> Option<usize> {
        let letter = &self.letters[arrival.letter];
        let &Meaning::Data { session, counter, .. } = &letter.meaning else { return None };
        let link = self.sides[arrival.to].links.get(&letter.from)?;
        let key = link.key(session)?;
        (key.is_alive(arrival.now) && key.is_new(counter)).then_some(letter.from)
    }

    /// What must become of a handshake message; `is_whole` unless it was changed.
    pub(crate) fn judge_handshake(&self, arrival: Arrival, under_load: bool) -> Verdict {
        let letter = &self.letters[arrival.letter];
        let Some(link) = self.sides[arrival.to].links.get(&letter.from) else {
            return Verdict::Refused;
        };
        let verdict = match letter.meaning {
            Meaning::Initiation { to, .. } if to == arrival.to => {
                link.judge_initiation(arrival.letter, arrival.now)
            }
            Meaning::Response { to, initiation, psk, .. } if to == arrival.to => {
                link.judge_response(initiation, psk)
            }
            Meaning::CookieReply => Verdict::Open,
            _ => Verdict::Refused,
        };
        if under_load && verdict == Verdict::Accepted { Verdict::Open } else { verdict }
    }

    /// A data message was opened; what is in it.
    pub(crate) fn accept_data(&mut self, arrival: Arrival) -> Inner {
        let Letter { from, meaning, .. } = &self.letters[arrival.letter];
        let Meaning::Data { session, counter, inner, .. } = meaning.clone() else {
            unreachable!("it was judged to be data");
        };
        let link = self.sides[arrival.to].links.get_mut(from).expect("it was judged to be a peer");
        link.accept_data(arrival, session, counter, &inner);
        inner
    }

    /// An initiation or a response was accepted; whose it was.
    pub(crate) fn accept_handshake(&mut self, arrival: Arrival) -> usize {
        let Letter { from, meaning, .. } = &self.letters[arrival.letter];
        let (from, meaning) = (*from, meaning.clone());
        let link = self.sides[arrival.to].links.get_mut(&from).expect("strangers are refused");
        link.hear(arrival.from, arrival.now);
        match meaning {
            Meaning::Initiation { .. } => {
                link.turn_received = Some(arrival.letter);
                link.admitted = Some(arrival.now);
            }
            Meaning::Response { initiation, index: remote, .. } => {
                let Meaning::Initiation { index: local, .. } = self.letters[initiation].meaning
                else {
                    unreachable!("a response answers an initiation");
                };
                let key = Key::new(arrival.letter, local, remote, true, arrival.now);
                link.initiated(key, arrival.now);
                self.sides[arrival.to].established += 1;
            }
            _ => unreachable!("nothing else is accepted"),
        }
        from
    }

    /// Adds a letter; its number.
    pub(crate) fn post(&mut self, from: usize, datagram: Vec<u8>, meaning: Meaning) -> usize {
        self.letters.push(Letter { from, datagram, meaning });
        self.letters.len() - 1
    }
}
