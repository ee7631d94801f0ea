//! Control frames that arrive: numbered, acknowledged, repeated.
//!
//! # Theory of operation
//!
//! Two peers that know frames of each other talk beside their data. What they say is short and rare, so one frame at
//! a time is on its way (stop and wait): it is repeated until it is acknowledged, first after
//! [`RETRY_FIRST`], then after twice as long each time up to [`RETRY_MAX`], at most [`TRIES_MAX`]
//! times in all. Then it is given up and the next one has its turn. Up to [`QUEUE_MAX`] frames wait.
//!
//! Frames are numbered from 1 in each direction, and every frame says the greatest number that has arrived.
//! A frame with a greater number than that is delivered; one that came before is only acknowledged again.
//! A number may be missing, that of a frame which was given up; order is kept in any case.
//!
//! A channel belongs to a keypair and ends with it. Replays, forgeries and frames of earlier keypairs never come here,
//! and 2^32 numbers cannot be used up.

use std::collections::VecDeque;
use std::time::Duration;

use wire::frame::{Control, ControlKind};

use crate::time::Instant;

/// When a frame is sent a second time.
pub const RETRY_FIRST: Duration = Duration::from_millis(250);
/// The longest time between two tries.
pub const RETRY_MAX: Duration = Duration::from_secs(4);
/// How often a frame is sent.
pub const TRIES_MAX: u32 = 8;
/// The most frames that wait behind the one on its way.
pub const QUEUE_MAX: usize = 16;

/// The control frames of one keypair.
#[derive(Debug, Default)]
pub struct Channel {
    /// The greatest number sent.
    sent: u32,
    /// The greatest number received.
    received: u32,
    on_its_way: Option<OnItsWay>,
    waiting: VecDeque<(ControlKind, Vec<u8>)>,
    /// Something arrived that no frame has acknowledged.
    owes_acknowledgment: bool,
}

#[derive(Debug)]
struct OnItsWay {
    number: u32,
    kind: ControlKind,
    body: Vec<u8>,
    tries: u32,
    /// When to send it, the next time.
    due: Instant,
}

/// What became of time that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Nothing, or a frame is to be sent again.
    Nothing,
    /// A frame of this kind was given up.
    GivenUp(ControlKind),
}

impl Channel {
    /// Queues a frame; false if too many wait.
    pub fn send(&mut self, now: Instant, kind: ControlKind, body: &[u8]) -> bool {
        if self.waiting.len() >= QUEUE_MAX || body.len() > Control::BODY_MAX {
            return false;
        }
        self.waiting.push_back((kind, body.to_vec()));
        self.advance(now);
        true
    }

    /// Takes a frame of the peer; its body is to be delivered if that is new.
    pub fn handle<'a>(
        &mut self,
        now: Instant,
        frame: &Control<'a>,
    ) -> Option<(ControlKind, &'a [u8])> {
        let arrived = |sent: &mut OnItsWay| sent.number <= frame.acknowledged;
        if self.on_its_way.take_if(arrived).is_some() {
            self.advance(now);
        }
        if frame.kind == ControlKind::Acknowledgment {
            return None;
        }
        self.owes_acknowledgment = true;
        let is_new = frame.number > self.received;
        self.received = self.received.max(frame.number);
        is_new.then_some((frame.kind, frame.body))
    }

    /// Gives up a frame that was sent as often as may be.
    pub fn handle_timeout(&mut self, now: Instant) -> Expired {
        match self.on_its_way.take_if(|frame| frame.due <= now && frame.tries >= TRIES_MAX) {
            Some(frame) => {
                self.advance(now);
                Expired::GivenUp(frame.kind)
            }
            None => Expired::Nothing,
        }
    }

    /// The next frame to seal and send: one whose time has come, or a mere acknowledgment that is owed.
    pub fn poll_frame(&mut self, now: Instant) -> Option<Vec<u8>> {
        let acknowledged = self.received;
        let due = self.on_its_way.as_mut().filter(|frame| frame.is_due(now));
        let frame = match due {
            Some(frame) => {
                frame.tries += 1;
                frame.due = now + retry_after(frame.tries);
                let (kind, number) = (frame.kind, frame.number);
                Control { kind, number, acknowledged, body: &frame.body }
            }
            None if self.owes_acknowledgment => {
                Control { kind: ControlKind::Acknowledgment, number: 0, acknowledged, body: &[] }
            }
            None => return None,
        };
        let mut octets = Vec::with_capacity(Control::HEADER_LEN + frame.body.len());
        frame.emit(&mut octets);
        self.owes_acknowledgment = false;
        Some(octets)
    }

    /// The kinds of the frames that are not acknowledged.
    pub fn unacknowledged(&self) -> impl Iterator<Item = ControlKind> {
        let waiting = self.waiting.iter().map(|&(kind, _)| kind);
        self.on_its_way.iter().map(|frame| frame.kind).chain(waiting)
    }

    /// When the frame on its way is sent again or given up.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.on_its_way.as_ref().map(|frame| frame.due)
    }

    /// Sets the next frame on its way if there is none.
    fn advance(&mut self, now: Instant) {
        if self.on_its_way.is_some() {
            return;
        }
        if let Some((kind, body)) = self.waiting.pop_front() {
            self.sent += 1;
            self.on_its_way = Some(OnItsWay { number: self.sent, kind, body, tries: 0, due: now });
        }
    }
}

