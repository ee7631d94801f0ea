//! One peer of one host: its keys, what waits, and what may be due.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::{
    ANSWER, ANSWERS, ATTEMPT, Arrival, At, ERASE, HELLOS, Inner, JITTER, KEEPALIVE, REJECT_AFTER,
    REKEY_AFTER, REKEY_ON_RECEIVE, REKEY_TIMEOUT, STAGED, Verdict, WINDOW,
};

/// One end of a session.
pub(crate) struct Key {
    pub(crate) session: usize,
    pub(crate) local: u32,
    pub(crate) remote: u32,
    /// The peer said hello.
    has_hello: bool,
    /// Counters used so far.
    pub(crate) sent: u64,
    is_initiator: bool,
    born: At,
    is_confirmed: bool,
    hellos: u32,
    /// Hellos and acknowledgments received, and acknowledgments sent.
    controls: u32,
    acknowledgments: u32,
    seen: BTreeSet<u64>,
}

impl Key {
    pub(crate) fn new(
        session: usize,
        local: u32,
        remote: u32,
        is_initiator: bool,
        born: At,
    ) -> Self {
        Self {
            session,
            local,
            remote,
            has_hello: false,
            sent: 0,
            is_initiator,
            born,
            is_confirmed: is_initiator,
            hellos: 0,
            controls: 0,
            acknowledgments: 0,
            seen: BTreeSet::new(),
        }
    }

    pub(crate) fn is_alive(&self, now: At) -> bool {
        now - self.born < REJECT_AFTER
    }

    pub(crate) fn is_new(&self, counter: u64) -> bool {
        let is_near = self.seen.last().is_none_or(|&greatest| counter + WINDOW > greatest);
        is_near && !self.seen.contains(&counter)
    }

    /// Checks a message that was sealed, and counts it.
    fn seal(&mut self, now: At, counter: u64, inner: &Inner) {
        assert!(self.is_alive(now), "a key seals at the age of {:?}", now - self.born);
        assert!(self.is_confirmed, "a responder seals before the peer has the key");
        assert_eq!(counter, self.sent, "a counter is used twice or left out");
        self.sent += 1;
        self.hellos += u32::from(*inner == Inner::Hello);
        self.acknowledgments += u32::from(*inner == Inner::Acknowledgment);
        assert!(self.hellos <= HELLOS, "hellos have no end");
        assert!(self.acknowledgments <= self.controls, "nothing is to be acknowledged");
    }
}

/// A peer, as a host must know it.
pub(crate) struct Link {
    pub(crate) psk: u8,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) path: Option<SocketAddr>,
    /// What waits for a session, the oldest first.
    pub(crate) staged: VecDeque<Vec<u8>>,
    /// When something last came from the peer.
    pub(crate) last_received: Option<At>,
    /// Data messages sent and received.
    pub(crate) traffic: (u64, u64),
    /// Local indices of keys that are no more.
    pub(crate) gone: Vec<u32>,
    /// The greatest initiation accepted, and when.
    pub(crate) turn_received: Option<usize>,
    pub(crate) admitted: Option<At>,
    previous: Option<Key>,
    current: Option<Key>,
    next: Option<Key>,
    /// The initiation that a response may answer.
    outstanding: Option<usize>,
    initiated: Option<At>,
    /// When something may last have wanted new keys.
    wanted: Option<At>,
    /// When a packet last began to wait.
    staged_at: At,
    erasure: Option<At>,
    /// The first and last data sent since something came.
    unanswered: Option<(At, At)>,
    /// The first data received since something was sent.
    unacknowledged: Option<At>,
    last_traversal: Option<At>,
}

impl Link {
    pub(crate) fn new(path: Option<SocketAddr>) -> Self {
        Self {
            psk: 0,
            keepalive: None,
            path,
            staged: VecDeque::new(),
            last_received: None,
            traffic: (0, 0),
            gone: Vec::new(),
            turn_received: None,
            admitted: None,
            previous: None,
            current: None,
            next: None,
            outstanding: None,
            initiated: None,
            wanted: None,
            staged_at: At::ZERO,
            erasure: None,
            unanswered: None,
            unacknowledged: None,
            last_traversal: None,
        }
    }

    pub(crate) fn key(&self, session: usize) -> Option<&Key> {
        self.keys().find(|key| key.session == session)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        [&self.previous, &self.current, &self.next].into_iter().flatten()
    }

    pub(crate) fn keys_mut(&mut self) -> impl Iterator<Item = &mut Key> {
        [&mut self.previous, &mut self.current, &mut self.next].into_iter().flatten()
    }

