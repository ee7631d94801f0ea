//! Licence expressions: may a crate under this one be used here?
//!
//! The grammar is that of SPDX (version 2.3, annex D): `WITH` binds tighter than `AND`, `AND`
//! tighter than `OR`. Old manifests write `/` for `OR`. A choice is allowed if one side is, a
//! conjunction if both are.

/// Licences that ask for no more than a notice, with the exceptions that only give more.
const ALLOWED: [&str; 12] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether `expression` lets the crate be used; what cannot be read does not.
pub(super) fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let allowed = either(&mut rest);
    rest.is_empty() && allowed == Some(true)
}

fn either(words: &mut &[&str]) -> Option<bool> {
    let mut allowed = both(words)?;
    while take(words, "OR") {
        allowed |= both(words)?;
    }
    Some(allowed)
}

fn both(words: &mut &[&str]) -> Option<bool> {
    let mut allowed = term(words)?;
    while take(words, "AND") {
        allowed &= term(words)?;
    }
    Some(allowed)
}

/// A licence, maybe with an exception, or an expression in brackets.
fn term(words: &mut &[&str]) -> Option<bool> {
    if take(words, "(") {
        let allowed = either(words)?;
        return take(words, ")").then_some(allowed);
    }
    let licence = next(words)?;
    if take(words, "WITH") {
        let exception = next(words)?;
        return Some(ALLOWED.contains(&&*format!("{licence} WITH {exception}")));
    }
    Some(ALLOWED.contains(&licence))
}

fn take(words: &mut &[&str], wanted: &str) -> bool {
    let taken = words.split_first().filter(|(first, _)| **first == wanted);
    if let Some((_, rest)) = taken {
        *words = rest;
    }
    taken.is_some()
}

fn next<'a>(words: &mut &[&'a str]) -> Option<&'a str> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowed_side_of_a_choice_is_enough() {
        assert!(is_allowed("MIT OR Apache-2.0 OR LGPL-2.1-or-later"));
        assert!(is_allowed("GPL-3.0-only OR MIT"));
        assert!(is_allowed("Unlicense/MIT"));
        assert!(!is_allowed("LGPL-2.1-or-later OR MPL-2.0"));
    }

    #[test]
    fn both_sides_of_a_conjunction_must_be_allowed() {
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!is_allowed("MIT AND GPL-2.0-only"));
        assert!(is_allowed("GPL-2.0-only AND MIT OR ISC"));
        assert!(!is_allowed("GPL-2.0-only AND (MIT OR ISC)"));
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only"));
        assert!(!is_allowed("GPL-2.0-only WITH Classpath-exception-2.0"));
    }

    #[test]
    fn what_cannot_be_read_is_not_allowed() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT MIT", "AND", "Apache-2.0 WITH"] {
            assert!(!is_allowed(expression), "{expression:?}");
        }
    }
}
