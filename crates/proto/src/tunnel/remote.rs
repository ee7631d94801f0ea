//! One peer in the slow path: what is sent to it, and what is due.

use std::sync::Arc;
use std::time::Duration;

use wire::frame::{self, Control, ControlKind, Hello};
use wire::message::DATA_OVERHEAD;

use super::config::{Context, PeerConfig};
use super::core::Core;
use super::enrolment::is_message;
use super::handshake::Attempt;
use super::keys::{Keyed, Keys};
use super::staged::Staged;
use super::status::{Event, PeerStatus};
use crate::control::Expired;
use crate::cookie::Stamper;
use crate::drop_reason::DropReason;
use crate::key::PresharedKey;
use crate::keypair::{KEEPALIVE_TIMEOUT, Keypair, REKEY_TIMEOUT, Role};
use crate::mtu::Content;
use crate::noise::StaticShared;
use crate::path::Path;
use crate::peer::PeerIndex;
use crate::session::{Looks, Sent, Session, padding};
use crate::tai64n::Tai64n;
use crate::time::Instant;
use crate::timer::Timer;

/// Data that was sent is answered within this time, or the peer has lost its keys (whitepaper, section 6.5).
const ANSWER_TIMEOUT: Duration =
    Duration::from_secs(KEEPALIVE_TIMEOUT.as_secs() + REKEY_TIMEOUT.as_secs());

/// Data waits so long for the hello of a peer that must say it before data may be sent.
pub(super) const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// One peer.
pub(super) struct Remote {
    pub(super) session: Arc<Session>,
    pub(super) config: PeerConfig,
    /// None if handshakes with this key are impossible.
    pub(super) shared: Option<StaticShared>,
    pub(super) stamper: Stamper,
    pub(super) keys: Keys,
    pub(super) attempt: Option<Attempt>,
    pub(super) initiated: Option<Instant>,
    pub(super) initiation_received: Option<Instant>,
    /// The last one sent, or one that is greater than all that may have been sent to this peer.
    pub(super) timestamp_sent: Tai64n,
    pub(super) timestamp_received: Option<Tai64n>,
    /// Since the Unix epoch.
    pub(super) last_handshake: Option<Duration>,
    /// How often in a row an invitation's new keys had no hello.
    pub(super) hellos_missed: u32,
    staged: Staged,
}

impl Remote {
    pub(super) fn new(core: &Core, peer: PeerIndex, config: PeerConfig) -> Self {
        let is_self = config.public_key == core.identity.public();
        let shared = if is_self { None } else { core.identity.shared(&config.public_key) };
        Self {
            session: Arc::new(Session::new(peer, config.public_key, core.content, config.path)),
            shared,
            stamper: Stamper::new(&config.public_key),
            config,
            keys: Keys::default(),
            attempt: None,
            initiated: None,
            initiation_received: None,
            timestamp_sent: core.timestamp,
            timestamp_received: None,
            last_handshake: None,
            hellos_missed: 0,
            staged: Staged::default(),
        }
    }

    pub(super) fn peer(&self) -> PeerIndex {
        self.session.peer()
    }

    pub(super) fn preshared_key(&self) -> &PresharedKey {
        &self.config.preshared_key
    }

    /// Begins what the configuration wants to happen without any packet. The timer is due at once, so that those
    /// of thousands of peers have their turn one after the other.
    pub(super) fn start(&self, core: &mut Core, now: Instant) {
        match self.keepalive_interval() {
            Some(_) => core.timers.arm(self.peer(), Timer::PersistentKeepalive, now),
            None => core.timers.disarm(self.peer(), Timer::PersistentKeepalive),
        }
    }

    /// Follows a configuration of the same peer, without disturbing what has not changed.
    pub(super) fn reconfigure(&mut self, core: &mut Core, now: Instant, config: PeerConfig) {
        let old = std::mem::replace(&mut self.config, config);
        if let Some(path) = self.config.path {
            self.session.set_path(path);
        }
        if self.config.invitation != old.invitation {
            self.erase_keys(core);
        }
        if self.config.preshared_key != old.preshared_key {
            self.forget_handshakes(core);
        }
        if self.config.keepalive != old.keepalive {
            self.start(core, now);
        }
    }

