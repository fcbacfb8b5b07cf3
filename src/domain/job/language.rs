//! Language tags.

/// The most characters of a language tag.
pub(super) const MAX_LANGUAGE_CHARS: usize = 20;

/// Whether a text has the form of a `langtag` (RFC 5646): a primary subtag of letters, and further subtags of
/// letters and digits.
pub(super) fn is_language_tag(tag: &str) -> bool {
    let mut subtags = tag.split('-');
    let primary = subtags.next().unwrap_or("");
    tag.len() <= MAX_LANGUAGE_CHARS
        && (2..=8).contains(&primary.len())
        && primary.bytes().all(|b| b.is_ascii_alphabetic())
        && subtags
            .all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Whether a language is English, `en` or `en-*`. Its text is the vision text, without a translation.
pub fn is_english(language: &str) -> bool {
    language
        .split('-')
        .next()
        .is_some_and(|primary| primary.eq_ignore_ascii_case("en"))
}
