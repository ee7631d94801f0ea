//! Messages of the domain name system: a question for the addresses of a name, and how long the answer is good
//! (RFC 1035, section 4).
//!
//! An answer is only skimmed. What owns a record is not looked at, so that no compressed name is ever followed, and
//! every octet is read at most once. A resolver that is asked answers with the aliases that lead to the addresses, so
//! the shortest life among all of them is that of the answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The largest answer that is taken, in octets: none is longer over UDP that was not asked to be
/// (RFC 1035, section 4.2.1).
pub(super) const ANSWER_MOST: usize = 512;

/// The longest label, in octets (RFC 1035, section 2.3.4).
const LABEL_MOST: usize = 63;

const HEADER: usize = 12;

/// "Recursion desired" in the first flag octet of a question.
const WANTS_RECURSION: u8 = 0x01;
/// The first flag octet without "authoritative" and "recursion desired": an answer, whole, to a usual question.
const FLAGS: u8 = !(0x04 | WANTS_RECURSION);
const IS_ANSWER: u8 = 0x80;
const IS_TRUNCATED: u8 = 0x02;
/// The response code in the second flag octet.
const RCODE: u8 = 0x0f;

const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
}

impl Kind {
    fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }

    fn address(self, octets: &[u8]) -> Option<IpAddr> {
        match self {
            Self::A => <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into()),
            Self::Aaaa => {
                <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into())
            }
        }
    }
}

/// What came in after a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// No answer to it: of somebody else, to something else, or to another time.
    Foreign,
    /// An answer that tells no addresses, or not all of them.
    Nothing,
    /// These addresses, for so long.
    Addresses(Vec<IpAddr>, Duration),
}

/// The question for the addresses of `name`; none if it is no name.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend([WANTS_RECURSION, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if !(1..=LABEL_MOST).contains(&label.len()) {
            return None;
        }
        octets.push(length);
        octets.extend(label.bytes());
    }
    octets.push(0);
    octets.extend(kind.code().to_be_bytes());
    octets.extend(CLASS_IN.to_be_bytes());
    Some(octets)
}

/// What `answer` says to `question`, which asked for `kind`.
pub(super) fn reply(question: &[u8], kind: Kind, answer: &[u8]) -> Reply {
    let (Some((header, asked)), Some((head, rest))) =
        (question.split_first_chunk::<HEADER>(), answer.split_first_chunk::<HEADER>())
    else {
        return Reply::Foreign;
    };
    let &[id0, id1, flags, code, questions0, questions1, count0, count1, ..] = head;
    let repeats = rest.get(..asked.len()).is_some_and(|said| said.eq_ignore_ascii_case(asked));
    if !header.starts_with(&[id0, id1])
        || flags & FLAGS & !IS_TRUNCATED != IS_ANSWER
        || [questions0, questions1] != [0, 1]
        || !repeats
    {
        return Reply::Foreign;
    }
    if flags & IS_TRUNCATED != 0 || code & RCODE != 0 {
        return Reply::Nothing;
    }
    let records = rest.get(asked.len()..).unwrap_or_default();
    addresses(records, u16::from_be_bytes([count0, count1]), kind).unwrap_or(Reply::Nothing)
}

/// What `count` records say; none if they are cut off or tell no address.
fn addresses(mut records: &[u8], count: u16, kind: Kind) -> Option<Reply> {
    let mut addresses = Vec::new();
    let mut life = u32::MAX;
    for _ in 0..count {
        let (record, rest) = Record::split(records)?;
        records = rest;
        if record.class != CLASS_IN || ![kind.code(), TYPE_CNAME].contains(&record.kind) {
            continue;
        }
        life = life.min(record.life);
        if record.kind == kind.code() {
            addresses.push(kind.address(record.contents)?);
        }
    }
    let life = Duration::from_secs(life.into());
    (!addresses.is_empty()).then_some(Reply::Addresses(addresses, life))
}

struct Record<'a> {
    kind: u16,
    class: u16,
    /// In seconds.
    life: u32,
    contents: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record, and what follows it.
    fn split(octets: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (fixed, rest) = after_name(octets)?.split_first_chunk::<10>()?;
        let &[kind0, kind1, class0, class1, life0, life1, life2, life3, length0, length1] = fixed;
        let length = usize::from(u16::from_be_bytes([length0, length1]));
        let (contents, rest) = rest.split_at_checked(length)?;
        let life = u32::from_be_bytes([life0, life1, life2, life3]);
        let record = Self {
            kind: u16::from_be_bytes([kind0, kind1]),
            class: u16::from_be_bytes([class0, class1]),
            // With the first bit it is 0 (RFC 2181, section 8).
            life: if life >> 31 == 0 { life } else { 0 },
            contents,
        };
        Some((record, rest))
    }
}

