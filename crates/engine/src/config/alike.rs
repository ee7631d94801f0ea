//! What a word that is not known was perhaps meant to be.

/// How alike an unknown word must be to a known one to be taken for it, from 0 to 1.
const ALIKE: f64 = 0.8;

/// The longest unknown word that is compared with the known ones, in octets.
const MAX_COMPARED: usize = 64;

/// The known word that is most like an unknown one, capitals aside.
pub(super) fn nearest(
    unknown: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    if unknown.len() > MAX_COMPARED {
        return None;
    }
    let unknown = unknown.to_ascii_lowercase();
    let likeness = |word: &str| strsim::jaro_winkler(&unknown, &word.to_ascii_lowercase());
    let (alike, word) =
        known.map(|word| (likeness(word), word)).max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (alike >= ALIKE).then_some(word)
}