    /// Ends everything.
    pub(super) fn remove(&mut self, core: &mut Core) {
        self.forget_initiation(core);
        self.erase_keys(core);
        let dropped = self.staged.clear(&mut core.staged);
        core.dropped(DropReason::NoPeer, dropped);
        core.timers.disarm_all(self.peer());
    }

    /// A packet or frame of the device for which no lane had a keypair.
    pub(super) fn handle_outgoing(
        &mut self,
        core: &mut Core,
        ctx: &mut Context<'_>,
        packet: &[u8],
    ) {
        if self.config.invitation {
            return core.dropped(DropReason::NoPeer, 1);
        }
        if self.session.path().is_none() {
            return core.dropped(DropReason::NoEndpoint, 1);
        }
        let dropped = self.staged.push(&mut core.staged, packet);
        core.dropped(DropReason::NoSession, dropped);
        self.mend_gate(core, ctx);
        if self.session.sealing(ctx.now).is_some() {
            self.flush(core, ctx);
        } else if !self.has_current(ctx.now) {
            self.begin_handshake(core, ctx);
        } else if core.timers.armed(self.peer(), Timer::Hello).is_none() {
            self.drop_staged(core, DropReason::NoHello);
        }
    }

    /// A control frame that was opened with the keypair of this index.
    pub(super) fn handle_control(
        &mut self,
        core: &mut Core,
        ctx: &mut Context<'_>,
        index: u32,
        frame: &[u8],
    ) {
        let Ok(frame) = Control::parse(frame) else {
            return core.dropped(DropReason::FrameMalformed, 1);
        };
        let Some(keyed) = self.keys.find(index) else {
            return core.dropped(DropReason::UnknownReceiver, 1);
        };
        if self.config.invitation && keyed.keypair.role() == Role::Responder {
            keyed.path = self.session.path();
        }
        match keyed.channel.handle(ctx.now, &frame) {
            Some((ControlKind::Hello, body)) => match Hello::parse(body) {
                Ok(hello) => {
                    let is_first = keyed.hello.is_none();
                    keyed.take_hello(core, ctx.now, hello);
                    if is_first {
                        self.greeted(core, index);
                    }
                }
                Err(_) => core.dropped(DropReason::FrameMalformed, 1),
            },
            Some((kind @ (ControlKind::Enrol | ControlKind::Enrolled), body)) => {
                self.handle_message(core, index, kind, body);
            }
            Some((ControlKind::Unknown(_), _)) => core.dropped(DropReason::UnknownFrame, 1),
            Some((ControlKind::Acknowledgment, _)) | None => {}
        }
        self.send_control(core, ctx);
        self.open_gate(core, ctx);
    }

    /// Sees to what the lanes have marked.
    pub(super) fn look(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let looks = self.session.looks();
        if looks.contains(Looks::ROAMED) {
            self.session.lower(Looks::ROAMED);
            core.event(Event::PathChanged { peer: self.peer() });
        }
        // Lowered before the keypairs are read: a lane that confirms one after that tells it again.
        self.session.lower(Looks::CONFIRMED);
        if self.keys.next().is_some_and(|next| next.keypair.is_confirmed()) {
            let previous = self.keys.promote();
            self.discard(core, previous);
            self.established(core, ctx);
        } else if looks.contains(Looks::CONFIRMED) {
            // The lane has published a keypair that newer ones of this side had overtaken already.
            self.open_gate(core, ctx);
        }
        self.greet(core, ctx);
        self.watch(core, ctx);
    }

