//! A peer that is known by a ticket alone: what is said to it, and what it says.
//!
//! The initiator's first message, which confirms the keys, may get lost, or the keys may be displaced by those of somebody
//! else with the same ticket. Where data flows, that shows; here nothing would ever come. So an initiator that
//! hears no hello makes new keys, as if the initiation had had no answer.

use wire::frame::ControlKind;

use super::config::Context;
use super::core::Core;
use super::handshake::REKEY_ATTEMPT_TIME;
use super::remote::{HELLO_PATIENCE, Remote};
use super::status::Event;
use crate::drop_reason::DropReason;
use crate::enrol::{MESSAGES_MAX, Message};
use crate::keypair::Role;
use crate::time::Instant;
use crate::timer::Timer;

/// So many keys in a row may have no hello: for as long as an initiation may have no answer.
#[expect(clippy::cast_possible_truncation, reason = "a handful")]
const HELLOS_MISSED_MAX: u32 = (REKEY_ATTEMPT_TIME.as_secs() / HELLO_PATIENCE.as_secs()) as u32;

/// Whether a control frame belongs to an enrolment.
pub(super) fn is_message(kind: ControlKind) -> bool {
    matches!(kind, ControlKind::Enrol | ControlKind::Enrolled)
}

impl Remote {
    /// Says a message with the keypair of this index; whether that is possible.
    pub(super) fn say(
        &mut self,
        core: &mut Core,
        ctx: &mut Context<'_>,
        index: u32,
        message: &Message,
    ) -> bool {
        let (true, Ok((kind, body))) = (self.config.invitation, message.emit()) else {
            return false;
        };
        let keyed = self.keys.find(index);
        let keyed = keyed.filter(|keyed| keyed.hello.is_some() && keyed.keypair.is_usable(ctx.now));
        let is_queued = keyed.is_some_and(|keyed| keyed.channel.send(ctx.now, kind, &body));
        self.send_control(core, ctx);
        is_queued
    }

    /// The body of a control frame that [`is_message`].
    pub(super) fn handle_message(
        &mut self,
        core: &mut Core,
        index: u32,
        kind: ControlKind,
        body: &[u8],
    ) {
        let peer = self.peer();
        let Some(keyed) = self.keys.find(index) else { return };
        if !self.config.invitation || keyed.messages >= MESSAGES_MAX {
            return core.dropped(DropReason::FrameNotAgreed, 1);
        }
        keyed.messages += 1;
        match Message::parse(kind, body) {
            Ok(message) => core.event(Event::Said { peer, index, message }),
            Err(_) => core.dropped(DropReason::FrameMalformed, 1),
        }
    }

    /// The peer has said hello for the first time with the keypair of this index.
    pub(super) fn greeted(&mut self, core: &mut Core, index: u32) {
        if !self.config.invitation {
            return;
        }
        if self.keys.current().is_some_and(|current| current.hello.is_some()) {
            self.hellos_missed = 0;
            core.timers.disarm(self.peer(), Timer::Hello);
        }
        core.event(Event::Greeted { peer: self.peer(), index });
    }

    /// This side has made keys with an invitation's peer, which must say hello then.
    pub(super) fn await_hello(&self, core: &mut Core, now: Instant) {
        let current = self.keys.current().filter(|_| self.config.invitation);
        if current.is_some_and(|current| current.keypair.role() == Role::Initiator) {
            core.timers.arm(self.peer(), Timer::Hello, now + HELLO_PATIENCE);
        }
    }

    /// An invitation's peer has not said hello.
    pub(super) fn handle_missing_hello(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let peer = self.peer();
        self.hellos_missed += 1;
        if self.hellos_missed < HELLOS_MISSED_MAX {
            core.event(Event::HandshakeFailed { peer });
            return self.begin_handshake(core, ctx);
        }
        self.hellos_missed = 0;
        core.event(Event::GaveUp { peer });
    }
}
