//! What was at the file's path before, kept at the end of the file that took its place.
//!
//! # Theory of operation
//!
//! `/etc/resolv.conf` outlives a reboot, and a journal in `/run` does not. So the file that is written
//! ends with a *record* of what it replaced, as comment lines: whoever has the file has the former one,
//! too. A second file beside it would be worse in every respect. The two could not change at one moment,
//! the second would be left behind when another program replaces the first, and a container often has
//! one writable file in a directory that is not.
//!
//! ```text
//! # Written by adit …                                                                     ┐
//! nameserver 10.9.0.53                                                                    ┘ body
//! #:adit tunnel=home device=adit0 boot=5f2c… body=123 check=0123456789abcdef              ┐
//! #:before file mode=644 owner=0 group=0 octets=21 as=text                                │ record
//! #|nameserver 192.0.2.1                                                                  │
//! #:end                                                                                   ┘
//! ```
//!
//! A person reads the former lines behind `#|`; contents that are not plain text are in base64. Whether
//! the last line had an end is told by the number of octets. A record counts only if it is, octet for
//! octet, what would be written for what it says.
//!
//! The file before the record is its *body*. It [stands](State) as it was written if length and check
//! (FNV-1a, draft-eastlake-fnv) say so. Else someone has edited it, save for one case: before a file is
//! written [in place](super::file), a *spare* record is put behind all that will change, which is as much
//! as the whole file of ours. A crash leaves a file that is *torn*: it has a spare there, or it is as it
//! was written, with the beginning of a spare behind it. Its record holds.
//!
//! # Limits
//!
//! Where a file of ours is replaced in place by another one of ours, a crash may leave one that is taken
//! for edited. A person finds the former lines in it.
//!
//! The check is against mistakes and not against forgery. Whoever may write the file could as well
//! write the former one; but not with another owner or as a link, so a record is followed without a
//! journal only if nobody but root or the caller could have written it.

use std::fmt::Write as _;
use std::str::{FromStr, Split};

use base64ct::{Base64, Encoding as _};

use super::{Former, Octets};

const BEGIN: &str = "#:adit ";
const BEFORE: &str = "#:before ";
const LINE: &str = "#|";
const END: &str = "#:end\n";

/// How many octets one line has in base64, before they are encoded: 76 letters.
const BASE64_LINE: usize = 57;

/// Who wrote a file, and instead of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The tunnel's name, without blanks.
    pub(super) tunnel: String,
    /// Its device's name, without blanks.
    pub(super) device: String,
    /// The boot of the host.
    pub(super) boot: String,
    /// How many octets the body has.
    body: usize,
    /// The check of the body.
    check: u64,
    /// What was there before.
    pub(super) former: Former,
}

/// What has become of a file that ends with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is as it was written.
    Whole,
    /// A crash came while it was written in place, or while the former contents were.
    Torn,
    /// Someone has edited it.
    Edited,
}

/// A record that was found at the end of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) record: Record,
    pub(super) state: State,
    pub(super) spare: Spare,
}

/// The second record that stands behind what is being written in place.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Spare {
    /// Where it begins.
    pub(super) offset: usize,
    pub(super) text: Vec<u8>,
}

impl Record {
    pub(super) fn new(
        (tunnel, device): (&str, &str),
        boot: &str,
        body: &str,
        former: Former,
    ) -> Self {
        Self {
            tunnel: tunnel.to_owned(),
            device: device.to_owned(),
            boot: boot.to_owned(),
            body: body.len(),
            check: check(body.as_bytes()),
            former,
        }
    }