    /// Whether the peer has said hello with the key of this remote index.
    pub(crate) fn has_hello(&self, remote: u32) -> bool {
        self.keys().any(|key| key.remote == remote && key.has_hello)
    }

    /// Whether there is a key to send with whatever happens.
    pub(crate) fn is_usable(&self, now: At) -> bool {
        self.current.as_ref().is_some_and(|key| key.is_alive(now))
    }

    /// Whether a message has confirmed a key that the tunnel has not looked at.
    pub(crate) fn must_look(&self) -> bool {
        self.next.as_ref().is_some_and(|key| key.is_confirmed)
    }

    pub(crate) fn judge_initiation(&self, turn: usize, now: At) -> Verdict {
        let is_newer = self.turn_received.is_none_or(|last| turn > last);
        let is_seldom = self.admitted.is_none_or(|last| now - last >= ANSWERS);
        if is_newer && is_seldom { Verdict::Accepted } else { Verdict::Refused }
    }

    pub(crate) fn judge_response(&self, initiation: usize, psk: u8) -> Verdict {
        let is_answer = self.outstanding == Some(initiation) && self.psk == psk;
        if is_answer { Verdict::Accepted } else { Verdict::Refused }
    }

    /// Something authentic came.
    pub(crate) fn hear(&mut self, from: SocketAddr, now: At) {
        self.path = Some(from);
        self.last_received = Some(now);
        self.last_traversal = Some(now);
        self.unanswered = None;
    }

    /// Something authentic was sent.
    fn say(&mut self, now: At) {
        self.last_traversal = Some(now);
        self.unacknowledged = None;
    }

    pub(crate) fn accept_data(
        &mut self,
        arrival: Arrival,
        session: usize,
        counter: u64,
        inner: &Inner,
    ) {
        let Arrival { from, now, .. } = arrival;
        self.hear(from, now);
        self.traffic.1 += 1;
        if matches!(inner, Inner::Packet(_)) {
            self.unacknowledged.get_or_insert(now);
        }
        let key = self.keys_mut().find(|key| key.session == session).expect("it was judged");
        key.seen.insert(counter);
        key.is_confirmed = true;
        key.has_hello |= *inner == Inner::Hello;
        key.controls += u32::from(matches!(inner, Inner::Hello | Inner::Acknowledgment));
        let is_old = key.is_initiator && now - key.born >= REKEY_ON_RECEIVE;
        if is_old {
            self.want(now);
        }
    }

    /// The tunnel looks; whether there are new keys.
    pub(crate) fn look(&mut self, now: At) -> bool {
        if self
            .current
            .as_ref()
            .is_some_and(|key| key.is_initiator && now - key.born >= REKEY_AFTER)
        {
            self.want(now);
        }
        let is_new = self.must_look();
        if is_new {
            let previous = std::mem::replace(&mut self.previous, self.current.take());
            self.current = self.next.take();
            self.forget(previous);
            self.conclude();
        }
        is_new
    }

    /// A response was accepted (the table of Linux `noise.c`, `add_new_keypair`).
    pub(crate) fn initiated(&mut self, key: Key, now: At) {
        let current = self.current.replace(key);
        let gone = match self.next.take() {
            Some(next) => [self.previous.replace(next), current],
            None => [std::mem::replace(&mut self.previous, current), None],
        };
        gone.into_iter().for_each(|key| self.forget(key));
        self.erasure = Some(now + ERASE);
        self.conclude();
    }

    /// A response was sent.
    pub(crate) fn responded(&mut self, session: usize, local: u32, remote: u32, now: At) {
        let key = Key::new(session, local, remote, false, now);
        let gone = [self.previous.take(), self.next.replace(key)];
        gone.into_iter().for_each(|key| self.forget(key));
        self.erasure = Some(now + ERASE);
        self.say(now);
    }

    /// Checks an initiation.
    pub(crate) fn initiate(&mut self, now: At, letter: usize) {
        assert!(
            self.initiated.is_none_or(|last| now - last >= REKEY_TIMEOUT),
            "initiations at {:?} and {now:?}",
            self.initiated
        );
        assert!(
            self.wanted.is_some_and(|wanted| now - wanted < ATTEMPT),
            "nobody wants new keys at {now:?} since {:?}",
            self.wanted
        );
        self.initiated = Some(now);
        self.outstanding = Some(letter);
        self.say(now);
    }