impl OnItsWay {
    fn is_due(&self, now: Instant) -> bool {
        self.due <= now && self.tries < TRIES_MAX
    }
}

/// The time between this try and the next.
fn retry_after(tries: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(TRIES_MAX);
    (RETRY_FIRST * (1 << doublings)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: ControlKind = ControlKind::Hello;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    /// Everything that `channel` has to send.
    fn drain(channel: &mut Channel, now: Instant) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| channel.poll_frame(now)).collect()
    }

    fn handle(channel: &mut Channel, now: Instant, frame: &[u8]) -> Option<Vec<u8>> {
        let frame = Control::parse(frame).unwrap();
        channel.handle(now, &frame).map(|(_, body)| body.to_vec())
    }

    #[test]
    fn a_frame_is_repeated_ever_slower_and_given_up() {
        let mut channel = Channel::default();
        assert!(channel.send(at(0), HELLO, b"x"));
        let mut times = Vec::new();
        let mut now = at(0);
        while let Some(due) = channel.poll_timeout() {
            now = due;
            match channel.handle_timeout(now) {
                Expired::GivenUp(kind) => assert_eq!(kind, HELLO),
                Expired::Nothing => {
                    assert_eq!(drain(&mut channel, now).len(), 1);
                    times.push(now.as_nanos() / 1_000_000);
                }
            }
        }
        assert_eq!(times, [0, 250, 750, 1750, 3750, 7750, 11_750, 15_750]);
        assert_eq!(now, at(19_750));
    }

    #[test]
    fn a_frame_is_delivered_once_and_acknowledged_each_time() {
        let (mut a, mut b) = (Channel::default(), Channel::default());
        a.send(at(0), HELLO, b"x");
        let frame = drain(&mut a, at(0)).remove(0);
        assert_eq!(handle(&mut b, at(1), &frame), Some(b"x".to_vec()));
        let acknowledgment = drain(&mut b, at(1)).remove(0);
        assert_eq!(acknowledgment, [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(handle(&mut b, at(2), &frame), None);
        assert_eq!(drain(&mut b, at(2)).concat(), acknowledgment);
        assert!(a.unacknowledged().eq([HELLO]));
        assert_eq!(handle(&mut a, at(3), &acknowledgment), None);
        assert_eq!((a.poll_timeout(), a.unacknowledged().next()), (None, None));
        assert!(drain(&mut a, at(9999)).is_empty());
    }

    #[test]
    fn an_answer_acknowledges_too() {
        let (mut a, mut b) = (Channel::default(), Channel::default());
        a.send(at(0), HELLO, b"x");
        handle(&mut b, at(1), &drain(&mut a, at(0)).remove(0));
        b.send(at(1), HELLO, b"y");
        let frames = drain(&mut b, at(1));
        assert_eq!(frames, [[1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'y']]);
        assert_eq!(handle(&mut a, at(2), &frames[0]), Some(b"y".to_vec()));
        assert_eq!(a.poll_timeout(), None);
    }

    #[test]
    fn one_frame_is_on_its_way_at_a_time_and_few_wait() {
        let mut channel = Channel::default();
        for _ in 0..=QUEUE_MAX {
            assert!(channel.send(at(0), HELLO, b""));
        }
        assert!(!channel.send(at(0), HELLO, b""));
        assert_eq!(channel.unacknowledged().count(), 1 + QUEUE_MAX);
        assert_eq!(drain(&mut channel, at(0)).len(), 1);
    }

    #[test]
    fn what_follows_a_frame_that_was_given_up_is_delivered() {
        let (mut a, mut b) = (Channel::default(), Channel::default());
        a.send(at(0), HELLO, b"lost");
        a.send(at(0), HELLO, b"kept");
        while a.handle_timeout(a.poll_timeout().unwrap()) == Expired::Nothing {
            let now = a.poll_timeout().unwrap();
            drain(&mut a, now);
        }
        let frame = drain(&mut a, at(60_000)).remove(0);
        assert_eq!(handle(&mut b, at(60_000), &frame), Some(b"kept".to_vec()));
    }
}
