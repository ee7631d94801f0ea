//! Who takes part: labels, runs, and the two together.

use std::fmt;
use std::str;

use super::name::{self, Name};

/// One life of a side: eight random octets, so that a restart is never taken for its predecessor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId([u8; Self::LEN]);

/// What a side is found by: 1 to 48 of `0-9`, `a-z`, `.` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Padded with zeros.
    octets: [u8; Self::MAX],
    len: u8,
}

/// One tunnel in the folder, in one of its lives; it is named like its inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side {
    /// What it is found by.
    pub label: Label,
    /// Which of its lives.
    pub run: RunId,
}

/// A text that is no [`Label`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label {0:?} is not 1 to 48 of 0-9, a-z, \".\" and \"-\"")]
pub struct LabelError(String);

impl RunId {
    /// Octets of a run.
    pub const LEN: usize = 8;

    /// The run of these octets, which should be random.
    pub const fn new(octets: [u8; Self::LEN]) -> Self {
        Self(octets)
    }

    /// Its octets, in the order in which it is written.
    pub const fn octets(self) -> [u8; Self::LEN] {
        self.0
    }
}

impl Label {
    /// The most octets of a label.
    pub const MAX: usize = 48;

    /// The label that these octets are; `None` if they are none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let allowed = |octet| matches!(octet, b'0'..=b'9' | b'a'..=b'z' | b'.' | b'-');
        let len = u8::try_from(text.len()).ok().filter(|&len| len > 0)?;
        let mut octets = [0; Self::MAX];
        octets.get_mut(..text.len())?.copy_from_slice(text);
        text.iter().copied().all(allowed).then_some(Self { octets, len })
    }

    /// The text of the label.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("a label is ASCII")
    }

    /// The octets of its text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

impl Side {
    /// The side whose inbox has this name; `None` if it is no name of an inbox.
    pub fn parse(name: &[u8]) -> Option<Self> {
        name::parse_inbox(name)
    }

    /// The name of its inbox.
    pub fn emit(&self) -> Name {
        name::emit_inbox(self)
    }
}

impl str::FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        Self::parse(text.as_bytes()).ok_or_else(|| LabelError(text.to_owned()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({self})")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({self})")
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.emit().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_lower_case_letters_digits_dots_and_hyphens() {
        for text in ["a", "open-192.0.2.1", "-.-", &"z".repeat(48)] {
            assert_eq!(text.parse::<Label>().unwrap().as_str(), text);
        }
        for text in ["", "A", "a/b", "a b", "ä", "a\0", &"z".repeat(49)] {
            assert_eq!(text.parse::<Label>(), Err(LabelError(text.to_owned())));
        }
    }

    #[test]
    fn a_run_is_written_in_hexadecimal() {
        assert_eq!(RunId::new([0, 1, 2, 0xfd, 4, 5, 6, 0xff]).to_string(), "000102fd040506ff");
    }
}
