//! JSON strings, which are decoded only when needed.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// A string of a JSON text: the bytes between its quotes. Its escapes are valid.
///
/// Equality and order compare the code points of the decoded strings. A lone surrogate, which a Python string
/// may contain, is a code point, too.
#[derive(Clone, Copy)]
pub struct Text<'a>(&'a str);

/// The text has half a surrogate pair, which is not a character and has no UTF-8 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text holds half a surrogate pair (such as \\ud800), which is no character")]
pub struct LoneSurrogate;

impl<'a> Text<'a> {
    /// Creates a text that the parser has checked: it has no bare quote, and its escapes are valid.
    pub(super) fn checked(raw: &'a str) -> Self {
        Self(raw)
    }

    /// The text as written, with its escapes.
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// Whether the text has escapes.
    pub fn has_escapes(self) -> bool {
        self.0.contains('\\')
    }

    /// Decodes the text. The result is borrowed if the text has no escapes.
    ///
    /// # Errors
    ///
    /// If the text has a lone surrogate.
    pub fn decode(self) -> Result<Cow<'a, str>, LoneSurrogate> {
        if !self.has_escapes() {
            return Ok(Cow::Borrowed(self.0));
        }
        let mut text = String::with_capacity(self.0.len());
        for point in self.points() {
            text.push(char::from_u32(point).ok_or(LoneSurrogate)?);
        }
        Ok(Cow::Owned(text))
    }

    /// Decodes the text, with U+FFFD for each lone surrogate.
    pub fn decode_lossy(self) -> Cow<'a, str> {
        if !self.has_escapes() {
            return Cow::Borrowed(self.0);
        }
        let character = |point| char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER);
        Cow::Owned(self.points().map(character).collect())
    }

    /// Whether the decoded text is equal to `text`.
    pub fn is(self, text: &str) -> bool {
        if self.has_escapes() {
            self.points().eq(text.chars().map(u32::from))
        } else {
            self.0 == text
        }
    }

    /// The code points of the decoded text, with lone surrogates.
    pub(super) fn points(self) -> CodePoints<'a> {
        CodePoints { rest: self.0 }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.has_escapes() || other.has_escapes() {
            self.points().cmp(other.points())
        } else {
            // The order of UTF-8 bytes is the order of code points.
            self.0.cmp(other.0)
        }
    }
}

/// The iterator of [`Text::points`].
pub(super) struct CodePoints<'a> {
    rest: &'a str,
}

impl<'a> CodePoints<'a> {
    /// The part of the text that is not read yet.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    /// Skips `count` bytes, which must end at the end of a character.
    pub(super) fn skip_bytes(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// The UTF-16 unit of a `\uXXXX` at the beginning of `rest`.
    fn unit(&self) -> Option<u32> {
        let digits = self.rest.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok()
    }

    fn escape(&mut self) -> Option<u32> {
        let Some(unit) = self.unit() else {
            let mut chars = self.rest.chars();
            chars.next();
            let point = match chars.next()? {
                'b' => 0x08,
                't' => 0x09,
                'n' => 0x0a,
                'f' => 0x0c,
                'r' => 0x0d,
                same => u32::from(same),
            };
            self.rest = chars.as_str();
            return Some(point);
        };
        self.rest = self.rest.get(6..)?;
        if (0xd800..0xdc00).contains(&unit)
            && let Some(low @ 0xdc00..0xe000) = self.unit()
        {
            self.rest = self.rest.get(6..)?;
            return Some(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
        }
        Some(unit)
    }
}

impl Iterator for CodePoints<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let mut chars = self.rest.chars();
        match chars.next()? {
            '\\' => self.escape(),
            plain => {
                self.rest = chars.as_str();
                Some(u32::from(plain))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_on_demand() {
        let plain = Text::checked("Лот 1");
        assert!(matches!(plain.decode(), Ok(Cow::Borrowed("Лот 1"))));
        let escaped = Text::checked(r#"\"\\\/\b\f\n\r\t\u00E9\ud83D\uDE97x"#);
        assert_eq!(escaped.decode().unwrap(), "\"\\/\u{8}\u{c}\n\r\té\u{1f697}x");
        assert!(escaped.is("\"\\/\u{8}\u{c}\n\r\té\u{1f697}x"));
    }

    #[test]
    fn lone_surrogates_are_reported_or_replaced() {
        for (raw, lossy) in [
            (r"\ud800", "\u{fffd}"),
            (r"a\udc00b", "a\u{fffd}b"),
            (r"\ude97\ud83d", "\u{fffd}\u{fffd}"),
            (r"\ud800\ud83d\ude97", "\u{fffd}\u{1f697}"),
            (r"\ud800A", "\u{fffd}A"),
        ] {
            assert_eq!(Text::checked(raw).decode(), Err(LoneSurrogate), "{raw}");
            assert_eq!(Text::checked(raw).decode_lossy(), lossy, "{raw}");
        }
    }

    #[test]
    fn order_is_by_code_point_surrogates_included() {
        let sorted = ["", "a", r"\u0062", "é", r"\ud800", "\u{e000}", r"\ud83d\ude97"];
        for pair in sorted.windows(2) {
            assert!(Text::checked(pair[0]) < Text::checked(pair[1]), "{pair:?}");
        }
        assert_eq!(Text::checked("é"), Text::checked(r"\u00e9"));
    }
}
