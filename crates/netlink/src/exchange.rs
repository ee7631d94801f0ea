//! The answers to a request, as they arrive, without the socket.
//!
//! Every request has its own sequence number and every answer repeats it. Answers with another one
//! belong to an exchange that was given up and are passed over. Four shapes of exchange:
//!
//! - a **change** is answered by one `NLMSG_ERROR`, with error number 0 for success ([`acknowledged`]);
//! - a **query** by one object or one `NLMSG_ERROR` ([`answered`]);
//! - a **dump** by any number of objects and one `NLMSG_DONE` ([`Dump`]). If the table changed while
//!   it was dumped, some message carries `NLM_F_DUMP_INTR`: objects may be missing or double, and
//!   the dump is to be repeated. A dump with a malformed message is read to its end, so that the
//!   socket is free for the next one;
//! - a **transaction** is several changes in a row, each with a sequence number of its own, between two
//!   brackets ([`Transaction`]). The kernel answers every request that it refuses and the last, which
//!   asks for it; what it holds against the whole it says of the opening bracket
//!   (`nfnetlink_rcv_batch` in net/netfilter/nfnetlink.c).

use netlink_packet_core::{DecodeError, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};

use crate::error::Cause;
use crate::message::{Message, messages};

/// The most objects that one dump may hold: four times the routes of the Internet.
pub(crate) const DUMP_LIMIT: usize = 4 << 20;

/// Finds the acknowledgement of a change in a datagram; `None` if it is still to come.
pub(crate) fn acknowledged(datagram: &[u8], sequence: u32) -> Option<Result<(), Cause>> {
    own_messages(datagram, sequence).find_map(|message| match message {
        Ok(message) if message.kind == NLMSG_ERROR => Some(message.verdict()),
        Ok(_) => None,
        Err(error) => Some(Err(error.into())),
    })
}

/// Finds the answer to a query in a datagram; `None` if it is still to come.
pub(crate) fn answered(datagram: &[u8], sequence: u32) -> Option<Result<Message<'_>, Cause>> {
    own_messages(datagram, sequence).next().map(|message| {
        let message = message?;
        match message.kind {
            NLMSG_ERROR | NLMSG_DONE => message.verdict().and(Err(Cause::NoAnswer)),
            _ => Ok(message),
        }
    })
}

/// A dump in progress.
#[derive(Debug)]
pub(crate) struct Dump<T> {
    sequence: u32,
    objects: Vec<T>,
    interrupted: bool,
    failure: Option<Cause>,
}

/// How a dump ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Dumped<T> {
    /// All objects, each as it was at one moment.
    Complete(Vec<T>),
    /// The table changed meanwhile: repeat.
    Interrupted,
}

impl<T> Dump<T> {
    pub(crate) fn new(sequence: u32) -> Self {
        Self { sequence, objects: Vec::new(), interrupted: false, failure: None }
    }

    /// Takes the objects of a datagram; true when the dump has ended.
    pub(crate) fn handle_datagram(
        &mut self,
        datagram: &[u8],
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> bool {
        for message in own_messages(datagram, self.sequence) {
            match message {
                Ok(message) if self.handle_message(&message, &parse) => return true,
                Ok(_) => {}
                Err(error) => self.fail(error.into()),
            }
        }
        false
    }

    fn handle_message(
        &mut self,
        message: &Message<'_>,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> bool {
        self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        if matches!(message.kind, NLMSG_DONE | NLMSG_ERROR) {
            if let Err(cause) = message.verdict() {
                self.fail(cause);
            }
            return true;
        }
        match parse(message) {
            Ok(Some(_)) if self.objects.len() >= DUMP_LIMIT => self.fail(Cause::TooMany),
            Ok(Some(object)) => self.objects.push(object),
            Ok(None) => {}
            Err(error) => self.fail(error.into()),
        }
        false
    }

    /// What came of it, once [`Self::handle_datagram`] said that it has ended.
    pub(crate) fn finish(self) -> Result<Dumped<T>, Cause> {
        match self.failure {
            Some(cause) => Err(cause),
            None if self.interrupted => Ok(Dumped::Interrupted),
            None => Ok(Dumped::Complete(self.objects)),
        }
    }

    /// Why it ended without an end: the malformed message before it, else `cause`.
    pub(crate) fn abandon(self, cause: Cause) -> Cause {
        self.failure.unwrap_or(cause)
    }

    fn fail(&mut self, cause: Cause) {
        self.failure.get_or_insert(cause);
    }
}

/// A transaction in progress.
#[derive(Debug)]
pub(crate) struct Transaction {
    first: u32,
    acknowledged: usize,
    failure: Option<(usize, Cause)>,
}

impl Transaction {
    /// Of requests numbered from `first` on, of which the one at position `acknowledged` is answered
    /// in any case.
    pub(crate) fn new(first: u32, acknowledged: usize) -> Self {
        Self { first, acknowledged, failure: None }
    }

