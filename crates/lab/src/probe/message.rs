//! The octets of a probe message.
//!
//! # Theory of operation
//!
//! A message is one UDP payload that a person can read in `tcpdump -A`:
//!
//! ```text
//! 7 Hello from client@dookvspq0l3k7wz..........
//! | |                ||           |  padding, any number of '.'
//! | |                ||           run: 3 digits of base 36
//! | |                |time sent: 12 digits of base 36, nanoseconds since 1970-01-01 UTC
//! | text             '@' in a message, '<' in the answer to it
//! sequence number: decimal, from 0, without leading zeros, at most 12 digits
//! ```
//!
//! In ABNF (RFC 5234), with `text` any UTF-8 without control characters, `@` and `<`:
//!
//! ```text
//! message  = sequence SP text mark time run padding
//! sequence = "0" / (%x31-39 *11DIGIT)
//! mark     = "@" / "<"
//! time     = 12base36          ; base36 = DIGIT / %x61-7A
//! run      = 3base36
//! padding  = *"."
//! ```
//!
//! The fixed part leaves room for the whole text "Hello from client" in 36 octets, which make an
//! inner IPv4 packet of 64 octets, as long as the sequence number has two digits. In a message of a given
//! size the text gives way: it loses its end when there is not enough room. The smallest size is
//! [`MIN_SIZE`], which has room for every sequence number and no text. At the natural size there
//! is all of the text and no padding, so that a message grows with its number.
//!
//! The mark keeps two sinks that answer from answering each other without end: an answer is never
//! answered.
//!
//! A source draws a new run at random each time, so that a sink can tell two runs from the same
//! address apart. It is no secret and proves nothing: whoever sees one message can forge others.

use std::fmt;

use thiserror::Error;

/// The largest sequence number, the last with 12 digits.
pub const MAX_SEQUENCE: u64 = 999_999_999_999;

/// The smallest message, in octets of UDP payload: the longest sequence number without any text.
pub const MIN_SIZE: usize = MAX_SEQUENCE_DIGITS + 1 + STAMP_SIZE;

/// The largest message, in octets: the largest UDP payload in IPv4 (65,535 − 20 − 8, RFC 768).
pub const MAX_SIZE: usize = 65_507;

/// The longest text, in octets.
pub const MAX_TEXT: usize = MAX_SIZE - MIN_SIZE;

/// What the source says when it is not told otherwise.
pub const DEFAULT_TEXT: &str = "Hello from client";

const MAX_SEQUENCE_DIGITS: usize = 12;
const TIME_DIGITS: usize = 12;
const RUN_DIGITS: usize = 3;
/// Mark, time and run.
const STAMP_SIZE: usize = 1 + TIME_DIGITS + RUN_DIGITS;
const BASE: u64 = 36;
const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const PADDING: u8 = b'.';

/// A point in time: nanoseconds since 1970-01-01 UTC on the clock of whoever took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last time that twelve digits of base 36 can say, in the year 2120.
    pub const MAX: Self = Self(BASE.pow(12) - 1);

    /// The time `nanos` nanoseconds after the epoch, or [`Timestamp::MAX`] if that is earlier.
    pub const fn from_nanos(nanos: u64) -> Self {
        if nanos > Self::MAX.0 { Self::MAX } else { Self(nanos) }
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

/// Tells the runs of a source apart; written as three digits of base 36.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(u16);

impl RunId {
    /// How many different runs there are.
    pub const COUNT: u16 = 46_656;

    /// The run that `number` stands for, modulo [`RunId::COUNT`].
    pub const fn new(number: u16) -> Self {
        Self(number % Self::COUNT)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits36::<RUN_DIGITS>(self.0.into())
            .iter()
            .try_for_each(|digit| fmt::Write::write_char(f, char::from(*digit)))
    }
}

/// Whether a message is the question or the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sent by a source.
    Question,
    /// The same octets, but for the mark, sent back by a sink.
    Answer,
}

