//! What the lanes and the slow path share of one peer.
//!
//! # Theory of operation
//!
//! The lanes carry packets and must not wait; the tunnel ([`Tunnel`](crate::tunnel::Tunnel)) decides
//! about handshakes, keys and timers and may. Between them stands one `Session` a peer, all atomics:
//!
//! - The tunnel publishes the keypair to *seal* with and the *path* to send on; a lane reads both for
//!   every batch. A lane may publish a path too: a peer is where its last authentic message came from.
//! - A lane leaves *marks* of what it sent and received, and the tunnel reads them when a timer is due.
//!
//! WireGuard's timers (whitepaper, sections 6.1 to 6.5; Linux `timers.c`) are armed and disarmed by
//! packets. Here no lane arms a timer. Two marks say since when something waits:
//!
//! ```text
//!  unanswered      set by the first data sent           cleared by anything authentic received
//!  unacknowledged  set by the first data received       cleared by anything authentic sent
//! ```
//!
//! When a mark is set and the tunnel does not watch it, `sent` or `received` returns true, and the lane
//! tells the tunnel to *look* at this session. The tunnel then arms a timer, and as long as that is armed the
//! watch stands, and setting the mark again costs a store. When the timer is due, the tunnel reads the
//! mark: if it is clear, the watch ends; if it was set later than the timer was armed for, the timer
//! moves; if it is as old as the timer, what it warned of has happened. So a flow with answers, in
//! which both marks change with every packet, costs at most one look and one timer per 10 or 15 s.
//!
//! Ending a watch and setting a mark may cross: the tunnel ends the watch first and reads the mark again
//! after that, so one of the two sides sees the other's store (both are sequentially consistent).
//!
//! Three more things are worth a look, each once until the tunnel has seen to it: a keypair that a message has
//! *confirmed*, a keypair that wants a *rekey*, and a peer that has *roamed*.
//!
//! A look must not get lost: a lane that cannot hand it over tries again, or calls [`Session::forget_looks`].

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use wire::message::PADDING;

use crate::key::PublicKey;
use crate::keypair::Keypair;
use crate::mtu::{Content, InnerMtu};
use crate::path::Path;
use crate::peer::PeerIndex;
use crate::time::Instant;

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Packets or frames of the device: an answer of any kind is due.
    Data,
    /// Keepalives, control frames, handshake messages.
    Other,
}

/// What was received, all of it authentic and new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Packets or frames for the device: they are to be acknowledged, by a keepalive if by nothing else.
    Data,
    /// Keepalives and control frames: never acknowledged, or two idle peers would talk forever.
    Keepalive,
}

/// Messages and octets of messages in both directions, outer headers below WireGuard's not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Data messages sent, keepalives and control frames included.
    pub sent_messages: u64,
    /// Their octets.
    pub sent_octets: u64,
    /// Data messages received that were authentic and new.
    pub received_messages: u64,
    /// Their octets.
    pub received_octets: u64,
}

/// Why the tunnel is to look at a session: a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looks(u32);

impl Looks {
    pub(crate) const UNANSWERED: Self = Self(1 << 0);
    pub(crate) const UNACKNOWLEDGED: Self = Self(1 << 1);
    pub(crate) const CONFIRMED: Self = Self(1 << 2);
    pub(crate) const REKEY: Self = Self(1 << 3);
    pub(crate) const ROAMED: Self = Self(1 << 4);

    pub(crate) fn contains(self, look: Self) -> bool {
        self.0 & look.0 != 0
    }
}

/// One peer, as the lanes see it.
#[derive(Debug)]
pub struct Session {
    peer: PeerIndex,
    public_key: PublicKey,
    content: Content,
    sealing: ArcSwapOption<Keypair>,
    path: ArcSwapOption<Path>,
    /// The bits of [`Looks`] that a lane has told the tunnel of.
    looks: AtomicU32,
    out: Direction,
    back: Direction,
}