    pub(super) fn emit(&self) -> String {
        let Self { tunnel, device, boot, body, check, former } = self;
        let mut text = format!(
            "{BEGIN}tunnel={tunnel} device={device} boot={boot} body={body} check={check:016x}\n{BEFORE}"
        );
        match former {
            Former::Missing => text += "nothing\n",
            Former::Symlink { target } => {
                text += "link";
                emit_octets(&mut text, &target.0);
            }
            Former::File { contents, mode, owner, group } => {
                let _ = write!(text, "file mode={mode:o} owner={owner} group={group}");
                emit_octets(&mut text, &contents.0);
            }
        }
        text + END
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, rest) = text.strip_prefix(BEGIN)?.split_once('\n')?;
        let (second, rest) = rest.strip_prefix(BEFORE)?.split_once('\n')?;
        let lines = rest.strip_suffix(END)?;
        let mut words = first.split(' ');
        let record = Self {
            tunnel: field(&mut words, "tunnel")?,
            device: field(&mut words, "device")?,
            boot: field(&mut words, "boot")?,
            body: field(&mut words, "body")?,
            check: u64::from_str_radix(&field::<String>(&mut words, "check")?, 16).ok()?,
            former: parse_former(second, lines)?,
        };
        // There is one way to write a record; everything else was not written here.
        (record.emit() == text).then_some(record)
    }

    /// The record at the end of a file, or before what a crash has left of a second one.
    pub(super) fn find(contents: &[u8]) -> Option<Kept> {
        starts(contents).into_iter().find_map(|start| Self::find_at(contents, start))
    }

    fn find_at(contents: &[u8], start: usize) -> Option<Kept> {
        let (body, text) = contents.split_at(start);
        let (text, rest) = text.split_at(end(text)?);
        let record = Self::parse(str::from_utf8(text).ok()?)?;
        // Behind ours, which is the longer one since it has all of the former.
        let spare = Spare { offset: record.body.saturating_add(text.len()), text: text.to_vec() };
        let whole = body.len() == record.body && check(body) == record.check;
        let state = match (whole, rest) {
            (true, []) => State::Whole,
            (true, rest) if text.starts_with(rest) => State::Torn,
            (false, []) if start == spare.offset => State::Torn,
            (false, []) => State::Edited,
            _ => return None,
        };
        Some(Kept { record, state, spare })
    }
}

/// The second record for a file of ours, while it or the former one is written in place.
pub(super) fn spare(ours: &[u8]) -> Spare {
    Record::find(ours).map_or_else(Spare::default, |kept| kept.spare)
}

/// Where the lines are that begin the last two records, the last one first.
fn starts(contents: &[u8]) -> Vec<usize> {
    let mut offset = contents.len();
    let lines = contents.split_inclusive(|&octet| octet == b'\n').rev().map(|line| {
        offset -= line.len();
        (offset, line)
    });
    let begins = lines.filter(|(_, line)| line.starts_with(BEGIN.as_bytes()));
    begins.map(|(offset, _)| offset).take(2).collect()
}

/// Where the line is behind the one that ends the record.
fn end(text: &[u8]) -> Option<usize> {
    let mut offset = 0;
    text.split_inclusive(|&octet| octet == b'\n').find_map(|line| {
        offset += line.len();
        (line == END.as_bytes()).then_some(offset)
    })
}

fn parse_former(line: &str, lines: &str) -> Option<Former> {
    let mut words = line.split(' ');
    Some(match words.next()? {
        "nothing" => Former::Missing,
        "link" => Former::Symlink { target: parse_octets(&mut words, lines)? },
        "file" => Former::File {
            mode: u32::from_str_radix(&field::<String>(&mut words, "mode")?, 8).ok()?,
            owner: field(&mut words, "owner")?,
            group: field(&mut words, "group")?,
            contents: parse_octets(&mut words, lines)?,
        },
        _ => return None,
    })
}

fn emit_octets(text: &mut String, octets: &[u8]) {
    let count = octets.len();
    if let Some(plain) = as_plain(octets) {
        let _ = writeln!(text, " octets={count} as=text");
        for line in plain.split_inclusive('\n') {
            let _ = writeln!(text, "{LINE}{}", line.strip_suffix('\n').unwrap_or(line));
        }
    } else {
        let _ = writeln!(text, " octets={count} as=base64");
        for part in octets.chunks(BASE64_LINE) {
            let _ = writeln!(text, "{LINE}{}", Base64::encode_string(part));
        }
    }
}

fn parse_octets(words: &mut Split<'_, char>, lines: &str) -> Option<Octets> {
    let count: usize = field(words, "octets")?;
    let encoding: String = field(words, "as")?;
    let mut octets = Vec::new();
    for line in lines.split_inclusive('\n') {
        let line = line.strip_prefix(LINE)?;
        match encoding.as_str() {
            "text" => octets.extend(line.bytes()),
            _ => octets.extend(Base64::decode_vec(line.trim_end()).ok()?),
        }
    }
    // The end of a last line that had none.
    if octets.len() == count.saturating_add(1) {
        octets.pop();
    }
    Some(Octets(octets))
}

/// Octets that a person can read, and that stay what they are behind the mark of a line.
fn as_plain(octets: &[u8]) -> Option<&str> {
    let text = str::from_utf8(octets).ok()?;
    let plain = |letter: char| !letter.is_control() || letter == '\t' || letter == '\n';
    text.chars().all(plain).then_some(text)
}

