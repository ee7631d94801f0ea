//! Handshake messages: when they are sent, and what becomes of those that arrive.
//!
//! # Theory of operation
//!
//! An *attempt* is the wish for new keys. It sends an initiation, then another one with fresh keys whenever
//! the last had no answer for `REKEY_TIMEOUT` and a jitter, and ends with keys or after
//! [`REKEY_ATTEMPT_TIME`] without (whitepaper, section 6.4). A packet that wants keys meanwhile lets the time
//! start anew. Initiations to one peer are always `REKEY_TIMEOUT` apart; an attempt that comes too early waits.
//!
//! What arrives goes through these gates, the cheap ones first:
//!
//! 1. length, type and mac1: the sender knows this side's public key.
//! 2. under load, mac2: the sender can receive at its address, and does not send too often. Who has no cookie gets one.
//! 3. the key exchange: the sender is a peer. No answer to anybody else.
//! 4. the timestamp of an initiation: greater than all before. So old initiations are worth nothing.
//! 5. the interval: a peer's initiations are at least [`INITIATION_INTERVAL`] apart.

use std::sync::Arc;
use std::time::Duration;

use wire::message::{self, CookieReply, Initiation, Kind, Response};

use super::Tunnel;
use super::config::Context;
use super::core::Core;
use super::keys::Keyed;
use super::remote::Remote;
use super::status::Event;
use crate::drop_reason::DropReason;
use crate::key::PrivateKey;
use crate::keypair::{Keypair, REJECT_AFTER_TIME, REKEY_TIMEOUT, Role};
use crate::noise::{self, Initiating, Introduction, Responding, SessionKeys};
use crate::path::{Path, RemoteAddr};
use crate::peer::PeerIndex;
use crate::session::Looks;
use crate::tai64n::Tai64n;
use crate::time::Instant;
use crate::timer::{ERASE_KEYS_AFTER, Timer};

/// An attempt without an answer ends after so long (whitepaper, section 6.1).
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);

/// A peer's initiations are answered at most once in this time (`INITIATIONS_PER_SECOND` in Linux `messages.h`).
pub const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

/// The wish for new keys.
pub(super) struct Attempt {
    /// When something last wanted them.
    since: Instant,
    /// The last initiation; none while the first one waits.
    initiating: Option<Initiating>,
}

impl Tunnel {
    pub(super) fn receive_handshake(
        &mut self,
        ctx: &mut Context<'_>,
        from: &Path,
        datagram: &[u8],
        under_load: bool,
    ) -> Result<(), DropReason> {
        match message::kind(datagram) {
            Some(Kind::Initiation) => {
                self.core.counters.initiations_received += 1;
                self.core.screen(ctx, from, datagram, under_load)?;
                self.receive_initiation(ctx, from, datagram)
            }
            Some(Kind::Response) => {
                self.core.counters.responses_received += 1;
                self.core.screen(ctx, from, datagram, under_load)?;
                self.receive_response(ctx, from, datagram)
            }
            Some(Kind::CookieReply) => self.receive_cookie_reply(ctx, datagram),
            Some(Kind::Data) | None => Err(DropReason::NotAMessage),
        }
    }

    fn receive_initiation(
        &mut self,
        ctx: &mut Context<'_>,
        from: &Path,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let message = Initiation::parse(datagram).map_err(|_| DropReason::NotAMessage)?;
        let introduction = noise::open_initiation(&self.core.identity, &message)
            .ok_or(DropReason::Undecryptable)?;
        let peer = self.by_key.get(&introduction.public_key()).copied();
        let (remote, core) =
            peer.and_then(|peer| self.find(peer)).ok_or(DropReason::UnknownPeer)?;
        remote.receive_initiation(core, ctx, from, introduction)
    }

    fn receive_response(
        &mut self,
        ctx: &mut Context<'_>,
        from: &Path,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let message = Response::parse(datagram).map_err(|_| DropReason::NotAMessage)?;
        let peer = self.core.initiating.get(&message.receiver).copied();
        let (remote, core) =
            peer.and_then(|peer| self.find(peer)).ok_or(DropReason::UnknownReceiver)?;
        remote.receive_response(core, ctx, from, &message)
    }

