//! Rust sources without what the compiler does not take for code.

/// Whether `word` stands in `source` outside comments and literals.
pub(super) fn contains_word(source: &str, word: &str) -> bool {
    let is_part_of_word = |c: char| c == '_' || c.is_alphanumeric();
    strip(source).split(|c| !is_part_of_word(c)).any(|found| found == word)
}

/// `source` with a space for every comment, string and character.
///
/// What is never closed reaches to the end; the compiler will complain about it.
fn strip(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let skipped = not_code(rest, code.chars().next_back());
        code.push(if skipped > 0 { ' ' } else { next });
        rest = &rest[skipped.max(next.len_utf8())..];
    }
    code
}

/// How many octets of comment or literal `rest` starts with, where `before` is the character before.
fn not_code(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let in_word = before.is_some_and(|c| c == '_' || c.is_alphanumeric());
    if rest.starts_with('r') && (!in_word || matches!(before, Some('b' | 'c'))) {
        return raw_string(rest);
    }
    0
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        let step = if tail.starts_with("/*") {
            depth += 1;
            2
        } else if tail.starts_with("*/") {
            depth -= 1;
            2
        } else {
            tail.chars().next().map_or(1, char::len_utf8)
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character; nothing for a lifetime or a label, which has no quote after its first letter.
fn character(rest: &str) -> usize {
    let mut chars = rest.chars().skip(1);
    let (first, second) = (chars.next(), chars.next());
    if first == Some('\\') || second == Some('\'') { quoted(rest, '\'') } else { 0 }
}

/// `r"…"` with any number of `#`; nothing for other words that start with an r.
fn raw_string(rest: &str) -> usize {
    let opening = rest[1..].trim_start_matches('#');
    let hashes = rest.len() - 1 - opening.len();
    if !opening.starts_with('"') {
        return 0;
    }
    let closing = format!("\"{}", "#".repeat(hashes));
    let body = 1 + hashes + 1;
    rest[body..].find(&closing).map_or(rest.len(), |at| body + at + closing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_found() {
        for source in [
            "unsafe { x() }",
            "fn a<'a>(x: &'a u8) {} unsafe fn b() {}",
            "let c = '\\''; unsafe { x() }",
            "let c = '\"'; unsafe { x() } let d = '\"';",
            "/* a /* b */ c */ unsafe impl Send for X {}",
            "let r = 1; for x in r.iter() { unsafe { y() } }",
            "// nothing\nunsafe { x() }",
            "let s = r#\"a\"b\"#; unsafe { x() }",
        ] {
            assert!(contains_word(source, "unsafe"), "{source}");
        }
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        for source in [
            "// unsafe",
            "//! unsafe\n/// unsafe",
            "/* a /* b */ unsafe */",
            "let s = \"unsafe\";",
            "let s = \"\\\" unsafe\";",
            "let s = r#\"\" unsafe\"#;",
            "let s = br\"\\\"; // unsafe",
            "#![forbid(unsafe_code)]",
            "/* unsafe",
            "\"unsafe",
        ] {
            assert!(!contains_word(source, "unsafe"), "{source}");
        }
    }

    #[test]
    fn other_scripts_are_passed_over() {
        assert!(contains_word("let s = \"Grüße 日本\"; /* é */ unsafe {}", "unsafe"));
    }
}