fn field<T: FromStr>(words: &mut Split<'_, char>, name: &str) -> Option<T> {
    words.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok()
}

fn check(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(contents: &[u8]) -> Former {
        let contents = Octets(contents.to_vec());
        Former::File { contents, mode: 0o644, owner: 0, group: 0 }
    }

    fn record(former: Former) -> Record {
        Record::new(("home", "adit0"), "5f2c", "nameserver 10.9.0.53\n", former)
    }

    fn former() -> impl Strategy<Value = Former> {
        let octets = || {
            prop_oneof![any::<Vec<u8>>(), "[ -~\n]{0,60}".prop_map(String::into_bytes)]
                .prop_map(Octets)
        };
        prop_oneof![
            Just(Former::Missing),
            octets().prop_map(|target| Former::Symlink { target }),
            (octets(), 0_u32..0o10000, any::<u32>(), any::<u32>()).prop_map(
                |(contents, mode, owner, group)| Former::File { contents, mode, owner, group }
            ),
        ]
    }

    #[test]
    fn a_person_can_read_the_former_lines() {
        assert_eq!(
            record(file(b"nameserver 192.0.2.1\n\noptions edns0")).emit(),
            "#:adit tunnel=home device=adit0 boot=5f2c body=21 check=16a84cba03f14441\n\
             #:before file mode=644 owner=0 group=0 octets=35 as=text\n\
             #|nameserver 192.0.2.1\n#|\n#|options edns0\n#:end\n"
        );
        let target = Octets(b"\xff\x00".to_vec());
        assert!(
            record(Former::Symlink { target })
                .emit()
                .ends_with("\n#:before link octets=2 as=base64\n#|/wA=\n#:end\n")
        );
        assert!(record(Former::Missing).emit().ends_with("\n#:before nothing\n#:end\n"));
    }

    #[test]
    fn a_record_within_a_former_file_is_contents() {
        let inner = record(file(b"nameserver 192.0.2.1\n")).emit();
        let outer = record(file(inner.as_bytes()));
        let text = format!("nameserver 10.9.0.53\n{}", outer.emit());
        let kept = Record::find(text.as_bytes()).unwrap();
        assert_eq!((kept.record, kept.state), (outer, State::Whole));
    }

    #[test]
    fn a_file_that_someone_has_edited_is_told_from_a_torn_one() {
        let record = record(file(b"nameserver 192.0.2.1\n"));
        let (body, text) = ("nameserver 10.9.0.53\n", record.emit());
        let state = |contents: &str| Record::find(contents.as_bytes()).map(|kept| kept.state);
        assert_eq!(state(&format!("{body}{text}")), Some(State::Whole));
        assert_eq!(state(&format!("nameserver 10.9.0.54\n{text}")), Some(State::Edited));
        assert_eq!(state(&format!("{body}options rotate\n{text}")), Some(State::Edited));
        assert_eq!(state(&format!("{body}{text}{text}")), Some(State::Torn));
        assert_eq!(state(&format!("{body}{text}nameserver 1.1.1.1\n")), None);
        assert_eq!(state(&format!("{body}{}", text.replace("octets=21", "octets=22"))), None);
        assert_eq!(state(&format!("{body}{}", text.replace("mode=644", "mode=0644"))), None);
        assert_eq!(state(body), None);
    }

    proptest! {
        #[test]
        fn what_was_there_before_comes_back(former in former(), body in "[a-z\n]{0,40}") {
            let body = body + "\n";
            let record = Record::new(("home", "adit0"), "5f2c", &body, former);
            let text = body + &record.emit();
            let kept = Record::find(text.as_bytes()).unwrap();
            prop_assert_eq!((kept.record, kept.state), (record, State::Whole));
        }

        #[test]
        fn no_beginning_of_a_record_is_taken_for_one(former in former(), cut in any::<prop::sample::Index>()) {
            let text = record(former).emit();
            prop_assert_eq!(Record::find(&text.as_bytes()[..cut.index(text.len())]), None);
        }

        #[test]
        fn any_octets_can_be_looked_at(first: Vec<u8>, lines in "(#[:|][ -~]{0,30}\n){0,5}") {
            let contents = [first.as_slice(), b"\n#:adit ", lines.as_bytes(), END.as_bytes()].concat();
            prop_assert_eq!(Record::find(&contents), None);
        }
    }
}
