//! Lines of wg-quick's format, and the keys of its sections.

use std::collections::HashMap;
use std::fmt::Display;

use super::super::alike;
use super::super::draft::{At, List, Place};
use super::super::error::{Problems, Quoted};

/// The longest word of a user that a message repeats, in octets: shorter than a key without its last
/// character, which is what stands before the `=` of a line that is nothing but a key.
const MAX_WORD: usize = 32;

/// A heading and what stands below it.
pub(super) struct Section<'t> {
    /// The name as it is known, or empty for one that is not.
    pub(super) name: &'static str,
    /// Where the heading begins.
    pub(super) offset: usize,
    /// From the heading to the next one.
    pub(super) text: &'t str,
}

impl<'t> Section<'t> {
    /// What the lines below the heading say.
    fn entries(&self) -> impl Iterator<Item = Entry<'t>> {
        lines(self.text, self.offset).filter_map(|(_, line)| match line {
            Line::Entry(entry) => Some(entry),
            Line::Heading(_) | Line::Nonsense => None,
        })
    }
}

/// A line that says something.
pub(super) enum Line<'t> {
    Heading(&'t str),
    Entry(Entry<'t>),
    Nonsense,
}

/// A key and its value, without white space around them.
pub(super) struct Entry<'t> {
    pub(super) key: At<&'t str>,
    pub(super) value: At<&'t str>,
}

/// The lines of a text that say something, and where they begin if the text begins at `offset`.
pub(super) fn lines(text: &str, offset: usize) -> impl Iterator<Item = (usize, Line<'_>)> {
    let mut end = offset;
    text.split_inclusive('\n').filter_map(move |line| {
        let start = end;
        end += line.len();
        let line = trim(At { offset: start, value: line.split('#').next().unwrap_or_default() });
        (!line.value.is_empty()).then(|| (line.offset, parse(line)))
    })
}

fn parse(line: At<&str>) -> Line<'_> {
    if let Some(name) = line.value.strip_prefix('[') {
        return name.strip_suffix(']').map_or(Line::Nonsense, Line::Heading);
    }
    let Some((key, value)) = line.value.split_once('=') else { return Line::Nonsense };
    let value = At { offset: line.offset + key.len() + 1, value };
    Line::Entry(Entry { key: trim(At { offset: line.offset, value: key }), value: trim(value) })
}

/// A text without the white space around it, which stands where the rest of it begins.
fn trim(text: At<&str>) -> At<&str> {
    let rest = text.value.trim_start();
    At { offset: text.offset + text.value.len() - rest.len(), value: rest.trim_end() }
}

/// That a word of the user is none of those that are known, without repeating what may be a secret.
pub(super) fn unknown(
    what: &str,
    word: &str,
    mut known: impl Iterator<Item = &'static str> + Clone,
) -> String {
    let hint = match alike::nearest(word, known.clone()) {
        Some(nearest) => format!("did you mean \"{nearest}\"?"),
        None => format!("known are {}", known.by_ref().collect::<Vec<_>>().join(", ")),
    };
    match word.len() {
        0..=MAX_WORD => format!("unknown {what} {}; {hint}", Quoted(word)),
        _ => format!("unknown {what}; {hint}"),
    }
}

/// A key that a section may have, and what reads its value into a `T`.
pub(super) struct Key<T> {
    pub(super) name: &'static str,
    /// Whether it may stand there several times.
    pub(super) repeats: bool,
    pub(super) read: fn(&mut T, &Value<'_>, &mut Problems<'_>),
}

/// A value, and what its errors say of it.
pub(super) struct Value<'a> {
    pub(super) place: &'a Place,
    pub(super) key: &'static str,
    pub(super) offset: usize,
    pub(super) text: &'a str,
}

/// Where each key of a section stood first.
pub(super) type Seen = HashMap<&'static str, usize>;

/// Reads the entries of a section by its keys, and remembers in `seen` which there were.
pub(super) fn read_section<T>(
    section: &Section<'_>,
    place: &Place,
    keys: &[Key<T>],
    seen: &mut Seen,
    into: &mut T,
    problems: &mut Problems<'_>,
) {
    for Entry { key, value } in section.entries() {
        let Some(known) = keys.iter().find(|known| known.name.eq_ignore_ascii_case(key.value))
        else {
            let names = keys.iter().map(|key| key.name);
            let message = || format!("{place}{}", unknown("key", key.value, names));
            problems.push_with(key.offset, message);
            continue;
        };
        let name = known.name;
        match seen.get(name) {
            Some(&first) if !known.repeats => {
                let message = format!("{place}{name} is already set");
                problems.push_contradiction(key.offset, first, message);
            }
            _ => {
                seen.entry(name).or_insert(key.offset);
                let value = Value { place, key: name, offset: value.offset, text: value.value };
                (known.read)(into, &value, problems);
            }
        }
    }
}

impl Value<'_> {
    /// Reports what is wrong with this value.
    pub(super) fn refuse(&self, what: impl Display, problems: &mut Problems<'_>) {
        problems.push_with(self.offset, || format!("{}{} {what}", self.place, self.key));
    }

    /// The value as `parse` reads it, if it can.
    pub(super) fn parsed<V, E: Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<V, E>,
        problems: &mut Problems<'_>,
    ) -> Option<V> {
        parse(self.text).map_err(|error| self.refuse(error, problems)).ok()
    }

    /// The values between commas and, where `is_separator` says so, other characters; empty ones are none.
    pub(super) fn items(&self, is_separator: fn(char) -> bool) -> impl Iterator<Item = Self> {
        let mut end = 0;
        self.text.split_inclusive(move |c| c == ',' || is_separator(c)).filter_map(move |item| {
            let offset = self.offset + end;
            end += item.len();
            let item = item.trim_end_matches(|c| c == ',' || is_separator(c));
            let At { offset, value: text } = trim(At { offset, value: item });
            (!text.is_empty()).then_some(Value { text, offset, ..*self })
        })
    }

    /// Adds this value to a list of at most so many.
    pub(super) fn push<V, E: Display>(
        &self,
        list: &mut List<V>,
        most: usize,
        parse: impl FnOnce(&str) -> Result<V, E>,
        problems: &mut Problems<'_>,
    ) {
        match list.written.unwrap_or_default() {
            written if written > most => {}
            written if written == most => {
                list.push(self.offset, None);
                problems.push(
                    self.offset,
                    format!("{}{} has more than {most} values", self.place, self.key),
                );
            }
            _ => list.push(self.offset, self.parsed(parse, problems)),
        }
    }
}