impl Kind {
    const fn mark(self) -> u8 {
        match self {
            Self::Question => b'@',
            Self::Answer => b'<',
        }
    }
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Counts from 0 in each run, up to [`MAX_SEQUENCE`].
    pub sequence: u64,
    /// As much of the text as had room.
    pub text: &'a str,
    /// Question or answer.
    pub kind: Kind,
    /// When the question left, on the clock of its source.
    pub sent_at: Timestamp,
    /// The run that the message belongs to.
    pub run: RunId,
}

impl<'a> Message<'a> {
    /// Reads a message; every octet is checked.
    ///
    /// # Errors
    ///
    /// The octets do not follow the format, so that somebody else sent them.
    pub fn parse(octets: &'a [u8]) -> Result<Self, ForeignMessage> {
        let (sequence, rest) = split_at(octets, |octet| octet == b' ')?;
        let (text, rest) = split_at(rest, |octet| octet == b'@' || octet == b'<')?;
        let (mark, rest) = rest.split_first().ok_or(ForeignMessage)?;
        let (time, rest) = rest.split_at_checked(TIME_DIGITS).ok_or(ForeignMessage)?;
        let (run, padding) = rest.split_at_checked(RUN_DIGITS).ok_or(ForeignMessage)?;
        if padding.iter().any(|octet| *octet != PADDING) {
            return Err(ForeignMessage);
        }
        Ok(Self {
            sequence: parse_sequence(sequence)?,
            text: parse_text(text.get(1..).ok_or(ForeignMessage)?)?,
            kind: if *mark == b'@' { Kind::Question } else { Kind::Answer },
            sent_at: Timestamp(parse36(time)?),
            run: RunId(u16::try_from(parse36(run)?).map_err(|_| ForeignMessage)?),
        })
    }
}

/// Turns the octets of a question into those of its answer; false, and no change, if `octets` is
/// no question.
pub fn make_answer(octets: &mut [u8]) -> bool {
    if !matches!(Message::parse(octets), Ok(Message { kind: Kind::Question, .. })) {
        return false;
    }
    match octets.iter_mut().find(|octet| **octet == Kind::Question.mark()) {
        Some(mark) => {
            *mark = Kind::Answer.mark();
            true
        }
        None => false,
    }
}

/// The datagram is not a probe message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a probe message")]
pub struct ForeignMessage;

/// How the messages of one run look: their text and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    text: String,
    size: Option<usize>,
}

impl Format {
    /// Messages with `text`, each of `size` octets of UDP payload, or as long as the text needs.
    ///
    /// # Errors
    ///
    /// The size lies outside [`MIN_SIZE`] to [`MAX_SIZE`], the text is longer than [`MAX_TEXT`] or
    /// contains `@`, `<` or a control character.
    pub fn new(text: impl Into<String>, size: Option<usize>) -> Result<Self, FormatError> {
        let text = text.into();
        if text.len() > MAX_TEXT {
            return Err(FormatError::TextTooLong { octets: text.len() });
        }
        if let Some(character) = text.chars().find(|c| !is_text(*c)) {
            return Err(FormatError::Character { character });
        }
        match size {
            Some(size) if size < MIN_SIZE => Err(FormatError::TooSmall { size }),
            Some(size) if size > MAX_SIZE => Err(FormatError::TooLarge { size }),
            size => Ok(Self { text, size }),
        }
    }

    /// Writes a question into `octets`, in place of what it holds.
    ///
    /// A `sequence` above [`MAX_SEQUENCE`] is written as that.
    pub fn emit(&self, sequence: u64, sent_at: Timestamp, run: RunId, octets: &mut Vec<u8>) {
        octets.clear();
        push_decimal(sequence.min(MAX_SEQUENCE), octets);
        octets.push(b' ');
        let room = self.size.map_or(MAX_TEXT, |size| size - STAMP_SIZE - octets.len());
        octets.extend_from_slice(prefix(&self.text, room).as_bytes());
        octets.push(Kind::Question.mark());
        octets.extend_from_slice(&digits36::<TIME_DIGITS>(sent_at.as_nanos()));
        octets.extend_from_slice(&digits36::<RUN_DIGITS>(run.0.into()));
        if let Some(size) = self.size {
            octets.resize(size, PADDING);
        }
    }
}