/// What is counted and marked in one direction; apart from the other, which other threads write.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Direction {
    messages: AtomicU64,
    octets: AtomicU64,
    /// When the last authentic message passed, in nanoseconds; 0 is never.
    last: AtomicU64,
    /// Since when data that passed waits for something in the other direction; 0 is never.
    waiting: AtomicU64,
}

/// The keypair to seal with, for as long as a batch takes.
pub struct Sealing(Guard<Option<Arc<Keypair>>>);

impl Deref for Sealing {
    type Target = Keypair;

    #[inline]
    fn deref(&self) -> &Keypair {
        self.0.as_ref().expect("only made of a keypair that is there")
    }
}

/// How many zeros follow a packet of `len` octets before it is sealed: up to a multiple of [`PADDING`], but
/// not beyond the MTU of the device (whitepaper, section 5.4.6; `calculate_skb_padding` in Linux `send.c`).
#[inline]
pub fn padding(len: usize, mtu: InnerMtu) -> usize {
    let mtu = usize::try_from(mtu.0).unwrap_or(usize::MAX);
    len.next_multiple_of(PADDING).min(mtu).saturating_sub(len)
}

impl Session {
    /// A session without keys, of a device that carries `content`.
    pub fn new(
        peer: PeerIndex,
        public_key: PublicKey,
        content: Content,
        path: Option<Path>,
    ) -> Self {
        Self {
            peer,
            public_key,
            content,
            sealing: ArcSwapOption::empty(),
            path: ArcSwapOption::from_pointee(path),
            looks: AtomicU32::new(0),
            out: Direction::default(),
            back: Direction::default(),
        }
    }

    /// The peer's place in the tunnel.
    pub fn peer(&self) -> PeerIndex {
        self.peer
    }

    /// By what the peer is known.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The keypair to seal data with, if there is one that may.
    ///
    /// Without one, the packet goes to [`Tunnel::handle_outgoing`](crate::tunnel::Tunnel::handle_outgoing).
    #[inline]
    pub fn sealing(&self, now: Instant) -> Option<Sealing> {
        let keypair = self.sealing.load();
        let is_usable = keypair.as_ref().is_some_and(|keypair| keypair.is_usable(now));
        is_usable.then_some(Sealing(keypair))
    }

    /// The way to the peer, if that is known.
    #[inline]
    pub fn path(&self) -> Option<Path> {
        self.path.load().as_deref().copied()
    }

    /// The peer is there from now on.
    pub fn set_path(&self, path: Path) {
        self.path.store(Some(Arc::new(path)));
    }

    /// Notes what was sent with `keypair`; true if the tunnel must look.
    #[inline]
    pub fn sent(
        &self,
        now: Instant,
        keypair: &Keypair,
        messages: usize,
        octets: usize,
        kind: Sent,
    ) -> bool {
        self.out.count(messages, octets);
        self.mark_sent(now);
        let is_first = kind == Sent::Data && self.out.wait(now);
        let mut must_look = is_first && self.raise(Looks::UNANSWERED);
        if keypair.needs_rekey(now) {
            must_look |= self.raise(Looks::REKEY);
        }
        must_look
    }

    /// Notes what was received from `path` and opened with `keypair`; true if the tunnel must look.
    ///
    /// Only for messages that were authentic and new, since the peer is at `path` from now on.
    #[inline]
    pub fn received(
        &self,
        now: Instant,
        keypair: &Arc<Keypair>,
        path: &Path,
        messages: usize,
        octets: usize,
        kind: Received,
    ) -> bool {
        self.back.count(messages, octets);
        self.mark_received(now);
        let is_first = kind == Received::Data && self.back.wait(now);
        let mut must_look = is_first && self.raise(Looks::UNACKNOWLEDGED);
        if keypair.confirm() {
            // At once: an answer that leaves before the tunnel has looked would be sealed with keys that a peer
            // which started anew has forgotten.
            if self.content == Content::Packet && keypair.may_carry_data() {
                self.publish(Some(Arc::clone(keypair)));
            }
            must_look |= self.raise(Looks::CONFIRMED);
        }
        if keypair.needs_rekey_on_receive(now) && self.is_sealing_with(keypair) {
            must_look |= self.raise(Looks::REKEY);
        }
        if self.path().as_ref() != Some(path) {
            self.set_path(*path);
            must_look |= self.raise(Looks::ROAMED);
        }
        must_look
    }

