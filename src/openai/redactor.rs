//! Keeps keys and organizations out of the texts that are stored, shown and logged.

use crate::domain::openai::without_secrets;

/// The most characters of a message that are kept.
const MAX_MESSAGE_CHARS: usize = 500;
/// The most characters of a code, a parameter or an id that are kept.
const MAX_WORD_CHARS: usize = 128;

/// Removes the API key and other secrets from texts.
pub(super) struct Redactor {
    api_key: String,
}

impl Redactor {
    /// Creates a redactor for this key.
    pub(super) fn new(api_key: &str) -> Self {
        Self {
            api_key: api_key.to_owned(),
        }
    }

    /// Removes secrets and control characters, and cuts the text to `limit` characters.
    fn redact(&self, text: &str, limit: usize) -> String {
        let text = if self.api_key.is_empty() {
            text.to_owned()
        } else {
            text.replace(&self.api_key, "[key]")
        };
        let text = without_secrets(&text);
        let on_one_line = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>();
        let words = on_one_line.split_whitespace().collect::<Vec<_>>().join(" ");
        words.chars().take(limit).collect()
    }

    /// Redacts a message.
    pub(super) fn message(&self, text: &str) -> String {
        self.redact(text, MAX_MESSAGE_CHARS)
    }

    /// Redacts a code, a parameter or an id.
    pub(super) fn word(&self, text: &str) -> String {
        self.redact(text, MAX_WORD_CHARS)
    }
}