impl Default for Format {
    fn default() -> Self {
        Self { text: DEFAULT_TEXT.to_owned(), size: None }
    }
}

/// Why messages cannot look as asked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// There is no room for number, time and run.
    #[error("message size {size} is too small: number, time and run need {MIN_SIZE} octets")]
    TooSmall {
        /// The size asked for, in octets.
        size: usize,
    },
    /// No UDP datagram can carry it.
    #[error("message size {size} is too large: a UDP datagram carries {MAX_SIZE} octets")]
    TooLarge {
        /// The size asked for, in octets.
        size: usize,
    },
    /// The text does not fit the largest message.
    #[error("text of {octets} octets is too long: {MAX_TEXT} fit")]
    TextTooLong {
        /// The length of the text in octets.
        octets: usize,
    },
    /// The text contains what the format needs for itself.
    #[error("text contains {character:?}; \"@\", \"<\" and control characters are not possible")]
    Character {
        /// The first such character.
        character: char,
    },
}

fn is_text(character: char) -> bool {
    !character.is_control() && character != '@' && character != '<'
}

/// Splits in front of the first octet that `is_border` accepts.
fn split_at(
    octets: &[u8],
    is_border: impl Fn(u8) -> bool,
) -> Result<(&[u8], &[u8]), ForeignMessage> {
    let at = octets.iter().position(|octet| is_border(*octet)).ok_or(ForeignMessage)?;
    octets.split_at_checked(at).ok_or(ForeignMessage)
}

fn parse_sequence(digits: &[u8]) -> Result<u64, ForeignMessage> {
    let canonical = match digits {
        [] => false,
        [b'0', rest @ ..] => rest.is_empty(),
        _ => digits.len() <= MAX_SEQUENCE_DIGITS && digits.iter().all(u8::is_ascii_digit),
    };
    if !canonical {
        return Err(ForeignMessage);
    }
    Ok(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

fn parse_text(octets: &[u8]) -> Result<&str, ForeignMessage> {
    let text = str::from_utf8(octets).map_err(|_| ForeignMessage)?;
    if text.chars().all(is_text) { Ok(text) } else { Err(ForeignMessage) }
}

/// The number that at most 12 digits of base 36 stand for; lower case only.
fn parse36(digits: &[u8]) -> Result<u64, ForeignMessage> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'z' => digit - b'a' + 10,
            _ => return Err(ForeignMessage),
        };
        Ok(number * BASE + u64::from(value))
    })
}

/// The last `N` digits of `number` in base 36.
fn digits36<const N: usize>(mut number: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit = BASE36[usize::try_from(number % BASE).unwrap_or(0)];
        number /= BASE;
    }
    digits
}

