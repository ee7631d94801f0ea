//! Sending in batches.
//!
//! A [`SendBatch`] is one buffer, in which datagrams stand one behind the other, and the list of
//! the groups that they make. Sending walks through the list: it lays out as many messages as one
//! system call takes, removes from the batch what the kernel took, and finds a [`Remedy`] for the
//! first message that it did not take. What is in the batch is thus always exactly what is still to
//! be sent.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::DATAGRAM_OCTETS;
use super::address::{Destination, RawAddress};
use super::control::Control;
use super::group::{Group, SEGMENTS_BEFORE_6_9};

/// Octets of datagrams in a batch: three messages of the largest size and one datagram of any size.
const BUFFER_OCTETS: usize = 256 * 1024;

/// Groups in a batch.
const GROUPS: usize = 256;

/// Messages in one system call.
pub(super) const MESSAGES: usize = 64;

/// Datagrams to be sent together.
///
/// Made once for each sending thread. Writing a datagram takes two steps,
/// [`reserve`](Self::reserve) and [`commit`](Self::commit);
/// [`UdpSocket::send`](super::UdpSocket::send) empties the batch.
pub struct SendBatch {
    buffer: Box<[u8]>,
    /// Where the next datagram goes.
    end: usize,
    /// How many octets the last reservation granted.
    reserved: usize,
    groups: Vec<Group>,
    /// The first group that is not sent.
    head: usize,
    datagrams: usize,
    messages: Box<[OutgoingMessage]>,
}

/// One message, laid out for the kernel.
pub(super) struct OutgoingMessage {
    pub(super) remote: RawAddress,
    pub(super) control: Control,
    /// Where its octets stand in the buffer.
    pub(super) range: Range<usize>,
    datagrams: usize,
    /// Whether it says which of our addresses it leaves from.
    sourced: bool,
}

/// What became of a batch.
#[derive(Debug, Default)]
#[must_use]
pub struct SendOutcome {
    /// Datagrams that the kernel took.
    pub sent: usize,
    /// The sum of their lengths.
    pub octets: usize,
    /// Datagrams that the kernel refused. They are gone.
    pub dropped: usize,
    /// Why the last of the dropped ones was refused.
    pub error: Option<io::Error>,
    /// The send buffer of the socket is full and the rest still in the batch: wait until the socket
    /// is writable (`POLLOUT`) and send again.
    pub blocked: bool,
}

/// What to do about the first message of a system call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// Wait for room in the send buffer.
    Wait,
    /// This kernel takes 64 segments, not 128.
    FewerSegments,
    /// Datagrams of this group do not go together.
    Singly,
    /// No datagrams go together on this socket.
    AlwaysSingly,
    /// The source address is gone: let the kernel choose.
    WithoutSource,
    /// The network or the kernel refuses it.
    Drop,
}

