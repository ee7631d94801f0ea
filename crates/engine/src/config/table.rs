//! Tables of TOML held against their schema, and read by key.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::alike;
use super::draft::{At, List, Place};
use super::error::{Problems, Quoted};
use super::schema::{Kind, Schema, TABLES};

/// The table of a whole text, or `None` after a syntax error.
pub(super) fn document<'t>(text: &'t str, problems: &mut Problems<'_>) -> Option<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        problems.push(offset, error.message().to_owned());
    }
    errors.is_empty().then(|| table.into_inner())
}

/// A table whose keys and types were checked. A value of a wrong type was reported then, and reads
/// as if it were missing.
pub(super) struct Section<'t> {
    pub(super) place: Place,
    /// Where the table begins; 0 if it is missing.
    pub(super) offset: usize,
    table: Option<&'t DeTable<'t>>,
}

impl<'t> Section<'t> {
    /// Holds a table, which may be missing, against its schema.
    pub(super) fn open(
        place: Place,
        table: Option<At<&'t DeTable<'t>>>,
        schema: Schema,
        problems: &mut Problems<'_>,
    ) -> Self {
        let offset = table.map_or(0, |table| table.offset);
        let section = Self { place, offset, table: table.map(|table| table.value) };
        for (name, value) in section.table.into_iter().flat_map(DeTable::iter) {
            match schema.iter().find(|key| key.name == name.get_ref().as_ref()) {
                Some(key) => {
                    section.check_kind(key.name, key.kind, value, problems);
                }
                None => problems.push_with(name.span().start, || {
                    let (known, hint) = (Quoted(name.get_ref()), hint(name.get_ref(), schema));
                    format!("{}unknown key {known}; {hint}", section.place)
                }),
            }
        }
        section
    }

    /// Reports an error in this table.
    pub(super) fn report(
        &self,
        offset: usize,
        message: fmt::Arguments<'_>,
        problems: &mut Problems<'_>,
    ) {
        problems.push_with(offset, || format!("{}{message}", self.place));
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Where the value of a key stands.
    pub(super) fn position(&self, key: &str) -> Option<usize> {
        self.value(key).map(|value| value.span().start)
    }

    pub(super) fn boolean(&self, key: &str) -> Option<At<bool>> {
        let value = self.value(key)?;
        Some(At { offset: value.span().start, value: value.get_ref().as_bool()? })
    }

    pub(super) fn string(&self, key: &str) -> Option<At<&'t str>> {
        let value = self.value(key)?;
        Some(At { offset: value.span().start, value: value.get_ref().as_str()? })
    }

    /// An integer within limits.
    pub(super) fn integer(
        &self,
        key: &str,
        limits: RangeInclusive<u32>,
        problems: &mut Problems<'_>,
    ) -> Option<At<u32>> {
        let value = self.value(key)?;
        let offset = value.span().start;
        let number = parse_integer(value.get_ref().as_integer()?);
        let within = number.and_then(|number| u32::try_from(number).ok());
        if let Some(value) = within.filter(|number| limits.contains(number)) {
            return Some(At { offset, value });
        }
        let number = number.map_or_else(String::new, |number| format!(" {number}"));
        let (least, most) = limits.into_inner();
        self.report(offset, format_args!("{key}{number} is not in {least}..={most}"), problems);
        None
    }

