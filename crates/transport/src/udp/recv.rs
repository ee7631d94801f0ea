//! Receiving in batches.
//!
//! A [`RecvBatch`] is one arena cut into slots. A slot takes a whole message, however large, so
//! that nothing is ever cut off; pages of a slot that no message reaches are never touched and cost
//! no memory.

use std::ops::Range;

use super::address::{Origin, RawAddress};
use super::control::Control;

/// Messages in one system call.
pub const SLOTS: usize = 8;

/// Room for one message: no UDP message, coalesced or not, is longer than 65,535 octets.
pub(super) const SLOT_OCTETS: usize = 65_536;

/// What one call of [`UdpSocket::recv`](super::UdpSocket::recv) received.
///
/// Made once for each receiving thread; it holds 512 KiB, of which only what was written to takes
/// memory.
pub struct RecvBatch {
    arena: Box<[u8]>,
    slots: Box<[Slot]>,
    /// How many slots hold a message.
    messages: usize,
}

/// What the kernel says of the message in one slot of the arena.
pub(super) struct Slot {
    pub(super) remote: RawAddress,
    pub(super) control: Control,
    /// Octets of the message that are in the arena.
    pub(super) len: usize,
    /// `msg_flags` of recvmsg(2).
    pub(super) flags: i32,
}

/// One message: a datagram, or several of one sender and one size that the kernel coalesced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender, and which of our addresses it was sent to.
    pub origin: Origin,
    /// Where it stands in the arena.
    pub range: Range<usize>,
    /// Octets of every datagram in it but the last, which may be shorter; all octets if there is
    /// only one.
    pub segment_size: usize,
    /// Whether its end was cut off. Such a message is to be counted as a drop.
    pub truncated: bool,
}

impl RecvBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            arena: vec![0; SLOTS * SLOT_OCTETS].into_boxed_slice(),
            slots: (0..SLOTS).map(|_| Slot::EMPTY).collect(),
            messages: 0,
        }
    }

    /// The octets that the ranges of messages and datagrams refer to.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// As [`arena`](Self::arena), to open datagrams in place.
    pub fn arena_mut(&mut self) -> &mut [u8] {
        &mut self.arena
    }

    /// The messages received, in the order of their arrival.
    pub fn messages(&self) -> impl Iterator<Item = Message> {
        messages(&self.slots[..self.messages])
    }

    /// The messages together with the arena, to open datagrams in place while going through them.
    pub fn split(&mut self) -> (impl Iterator<Item = Message>, &mut [u8]) {
        (messages(&self.slots[..self.messages]), &mut self.arena)
    }

    /// Receives by `receive`, which fills slots and their parts of the arena and says how many.
    pub(super) fn fill<E>(
        &mut self,
        receive: impl FnOnce(&mut [u8], &mut [Slot]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.messages = 0;
        self.messages = receive(&mut self.arena, &mut self.slots)?.min(SLOTS);
        Ok(self.messages)
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Slot {
    const EMPTY: Self =
        Self { remote: RawAddress::EMPTY, control: Control::EMPTY, len: 0, flags: 0 };

    /// The message in this slot, whose part of the arena begins at `start`.
    fn message(&self, start: usize) -> Option<Message> {
        let remote = self.remote.parse()?;
        let (local, segment_size) = self.control.parse();
        let len = self.len.min(SLOT_OCTETS);
        Some(Message {
            origin: Origin { remote, local },
            range: start..start + len,
            segment_size: segment_size.filter(|&size| size > 0).map_or(len, |size| size.min(len)),
            truncated: self.flags & libc::MSG_TRUNC != 0,
        })
    }
}

impl Message {
    /// Where the datagrams stand in the arena; an empty range is a datagram without octets. None of
    /// a truncated message.
    pub fn datagrams(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
        let Range { start, end } = self.range;
        let segment_size = self.segment_size.max(1);
        let datagrams =
            if self.truncated { 0 } else { self.range.len().div_ceil(segment_size).max(1) };
        (0..datagrams).map(move |index| {
            let start = start + index * segment_size;
            start..end.min(start + segment_size)
        })
    }
}

/// The messages in `slots`, which are the first of the arena.
fn messages(slots: &[Slot]) -> impl Iterator<Item = Message> {
    slots.iter().enumerate().filter_map(|(index, slot)| slot.message(index * SLOT_OCTETS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(len: usize, flags: i32) -> Slot {
        let remote = RawAddress::emit("192.0.2.1:4740".parse().unwrap());
        Slot { remote, control: Control::EMPTY, len, flags }
    }

    fn message(range: Range<usize>, segment_size: usize) -> Message {
        let remote = "192.0.2.1:4740".parse().unwrap();
        let origin = Origin { remote, local: None };
        Message { origin, range, segment_size, truncated: false }
    }

    /// Start and end of each datagram.
    fn datagrams(message: &Message) -> Vec<(usize, usize)> {
        message.datagrams().map(|datagram| (datagram.start, datagram.end)).collect()
    }

    #[test]
    fn a_message_that_is_not_coalesced_is_one_datagram() {
        assert_eq!(slot(92, 0).message(65_536), Some(message(65_536..65_628, 92)));
        assert_eq!(datagrams(&message(65_536..65_628, 92)), [(65_536, 65_628)]);
    }

    #[test]
    fn a_coalesced_message_is_cut_at_its_segment_size() {
        assert_eq!(datagrams(&message(100..400, 100)), [(100, 200), (200, 300), (300, 400)]);
        assert_eq!(datagrams(&message(100..301, 100)), [(100, 200), (200, 300), (300, 301)]);
        assert_eq!(message(100..301, 100).datagrams().len(), 3);
    }

    #[test]
    fn a_datagram_without_octets_is_an_empty_range() {
        assert_eq!(datagrams(&slot(0, 0).message(7).unwrap()), [(7, 7)]);
    }

    #[test]
    fn a_truncated_message_says_so_and_holds_no_datagrams() {
        let message = slot(SLOT_OCTETS, libc::MSG_TRUNC).message(0).unwrap();
        assert!(message.truncated);
        assert_eq!(message.range, 0..SLOT_OCTETS);
        assert_eq!(datagrams(&message), []);
    }

    #[test]
    fn a_slot_ends_where_the_next_begins() {
        assert_eq!(slot(SLOT_OCTETS + 1, 0).message(0).unwrap().range, 0..SLOT_OCTETS);
    }

    #[test]
    fn a_failed_call_leaves_no_messages_of_the_one_before() {
        let mut batch = RecvBatch::new();
        let received = batch.fill(|_, slots| {
            slots[0] = slot(5, 0);
            Ok::<_, ()>(1)
        });
        assert_eq!(received, Ok(1));
        assert_eq!(batch.messages().count(), 1);
        assert_eq!(batch.fill(|_, _| Err(())), Err(()));
        assert_eq!(batch.messages().count(), 0);
    }
}
