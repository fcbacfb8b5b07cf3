//! What a submission's answer warns of: parts of the request that were ignored, and image URLs that expire.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::config::ClientConfig;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::{Mode, Submission};
use crate::domain::url_expiry::expires_at;
use crate::http::Request;

/// The query parameters of a submission.
const PARAMETERS: [&str; 1] = ["dry_run"];
/// The time that OpenAI has for a batch. It fetches the images when it runs their line.
const BATCH_WINDOW: Duration = Duration::from_hours(24);
/// The most lots that are named.
const MAX_LOTS: usize = 20;
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

/// The warning for each field of the body that was ignored.
pub(super) fn of_body(submission: &Submission<'_>) -> impl Iterator<Item = String> {
    let unknown = submission.unknown_fields.iter();
    let unknown = unknown.map(|name| format!("The field `{name}` is unknown and was ignored."));
    unknown.chain(submission.ignored_fields.iter().cloned())
}

/// The warning for each lot with an image URL that expires before the lot's batch must have ended. A synchronous
/// request is made at once.
pub(super) fn of_expiry(submission: &Submission<'_>, mode: Mode, now: Timestamp) -> Vec<String> {
    if mode == Mode::Synchronous {
        return Vec::new();
    }
    let end = now + BATCH_WINDOW;
    let mut lots = submission.lots.iter().filter_map(|lot| {
        let expiries = lot.images.iter().filter_map(|url| expires_at(url));
        let early: Vec<Timestamp> = expiries.filter(|expiry| *expiry < end).collect();
        Some((lot.lot_id.as_ref(), early.len(), *early.iter().min()?))
    });
    let named = lots.by_ref().take(MAX_LOTS).map(|(lot, urls, first)| {
        let (urls, expire) = match urls {
            1 => ("1 image URL".to_owned(), "expires"),
            urls => (format!("{urls} image URLs"), "expire"),
        };
        let first = first.to_seconds_text();
        format!(
            "Lot {lot}: {urls} {expire} from {first} on. OpenAI may fetch them up to 24 hours later: sign them for longer."
        )
    });
    let mut warnings: Vec<String> = named.collect();
    match lots.count() {
        0 => {}
        more => warnings.push(format!("Image URLs of {more} further lots expire as early.")),
    }
    warnings
}
