//! Names in the folder.
//!
//! All are lower case and legal on FAT, SMB and the shared folders of virtual machines. Numbers are in
//! hexadecimal, of fixed width, most significant digit first:
//!
//! ```text
//! adit1-LABEL-RUN                                an inbox
//! adit1-LABEL-RUN/alive                          locked by its owner
//! adit1-LABEL-RUN/FROM-STREAM-NUMBER.part        being written
//! adit1-LABEL-RUN/FROM-STREAM-NUMBER.batch       published
//! ```
//!
//! Exactly one text stands for each name; anything else is not ours.

use std::fmt;
use std::str;

use super::side::{Label, RunId, Side};

/// The file that the owner of an inbox locks.
pub const ALIVE: &str = "alive";

/// The largest number of a file: none is ever the last.
pub const NUMBER_MAX: u64 = i64::MAX as u64;

/// What an inbox's name begins with; the digit is the version of the format.
const PREFIX: &[u8] = b"adit1-";

const PART: &[u8] = b".part";
const BATCH: &[u8] = b".batch";

/// Octets of the longest name, that of an inbox.
const NAME_MAX: usize = PREFIX.len() + Label::MAX + 1 + 2 * RunId::LEN;

/// The text of a name, without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    octets: [u8; NAME_MAX],
    len: usize,
}

/// Which file in an inbox: whose, of which stream, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// The run that writes it.
    pub from: RunId,
    /// The writer within the run.
    pub stream: u8,
    /// Its place in the stream, from 1 to [`NUMBER_MAX`].
    pub number: u64,
}

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Being written: of no interest to the reader.
    Part,
    /// Published, and whole unless the file system says otherwise.
    Batch,
}

impl FileName {
    /// What this name means; `None` if it is no name of a file of ours.
    pub fn parse(name: &[u8]) -> Option<(Self, Stage)> {
        let (from, rest) = split_hex(name)?;
        let ([stream], rest) = split_hex(rest.strip_prefix(b"-")?)?;
        let (number, rest) = split_hex(rest.strip_prefix(b"-")?)?;
        let number = u64::from_be_bytes(number);
        let stage = match rest {
            PART => Stage::Part,
            BATCH => Stage::Batch,
            _ => return None,
        };
        let file = Self { from: RunId::new(from), stream, number };
        (1..=NUMBER_MAX).contains(&number).then_some((file, stage))
    }

    /// Its name at this stage.
    pub fn emit(&self, stage: Stage) -> Name {
        let mut name = Name::EMPTY;
        name.push_hex(&self.from.octets());
        name.push(b"-");
        name.push_hex(&[self.stream]);
        name.push(b"-");
        name.push_hex(&self.number.to_be_bytes());
        name.push(match stage {
            Stage::Part => PART,
            Stage::Batch => BATCH,
        });
        name
    }
}

pub(super) fn parse_inbox(name: &[u8]) -> Option<Side> {
    let rest = name.strip_prefix(PREFIX)?;
    let (rest, run) = rest.split_at_checked(rest.len().checked_sub(2 * RunId::LEN)?)?;
    let label = Label::parse(rest.strip_suffix(b"-")?)?;
    let (run, _) = split_hex(run)?;
    Some(Side { label, run: RunId::new(run) })
}

pub(super) fn emit_inbox(side: &Side) -> Name {
    let mut name = Name::EMPTY;
    name.push(PREFIX);
    name.push(side.label.as_bytes());
    name.push(b"-");
    name.push_hex(&side.run.octets());
    name
}

impl Name {
    const EMPTY: Self = Self { octets: [0; NAME_MAX], len: 0 };