    /// A timer of this peer is due.
    pub(super) fn handle_timer(&mut self, core: &mut Core, ctx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Initiation => self.handle_initiation_timer(core, ctx),
            Timer::Unanswered => self.handle_unanswered(core, ctx),
            Timer::Acknowledgment => self.handle_unacknowledged(core, ctx),
            Timer::PersistentKeepalive => self.handle_persistent_keepalive(core, ctx),
            // An initiation stays: it is never older than the initiation timer lets it become.
            Timer::EraseKeys => self.erase_keys(core),
            Timer::Control => self.handle_control_timer(core, ctx),
            Timer::Hello if self.config.invitation => self.handle_missing_hello(core, ctx),
            Timer::Hello => {
                self.session.publish(None);
                self.drop_staged(core, DropReason::NoHello);
            }
        }
    }

    /// Both sides have the current keypair.
    pub(super) fn established(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        self.forget_initiation(core);
        self.attempt = None;
        core.timers.disarm(self.peer(), Timer::Initiation);
        core.timers.disarm(self.peer(), Timer::Hello);
        self.session.lower(Looks::REKEY);
        self.last_handshake = Some(ctx.wall);
        core.counters.established += 1;
        core.event(Event::Established { peer: self.peer() });
        self.await_hello(core, ctx.now);
        self.open_gate(core, ctx);
    }

    /// Sends what waits, or else a keepalive: the first message tells the responder that both have the keys.
    pub(super) fn confirm(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let Some(current) = self.keys.current() else { return };
        if current.keypair.reserved() == 0 {
            self.send_keepalive(core, ctx);
        }
    }

    /// Sends an empty message, or makes the keys for one.
    pub(super) fn send_keepalive(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        match self.keys.current().filter(|keyed| keyed.keypair.is_usable(ctx.now)) {
            Some(keyed) => {
                let keypair = Arc::clone(&keyed.keypair);
                seal(core, &self.session, ctx.now, &keypair, &[], 0, Sent::Other);
                self.watch(core, ctx);
            }
            None => self.begin_handshake(core, ctx),
        }
    }

    pub(super) fn erase_keys(&mut self, core: &mut Core) {
        for keyed in self.keys.take() {
            self.discard(core, keyed);
        }
        self.session.publish(None);
        core.timers.disarm(self.peer(), Timer::Control);
        core.timers.disarm(self.peer(), Timer::Hello);
    }

    pub(super) fn discard(&self, core: &mut Core, keyed: Option<Keyed>) {
        let Some(Keyed { keypair, channel, .. }) = keyed else { return };
        if channel.unacknowledged().any(is_message) {
            core.event(Event::Unsaid { peer: self.peer(), index: keypair.local() });
        }
        if self.session.is_sealing_with(&keypair) {
            self.session.publish(None);
        }
        core.discard(&keypair);
    }

    pub(super) fn drop_staged(&mut self, core: &mut Core, reason: DropReason) {
        let dropped = self.staged.clear(&mut core.staged);
        core.dropped(reason, dropped);
    }

    /// The peer is at `path`, as an authentic handshake message says.
    pub(super) fn roam(&self, core: &mut Core, path: &Path) {
        if self.session.path().as_ref() != Some(path) {
            self.session.set_path(*path);
            core.event(Event::PathChanged { peer: self.peer() });
        }
    }

    /// Lets the kernel choose the address to send from: the one that was used may be gone.
    pub(super) fn forget_local_address(&self) {
        if let Some(path) = self.session.path().filter(|path| path.local.is_some()) {
            self.session.set_path(Path { local: None, ..path });
        }
    }

    pub(super) fn status(&self, now: Instant) -> PeerStatus {
        let hello = self.keys.current().and_then(|current| current.hello);
        PeerStatus {
            peer: self.peer(),
            public_key: self.config.public_key,
            has_preshared_key: !self.config.preshared_key.is_zero(),
            path: self.session.path(),
            last_handshake: self.last_handshake,
            cipher: self.session.sealing(now).map(|keypair| keypair.cipher()),
            is_adit: hello.is_some(),
            mtu: hello.map(|hello| hello.mtu),
            traffic: self.session.traffic(),
            keepalive: self.config.keepalive,
            allowed_ips: self.config.allowed_ips.clone(),
        }
    }

    fn keepalive_interval(&self) -> Option<Duration> {
        self.config.keepalive.filter(|interval| !interval.is_zero())
    }

    fn has_current(&self, now: Instant) -> bool {
        self.keys.current().is_some_and(|current| current.keypair.is_usable(now))
    }

    /// Lets lanes seal with the current keypair if they cannot with theirs: a lane may have published a keypair that it
    /// confirmed in the moment in which that was discarded.
    fn mend_gate(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let may_carry = |current: &Keyed| current.may_carry(core.content);
        if self.session.sealing(ctx.now).is_none() && self.keys.current().is_some_and(may_carry) {
            self.open_gate(core, ctx);
        }
    }

    /// Lets lanes seal with the current keypair as soon as it may carry what the device has. Until then they go on with
    /// the one before, if there was one.
    fn open_gate(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let carries_data = !self.config.invitation;
        let Some(current) = self.keys.current().filter(|_| carries_data) else { return };
        if self.session.is_sealing_with(&current.keypair) {
            // The lane that confirmed it was faster.
            return self.flush(core, ctx);
        }
        if current.may_carry(core.content) {
            self.session.publish(Some(Arc::clone(&current.keypair)));
            self.session.lower(Looks::REKEY);
            core.timers.disarm(self.peer(), Timer::Hello);
            self.flush(core, ctx);
        } else if core.timers.armed(self.peer(), Timer::Hello).is_none() {
            core.timers.arm(self.peer(), Timer::Hello, ctx.now + HELLO_PATIENCE);
        }
    }

    /// Sends what waited for a keypair.
    fn flush(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        while !self.staged.is_empty() {
            let Some(keypair) = self.session.sealing(ctx.now) else { break };
            let Some(packet) = self.staged.pop(&mut core.staged) else { break };
            match core.content {
                Content::Packet => {
                    let padding = padding(packet.len(), core.mtu);
                    seal(core, &self.session, ctx.now, &keypair, &packet, padding, Sent::Data);
                }
                Content::Frame => {
                    let frame = [&[frame::ETHERNET], &packet[..]].concat();
                    seal(core, &self.session, ctx.now, &keypair, &frame, 0, Sent::Data);
                }
            }
        }
        self.watch(core, ctx);
    }

    /// Says hello with every keypair whose initiator has the mark and which both sides have.
    fn greet(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let mut must_send = false;
        for keyed in self.keys.iter_mut() {
            if !keyed.is_confirmed && keyed.keypair.is_confirmed() {
                keyed.is_confirmed = true;
                if keyed.is_marked && core.extensions {
                    keyed.say_hello(core, ctx.now);
                    must_send = true;
                }
            }
        }
        if must_send {
            self.send_control(core, ctx);
        }
    }

    /// Sends the control frames that are due, and arms the timer for the next ones.
    pub(super) fn send_control(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let mut next = None;
        for keyed in self.keys.iter_mut().filter(|keyed| keyed.keypair.is_usable(ctx.now)) {
            while let Some(frame) = keyed.channel.poll_frame(ctx.now) {
                if let Some(path) = keyed.path {
                    self.session.set_path(path);
                }
                seal(core, &self.session, ctx.now, &keyed.keypair, &frame, 0, Sent::Other);
            }
            next = next.into_iter().chain(keyed.channel.poll_timeout()).min();
        }
        match next {
            Some(at) => core.timers.arm(self.peer(), Timer::Control, at),
            None => core.timers.disarm(self.peer(), Timer::Control),
        }
        self.watch(core, ctx);
    }

    fn handle_control_timer(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let peer = self.peer();
        for keyed in self.keys.iter_mut() {
            let Expired::GivenUp(kind) = keyed.channel.handle_timeout(ctx.now) else { continue };
            core.counters.control_given_up += 1;
            if is_message(kind) {
                core.event(Event::Unsaid { peer, index: keyed.keypair.local() });
            }
        }
        self.send_control(core, ctx);
    }

    /// Arms timers for the marks that the lanes have set, and makes new keys if they want them.
    fn watch(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let (looks, peer) = (self.session.looks(), self.peer());
        let is_new = |core: &Core, look, timer| {
            looks.contains(look) && core.timers.armed(peer, timer).is_none()
        };
        if is_new(core, Looks::UNANSWERED, Timer::Unanswered) {
            let since = self.session.unanswered().unwrap_or(ctx.now);
            core.arm_jittered(ctx, peer, Timer::Unanswered, since + ANSWER_TIMEOUT);
        }
        if is_new(core, Looks::UNACKNOWLEDGED, Timer::Acknowledgment) {
            let since = self.session.unacknowledged().unwrap_or(ctx.now);
            core.timers.arm(peer, Timer::Acknowledgment, since + KEEPALIVE_TIMEOUT);
        }
        if looks.contains(Looks::REKEY) && self.attempt.is_none() {
            self.rekey(core, ctx);
        }
    }

    /// Makes new keys if the current ones are as old as a lane said.
    fn rekey(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let Some(Keyed { keypair, .. }) = self.keys.current() else { return };
        if keypair.needs_rekey(ctx.now) || keypair.needs_rekey_on_receive(ctx.now) {
            self.begin_handshake(core, ctx);
        } else if self.session.is_sealing_with(keypair) {
            self.session.lower(Looks::REKEY);
        }
    }

    fn handle_unanswered(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let (session, peer) = (Arc::clone(&self.session), self.peer());
        let waits = session.still_waits(Looks::UNANSWERED, Session::unanswered);
        let Some(since) = waits else { return };
        if since + ANSWER_TIMEOUT > ctx.now {
            return core.arm_jittered(ctx, peer, Timer::Unanswered, since + ANSWER_TIMEOUT);
        }
        session.lower(Looks::UNANSWERED);
        session.forget_unanswered();
        self.forget_local_address();
        self.begin_handshake(core, ctx);
    }

    fn handle_unacknowledged(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let (session, peer) = (Arc::clone(&self.session), self.peer());
        let waits = session.still_waits(Looks::UNACKNOWLEDGED, Session::unacknowledged);
        let Some(since) = waits else { return };
        if since + KEEPALIVE_TIMEOUT > ctx.now {
            return core.timers.arm(peer, Timer::Acknowledgment, since + KEEPALIVE_TIMEOUT);
        }
        session.lower(Looks::UNACKNOWLEDGED);
        session.forget_unacknowledged();
        self.send_keepalive(core, ctx);
    }

    fn handle_persistent_keepalive(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let Some(interval) = self.keepalive_interval() else { return };
        let due = self.session.last_traversal().map(|last| last + interval);
        let next = match due.filter(|&due| due > ctx.now) {
            Some(due) => due,
            None => {
                self.send_keepalive(core, ctx);
                ctx.now + interval
            }
        };
        core.timers.arm(self.peer(), Timer::PersistentKeepalive, next);
    }
}