impl SendBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_OCTETS].into_boxed_slice(),
            end: 0,
            reserved: 0,
            groups: Vec::with_capacity(GROUPS),
            head: 0,
            datagrams: 0,
            messages: (0..MESSAGES).map(|_| OutgoingMessage::EMPTY).collect(),
        }
    }

    /// Whether nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.datagrams == 0
    }

    /// Whether there is no room for another datagram of the largest size.
    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.end < DATAGRAM_OCTETS || self.groups.len() == GROUPS
    }

    /// Room for one datagram of up to `len` octets, with whatever was there before.
    ///
    /// `None` if it does not fit: then the batch has to be sent first, or `len` is more than
    /// [`DATAGRAM_OCTETS`].
    pub fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        self.reserved = 0;
        if len > DATAGRAM_OCTETS || self.groups.len() == GROUPS {
            return None;
        }
        let room = self.buffer[self.end..].get_mut(..len)?;
        self.reserved = len;
        Some(room)
    }

    /// Adds the first `len` octets of the room reserved last as one datagram for `destination`.
    ///
    /// # Panics
    ///
    /// If `len` is more than was reserved.
    pub fn commit(&mut self, len: usize, destination: &Destination) {
        assert!(len <= self.reserved, "a datagram is written where room was reserved");
        let start = self.end;
        self.end += len;
        self.reserved = 0;
        self.datagrams += 1;
        let open = self.groups.get_mut(self.head..).and_then(<[Group]>::last_mut);
        if !open.is_some_and(|group| group.join(len, destination)) {
            self.groups.push(Group::new(start..self.end, *destination));
        }
    }

    /// The number of datagrams to be sent.
    pub fn datagrams(&self) -> usize {
        self.datagrams
    }

    /// The sum of their lengths.
    pub fn octets(&self) -> usize {
        self.groups.get(self.head).map_or(0, |first| self.end - first.range().start)
    }

    /// Sends by `transmit`, which is sendmmsg(2): it takes some of the messages, at least the
    /// first, or fails because of the first.
    ///
    /// `segments` is how many datagrams the socket takes in a message, lowered here when it turns
    /// out to be fewer. Sources are left out unless `sourced`.
    pub(super) fn drain(
        &mut self,
        segments: &AtomicUsize,
        sourced: bool,
        mut transmit: impl FnMut(&[u8], &[OutgoingMessage]) -> io::Result<usize>,
    ) -> SendOutcome {
        let mut outcome = SendOutcome::default();
        while !self.is_empty() {
            let messages = self.lay_out(segments.load(Ordering::Relaxed), sourced);
            let octets = self.octets();
            match transmit(&self.buffer, &self.messages[..messages]) {
                Ok(taken) if taken > 0 => {
                    outcome.sent += self.remove_messages(taken);
                    outcome.octets += octets - self.octets();
                }
                Ok(_) => self.handle_error(io::ErrorKind::WriteZero.into(), segments, &mut outcome),
                Err(error) => self.handle_error(error, segments, &mut outcome),
            }
            if outcome.blocked {
                return outcome;
            }
        }
        self.clear();
        outcome
    }

    /// Lays out the first messages of the batch, as many as one system call takes.
    fn lay_out(&mut self, segments: usize, sourced: bool) -> usize {
        let mut room = self.messages.iter_mut();
        let mut messages = 0;
        for group in &self.groups[self.head..] {
            let remote = RawAddress::emit(group.destination.remote);
            for (range, datagrams) in group.messages(segments) {
                let Some(message) = room.next() else {
                    return messages;
                };
                message.remote = remote;
                message.range = range;
                message.datagrams = datagrams;
                message.control.clear();
                let source = group.destination.local.filter(|_| sourced);
                message.sourced = source.is_some();
                if let Some(local) = source {
                    message.control.push_source(&local);
                }
                if datagrams > 1 {
                    message.control.push_segment_size(group.segment_size());
                }
                messages += 1;
            }
        }
        messages
    }

    /// Removes the first `messages` as they were laid out and says how many datagrams they held.
    fn remove_messages(&mut self, messages: usize) -> usize {
        let mut removed = 0;
        for message in self.messages.iter().take(messages) {
            let group = &mut self.groups[self.head];
            if message.datagrams < group.datagrams() {
                group.remove_first(message.datagrams);
            } else {
                self.head += 1;
            }
            removed += message.datagrams;
        }
        self.datagrams -= removed;
        removed
    }

    /// Treats the failure of the first message that was laid out.
    fn handle_error(
        &mut self,
        error: io::Error,
        segments: &AtomicUsize,
        outcome: &mut SendOutcome,
    ) {
        let message = &self.messages[0];
        let group = &mut self.groups[self.head];
        match Remedy::of(&error, message.datagrams, message.sourced) {
            Remedy::Wait => outcome.blocked = true,
            Remedy::FewerSegments => {
                segments.fetch_min(SEGMENTS_BEFORE_6_9, Ordering::Relaxed);
            }
            Remedy::Singly => group.singly = true,
            Remedy::AlwaysSingly => segments.store(1, Ordering::Relaxed),
            Remedy::WithoutSource => group.destination.local = None,
            Remedy::Drop => {
                outcome.dropped += self.remove_messages(1);
                outcome.error = Some(error);
            }
        }
    }

    /// Throws away what is to be sent.
    pub fn clear(&mut self) {
        self.end = 0;
        self.reserved = 0;
        self.groups.clear();
        self.head = 0;
        self.datagrams = 0;
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl OutgoingMessage {
    const EMPTY: Self = Self {
        remote: RawAddress::EMPTY,
        control: Control::EMPTY,
        range: 0..0,
        datagrams: 0,
        sourced: false,
    };
}

impl Remedy {
    /// The remedy when a message of so many `datagrams`, with its source address set if `sourced`,
    /// fails.
    fn of(error: &io::Error, datagrams: usize, sourced: bool) -> Self {
        let joined = datagrams > 1;
        match error.raw_os_error().unwrap_or_default() {
            libc::EAGAIN => Self::Wait,
            libc::EIO | libc::ENOPROTOOPT if joined => Self::AlwaysSingly,
            libc::EINVAL if datagrams > SEGMENTS_BEFORE_6_9 => Self::FewerSegments,
            libc::EINVAL | libc::EMSGSIZE if joined => Self::Singly,
            libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH if sourced => {
                Self::WithoutSource
            }
            _ => Self::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LocalAddr;
    use super::super::group::SEGMENTS;
    use super::*;
    use proptest::prelude::*;

    /// What `transmit` sees, and what it does in turn.
    #[derive(Default)]
    struct Kernel {
        /// For each call: take so many messages, or fail with this `errno`. Afterwards everything
        /// is taken.
        script: Vec<Result<usize, i32>>,
        calls: usize,
        /// Port and octets of each datagram on the wire.
        wire: Vec<(u16, Vec<u8>)>,
        /// For each message taken, how many datagrams and whether with a source.
        messages: Vec<(usize, bool)>,
    }

    impl Kernel {
        fn scripted(script: &[Result<usize, i32>]) -> Self {
            Self { script: script.to_vec(), ..Self::default() }
        }

        fn transmit(&mut self, buffer: &[u8], messages: &[OutgoingMessage]) -> io::Result<usize> {
            assert!((1..=MESSAGES).contains(&messages.len()));
            let step = self.script.get(self.calls).copied().unwrap_or(Ok(MESSAGES));
            self.calls += 1;
            let taken = step.map_err(io::Error::from_raw_os_error)?.min(messages.len());
            for message in &messages[..taken] {
                self.take(&buffer[message.range.clone()], message);
            }
            Ok(taken)
        }

        /// Cuts as the kernel does, by the segment size in the control messages.
        fn take(&mut self, octets: &[u8], message: &OutgoingMessage) {
            let port = message.remote.parse().unwrap().port();
            let segment_size = message.control.entries().find(|entry| entry.1 == libc::UDP_SEGMENT);
            let size = match segment_size {
                Some((_, _, data)) => u16::from_ne_bytes(data.try_into().unwrap()).into(),
                None => octets.len().max(1),
            };
            let before = self.wire.len();
            if octets.is_empty() {
                self.wire.push((port, Vec::new()));
            }
            self.wire.extend(octets.chunks(size).map(|datagram| (port, datagram.to_vec())));
            assert_eq!(self.wire.len() - before, message.datagrams);
            let sourced = message.control.entries().any(|entry| entry.1 == libc::IP_PKTINFO);
            self.messages.push((message.datagrams, sourced));
        }

        fn send(&mut self, batch: &mut SendBatch, segments: &AtomicUsize) -> SendOutcome {
            batch.drain(segments, true, |buffer, messages| self.transmit(buffer, messages))
        }
    }

    fn destination(port: u16) -> Destination {
        let local = Some(LocalAddr { ip: [192, 0, 2, 9].into(), interface: 0 });
        Destination { remote: ([192, 0, 2, 1], port).into(), local }
    }

    /// A batch of datagrams, each by its port and its length, and what they are on the wire.
    fn batch_of(datagrams: &[(u16, usize)]) -> (SendBatch, Vec<(u16, Vec<u8>)>) {
        let mut batch = SendBatch::new();
        let mut wire = Vec::new();
        for (index, &(port, len)) in datagrams.iter().enumerate() {
            let fill = index.to_le_bytes()[0];
            batch.reserve(len).unwrap().fill(fill);
            batch.commit(len, &destination(port));
            wire.push((port, vec![fill; len]));
        }
        (batch, wire)
    }

    fn errno(outcome: &SendOutcome) -> Option<i32> {
        outcome.error.as_ref().and_then(io::Error::raw_os_error)
    }

    #[test]
    fn a_batch_is_sent_whole_and_is_empty_afterwards() {
        let (mut batch, wire) = batch_of(&[(1, 100), (1, 100), (1, 30), (2, 0), (1, 100)]);
        assert_eq!((batch.datagrams(), batch.octets()), (5, 330));
        let mut kernel = Kernel::default();
        let outcome = kernel.send(&mut batch, &AtomicUsize::new(SEGMENTS));
        assert_eq!((outcome.sent, outcome.dropped, outcome.blocked), (5, 0, false));
        assert_eq!(outcome.octets, 330);
        assert_eq!(kernel.wire, wire);
        assert_eq!(kernel.messages, [(3, true), (1, true), (1, true)]);
        assert_eq!((batch.is_empty(), batch.datagrams(), batch.octets()), (true, 0, 0));
    }

    #[test]
    fn a_failing_message_in_the_middle_loses_no_other() {
        let (mut batch, mut wire) = batch_of(&[(1, 10), (1, 10), (2, 10), (2, 10), (3, 10)]);
        let mut kernel = Kernel::scripted(&[Ok(1), Err(libc::EHOSTUNREACH)]);
        let outcome = kernel.send(&mut batch, &AtomicUsize::new(SEGMENTS));
        assert_eq!((outcome.sent, outcome.octets, outcome.dropped), (3, 30, 2));
        assert_eq!(errno(&outcome), Some(libc::EHOSTUNREACH));
        wire.drain(2..4);
        assert_eq!(kernel.wire, wire);
    }

    #[test]
    fn what_the_network_refuses_is_dropped_with_its_cause() {
        let causes = [
            libc::ECONNREFUSED,
            libc::EHOSTUNREACH,
            libc::ENETDOWN,
            libc::EPERM,
            libc::ENOBUFS,
            libc::EBADF,
        ];
        for cause in causes {
            let (mut batch, _) = batch_of(&[(1, 10), (2, 10)]);
            let mut kernel = Kernel::scripted(&[Err(cause)]);
            let outcome = kernel.send(&mut batch, &AtomicUsize::new(SEGMENTS));
            assert_eq!((outcome.sent, outcome.dropped, outcome.blocked), (1, 1, false));
            assert_eq!(errno(&outcome), Some(cause));
        }
    }

    #[test]
    fn a_full_send_buffer_leaves_the_rest_in_the_batch() {
        let (mut batch, wire) = batch_of(&[(1, 10), (1, 10), (2, 10), (2, 7)]);
        let mut kernel = Kernel::scripted(&[Ok(1), Err(libc::EAGAIN)]);
        let segments = AtomicUsize::new(1);
        let outcome = kernel.send(&mut batch, &segments);
        assert_eq!((outcome.sent, outcome.dropped, outcome.blocked), (1, 0, true));
        assert_eq!((batch.datagrams(), batch.octets()), (3, 27));
        let outcome = kernel.send(&mut batch, &segments);
        assert_eq!((outcome.sent, outcome.dropped, outcome.blocked), (3, 0, false));
        assert_eq!(kernel.wire, wire);
    }

    #[test]
    fn a_blocked_batch_that_is_given_up_holds_nothing_of_it_later() {
        let (mut batch, _) = batch_of(&[(1, 10), (2, 10)]);
        let mut kernel = Kernel::scripted(&[Ok(1), Err(libc::EAGAIN)]);
        let segments = AtomicUsize::new(SEGMENTS);
        assert!(kernel.send(&mut batch, &segments).blocked);
        batch.clear();
        assert_eq!((batch.is_empty(), batch.datagrams(), batch.octets()), (true, 0, 0));
        batch.reserve(4).unwrap().fill(9);
        batch.commit(4, &destination(3));
        assert_eq!(kernel.send(&mut batch, &segments).octets, 4);
        assert_eq!(kernel.wire[1..], [(3, vec![9; 4])]);
    }

    #[test]
    fn a_kernel_of_64_segments_is_found_out_once() {
        let datagrams = [(1, 10); 128];
        let segments = AtomicUsize::new(SEGMENTS);
        let (mut batch, wire) = batch_of(&datagrams);
        let mut kernel = Kernel::scripted(&[Err(libc::EINVAL)]);
        assert_eq!(kernel.send(&mut batch, &segments).sent, 128);
        assert_eq!(kernel.wire, wire);
        let (mut batch, _) = batch_of(&datagrams);
        assert_eq!(kernel.send(&mut batch, &segments).sent, 128);
        assert_eq!(kernel.messages, [(64, true); 4]);
    }

    #[test]
    fn a_group_larger_than_the_path_goes_singly_and_the_next_together() {
        let (mut batch, wire) = batch_of(&[(1, 10), (1, 10), (2, 10), (2, 10)]);
        let segments = AtomicUsize::new(SEGMENTS);
        let mut kernel = Kernel::scripted(&[Err(libc::EMSGSIZE)]);
        assert_eq!(kernel.send(&mut batch, &segments).sent, 4);
        assert_eq!(kernel.wire, wire);
        assert_eq!(kernel.messages, [(1, true), (1, true), (2, true)]);
        assert_eq!(segments.into_inner(), SEGMENTS);
    }

    #[test]
    fn a_device_without_checksums_ends_segmentation() {
        for cause in [libc::EIO, libc::ENOPROTOOPT] {
            let (mut batch, wire) = batch_of(&[(1, 10), (1, 10), (2, 10), (2, 10)]);
            let segments = AtomicUsize::new(SEGMENTS);
            let mut kernel = Kernel::scripted(&[Err(cause)]);
            assert_eq!(kernel.send(&mut batch, &segments).sent, 4);
            assert_eq!(kernel.wire, wire);
            assert_eq!(kernel.messages, [(1, true); 4]);
            assert_eq!(segments.into_inner(), 1);
        }
    }

    #[test]
    fn a_datagram_too_large_by_itself_is_dropped() {
        let (mut batch, wire) = batch_of(&[(1, 10), (1, 10)]);
        let mut kernel = Kernel::scripted(&[Err(libc::EMSGSIZE), Err(libc::EMSGSIZE)]);
        let outcome = kernel.send(&mut batch, &AtomicUsize::new(SEGMENTS));
        assert_eq!((outcome.sent, outcome.dropped), (1, 1));
        assert_eq!(errno(&outcome), Some(libc::EMSGSIZE));
        assert_eq!(kernel.wire, wire[1..]);
    }

    #[test]
    fn without_its_source_address_a_message_leaves_from_another() {
        for cause in [libc::EINVAL, libc::EADDRNOTAVAIL, libc::ENETUNREACH] {
            let (mut batch, wire) = batch_of(&[(1, 10), (2, 10)]);
            let mut kernel = Kernel::scripted(&[Err(cause)]);
            let outcome = kernel.send(&mut batch, &AtomicUsize::new(SEGMENTS));
            assert_eq!((outcome.sent, outcome.dropped), (2, 0));
            assert_eq!(kernel.wire, wire);
            assert_eq!(kernel.messages, [(1, false), (1, true)]);
        }
    }

    #[test]
    fn the_source_address_is_given_up_only_once() {
        let (mut batch, _) = batch_of(&[(1, 10)]);
        let mut kernel = Kernel::scripted(&[Err(libc::ENETUNREACH), Err(libc::ENETUNREACH)]);
        let outcome = kernel.send(&mut batch, &AtomicUsize::new(SEGMENTS));
        assert_eq!((outcome.sent, outcome.dropped, kernel.calls), (0, 1, 2));
        assert_eq!(errno(&outcome), Some(libc::ENETUNREACH));
    }

    #[test]
    fn a_batch_is_full_when_the_largest_datagram_has_no_room() {
        let mut batch = SendBatch::new();
        for _ in 0..3 {
            assert!(!batch.is_full());
            batch.reserve(DATAGRAM_OCTETS).unwrap();
            batch.commit(DATAGRAM_OCTETS, &destination(1));
        }
        assert!(!batch.is_full());
        batch.reserve(1000).unwrap();
        batch.commit(1000, &destination(1));
        assert!(batch.is_full());
        assert!(batch.reserve(DATAGRAM_OCTETS).is_none());
        assert!(batch.reserve(1000).is_some());
    }

    #[test]
    fn a_batch_is_full_when_its_list_is() {
        let mut batch = SendBatch::new();
        for port in 0..256 {
            assert!(!batch.is_full());
            batch.reserve(1).unwrap();
            batch.commit(1, &destination(port));
        }
        assert!(batch.is_full());
        assert!(batch.reserve(1).is_none());
    }

    #[test]
    fn no_room_is_granted_for_more_than_a_datagram() {
        assert!(SendBatch::new().reserve(DATAGRAM_OCTETS + 1).is_none());
    }

    #[test]
    fn a_datagram_may_be_shorter_than_the_room_reserved() {
        let mut batch = SendBatch::new();
        for fill in [1, 2] {
            batch.reserve(100).unwrap()[..40].fill(fill);
            batch.commit(40, &destination(1));
        }
        let mut kernel = Kernel::default();
        assert_eq!(kernel.send(&mut batch, &AtomicUsize::new(SEGMENTS)).sent, 2);
        assert_eq!(kernel.wire, [(1, vec![1; 40]), (1, vec![2; 40])]);
    }

    #[test]
    #[should_panic(expected = "a datagram is written where room was reserved")]
    fn room_is_used_once() {
        let mut batch = SendBatch::new();
        batch.reserve(10).unwrap();
        batch.commit(10, &destination(1));
        batch.commit(10, &destination(1));
    }

    const ERRORS: [i32; 6] =
        [libc::EAGAIN, libc::EINVAL, libc::EMSGSIZE, libc::EIO, libc::EPERM, libc::ENETUNREACH];

    fn step() -> impl Strategy<Value = Result<usize, i32>> {
        prop_oneof![(1..5_usize).prop_map(Ok), prop::sample::select(&ERRORS[..]).prop_map(Err)]
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_does_no_datagram_is_doubled_or_lost_uncounted(
            datagrams in prop::collection::vec(
                (1..3_u16, prop::sample::select(&[0, 1, 50, 100][..])),
                0..200,
            ),
            script in prop::collection::vec(step(), 0..60),
        ) {
            let (mut batch, wire) = batch_of(&datagrams);
            let mut kernel = Kernel::scripted(&script);
            let segments = AtomicUsize::new(SEGMENTS);
            let (mut sent, mut dropped) = (0, 0);
            loop {
                let outcome = kernel.send(&mut batch, &segments);
                sent += outcome.sent;
                dropped += outcome.dropped;
                prop_assert_eq!(sent + dropped + batch.datagrams(), datagrams.len());
                if !outcome.blocked {
                    break;
                }
            }
            prop_assert!(batch.is_empty());
            prop_assert_eq!(kernel.wire.len(), sent);
            let mut rest = wire.iter();
            prop_assert!(kernel.wire.iter().all(|datagram| rest.any(|other| other == datagram)));
        }
    }
}