    /// What has passed since the session was made.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            sent_messages: self.out.messages.load(Ordering::Relaxed),
            sent_octets: self.out.octets.load(Ordering::Relaxed),
            received_messages: self.back.messages.load(Ordering::Relaxed),
            received_octets: self.back.octets.load(Ordering::Relaxed),
        }
    }

    /// After a look got lost: the next reason for one counts again.
    pub fn forget_looks(&self) {
        self.looks.store(0, Ordering::SeqCst);
        self.out.waiting.store(0, Ordering::SeqCst);
        self.back.waiting.store(0, Ordering::SeqCst);
    }

    /// Something authentic was sent that is no data message, or just was.
    #[inline]
    pub(crate) fn mark_sent(&self, now: Instant) {
        self.out.pass(now);
        self.back.clear();
    }

    /// Something authentic was received that is no data message, or just was.
    #[inline]
    pub(crate) fn mark_received(&self, now: Instant) {
        self.back.pass(now);
        self.out.clear();
    }

    /// Since when data that was sent has no answer.
    pub(crate) fn unanswered(&self) -> Option<Instant> {
        self.out.waiting()
    }

    /// Since when data that was received has no acknowledgment.
    pub(crate) fn unacknowledged(&self) -> Option<Instant> {
        self.back.waiting()
    }

    /// Since when a mark stands; if it does not, the watch for it ends.
    pub(crate) fn still_waits(
        &self,
        look: Looks,
        mark: fn(&Self) -> Option<Instant>,
    ) -> Option<Instant> {
        if mark(self).is_none() {
            self.lower(look);
            // Set meanwhile: who raises it first watches, a lane that tells it or the caller.
            return mark(self).filter(|_| self.raise(look));
        }
        mark(self)
    }

    /// Starts counting the wait for an answer anew.
    pub(crate) fn forget_unanswered(&self) {
        self.out.clear();
    }

    /// Starts counting the wait for an acknowledgment anew.
    pub(crate) fn forget_unacknowledged(&self) {
        self.back.clear();
    }

    /// When an authentic message last passed in either direction, if one did.
    pub(crate) fn last_traversal(&self) -> Option<Instant> {
        let last = |direction: &Direction| direction.last.load(Ordering::Relaxed);
        let nanos = last(&self.out).max(last(&self.back));
        (nanos > 0).then_some(Instant::from_nanos(nanos))
    }

    /// When an authentic message was last received, if one was.
    pub(crate) fn last_received(&self) -> Option<Instant> {
        let nanos = self.back.last.load(Ordering::Relaxed);
        (nanos > 0).then_some(Instant::from_nanos(nanos))
    }

    /// What the lanes wanted to be looked at.
    pub(crate) fn looks(&self) -> Looks {
        Looks(self.looks.load(Ordering::SeqCst))
    }

    /// The tunnel has seen to it, and wants to be told again.
    pub(crate) fn lower(&self, look: Looks) {
        self.looks.fetch_and(!look.0, Ordering::SeqCst);
    }

    /// Whether nobody has told the tunnel so far.
    pub(crate) fn raise(&self, look: Looks) -> bool {
        // A load first: most of the time it is known, and a load leaves the cache line shared.
        !self.looks().contains(look) && self.looks.fetch_or(look.0, Ordering::SeqCst) & look.0 == 0
    }

    /// From now on lanes seal with this keypair, or with none.
    pub(crate) fn publish(&self, keypair: Option<Arc<Keypair>>) {
        self.sealing.store(keypair);
    }

    /// Whether lanes seal with this keypair.
    pub(crate) fn is_sealing_with(&self, keypair: &Keypair) -> bool {
        self.sealing.load().as_ref().is_some_and(|sealing| sealing.local() == keypair.local())
    }
}

