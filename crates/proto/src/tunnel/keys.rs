//! The keypairs of one peer, and how they follow each other.
//!
//! # Theory of operation
//!
//! There are up to three (Linux `noise.c`, `add_new_keypair`):
//!
//! | | sends | receives | |
//! |---|---|---|---|
//! | previous | no | yes | what is still on its way when keys change |
//! | current | yes | yes | |
//! | next | no | yes | of a responder: waits for the first message, which confirms it |
//!
//! An initiator knows with the response that both have the keys, so its keypair becomes current at once. A
//! responder knows only with the first message, and then `next` becomes current. When both initiate at the
//! same time, each has its own as current and that of the other as previous, and both work.

use std::sync::Arc;

use wire::frame::{Hello, Mode};

use crate::control::Channel;
use crate::keypair::Keypair;
use crate::mtu::Content;
use crate::path::Path;

/// The keypairs of one peer.
#[derive(Debug, Default)]
pub(super) struct Keys {
    previous: Option<Keyed>,
    current: Option<Keyed>,
    next: Option<Keyed>,
}

/// A keypair, and what the peers have said to each other with it.
#[derive(Debug)]
pub(super) struct Keyed {
    pub(super) keypair: Arc<Keypair>,
    pub(super) channel: Channel,
    /// The initiator said that it is adit.
    pub(super) is_marked: bool,
    /// The first message has come; for a responder.
    pub(super) is_confirmed: bool,
    pub(super) hello_sent: bool,
    /// What the peer said it is.
    pub(super) hello: Option<Hello>,
    /// Where an invitation's holder is that has these keys; others may have the same ticket.
    pub(super) path: Option<Path>,
    /// Messages of an enrolment that the peer has said.
    pub(super) messages: u32,
}

impl Keyed {
    pub(super) fn new(keypair: Keypair, is_marked: bool) -> Self {
        Self {
            is_confirmed: keypair.is_confirmed(),
            keypair: Arc::new(keypair),
            channel: Channel::default(),
            is_marked,
            hello_sent: false,
            hello: None,
            path: None,
            messages: 0,
        }
    }

    /// Whether what the device carries may be sealed with it.
    pub(super) fn may_carry(&self, content: Content) -> bool {
        let takes_frames = || self.hello.is_some_and(|hello| hello.mode == Mode::Frames);
        self.keypair.may_carry_data() && (content == Content::Packet || takes_frames())
    }
}

impl Keys {
    /// Takes the keypair of a handshake that this side initiated; returns those that have no place any more.
    pub(super) fn initiated(&mut self, keyed: Keyed) -> [Option<Keyed>; 2] {
        let current = self.current.replace(keyed);
        match self.next.take() {
            Some(next) => [self.previous.replace(next), current],
            None => [std::mem::replace(&mut self.previous, current), None],
        }
    }

    /// Takes the keypair of a handshake that the peer initiated; returns those that have no place any more.
    pub(super) fn responded(&mut self, keyed: Keyed) -> [Option<Keyed>; 2] {
        [self.previous.take(), self.next.replace(keyed)]
    }

    /// `next` becomes current; returns what was previous.
    pub(super) fn promote(&mut self) -> Option<Keyed> {
        let next = self.next.take()?;
        std::mem::replace(&mut self.previous, self.current.replace(next))
    }

    /// Takes all keypairs away.
    pub(super) fn take(&mut self) -> [Option<Keyed>; 3] {
        [self.previous.take(), self.current.take(), self.next.take()]
    }

    /// Takes away the keypair that is not confirmed. One that a lane has confirmed stays, even before it is current:
    /// the peer sends with it.
    pub(super) fn take_next(&mut self) -> Option<Keyed> {
        self.next.take_if(|next| !next.keypair.is_confirmed())
    }

    pub(super) fn current(&self) -> Option<&Keyed> {
        self.current.as_ref()
    }

    pub(super) fn next(&self) -> Option<&Keyed> {
        self.next.as_ref()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Keyed> {
        [&mut self.previous, &mut self.current, &mut self.next].into_iter().flatten()
    }

    pub(super) fn find(&mut self, index: u32) -> Option<&mut Keyed> {
        self.iter_mut().find(|keyed| keyed.keypair.local() == index)
    }
}