    fn receive_cookie_reply(
        &mut self,
        ctx: &mut Context<'_>,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let message = CookieReply::parse(datagram).map_err(|_| DropReason::NotAMessage)?;
        let peer = self.core.handshake_of(message.receiver);
        let (remote, core) =
            peer.and_then(|peer| self.find(peer)).ok_or(DropReason::UnknownReceiver)?;
        // The cookie goes into the next message; the peer stays where it is known to be, since this
        // reply could come from anybody who saw ours.
        if !remote.stamper.handle_reply(ctx.now, &message) {
            return Err(DropReason::Undecryptable);
        }
        core.counters.cookie_replies_received += 1;
        Ok(())
    }
}

impl Core {
    /// Whether a message is worth a key exchange; under load, who has no cookie gets one.
    fn screen(
        &mut self,
        ctx: &mut Context<'_>,
        from: &Path,
        datagram: &[u8],
        under_load: bool,
    ) -> Result<(), DropReason> {
        if !self.checker.check_mac1(datagram) {
            self.counters.bad_mac1 += 1;
            return Err(DropReason::BadMac);
        }
        if !under_load {
            return Ok(());
        }
        if !self.checker.check_mac2(ctx.now, &from.remote, datagram) {
            self.send_cookie(ctx, from, datagram);
            return Err(DropReason::HandshakeFull);
        }
        self.limit(ctx.now, &from.remote)
    }

    fn limit(&mut self, now: Instant, source: &RemoteAddr) -> Result<(), DropReason> {
        if self.limiter.allow(now, source) { Ok(()) } else { Err(DropReason::RateLimited) }
    }

    fn send_cookie(&mut self, ctx: &mut Context<'_>, to: &Path, datagram: &[u8]) {
        // The sender index, which initiation and response have at the same place.
        let Some(&[_, _, _, _, a, b, c, d]) = datagram.first_chunk() else { return };
        let sender = u32::from_le_bytes([a, b, c, d]);
        let reply = self.checker.reply(ctx.now, ctx.random, &to.remote, sender, datagram);
        self.counters.cookie_replies_sent += 1;
        self.transmit(*to, reply.emit().to_vec());
    }

    /// Whose handshake message had the sender index: an initiation, or a response, whose keypair has it too.
    fn handshake_of(&self, index: u32) -> Option<PeerIndex> {
        let initiating = self.initiating.get(&index).copied();
        initiating.or_else(|| self.keypairs.get(index).map(|found| found.peer()))
    }

    fn keypair(
        &self,
        ctx: &Context<'_>,
        keys: SessionKeys,
        ids: (u32, u32),
        role: Role,
    ) -> Keypair {
        let (local, remote) = ids;
        Keypair::new(keys, local, remote, role, ctx.now, self.ciphers)
            .with_rekey_after(self.timing.rekey_after)
    }
}

impl Remote {
    /// Something wants new keys.
    pub(super) fn begin_handshake(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        if !self.begin_attempt(ctx.now) {
            return;
        }
        match self.earliest_initiation() {
            Some(earliest) if earliest > ctx.now => {
                core.timers.arm(self.peer(), Timer::Initiation, earliest);
            }
            _ => self.send_initiation(core, ctx),
        }
    }

    /// New keys are wanted of many peers: the timer sends the initiation, so that others have their turn in between.
    pub(super) fn schedule_handshake(&mut self, core: &mut Core, now: Instant) {
        if self.begin_attempt(now) {
            let at = self.earliest_initiation().map_or(now, |earliest| earliest.max(now));
            core.timers.arm(self.peer(), Timer::Initiation, at);
        }
    }