    /// A string that `parse` makes something of; its error begins with the text.
    pub(super) fn parsed<T, E: Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        problems: &mut Problems<'_>,
    ) -> Option<At<T>> {
        let At { offset, value } = self.string(key)?;
        match parse(value) {
            Ok(value) => Some(At { offset, value }),
            Err(error) => {
                self.report(offset, format_args!("{key} {error}"), problems);
                None
            }
        }
    }

    /// An array of strings that `parse` makes something of; its errors begin with the text.
    pub(super) fn list<T, E: Display>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
        problems: &mut Problems<'_>,
    ) -> List<T> {
        self.collect(key, |offset, value| match parse(value.as_str()?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.report(offset, format_args!("{key} {error}"), problems);
                None
            }
        })
    }

    /// As [`Section::list`], but a string that stands alone is an array of one. An empty one asks for
    /// nothing.
    pub(super) fn one_or_list<T, E: Display>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
        problems: &mut Problems<'_>,
    ) -> List<T> {
        let Some(At { offset, value }) = self.string(key) else {
            return self.list(key, parse, problems);
        };
        let written = (!value.is_empty()).then_some(1);
        let item = written.and_then(|_| self.parsed(key, parse, problems));
        List { offset, written, items: item.into_iter().collect() }
    }

    /// An array of which `read` keeps what is right; it reports the rest.
    pub(super) fn collect<T>(
        &self,
        key: &str,
        mut read: impl FnMut(usize, &'t DeValue<'t>) -> Option<T>,
    ) -> List<T> {
        let value = self.value(key);
        let array = value.and_then(|value| value.get_ref().as_array());
        let item = |value: &'t Spanned<DeValue<'t>>| {
            let offset = value.span().start;
            Some(At { offset, value: read(offset, value.get_ref())? })
        };
        List {
            offset: value.map_or(self.offset, |value| value.span().start),
            // A value that is no array counts as one wrong value.
            written: value.map(|_| array.map_or(1, |array| array.len())),
            items: array.into_iter().flat_map(|array| array.iter()).filter_map(item).collect(),
        }
    }

    pub(super) fn table(&self, key: &str) -> Option<At<&'t DeTable<'t>>> {
        let value = self.value(key)?;
        Some(At { offset: value.span().start, value: value.get_ref().as_table()? })
    }

    /// An array of tables, in the order of the file.
    pub(super) fn tables(&self, key: &str) -> List<&'t DeTable<'t>> {
        self.collect(key, |_, value| value.as_table())
    }

    fn value(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table?.get(key)
    }

    /// Reports a value, or the values of an array, that are not of the kind; whether all are.
    fn check_kind(
        &self,
        key: &str,
        kind: Kind,
        value: &Spanned<DeValue<'_>>,
        problems: &mut Problems<'_>,
    ) -> bool {
        let offset = value.span().start;
        match (kind, value.get_ref()) {
            (Kind::StringOrList(most), DeValue::Array(_)) => {
                self.check_kind(key, Kind::List(&Kind::String, most), value, problems)
            }
            (Kind::List(_, most), DeValue::Array(array)) if array.len() > most => {
                let count = array.len();
                let message = format_args!("{key} has {count} values, which is more than {most}");
                self.report(offset, message, problems);
                false
            }
            (Kind::List(kind, _), DeValue::Array(array)) => {
                // Every value is looked at, also after a wrong one.
                let wrong = |value: &&_| !self.check_kind(key, *kind, value, problems);
                array.iter().filter(wrong).count() == 0
            }
            (kind, value) if kind.accepts(value) => true,
            (kind, value) => {
                let (expected, found) = (kind.expected(), found(value));
                let message = format_args!("{key}: expected {expected}, found {found}");
                self.report(offset, message, problems);
                false
            }
        }
    }
}

impl Kind {
    fn accepts(self, value: &DeValue<'_>) -> bool {
        match self {
            Self::Boolean => value.is_bool(),
            Self::Integer => value.is_integer(),
            Self::String | Self::Duration => value.is_str(),
            Self::Address => value.is_str() || value.is_table(),
            Self::Table => value.is_table(),
            Self::List(..) => value.is_array(),
            Self::StringOrList(_) => value.is_str() || value.is_array(),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Integer => "an integer",
            Self::String => "a string",
            Self::Duration => "a duration such as \"25s\"",
            Self::Address => "a string or { local = ..., peer = ... }",
            Self::Table => "a table",
            Self::List(Self::Table, _) => "an array of tables ([[peer]])",
            Self::List(..) => "an array",
            Self::StringOrList(_) => "a string or an array",
        }
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or a time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn parse_integer(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// What an unknown key was perhaps meant to be.
fn hint(unknown: &str, schema: Schema) -> String {
    if let Some(key) = nearest(unknown, schema) {
        return format!("did you mean \"{key}\"?");
    }
    let owner = TABLES.iter().find(|(_, schema)| schema.iter().any(|key| key.name == unknown));
    if let Some((heading, _)) = owner {
        return format!("it belongs to {heading}");
    }
    let known: Vec<_> = schema.iter().map(|key| key.name).collect();
    format!("known keys are {}", known.join(", "))
}

/// The known key that is most like an unknown one, underscores aside.
fn nearest(unknown: &str, schema: Schema) -> Option<&'static str> {
    alike::nearest(&unknown.replace('_', "-"), schema.iter().map(|key| key.name))
}