impl Direction {
    #[inline]
    fn count(&self, messages: usize, octets: usize) {
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
    }

    #[inline]
    fn pass(&self, now: Instant) {
        self.last.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Sets the mark; whether it was clear.
    #[inline]
    fn wait(&self, now: Instant) -> bool {
        let is_clear = self.waiting.load(Ordering::Relaxed) == 0;
        if is_clear {
            self.waiting.store(now.as_nanos().max(1), Ordering::SeqCst);
        }
        is_clear
    }

    #[inline]
    fn clear(&self) {
        if self.waiting.load(Ordering::Relaxed) != 0 {
            self.waiting.store(0, Ordering::SeqCst);
        }
    }

    fn waiting(&self) -> Option<Instant> {
        match self.waiting.load(Ordering::SeqCst) {
            0 => None,
            nanos => Some(Instant::from_nanos(nanos)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keypair::{Ciphers, KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_AFTER_TIME, Role};
    use crate::noise::{CipherKeys, SessionKeys};
    use crate::path::TransportIndex;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

    fn keypair(role: Role, index: u32) -> Arc<Keypair> {
        let keys = || CipherKeys { chacha: [1; 32], aes: [2; 32] };
        let keys = SessionKeys { send: keys(), receive: keys() };
        let ciphers = Ciphers { chacha: true, aes: true };
        Arc::new(Keypair::new(keys, index, 9, role, NOW, ciphers))
    }

    fn path(port: u16) -> Path {
        Path { transport: TransportIndex(0), remote: ([192, 0, 2, 1], port).into(), local: None }
    }

    fn session(sealing: &Arc<Keypair>) -> Session {
        let session = Session::new(PeerIndex(0), [0; 32].into(), Content::Packet, Some(path(1)));
        session.publish(Some(Arc::clone(sealing)));
        session
    }

    #[test]
    fn data_is_told_once_while_it_is_watched() {
        let keypair = keypair(Role::Initiator, 1);
        let session = session(&keypair);
        let sent = |kind| session.sent(NOW, &keypair, 1, 96, kind);
        let received = |kind| session.received(NOW, &keypair, &path(1), 1, 96, kind);
        assert!(!sent(Sent::Other));
        assert_eq!(session.unanswered(), None);
        assert!(sent(Sent::Data));
        assert!(!sent(Sent::Data));
        assert_eq!(session.unanswered(), Some(NOW));
        assert!(!received(Received::Keepalive));
        assert_eq!(session.unanswered(), None);
        // Nobody has ended the watch.
        assert!(!sent(Sent::Data));
        session.lower(Looks::UNANSWERED);
        assert!(!sent(Sent::Data), "the mark stands already");
        session.forget_unanswered();
        assert!(sent(Sent::Data));
    }

    #[test]
    fn only_data_is_to_be_acknowledged() {
        let keypair = keypair(Role::Initiator, 1);
        let session = session(&keypair);
        assert!(!session.received(NOW, &keypair, &path(1), 1, 32, Received::Keepalive));
        assert_eq!(session.unacknowledged(), None);
        assert!(session.received(NOW, &keypair, &path(1), 1, 96, Received::Data));
        assert_eq!(session.unacknowledged(), Some(NOW));
        session.sent(NOW, &keypair, 1, 32, Sent::Other);
        assert_eq!(session.unacknowledged(), None);
    }

    #[test]
    fn a_responder_s_keypair_is_confirmed_once() {
        let keypair = keypair(Role::Responder, 1);
        let session = session(&keypair);
        assert!(session.received(NOW, &keypair, &path(1), 1, 32, Received::Keepalive));
        assert!(keypair.is_confirmed());
        assert!(!session.received(NOW, &keypair, &path(1), 1, 32, Received::Keepalive));
    }

    #[test]
    fn a_peer_roams_with_its_messages() {
        let keypair = keypair(Role::Initiator, 1);
        let session = session(&keypair);
        assert!(session.received(NOW, &keypair, &path(2), 1, 32, Received::Keepalive));
        assert_eq!(session.path(), Some(path(2)));
        assert!(session.looks().contains(Looks::ROAMED));
        assert!(!session.received(NOW, &keypair, &path(2), 1, 32, Received::Keepalive));
    }

    #[test]
    fn old_keys_are_told_once() {
        let keypair = keypair(Role::Initiator, 1);
        let session = session(&keypair);
        let old = NOW + REKEY_AFTER_TIME;
        assert!(session.sent(old, &keypair, 1, 32, Sent::Other));
        assert!(!session.sent(old, &keypair, 1, 32, Sent::Other));
        session.lower(Looks::REKEY);
        // What comes late with keys that nobody seals with any more wants no new ones.
        let late = NOW + REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT;
        let received = || session.received(late, &keypair, &path(1), 1, 32, Received::Keepalive);
        session.publish(Some(self::keypair(Role::Initiator, 2)));
        assert!(!received());
        session.publish(Some(Arc::clone(&keypair)));
        assert!(received());
    }

    #[test]
    fn nobody_seals_with_keys_that_are_too_old_or_retired() {
        let keypair = keypair(Role::Initiator, 1);
        let session = session(&keypair);
        assert!(session.sealing(NOW).is_some());
        assert!(session.sealing(NOW + REJECT_AFTER_TIME).is_none());
        keypair.retire();
        assert!(session.sealing(NOW).is_none());
    }

    #[test]
    fn traffic_is_counted_by_direction() {
        let keypair = keypair(Role::Initiator, 1);
        let session = session(&keypair);
        session.sent(NOW, &keypair, 3, 300, Sent::Data);
        session.received(NOW, &keypair, &path(1), 2, 64, Received::Data);
        let expected = Traffic {
            sent_messages: 3,
            sent_octets: 300,
            received_messages: 2,
            received_octets: 64,
        };
        assert_eq!(session.traffic(), expected);
    }

    #[test]
    fn a_look_that_got_lost_is_raised_again() {
        let keypair = keypair(Role::Initiator, 1);
        let session = session(&keypair);
        assert!(session.sent(NOW, &keypair, 1, 96, Sent::Data));
        session.forget_looks();
        assert!(session.sent(NOW, &keypair, 1, 96, Sent::Data));
    }

    #[test]
    fn no_mark_is_left_without_a_watch() {
        let keypair = keypair(Role::Initiator, 1);
        for _ in 0..200 {
            let session = session(&keypair);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..100 {
                        session.sent(NOW, &keypair, 1, 96, Sent::Data);
                        session.mark_received(NOW);
                        session.sent(NOW, &keypair, 1, 96, Sent::Data);
                    }
                });
                scope.spawn(|| {
                    for _ in 0..100 {
                        session.still_waits(Looks::UNANSWERED, Session::unanswered);
                        session.mark_received(NOW);
                    }
                });
            });
            let is_watched = session.looks().contains(Looks::UNANSWERED);
            assert!(is_watched || session.unanswered().is_none());
        }
    }

    #[test]
    fn padding_ends_at_the_mtu() {
        let padding = |len| padding(len, InnerMtu(1420));
        assert_eq!([0, 1, 16, 61].map(padding), [0, 15, 0, 3]);
        // 1424 is the next multiple of 16.
        assert_eq!([1407, 1419, 1420, 1421, 9000].map(padding), [1, 1, 0, 0, 0]);
    }
}