    /// Takes the verdicts of a datagram; true when the transaction has ended.
    pub(crate) fn handle_datagram(&mut self, datagram: &[u8]) -> bool {
        messages(datagram).any(|message| match message {
            Ok(message) => self.handle_message(&message),
            Err(error) => {
                self.fail(0, error.into());
                true
            }
        })
    }

    fn handle_message(&mut self, message: &Message<'_>) -> bool {
        let offset = message.sequence.wrapping_sub(self.first);
        let position = usize::try_from(offset).unwrap_or(usize::MAX);
        if message.kind != NLMSG_ERROR || position > self.acknowledged {
            return false;
        }
        match message.verdict() {
            Ok(()) => position == self.acknowledged,
            Err(cause) => {
                self.fail(position, cause);
                position == self.acknowledged || position == 0
            }
        }
    }

    /// What came of it, once [`Self::handle_datagram`] said that it has ended: the first refusal and
    /// the position of what was refused.
    pub(crate) fn finish(self) -> Result<(), (usize, Cause)> {
        self.failure.map_or(Ok(()), Err)
    }

    /// Why it ended without an end: the refusal before it, else `cause`.
    pub(crate) fn abandon(self, cause: Cause) -> (usize, Cause) {
        self.failure.unwrap_or((0, cause))
    }

    fn fail(&mut self, position: usize, cause: Cause) {
        self.failure.get_or_insert((position, cause));
    }
}

fn own_messages(
    datagram: &[u8],
    sequence: u32,
) -> impl Iterator<Item = Result<Message<'_>, DecodeError>> {
    messages(datagram)
        .filter(move |message| message.as_ref().map_or(true, |own| own.sequence == sequence))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::captured::{ACKNOWLEDGED, DONE, REFUSED, ROUTES, each_damaged};

    const DUMP: u32 = 4;

    fn kind(message: &Message<'_>) -> Result<Option<u16>, DecodeError> {
        Ok(Some(message.kind))
    }

    #[test]
    fn a_dump_ends_with_a_done_in_the_same_datagram_or_the_next() {
        let together = [&ROUTES[..], &DONE].concat();
        for datagrams in [vec![&together[..]], vec![&ROUTES, &DONE]] {
            let mut dump = Dump::new(DUMP);
            let ended: Vec<_> =
                datagrams.iter().map(|octets| dump.handle_datagram(octets, kind)).collect();
            assert_eq!(ended.iter().filter(|ended| **ended).count(), 1);
            assert_eq!(ended.last(), Some(&true));
            assert_eq!(dump.finish(), Ok(Dumped::Complete(vec![24, 24])));
        }
    }

    #[test]
    fn a_dump_is_interrupted_when_any_message_says_so() {
        for position in [6, 60 + 6, 148 + 6] {
            let mut octets = [&ROUTES[..], &DONE].concat();
            octets[position] |= 0x10;
            let mut dump = Dump::new(DUMP);
            assert!(dump.handle_datagram(&octets, kind));
            assert_eq!(dump.finish(), Ok(Dumped::Interrupted), "octet {position}");
        }
    }

    #[test]
    fn answers_of_another_exchange_are_passed_over() {
        let mut dump = Dump::new(DUMP + 1);
        assert!(!dump.handle_datagram(&[&ROUTES[..], &DONE].concat(), kind));
        assert_eq!(dump.finish(), Ok(Dumped::Complete(vec![])));
        assert_eq!(acknowledged(&ACKNOWLEDGED, 7), None);
        assert_eq!(answered(&REFUSED, 6), None);
    }

