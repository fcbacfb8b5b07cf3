//! The text of a key: what may stand in it, and the place of what may not. No message shows a key.

use std::fmt;

/// What begins a file of variables, such as systemd's `EnvironmentFile=`.
const VARIABLE: &str = "OPENAI_API_KEY=";
/// Quotes. People copy them with a key.
const QUOTES: [char; 3] = ['"', '\'', '`'];

/// The characters that a key may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyAlphabet {
    /// Those of an `Authorization: Bearer` field: visible ASCII without quotes.
    Bearer,
    /// Printable ASCII. The key signs, and never travels.
    Signing,
}

/// Why a text is no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyTextError {
    /// Its bytes are not UTF-8.
    #[error("byte {byte} is not UTF-8; write the key alone, in plain ASCII")]
    NotUtf8 {
        /// Counted from 1.
        byte: usize,
    },
    /// It has a character that no key has.
    #[error("line {line}, column {column}: {} cannot be in a key; write the key alone, in plain ASCII", shown(*.character))]
    Character {
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// The character.
        character: char,
    },
    /// It is a line of a file of variables.
    #[error("it begins with {VARIABLE}; write the key alone")]
    Variable,
}

/// Reads a key's text from the bytes of a file or a variable. A byte order mark, which some editors write, and the
/// white space around the key are no part of it.
pub(super) fn read(bytes: &[u8], alphabet: KeyAlphabet) -> Result<&str, KeyTextError> {
    let text = str::from_utf8(bytes).map_err(|error| KeyTextError::NotUtf8 {
        byte: error.valid_up_to() + 1,
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_quoted = |trimmed: &str| trimmed.starts_with(QUOTES) || trimmed.ends_with(QUOTES);
    let key = text.trim();
    check(text, alphabet)?;
    if is_quoted(key) {
        // A key in the configuration has TOML's quotes around it. A file needs none.
        let start = text.len() - text.trim_start().len();
        let at = match key.starts_with(QUOTES) {
            true => start,
            false => start + key.len() - 1,
        };
        return Err(place(text, at));
    }
    if key.starts_with(VARIABLE) {
        return Err(KeyTextError::Variable);
    }
    Ok(key)
}

/// Checks the characters of a key, but for white space around it.
pub(super) fn check(text: &str, alphabet: KeyAlphabet) -> Result<(), KeyTextError> {
    let is_allowed = |c: char| match alphabet {
        KeyAlphabet::Bearer => c.is_ascii_graphic() && !QUOTES.contains(&c),
        KeyAlphabet::Signing => c.is_ascii_graphic() || c == ' ',
    };
    let start = text.len() - text.trim_start().len();
    match text.trim().find(|c| !is_allowed(c)) {
        Some(at) => Err(place(text, start + at)),
        None => Ok(()),
    }
}

/// The place of the character at this byte.
fn place(text: &str, at: usize) -> KeyTextError {
    let (before, rest) = text.split_at(at);
    let line = before.rsplit('\n').next().unwrap_or(before);
    KeyTextError::Character {
        line: 1 + before.matches('\n').count(),
        column: 1 + line.chars().count(),
        character: rest.chars().next().unwrap_or_default(),
    }
}

/// A character by its number and kind. It may be invisible.
fn shown(c: char) -> impl fmt::Display {
    let kind = match c {
        '\n' | '\r' => "a line break",
        ' ' => "a space",
        '\u{feff}' => "a byte order mark",
        '\u{200b}' => "a zero-width space",
        c if QUOTES.contains(&c) => "a quote",
        c if c.is_control() => "a control character",
        _ => "a character outside ASCII",
    };
    format!("U+{:04X} ({kind})", u32::from(c))
}