/// What follows the name at the beginning, which ends with an empty label or with a pointer.
fn after_name(mut octets: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, rest) = octets.split_first()?;
        match length {
            0 => return Some(rest),
            0xc0.. => return rest.get(1..),
            length if usize::from(length) <= LABEL_MOST => {
                octets = rest.get(usize::from(length)..)?;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Asks for the IPv4 addresses of `b.test`.
    const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
        \x01b\x04test\x00\x00\x01\x00\x01";

    /// It is another name of `c.test` for 300 s, which is 10.1.0.3 and 10.1.0.4 for 60 s.
    const ANSWER: &[u8] = b"\x12\x34\x81\x80\x00\x01\x00\x03\x00\x00\x00\x00\
        \x01B\x04test\x00\x00\x01\x00\x01\
        \xc0\x0c\x00\x05\x00\x01\x00\x00\x01\x2c\x00\x04\x01c\xc0\x0e\
        \xc0\x24\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x01\x00\x03\
        \x01c\x04test\x00\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x01\x00\x04";

    /// The octet of [`ANSWER`] with the low part of the first record's life.
    const LIFE: usize = HEADER + 12 + 9;

    fn read(answer: &[u8]) -> Reply {
        reply(QUESTION, Kind::A, answer)
    }

    fn with(place: usize, octet: u8) -> Vec<u8> {
        let mut answer = ANSWER.to_vec();
        answer[place] = octet;
        answer
    }

    fn found(seconds: u64) -> Reply {
        let addresses = ["10.1.0.3", "10.1.0.4"].map(|address| address.parse().unwrap());
        Reply::Addresses(addresses.into(), Duration::from_secs(seconds))
    }

    #[test]
    fn a_question_is_asked_as_rfc_1035_says() {
        assert_eq!(question(0x1234, "b.test", Kind::A).unwrap(), QUESTION);
        let aaaa = question(0x1234, "b.test", Kind::Aaaa).unwrap();
        assert_eq!(aaaa[HEADER..], *b"\x01b\x04test\x00\x00\x1c\x00\x01");
        assert_eq!(question(1, "b..test", Kind::A), None);
        assert_eq!(question(1, &"x".repeat(64), Kind::A), None);
    }

    #[test]
    fn the_shortest_life_of_aliases_and_addresses_is_that_of_the_answer() {
        assert_eq!(read(ANSWER), found(60));
        assert_eq!(read(&with(LIFE - 1, 0)), found(44));
    }

    #[test]
    fn a_life_with_the_first_bit_is_over() {
        assert_eq!(read(&with(LIFE - 3, 0x80)), found(0));
    }

    #[test]
    fn what_answers_another_question_is_foreign() {
        for (place, octet) in [(0, 0x13), (1, 0), (2, 0x01), (2, 0x89), (5, 2), (13, b'c')] {
            assert_eq!(read(&with(place, octet)), Reply::Foreign, "octet {place}");
        }
        // The other type, and the other class.
        for place in [HEADER + 9, HEADER + 11] {
            assert_eq!(read(&with(place, 28)), Reply::Foreign, "octet {place}");
        }
        assert_eq!(read(QUESTION), Reply::Foreign);
        assert_eq!(read(&[]), Reply::Foreign);
    }

    #[test]
    fn an_answer_that_is_cut_off_or_an_error_tells_nothing() {
        assert_eq!(read(&with(2, 0x83)), Reply::Nothing);
        assert_eq!(read(&with(3, 0x83)), Reply::Nothing);
        assert_eq!(read(&with(7, 0)), Reply::Nothing);
        for length in QUESTION.len()..ANSWER.len() {
            assert_eq!(read(&ANSWER[..length]), Reply::Nothing, "{length} octets");
        }
        assert_eq!(read(&with(6, 0xff)), Reply::Nothing);
    }

    #[test]
    fn an_address_of_another_length_is_none() {
        let aaaa = question(0x1234, "b.test", Kind::Aaaa).unwrap();
        let mut answer = ANSWER.to_vec();
        answer[HEADER + 9] = 28;
        assert_eq!(reply(&aaaa, Kind::Aaaa, &answer), Reply::Nothing);
        let record = b"\xc0\x0c\x00\x1c\x00\x01\x00\x00\x00\x05\x00\x10\
            \xfd\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03";
        let mut answer = [&answer[..QUESTION.len()], record].concat();
        answer[7] = 1;
        let address = "fd01::3".parse().unwrap();
        let wanted = Reply::Addresses(vec![address], Duration::from_secs(5));
        assert_eq!(reply(&aaaa, Kind::Aaaa, &answer), wanted);
    }

    proptest! {
        #[test]
        fn no_octets_do_harm(tail: Vec<u8>, place in 0..ANSWER.len(), octet: u8) {
            read(&tail);
            read(&[&ANSWER[..place], &tail].concat());
            if let Reply::Addresses(addresses, _) = read(&with(place, octet)) {
                prop_assert!(addresses.len() <= 3);
            }
        }
    }
}