fn push_decimal(mut number: u64, octets: &mut Vec<u8>) {
    let start = octets.len();
    loop {
        octets.push(BASE36[usize::try_from(number % 10).unwrap_or(0)]);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    octets[start..].reverse();
}

/// The longest beginning of `text` that has at most `room` octets and ends between characters.
fn prefix(text: &str, room: usize) -> &str {
    let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// "dookvspq0l3k" in base 36; a day in 2027.
    const TIME: Timestamp = Timestamp::from_nanos(1_801_326_305_463_519_440);
    const RUN: RunId = RunId::new(10_259);

    fn emit(format: &Format, sequence: u64) -> Vec<u8> {
        let mut octets = Vec::new();
        format.emit(sequence, TIME, RUN, &mut octets);
        octets
    }

    fn text_of(size: Option<usize>, sequence: u64) -> String {
        String::from_utf8(emit(&Format::new(DEFAULT_TEXT, size).unwrap(), sequence)).unwrap()
    }

    #[test]
    fn natural_size_has_all_of_the_text_and_no_padding() {
        assert_eq!(text_of(None, 7), "7 Hello from client@dookvspq0l3k7wz");
        assert_eq!(text_of(None, 1_000_000).len(), 7 + 1 + 17 + 16);
    }

    #[test]
    fn an_inner_packet_of_64_octets_says_hello_from_client() {
        assert_eq!(text_of(Some(36), 0), "0 Hello from client@dookvspq0l3k7wz.");
        assert_eq!(text_of(Some(36), 99), "99 Hello from client@dookvspq0l3k7wz");
        assert_eq!(text_of(Some(36), 100), "100 Hello from clien@dookvspq0l3k7wz");
    }

    #[test]
    fn smallest_size_holds_the_largest_number() {
        assert_eq!(MIN_SIZE, 29);
        assert_eq!(text_of(Some(29), MAX_SEQUENCE), "999999999999 @dookvspq0l3k7wz");
        assert_eq!(text_of(Some(29), 0), "0 Hello from @dookvspq0l3k7wz");
    }

    #[test]
    fn every_size_up_to_1500_is_refused_or_exact() {
        for size in 0..=1500 {
            match Format::new(DEFAULT_TEXT, Some(size)) {
                Err(error) => {
                    assert!(size < MIN_SIZE, "{size}: {error}");
                    assert_eq!(error, FormatError::TooSmall { size });
                }
                Ok(format) => {
                    assert!(size >= MIN_SIZE);
                    for sequence in [0, 9, 10, 12_345, MAX_SEQUENCE] {
                        let octets = emit(&format, sequence);
                        assert_eq!(octets.len(), size);
                        let message = Message::parse(&octets).unwrap();
                        assert_eq!(message.sequence, sequence);
                        assert_eq!((message.sent_at, message.run), (TIME, RUN));
                        assert!(DEFAULT_TEXT.starts_with(message.text));
                    }
                }
            }
        }
    }

    #[test]
    fn refusals_name_value_and_limit() {
        let refusal = |text: &str, size| Format::new(text, size).unwrap_err().to_string();
        assert_eq!(
            refusal("", Some(28)),
            "message size 28 is too small: number, time and run need 29 octets"
        );
        assert_eq!(
            refusal("", Some(65_508)),
            "message size 65508 is too large: a UDP datagram carries 65507 octets"
        );
        assert_eq!(
            refusal("a@b", None),
            "text contains '@'; \"@\", \"<\" and control characters are not possible"
        );
        assert_eq!(
            refusal("a\nb", None),
            "text contains '\\n'; \"@\", \"<\" and control characters are not possible"
        );
        assert_eq!(
            refusal(&"x".repeat(MAX_TEXT + 1), None),
            "text of 65479 octets is too long: 65478 fit"
        );
    }

    #[test]
    fn a_character_is_never_cut_in_two() {
        let format = Format::new("grüße", Some(MIN_SIZE)).unwrap();
        let octets = emit(&format, 10_000_000);
        assert_eq!(octets, "10000000 grü@dookvspq0l3k7wz".as_bytes());
        let octets = emit(&format, 1_000_000_000);
        assert_eq!(octets, "1000000000 gr@dookvspq0l3k7wz".as_bytes());
        let octets = emit(&format, 100_000_000);
        assert_eq!(octets, "100000000 gr@dookvspq0l3k7wz.".as_bytes());
    }

    #[test]
    fn a_literal_message_is_read() {
        assert_eq!(
            Message::parse(b"42 a b@00000000000z00a.."),
            Ok(Message {
                sequence: 42,
                text: "a b",
                kind: Kind::Question,
                sent_at: Timestamp::from_nanos(35),
                run: RunId::new(10),
            })
        );
        assert_eq!(RunId::new(10).to_string(), "00a");
    }

    #[test]
    fn whatever_deviates_is_foreign() {
        for foreign in [
            "",
            "Hello from client",
            "7 Hello from client",
            "7Hello@00000000000z00a",
            " Hello@00000000000z00a",
            "07 Hello@00000000000z00a",
            "+7 Hello@00000000000z00a",
            "1000000000000 Hello@00000000000z00a",
            "7 Hello@00000000000Z00a",
            "7 Hello@00000000000z00",
            "7 Hello@00000000000z00a. ",
            "7 Hello@00000000000z00a\n",
            "7 Hel\tlo@00000000000z00a",
            "7 Hel@lo@00000000000z00a",
            "7 Hello#00000000000z00a",
        ] {
            assert_eq!(Message::parse(foreign.as_bytes()), Err(ForeignMessage), "{foreign:?}");
        }
        assert_eq!(Message::parse(b"7 \xff@00000000000z00a"), Err(ForeignMessage));
    }

    #[test]
    fn an_answer_differs_in_the_mark_and_is_not_answered() {
        let mut octets = b"7 Hello@00000000000z00a..".to_vec();
        assert!(make_answer(&mut octets));
        assert_eq!(octets, b"7 Hello<00000000000z00a..");
        assert_eq!(Message::parse(&octets).unwrap().kind, Kind::Answer);
        assert!(!make_answer(&mut octets));
        assert_eq!(octets, b"7 Hello<00000000000z00a..");
        let mut foreign = b"somebody@example.org".to_vec();
        assert!(!make_answer(&mut foreign));
        assert_eq!(foreign, b"somebody@example.org");
    }

    proptest! {
        #[test]
        fn parse_gives_back_what_emit_took(
            sequence in 0..=MAX_SEQUENCE,
            text in "[^@<\\p{Cc}]{0,40}",
            nanos in 0..=Timestamp::MAX.as_nanos(),
            run in 0..RunId::COUNT,
            size in proptest::option::of(MIN_SIZE..200),
        ) {
            let format = Format::new(text.clone(), size).unwrap();
            let mut octets = Vec::new();
            let sent_at = Timestamp::from_nanos(nanos);
            format.emit(sequence, sent_at, RunId::new(run), &mut octets);
            let message = Message::parse(&octets).unwrap();
            prop_assert_eq!(message.sequence, sequence);
            prop_assert_eq!(message.kind, Kind::Question);
            prop_assert_eq!(message.sent_at, sent_at);
            prop_assert_eq!(message.run, RunId::new(run));
            match size {
                None => prop_assert_eq!(message.text, text),
                Some(_) => prop_assert!(text.starts_with(message.text)),
            }
        }

        #[test]
        fn emit_gives_back_what_parse_took(
            octets in "(0|[1-9][0-9]{0,11}) [a-zäö ]{0,12}@[0-9a-z]{12}[0-9a-z]{3}\\.{0,40}",
        ) {
            let message = Message::parse(octets.as_bytes()).unwrap();
            let size = octets.len();
            prop_assume!(size >= MIN_SIZE);
            let mut again = Vec::new();
            Format::new(message.text, Some(size))
                .unwrap()
                .emit(message.sequence, message.sent_at, message.run, &mut again);
            prop_assert_eq!(again, octets.as_bytes());
        }

        #[test]
        fn arbitrary_octets_never_panic(mut octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&octets);
            make_answer(&mut octets);
        }

        #[test]
        fn one_changed_octet_never_panics(at in 0..40_usize, octet: u8) {
            let mut octets = b"42 Hello from client@00000000000z00a....".to_vec();
            octets[at] = octet;
            if let Ok(message) = Message::parse(&octets) {
                prop_assert!(message.sequence <= MAX_SEQUENCE);
            }
        }
    }
}