impl Keyed {
    fn take_hello(&mut self, core: &Core, now: Instant, hello: Hello) {
        self.keypair.set_features(hello.features);
        self.hello = Some(hello);
        self.say_hello(core, now);
    }

    /// Says what this side is, once.
    fn say_hello(&mut self, core: &Core, now: Instant) {
        if !self.hello_sent {
            self.hello_sent = self.channel.send(now, ControlKind::Hello, &core.hello().emit());
        }
    }
}

/// Seals one message and sends it to where the peer is.
fn seal(
    core: &mut Core,
    session: &Session,
    now: Instant,
    keypair: &Keypair,
    plaintext: &[u8],
    padding: usize,
    kind: Sent,
) {
    let Some(path) = session.path() else { return core.dropped(DropReason::NoEndpoint, 1) };
    let mut datagram = vec![0; DATA_OVERHEAD + plaintext.len() + padding];
    let counter = keypair.reserve(1);
    let sealed =
        counter.and_then(|counter| keypair.seal(counter, plaintext, padding, &mut datagram));
    let Some(len) = sealed else { return core.dropped(DropReason::NoSession, 1) };
    // What is marked here, the caller looks at.
    session.sent(now, keypair, 1, len, kind);
    datagram.truncate(len);
    core.transmit(path, datagram);
}
