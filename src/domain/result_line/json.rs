//! Members of OpenAI's JSON, and the texts that are kept of it.

use crate::domain::openai::without_secrets;
use crate::python_json::Json;

/// The longest message that is kept, in characters.
const MESSAGE_CHARS: usize = 500;

/// A member that is present: not null and not `{}`.
pub(super) fn member<'a>(json: Json<'a>, name: &str) -> Option<Json<'a>> {
    json.field(name)
        .filter(|value| value.as_object().is_none_or(|members| !members.is_empty()))
}

/// A member that is a string and not empty.
pub(super) fn string(json: Json<'_>, name: &str) -> Option<String> {
    let text = member(json, name)?.as_text()?.decode_lossy();
    (!text.is_empty()).then(|| text.into_owned())
}

/// Whether a member is that text.
pub(super) fn is(json: Json<'_>, name: &str, value: &str) -> bool {
    member(json, name)
        .and_then(Json::as_text)
        .is_some_and(|text| text.is(value))
}

/// A text that clients may read: trimmed, without NUL and OpenAI's secrets, and cut to the longest message.
pub(super) fn cut(message: &str) -> String {
    let message = without_secrets(message.trim());
    let message = message.chars().filter(|c| *c != '\0');
    message.take(MESSAGE_CHARS).collect()
}
