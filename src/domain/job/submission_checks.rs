//! Checks of a whole submission.

use serde_json::json;

use super::field_checks::{check_webhook, required};
use super::language::{MAX_LANGUAGE_CHARS, is_language_tag};
use super::lot_checks::check_lots;
use super::own_fields::{InvalidOwnFields, check_metadata};
use super::submission::{Submission, SubmissionRules, VERSION};
use super::unknown_fields::UnknownFields;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::python_json::Json;

/// The most distinct webhook URLs of a job.
const MAX_WEBHOOKS: usize = 100;

/// Checks the body of a submission.
///
/// # Errors
/// The contract's error for the first problem.
pub fn check_submission<'a>(body: Json<'a>, rules: &SubmissionRules<'_>) -> Result<Submission<'a>, ApiError> {
    if !matches!(body, Json::Object(_)) {
        return Err(ApiError::new(
            ErrorCode::InvalidParameter,
            "The body must be a JSON object.",
        ));
    }
    if body.field("event").is_some() {
        let message = "A body with an `event` field is a webhook of this service, never a submission.";
        return Err(ApiError::new(ErrorCode::InvalidParameter, message));
    }
    check_version(body)?;
    let mut unknown = UnknownFields::of_body(body);
    let languages = check_languages(body, rules)?;
    let webhook_url = check_webhook(body.field("webhook_url"), "webhook_url", rules.check_webhook_url)?;
    let mut invalid = InvalidOwnFields::new(rules.ignores_invalid_own_fields);
    let metadata = invalid.ignore_or_refuse("metadata", check_metadata(body.field("metadata")))?;
    let lots = match required(body, "lots")? {
        Json::Array(lots) => check_lots(lots, rules, &mut unknown, &mut invalid)?,
        _ => {
            return Err(ApiError::new(
                ErrorCode::InvalidParameter,
                "`lots` must be a list of objects.",
            ));
        }
    };
    let submission = Submission {
        languages,
        webhook_url,
        metadata,
        lots,
        unknown_fields: unknown.into_names(),
        ignored_fields: invalid.into_warnings(),
    };
    if submission.webhooks().len() > MAX_WEBHOOKS {
        let message = format!("A job may name at most {MAX_WEBHOOKS} distinct webhook URLs.");
        return Err(ApiError::new(ErrorCode::InvalidWebhookUrl, message));
    }
    Ok(submission)
}

fn check_version(body: Json<'_>) -> Result<(), ApiError> {
    match required(body, "version")? {
        Json::String(text) if text.is(VERSION) => Ok(()),
        _ => Err(ApiError::new(
            ErrorCode::UnsupportedVersion,
            format!("`version` must be \"{VERSION}\"."),
        )),
    }
}

fn check_languages(body: Json<'_>, rules: &SubmissionRules<'_>) -> Result<Vec<String>, ApiError> {
    let Json::Array(tags) = required(body, "languages")? else {
        return Err(ApiError::new(
            ErrorCode::InvalidParameter,
            "`languages` must be a list of language tags.",
        ));
    };
    let number = tags.count();
    if number == 0 || number > rules.max_languages {
        let message = format!(
            "`languages` must hold 1 to {} tags; it holds {number}.",
            rules.max_languages
        );
        return Err(ApiError::new(ErrorCode::InvalidLanguage, message));
    }
    let mut languages: Vec<String> = Vec::with_capacity(number);
    for (position, tag) in tags.enumerate() {
        let tag = match tag {
            Json::String(text) => text.decode().ok().filter(|tag| is_language_tag(tag)),
            _ => None,
        };
        let Some(tag) = tag else {
            let message = format!(
                "`languages[{position}]` must be a BCP 47 tag of at most {MAX_LANGUAGE_CHARS} characters, such as \"en\" or \"pt-BR\"."
            );
            return Err(
                ApiError::new(ErrorCode::InvalidLanguage, message).with(json!({"position": position}))
            );
        };
        if languages.iter().any(|seen| seen.eq_ignore_ascii_case(&tag)) {
            return Err(ApiError::new(
                ErrorCode::InvalidLanguage,
                format!("`languages` names \"{tag}\" twice."),
            ));
        }
        languages.push(tag.into_owned());
    }
    Ok(languages)
}
