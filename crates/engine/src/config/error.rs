//! What can be wrong with a configuration, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::{MAX_FILE_SIZE, MAX_NAME_LENGTH};

/// How many errors of one file are reported; the others are counted.
pub const MAX_ERRORS: usize = 64;

/// How many characters of a value a message repeats.
const MAX_QUOTED: usize = 80;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be opened or read.
    #[error("read configuration {file}")]
    Read {
        /// The file, as it was named.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// There is a directory, a device or a pipe where a file should be.
    #[error("read configuration {file}: it is not a regular file")]
    NotAFile {
        /// The file, as it was named.
        file: String,
    },
    /// The file has more than [`MAX_FILE_SIZE`] octets.
    #[error("read configuration {file}: it has more than {MAX_FILE_SIZE} octets")]
    TooLarge {
        /// The file, as it was named.
        file: String,
    },
    /// Everybody may read or write the file, and there are secret keys in it.
    #[error(
        "read configuration {file}: it holds secret keys, but its mode {mode:04o} lets everybody at it"
    )]
    Exposed {
        /// The file, as it was named.
        file: String,
        /// Its permission bits.
        mode: u32,
    },
    /// The stem of the file is not the name of a tunnel.
    #[error(
        "read configuration {file}: {} cannot name a tunnel: a name has 1 to {MAX_NAME_LENGTH} \
         letters, digits, \"_\", \".\" or \"-\" and begins with neither \".\" nor \"-\"",
        Quoted(name)
    )]
    Name {
        /// The name that was refused.
        name: String,
        /// The file, as it was named.
        file: String,
    },
    /// The file says something wrong.
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
}

/// The errors of one text, ordered by position; there is at least one.
///
/// They print one a line, each as `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    file: String,
    problems: Vec<Problem>,
    omitted: usize,
}

/// One error of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl ConfigErrors {
    /// The errors, ordered by position, at most [`MAX_ERRORS`].
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many errors there are beyond those in [`ConfigErrors::problems`].
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// The error of `octets` of which only the first `valid` are UTF-8.
    pub(super) fn not_utf8(file: &str, octets: &[u8], valid: usize) -> Self {
        let text = octets.get(..valid).unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let mut problems = Problems::new(file, &text);
        problems.push(valid, "not valid UTF-8".to_owned());
        problems.into_errors()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, column, message }) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{line}:{column}: {message}", self.file)?;
        }
        match self.omitted {
            0 => Ok(()),
            omitted => write!(f, "\n{}: {omitted} more errors", self.file),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// What was found in a text so far: errors, which refuse it, and warnings, which do not.
pub(super) struct Problems<'t> {
    file: &'t str,
    text: &'t str,
    errors: Findings,
    warnings: Findings,
}

impl<'t> Problems<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, errors: Findings::default(), warnings: Findings::default() }
    }

    /// Whether there is no error.
    pub(super) fn is_empty(&self) -> bool {
        self.errors.kept.is_empty()
    }

    /// Reports an error at an offset of the text.
    pub(super) fn push(&mut self, offset: usize, message: String) {
        self.errors.insert(offset, Finding { message, earlier: None });
    }

    /// As [`Problems::push`], but the message is only made if it is shown.
    pub(super) fn push_with(&mut self, offset: usize, message: impl FnOnce() -> String) {
        if self.errors.keeps(offset) {
            self.push(offset, message());
        } else {
            self.errors.count += 1;
        }
    }

    /// Reports an error that contradicts an earlier place, whose position ends the message.
    pub(super) fn push_contradiction(&mut self, offset: usize, earlier: usize, message: String) {
        self.errors.insert(offset, Finding { message, earlier: Some(earlier) });
    }

    /// Warns of what an other place overrules, whose position ends the message.
    pub(super) fn warn(&mut self, offset: usize, other: usize, message: String) {
        self.warnings.insert(offset, Finding { message, earlier: Some(other) });
    }

    pub(super) fn into_errors(self) -> ConfigErrors {
        let Self { file, text, errors, .. } = self;
        let (problems, omitted) = errors.located(text);
        ConfigErrors { file: file.to_owned(), problems, omitted }
    }

    /// The warnings as they print, each as `file:line:column: message`.
    pub(super) fn into_warnings(self) -> Vec<String> {
        let Self { file, text, warnings, .. } = self;
        let (problems, omitted) = warnings.located(text);
        let print =
            |Problem { line, column, message }| format!("{file}:{line}:{column}: {message}");
        let mut warnings: Vec<_> = problems.into_iter().map(print).collect();
        if omitted > 0 {
            warnings.push(format!("{file}: {omitted} more warnings"));
        }
        warnings
    }
}

/// The first [`MAX_ERRORS`] findings by position, whatever the order in which they were found, and how many
/// there are in all.
#[derive(Default)]
struct Findings {
    /// By offset in the text, then by order of discovery.
    kept: BTreeMap<(usize, usize), Finding>,
    count: usize,
}

/// What was found, and the offset of the other place that it speaks of.
struct Finding {
    message: String,
    earlier: Option<usize>,
}

impl Findings {
    fn keeps(&self, offset: usize) -> bool {
        let last = self.kept.last_key_value();
        self.kept.len() < MAX_ERRORS || last.is_some_and(|((last, _), _)| offset < *last)
    }

    fn insert(&mut self, offset: usize, finding: Finding) {
        self.kept.insert((offset, self.count), finding);
        self.count += 1;
        if self.kept.len() > MAX_ERRORS {
            self.kept.pop_last();
        }
    }

    /// What is kept, with lines and columns of the text, and how many others there are.
    fn located(self, text: &str) -> (Vec<Problem>, usize) {
        let omitted = self.count - self.kept.len();
        let problem =
            |((offset, _), Finding { mut message, earlier }): ((usize, usize), Finding)| {
                let (line, column) = position(text, offset);
                if let Some(earlier) = earlier {
                    let (line, column) = position(text, earlier);
                    message.push_str(&format!(" at {line}:{column}"));
                }
                Problem { line, column, message }
            };
        (self.kept.into_iter().map(problem).collect(), omitted)
    }
}

/// The line and the column of an offset, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|octet| *octet == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// A text of the user in a message: quoted, escaped, and cut when it is long.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_QUOTED) {
            Some((end, _)) => write!(f, "{:?}...", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "a\nüb\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 2), (2, 1));
        assert_eq!(position(text, 4), (2, 2));
        assert_eq!(position(text, 6), (3, 1));
        assert_eq!(position(text, 99), (3, 1));
    }

    #[test]
    fn the_first_errors_by_position_are_kept_and_the_others_counted() {
        let text = "x".repeat(200);
        let mut problems = Problems::new("f", &text);
        for offset in (0..200).rev() {
            problems.push(offset, format!("at {offset}"));
        }
        let errors = problems.into_errors();
        assert_eq!(errors.problems().len(), MAX_ERRORS);
        assert_eq!(errors.problems()[0].message, "at 0");
        assert_eq!(errors.problems()[MAX_ERRORS - 1].message, "at 63");
        assert_eq!(errors.omitted(), 136);
        assert!(errors.to_string().ends_with("\nf: 136 more errors"));
    }

    #[test]
    fn a_quoted_text_is_escaped_and_cut() {
        assert_eq!(Quoted("a\u{1b}\"\n").to_string(), r#""a\u{1b}\"\n""#);
        assert_eq!(Quoted(&"ä".repeat(81)).to_string(), format!("\"{}\"...", "ä".repeat(80)));
    }
}
