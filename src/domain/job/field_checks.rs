//! Checks of single members of a submission.

use std::borrow::Cow;

use serde_json::json;

use super::submission::UnusableUrl;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::python_json::Json;

/// The most characters of a webhook URL.
const MAX_WEBHOOK_CHARS: usize = 500;

/// The member of this name.
pub(super) fn required<'a>(body: Json<'a>, name: &str) -> Result<Json<'a>, ApiError> {
    body.field(name).ok_or_else(|| {
        ApiError::new(ErrorCode::MissingField, format!("`{name}` is missing.")).with(json!({"field": name}))
    })
}

/// Checks the webhook URL of a member; `check_url` says whether the URL may be called. `None` if the member is absent or
/// empty.
///
/// # Errors
/// `INVALID_WEBHOOK_URL` if the member is no URL, or one that may not be called.
pub fn check_webhook<'a>(
    value: Option<Json<'a>>,
    name: &str,
    check_url: &dyn Fn(&str) -> Result<(), UnusableUrl>,
) -> Result<Option<Cow<'a, str>>, ApiError> {
    let refuse = |why: &str| ApiError::new(ErrorCode::InvalidWebhookUrl, format!("`{name}` {why}"));
    match value {
        None => Ok(None),
        Some(Json::String(text)) => {
            let url = text
                .decode()
                .map_err(|_| refuse("holds half of a surrogate pair."))?;
            if url.is_empty() {
                return Ok(None);
            }
            if url.chars().count() > MAX_WEBHOOK_CHARS {
                return Err(refuse(&format!("is longer than {MAX_WEBHOOK_CHARS} characters.")));
            }
            check_url(&url).map_err(|why| refuse(&format!("cannot be used: {why}.")))?;
            Ok(Some(url))
        }
        Some(_) => Err(refuse("must be a text.")),
    }
}
