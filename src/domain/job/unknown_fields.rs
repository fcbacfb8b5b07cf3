//! Fields of a submission that the contract does not know. They are ignored, and the answer names them.

use crate::python_json::{Json, Text};

/// The most fields that are named.
const MAX_NAMES: usize = 20;
/// The most characters of a name.
const MAX_NAME_CHARS: usize = 60;
/// The fields of a submission's body.
const BODY_FIELDS: [&str; 7] = [
    "signature",
    "version",
    "languages",
    "webhook_url",
    "metadata",
    "lots",
    "event",
];

/// The names of unknown fields, each once, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct UnknownFields {
    /// The place of a field, such as `lots[].`, and its name.
    names: Vec<(&'static str, String)>,
}

impl UnknownFields {
    /// Notes the unknown fields of a submission's body.
    pub(super) fn of_body(body: Json<'_>) -> Self {
        let mut found = Self::default();
        for (name, _) in body.as_object().into_iter().flatten() {
            if !BODY_FIELDS.iter().any(|known| name.is(known)) {
                found.note("", name);
            }
        }
        found
    }

    /// Notes a field at a place. A name that is known already costs no memory.
    pub(super) fn note(&mut self, place: &'static str, name: Text<'_>) {
        let is_noted = |(at, noted): &(&str, String)| *at == place && name.is(noted);
        if self.names.len() < MAX_NAMES && !self.names.iter().any(is_noted) {
            self.names.push((place, name.decode_lossy().into_owned()));
        }
    }

    /// The places and names, for the answer.
    pub(super) fn into_names(self) -> Vec<String> {
        let name = |(place, name): (&str, String)| {
            let short: String = name.chars().take(MAX_NAME_CHARS).collect();
            format!("{place}{short}")
        };
        self.names.into_iter().map(name).collect()
    }
}
