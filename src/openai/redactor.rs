//! Keeps keys and organizations out of the texts that are stored, shown and logged.

use crate::domain::openai::without_secrets;

/// The most characters of a message that are kept.
const MAX_MESSAGE_CHARS: usize = 500;
/// The most characters of a code, a parameter or an id that are kept.
const MAX_WORD_CHARS: usize = 128;

/// Removes the API key and other secrets from texts.
pub(super) struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// Creates a redactor for these secrets. Empty ones are ignored.
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
        Self {
            secrets: secrets.map(str::to_owned).collect(),
        }
    }

    /// Removes secrets and control characters, and cuts the text to `limit` characters.
    fn redact(&self, text: &str, limit: usize) -> String {
        let hide = |text: String, secret: &String| text.replace(secret, "[key]");
        let text = self.secrets.iter().fold(text.to_owned(), hide);
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
