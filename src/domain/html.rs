//! Turns text from outside into HTML.

use std::borrow::Cow;

/// Turns a text into HTML paragraphs, and escapes `& < > " '`. Blank lines separate the paragraphs, and other
/// line ends become `<br>`. Space around lines is removed, since HTML does not show it. A text of white space
/// gives an empty string.
pub fn paragraphs(text: &str) -> String {
    let text = if text.contains('\r') {
        Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(text)
    };
    let mut html = String::with_capacity(text.len() + text.len() / 8);
    let mut is_open = false;
    for line in text.split('\n').map(str::trim) {
        if line.is_empty() {
            if is_open {
                html.push_str("</p>");
            }
            is_open = false;
            continue;
        }
        html.push_str(if is_open { "<br>" } else { "<p>" });
        is_open = true;
        escape(line, &mut html);
    }
    if is_open {
        html.push_str("</p>");
    }
    html
}

/// Appends a text to `html`, escaped for an element or a quoted attribute.
fn escape(text: &str, html: &mut String) {
    let mut rest = text;
    let special = |byte| matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\'');
    while let Some(at) = rest.bytes().position(special) {
        html.push_str(&rest[..at]);
        html.push_str(match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            _ => "&#39;",
        });
        rest = &rest[at + 1..];
    }
    html.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blank_lines_separate_paragraphs_and_line_ends_become_breaks() {
        for (text, html) in [
            ("", ""),
            (" \n\t\n", ""),
            ("One.", "<p>One.</p>"),
            ("One.\nTwo.", "<p>One.<br>Two.</p>"),
            ("One.\n\nTwo.", "<p>One.</p><p>Two.</p>"),
            ("\n\nOne.\n \t \n\n\nTwo.\n", "<p>One.</p><p>Two.</p>"),
            (
                "One.\r\nTwo.\r\n\r\nThree.\rFour.",
                "<p>One.<br>Two.</p><p>Three.<br>Four.</p>",
            ),
            ("  - dent  \n  - scratch ", "<p>- dent<br>- scratch</p>"),
            ("Бампер — разбит", "<p>Бампер — разбит</p>"),
        ] {
            assert_eq!(paragraphs(text), html, "{text:?}");
        }
    }

    #[test]
    fn markup_in_the_text_is_text() {
        assert_eq!(
            paragraphs("<script>alert('x')</script> & \"y\" &amp;"),
            "<p>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot; &amp;amp;</p>"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_other_tags(text in "[<>&\"'a\\n\\r p/]{0,40}") {
            let bare = paragraphs(&text)
                .replace("<p>", "")
                .replace("</p>", "")
                .replace("<br>", "");
            prop_assert!(!bare.contains(['<', '>', '"', '\'']), "{}", bare);
        }
    }
}
