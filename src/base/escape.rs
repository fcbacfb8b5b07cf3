//! Escapes text from outside for logs, terminals and pages.

/// Whether a character controls the output: a control character, a line separator, or a character that
/// changes the direction of writing.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Escapes the control characters of a text from outside, so that it stays on one line and cannot move the
/// cursor.
pub fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The same for a text of several lines: line ends stay.
pub fn escape_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(escape_controls).collect();
    lines.join("\n")
}

/// Escapes what JSON lets stand in a string, but what a terminal would obey.
pub fn escape_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines_and_json_stays_json() {
        assert_eq!(escape_lines("a\u{9b}b\n\u{7}c\n"), "a\\u{9b}b\n\\u{7}c\n");
        let value = serde_json::json!({"\u{202e}": "a\u{9b}\u{1b}\"\n\u{7f}"});
        let escaped = escape_json(&value.to_string());
        assert!(escaped.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&escaped).unwrap(),
            value
        );
    }

    #[test]
    fn nothing_moves_the_cursor_or_ends_the_line() {
        for (text, shown) in [
            ("", ""),
            ("не бит: é \"a\" \\ 😀", "не бит: é \"a\" \\ 😀"),
            ("a\x1b[31m\r\n\t\0\x7f", "a\\u{1b}[31m\\r\\n\\t\\u{0}\\u{7f}"),
            ("\u{85}\u{9b}2J", "\\u{85}\\u{9b}2J"),
            ("\u{202e}\u{2066}\u{2028}", "\\u{202e}\\u{2066}\\u{2028}"),
        ] {
            assert_eq!(escape_controls(text), shown);
        }
    }
}