    /// Begins an attempt, or lets the time of the one that goes on start anew; whether it has just begun.
    fn begin_attempt(&mut self, now: Instant) -> bool {
        if self.session.path().is_none() {
            return false;
        }
        let is_new = self.attempt.is_none();
        self.attempt.get_or_insert(Attempt { since: now, initiating: None }).since = now;
        is_new
    }

    fn earliest_initiation(&self) -> Option<Instant> {
        self.initiated.map(|initiated| initiated + REKEY_TIMEOUT)
    }

    /// Whether the peer is asked for new keys, and nothing has come from it for as long as an answer may take.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        let is_silent = self.session.last_received().is_none_or(|last| last + REKEY_TIMEOUT <= now);
        self.attempt.is_some() && is_silent
    }

    /// The last initiation had no answer, or the first one may leave.
    pub(super) fn handle_initiation_timer(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let Some(attempt) = &self.attempt else { return };
        let (since, has_failed) = (attempt.since, attempt.initiating.is_some());
        if has_failed {
            core.event(Event::HandshakeFailed { peer: self.peer() });
            self.forget_local_address();
        }
        if ctx.now.since(since) >= REKEY_ATTEMPT_TIME {
            self.give_up(core, ctx);
        } else {
            self.send_initiation(core, ctx);
        }
    }

    /// Forgets everything of handshakes that are not completed; an attempt goes on with another initiation.
    pub(super) fn forget_handshakes(&mut self, core: &mut Core) {
        self.forget_initiation(core);
        let next = self.keys.take_next();
        self.discard(core, next);
    }

    /// A response to the last initiation will not be accepted.
    pub(super) fn forget_initiation(&mut self, core: &mut Core) {
        let Some(attempt) = &mut self.attempt else { return };
        if let Some(initiating) = attempt.initiating.take() {
            core.initiating.remove(&initiating.sender());
            core.release_index(initiating.sender());
        }
    }

    fn send_initiation(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        self.forget_initiation(core);
        core.arm_jittered(ctx, self.peer(), Timer::Initiation, ctx.now + REKEY_TIMEOUT);
        let (Some(path), Some(message)) = (self.session.path(), self.make_initiation(core, ctx))
        else {
            return;
        };
        self.initiated = Some(ctx.now);
        self.session.mark_sent(ctx.now);
        core.counters.initiations_sent += 1;
        core.transmit(path, message);
    }

    /// An initiation with its MACs; none if the peer's key is no key, or no index is free.
    fn make_initiation(&mut self, core: &mut Core, ctx: &mut Context<'_>) -> Option<Vec<u8>> {
        let shared = self.shared.as_ref()?;
        let sender = core.claim_index(ctx)?;
        let timestamp = core.next_timestamp(ctx.wall, self.timestamp_sent);
        let ephemeral = PrivateKey::generate(ctx.random);
        let remote = &self.config.public_key;
        let made = noise::initiate(&core.identity, remote, shared, ephemeral, sender, timestamp);
        let Some((initiation, initiating)) = made else {
            core.release_index(sender);
            return None;
        };
        self.timestamp_sent = timestamp;
        core.initiating.insert(sender, self.peer());
        self.attempt.as_mut()?.initiating = Some(initiating);
        let mut message = initiation.emit();
        self.stamper.stamp(ctx.now, &mut message);
        Some(message.to_vec())
    }

    fn give_up(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        self.forget_initiation(core);
        self.attempt = None;
        self.drop_staged(core, DropReason::NoSession);
        self.session.lower(Looks::REKEY);
        core.timers.disarm(self.peer(), Timer::Acknowledgment);
        // Nobody watches any more, so lanes have to tell again.
        self.session.lower(Looks::UNACKNOWLEDGED);
        self.session.forget_unacknowledged();
        if core.timers.armed(self.peer(), Timer::EraseKeys).is_none() {
            self.arm_erasure(core, ctx.now);
        }
        core.event(Event::GaveUp { peer: self.peer() });
    }

    fn receive_initiation(
        &mut self,
        core: &mut Core,
        ctx: &mut Context<'_>,
        from: &Path,
        introduction: Introduction,
    ) -> Result<(), DropReason> {
        let (timestamp, responding) = self.admit(ctx.now, introduction)?;
        let (keypair, response) = self.respond(core, ctx, responding)?;
        self.session.mark_received(ctx.now);
        self.roam(core, from);
        self.install(core, ctx.now, Keyed::new(keypair, timestamp.is_marked()));
        self.session.mark_sent(ctx.now);
        core.counters.responses_sent += 1;
        core.transmit(*from, response);
        Ok(())
    }

    /// Whether an initiation is the peer's, newer than all before, and not too soon after the last.
    fn admit(
        &mut self,
        now: Instant,
        introduction: Introduction,
    ) -> Result<(Tai64n, Responding), DropReason> {
        let shared = self.shared.as_ref().ok_or(DropReason::UnknownPeer)?;
        let (timestamp, responding) =
            introduction.authenticate(shared).ok_or(DropReason::Undecryptable)?;
        if self.timestamp_received.is_some_and(|last| timestamp <= last) {
            return Err(DropReason::StaleTimestamp);
        }
        if self.initiation_received.is_some_and(|last| now.since(last) < INITIATION_INTERVAL) {
            return Err(DropReason::RateLimited);
        }
        self.timestamp_received = Some(timestamp);
        self.initiation_received = Some(now);
        Ok((timestamp, responding))
    }

    /// The keypair of an initiation that was admitted, and the response with its MACs.
    fn respond(
        &mut self,
        core: &mut Core,
        ctx: &mut Context<'_>,
        responding: Responding,
    ) -> Result<(Keypair, Vec<u8>), DropReason> {
        let local = core.claim_index(ctx).ok_or(DropReason::HandshakeFull)?;
        let remote = responding.receiver();
        let ephemeral = PrivateKey::generate(ctx.random);
        let Some((response, keys)) = responding.respond(ephemeral, self.preshared_key(), local)
        else {
            core.release_index(local);
            return Err(DropReason::Undecryptable);
        };
        let mut message = response.emit();
        self.stamper.stamp(ctx.now, &mut message);
        Ok((core.keypair(ctx, keys, (local, remote), Role::Responder), message.to_vec()))
    }

    fn receive_response(
        &mut self,
        core: &mut Core,
        ctx: &mut Context<'_>,
        from: &Path,
        message: &Response,
    ) -> Result<(), DropReason> {
        let attempt = self.attempt.as_mut().ok_or(DropReason::UnknownReceiver)?;
        let initiating = attempt.initiating.as_ref().ok_or(DropReason::UnknownReceiver)?;
        let keys = initiating
            .complete(&core.identity, &self.config.preshared_key, message)
            .ok_or(DropReason::Undecryptable)?;
        // The index stays claimed: it is the keypair's now.
        attempt.initiating = None;
        core.initiating.remove(&message.receiver);
        let ids = (message.receiver, message.sender);
        let keypair = core.keypair(ctx, keys, ids, Role::Initiator);
        self.session.mark_received(ctx.now);
        self.roam(core, from);
        self.install(core, ctx.now, Keyed::new(keypair, false));
        self.established(core, ctx);
        self.confirm(core, ctx);
        Ok(())
    }

    /// Makes messages of the keypair find it, and lets those go that have no place beside it.
    fn install(&mut self, core: &mut Core, now: Instant, keyed: Keyed) {
        core.keypairs.insert(self.peer(), Arc::clone(&keyed.keypair));
        let displaced = match keyed.keypair.role() {
            Role::Initiator => self.keys.initiated(keyed),
            Role::Responder => self.keys.responded(keyed),
        };
        for keyed in displaced {
            self.discard(core, keyed);
        }
        self.arm_erasure(core, now);
    }

    fn arm_erasure(&self, core: &mut Core, now: Instant) {
        let at = now + REJECT_AFTER_TIME * ERASE_KEYS_AFTER;
        core.timers.arm(self.peer(), Timer::EraseKeys, at);
    }
}