    #[test]
    fn a_dump_with_a_malformed_object_is_read_to_its_end_and_fails() {
        let refuse = |message: &Message<'_>| match message.payload.get(1) {
            Some(30) => Err(DecodeError::from("thirty")),
            _ => Ok(Some(())),
        };
        let mut dump = Dump::new(DUMP);
        assert!(!dump.handle_datagram(&ROUTES, refuse));
        assert!(dump.handle_datagram(&DONE, refuse));
        assert_eq!(dump.finish(), Err(Cause::Malformed("thirty".to_owned())));
    }

    #[test]
    fn a_dump_that_never_ends_fails_for_its_first_reason() {
        let mut dump = Dump::new(DUMP);
        assert!(!dump.handle_datagram(&ROUTES[..100], kind));
        assert!(matches!(dump.abandon(Cause::TimedOut), Cause::Malformed(_)));
        assert_eq!(Dump::<()>::new(DUMP).abandon(Cause::TimedOut), Cause::TimedOut);
    }

    #[test]
    fn a_refused_dump_fails_with_the_kernels_error() {
        let mut dump = Dump::new(5);
        assert!(dump.handle_datagram(&REFUSED, kind));
        assert!(matches!(dump.finish(), Err(Cause::Refused { .. })));
    }

    #[test]
    fn a_change_waits_for_its_acknowledgement() {
        assert_eq!(acknowledged(&ACKNOWLEDGED, 6), Some(Ok(())));
        assert_eq!(acknowledged(&ROUTES, 4), None);
        assert!(matches!(acknowledged(&REFUSED, 5), Some(Err(Cause::Refused { .. }))));
        assert!(matches!(acknowledged(&ACKNOWLEDGED[..20], 6), Some(Err(Cause::Malformed(_)))));
    }

    /// `NLMSG_ERROR` to a request of which the header is quoted.
    fn verdict(sequence: u32, code: i32) -> Vec<u8> {
        let mut octets = ACKNOWLEDGED.to_vec();
        octets[8..12].copy_from_slice(&sequence.to_le_bytes());
        octets[16..20].copy_from_slice(&code.to_le_bytes());
        octets
    }

    fn refused(errno: i32) -> Cause {
        Cause::Refused { errno: rustix::io::Errno::from_raw_os_error(errno), says: None }
    }

    #[test]
    fn a_transaction_fails_for_the_first_request_that_was_refused() {
        let mut transaction = Transaction::new(u32::MAX, 3);
        assert!(!transaction.handle_datagram(&verdict(u32::MAX - 1, -1)), "of another exchange");
        assert!(!transaction.handle_datagram(&verdict(3, -1)), "of another exchange");
        assert!(!transaction.handle_datagram(&verdict(0, -2)));
        assert!(!transaction.handle_datagram(&verdict(1, -22)));
        assert!(transaction.handle_datagram(&verdict(2, 0)));
        assert_eq!(transaction.finish(), Err((1, refused(2))));
    }

    #[test]
    fn a_transaction_ends_with_its_last_verdict_or_a_refusal_of_the_whole() {
        for (code, outcome) in [(0, Ok(())), (-95, Err((3, refused(95))))] {
            let mut transaction = Transaction::new(10, 3);
            assert!(transaction.handle_datagram(&verdict(13, code)));
            assert_eq!(transaction.finish(), outcome);
        }
        let mut transaction = Transaction::new(10, 3);
        assert!(!transaction.handle_datagram(&verdict(10, 0)), "the bracket alone is no success");
        assert!(transaction.handle_datagram(&verdict(10, -1)));
        assert_eq!(transaction.finish(), Err((0, refused(1))));
    }

    #[test]
    fn a_transaction_without_an_end_fails_for_its_first_reason() {
        let mut transaction = Transaction::new(10, 3);
        assert!(!transaction.handle_datagram(&verdict(11, -2)));
        assert_eq!(transaction.abandon(Cause::TimedOut), (1, refused(2)));
        assert_eq!(Transaction::new(10, 3).abandon(Cause::TimedOut), (0, Cause::TimedOut));
        let mut transaction = Transaction::new(10, 3);
        assert!(transaction.handle_datagram(&verdict(11, -2)[..20]));
        assert!(matches!(transaction.finish(), Err((0, Cause::Malformed(_)))));
    }

    #[test]
    fn no_damage_makes_a_transaction_panic() {
        each_damaged(|octets| {
            let mut transaction = Transaction::new(5, 1);
            transaction.handle_datagram(octets);
            let _ = transaction.finish();
        });
    }

    #[test]
    fn a_query_is_answered_by_an_object_or_a_refusal() {
        assert_eq!(answered(&ROUTES, 4).unwrap().unwrap().kind, 24);
        assert!(matches!(answered(&REFUSED, 5), Some(Err(Cause::Refused { .. }))));
        assert_eq!(answered(&ACKNOWLEDGED, 6), Some(Err(Cause::NoAnswer)));
    }
}