    /// Checks a data message; the session it is of.
    pub(crate) fn seal(&mut self, now: At, remote: u32, counter: u64, inner: &Inner) -> usize {
        if *inner == Inner::Keepalive {
            assert!(self.may_keep_alive(now, remote), "nobody waits for a keepalive at {now:?}");
        }
        self.say(now);
        self.traffic.0 += 1;
        if matches!(inner, Inner::Packet(_)) {
            let first = self.unanswered.map_or(now, |(first, _)| first);
            self.unanswered = Some((first, now));
        }
        let key = self.keys_mut().find(|key| key.remote == remote);
        let key = key.expect("data is sealed with a key that is there");
        key.seal(now, counter, inner);
        let (session, is_initiator, born) = (key.session, key.is_initiator, key.born);
        if is_initiator && now - born >= REKEY_AFTER {
            self.want(now);
        }
        session
    }

    /// A keepalive confirms new keys, acknowledges data, or was asked for.
    fn may_keep_alive(&self, now: At, remote: u32) -> bool {
        let is_first = |key: &Key| key.remote == remote && key.is_initiator && key.sent == 0;
        let confirms = self.keys().any(is_first);
        let acknowledges = self.unacknowledged.is_some_and(|since| now - since >= KEEPALIVE);
        confirms || acknowledges || self.is_silent(now)
    }

    fn is_silent(&self, now: At) -> bool {
        let is_late = |interval| self.last_traversal.is_none_or(|last| now >= last + interval);
        self.keepalive.is_some_and(is_late)
    }

    /// New keys may be wanted.
    pub(crate) fn want(&mut self, now: At) {
        if self.path.is_some() {
            self.wanted = Some(now);
        }
    }

    /// A packet waits; how many were dropped for it.
    pub(crate) fn stage(&mut self, now: At, packet: &[u8]) -> u64 {
        self.staged.push_back(packet.to_vec());
        self.staged_at = now;
        if !self.is_usable(now) {
            self.want(now);
        }
        let is_full = self.staged.len() > STAGED;
        if is_full {
            self.staged.pop_front();
        }
        is_full.into()
    }

    /// Timers are about to be treated, which were treated before at `last`.
    pub(crate) fn before_timeout(&mut self, last: At, now: At) {
        let is_unanswered =
            |(first, sent): (At, At)| now >= first + ANSWER && sent + ANSWER + JITTER >= last;
        if self.unanswered.is_some_and(is_unanswered) {
            self.want(now);
        }
        let is_unacknowledged = self.unacknowledged.is_some_and(|since| now - since >= KEEPALIVE);
        if (is_unacknowledged || self.is_silent(now)) && !self.is_usable(now) {
            self.want(now);
        }
        if self.erasure.take_if(|at| *at <= now).is_some() {
            self.erase_keys();
        }
    }

    /// Timers were treated.
    pub(crate) fn after_timeout(&mut self, now: At) {
        if self.unacknowledged.is_some_and(|since| now - since >= KEEPALIVE) {
            assert!(!self.is_usable(now), "data is not acknowledged");
            self.unacknowledged = None;
        }
        // Whatever else wants new keys lets the attempt begin anew.
        let last_chance = self.wanted.max(Some(self.staged_at)).map(|since| since + ATTEMPT);
        let is_overdue = last_chance.is_some_and(|at| now > at + REKEY_TIMEOUT + JITTER);
        assert!(self.staged.is_empty() || !is_overdue, "a packet waits since {:?}", self.staged_at);
    }

    /// The attempt ended without keys; how many packets were dropped.
    pub(crate) fn give_up(&mut self, now: At) -> u64 {
        assert!(
            self.staged.is_empty() || now - self.staged_at >= ATTEMPT,
            "a packet is given up after {:?}",
            now - self.staged_at
        );
        self.erasure.get_or_insert(now + ERASE);
        self.unacknowledged = None;
        // What else is due at the same time may want keys again, and begin the next attempt.
        self.outstanding.take_if(|_| self.initiated != Some(now));
        self.wanted.take_if(|wanted| *wanted != now);
        let dropped = self.staged.len() as u64;
        self.staged.clear();
        dropped
    }

    /// An initiation had no answer.
    pub(crate) fn fail(&self, now: At) {
        let is_due = |last: At| now - last >= REKEY_TIMEOUT;
        assert!(self.initiated.is_some_and(is_due), "an initiation fails too early");
    }

    /// Handshakes that are not completed are worth nothing with another preshared key.
    pub(crate) fn set_psk(&mut self, psk: u8) {
        if std::mem::replace(&mut self.psk, psk) != psk {
            self.outstanding = None;
            let next = self.next.take_if(|next| !next.is_confirmed);
            self.forget(next);
        }
    }

    /// There are new keys.
    fn conclude(&mut self) {
        self.outstanding = None;
        self.wanted = None;
    }

    pub(crate) fn erase_keys(&mut self) {
        for key in [self.previous.take(), self.current.take(), self.next.take()] {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Option<Key>) {
        self.gone.extend(key.map(|key| key.local));
    }
}
