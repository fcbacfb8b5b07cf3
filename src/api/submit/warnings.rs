//! What a submission's answer warns of: parts of the request that were ignored.

use crate::config::ClientConfig;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::Submission;
use crate::http::Request;

/// The query parameters of a submission.
const PARAMETERS: [&str; 1] = ["dry_run"];
/// The most unknown parameters that are named.
const MAX_NAMES: usize = 20;

/// The warning for each unknown query parameter. Clients without legacy signatures get an error instead: a
/// misspelled `dry_run` would be a job that is paid for.
pub(super) fn of_query(request: &Request, client: &ClientConfig) -> Result<Vec<String>, ApiError> {
    let mut unknown = request.parameter_names();
    unknown.retain(|name| !PARAMETERS.contains(&name.as_str()));
    unknown.dedup();
    unknown.truncate(MAX_NAMES);
    match unknown.first() {
        Some(name) if !client.legacy() => {
            let message = format!("A submission has no query parameter `{name}`; it has `dry_run`.");
            Err(ApiError::new(ErrorCode::InvalidParameter, message))
        }
        _ => Ok(unknown
            .iter()
            .map(|name| format!("The query parameter `{name}` is unknown and was ignored."))
            .collect()),
    }
}

/// The warning for each unknown field of the body.
pub(super) fn of_body(submission: &Submission<'_>) -> impl Iterator<Item = String> {
    let fields = submission.unknown_fields.iter();
    fields.map(|name| format!("The field `{name}` is unknown and was ignored."))
}