    /// The name as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.octets[..self.len]).expect("names are ASCII")
    }

    fn push(&mut self, octets: &[u8]) {
        self.octets[self.len..][..octets.len()].copy_from_slice(octets);
        self.len += octets.len();
    }

    fn push_hex(&mut self, octets: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for octet in octets {
            self.push(&[DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// `LEN` octets in hexadecimal, and what follows them.
fn split_hex<const LEN: usize>(text: &[u8]) -> Option<([u8; LEN], &[u8])> {
    let (digits, rest) = text.split_at_checked(2 * LEN)?;
    let mut octets = [0; LEN];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some((octets, rest))
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RUN: RunId = RunId::new([0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x07, 0x18]);

    #[test]
    fn a_file_says_whose_it_is_which_stream_and_which_number() {
        let file = FileName { from: RUN, stream: 0x0f, number: 0x1_2345 };
        let (part, batch) = (
            "a1b2c3d4e5f60718-0f-0000000000012345.part",
            "a1b2c3d4e5f60718-0f-0000000000012345.batch",
        );
        assert_eq!(file.emit(Stage::Part).as_str(), part);
        assert_eq!(file.emit(Stage::Batch).as_str(), batch);
        assert_eq!(FileName::parse(part.as_bytes()), Some((file, Stage::Part)));
        assert_eq!(FileName::parse(batch.as_bytes()), Some((file, Stage::Batch)));
    }

    #[test]
    fn an_inbox_says_whose_it_is() {
        let side = Side { label: "open-192.0.2.1".parse().unwrap(), run: RUN };
        let name = "adit1-open-192.0.2.1-a1b2c3d4e5f60718";
        assert_eq!(side.emit().as_str(), name);
        assert_eq!(Side::parse(name.as_bytes()), Some(side));
    }

    #[test]
    fn what_is_not_written_exactly_so_is_not_ours() {
        for name in [
            "",
            "alive",
            ".",
            "notes.txt",
            "a1b2c3d4e5f60718-0f-0000000000012345",
            "a1b2c3d4e5f60718-0f-0000000000012345.tmp",
            "a1b2c3d4e5f60718-0f-0000000000012345.batch~",
            "A1b2c3d4e5f60718-0f-0000000000012345.batch",
            "a1b2c3d4e5f60718_0f-0000000000012345.batch",
            "a1b2c3d4e5f60718-f-00000000000012345.batch",
            "a1b2c3d4e5f60718-0f-0000000000000000.batch",
            "a1b2c3d4e5f60718-0f-8000000000000000.batch",
            " a1b2c3d4e5f60718-0f-000000000001234.batch",
        ] {
            assert_eq!(FileName::parse(name.as_bytes()), None, "{name}");
        }
        for name in [
            "adit1-",
            "adit1-a1b2c3d4e5f60718",
            "adit1--a1b2c3d4e5f60718",
            "adit2-a-a1b2c3d4e5f60718",
            "adit1-a-a1b2c3d4e5f6071",
            "adit1-A-a1b2c3d4e5f60718",
            "adit1-a-a1b2c3d4e5f6071g",
        ] {
            assert_eq!(Side::parse(name.as_bytes()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_was_written_is_read_as_the_same(
            from: [u8; 8],
            stream: u8,
            number in 1..=NUMBER_MAX,
            label in "[0-9a-z.-]{1,48}",
        ) {
            let file = FileName { from: RunId::new(from), stream, number };
            for stage in [Stage::Part, Stage::Batch] {
                let name = file.emit(stage);
                prop_assert_eq!(FileName::parse(name.as_str().as_bytes()), Some((file, stage)));
            }
            let side = Side { label: label.parse().unwrap(), run: file.from };
            prop_assert_eq!(Side::parse(side.emit().as_str().as_bytes()), Some(side));
        }

        #[test]
        fn a_name_that_is_read_is_written_as_the_same(name in "[0-9a-f]{15,16}-[0-9a-f]{2}-[0-9a-f]{16}\\.(part|batch)") {
            if let Some((file, stage)) = FileName::parse(name.as_bytes()) {
                let emitted = file.emit(stage);
                prop_assert_eq!(emitted.as_str(), name);
            }
        }
    }
}
