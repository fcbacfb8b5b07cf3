//! Foreign text on its way to a log or a terminal.

/// Whether a character shows as itself and moves nothing: no control character, no end of a line, none
/// that turns the direction of writing.
fn harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// The text with everything that is not harmless escaped: one line, whatever a stranger wrote.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if harmless(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor_or_ends_the_line() {
        for (text, shown) in [
            ("", ""),
            ("не бит: é \"a\" \\ 😀", "не бит: é \"a\" \\ 😀"),
            (
                "a\x1b[31m\r\n\t\0\x7f",
                "a\\u{1b}[31m\\r\\n\\t\\u{0}\\u{7f}",
            ),
            ("\u{85}\u{9b}2J", "\\u{85}\\u{9b}2J"),
            ("\u{202e}\u{2066}\u{2028}", "\\u{202e}\\u{2066}\\u{2028}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
