//! `GET /api/v1/batch-jobs`.

use serde_json::{Value, json};

use super::limits::Kind;
use super::{Api, RequestError, whole_number};
use crate::base::clock::Timestamp;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::http::{Request, Response};
use crate::store::jobs::{self, Filter, JobRow};

/// Jobs of a page, where the request does not say.
const USUAL: i64 = 10;
/// The most jobs of a page.
const MOST: i64 = 100;

impl Api {
    pub(super) fn list(&self, request: &Request, now: Timestamp) -> Result<Response, RequestError> {
        let client = self.lister(request, now)?.client.name.as_str();
        self.count(client, Kind::Read)?;
        let limit = number(request, "limit", USUAL)?.clamp(1, MOST);
        let offset = number(request, "offset", 0)?.max(0).unsigned_abs();
        let time = |name| parameter(request, name, "a time such as 2026-11-24T02:24:00Z", time);
        let filter = Filter {
            status: parameter(request, "status", "a job's state", str::parse)?,
            created_after: time("created_after")?,
            created_before: time("created_before")?,
        };
        let page = u32::try_from(limit).unwrap_or(u32::MAX);
        let (total, rows) = self
            .store
            .read(|view| jobs::list(view, client, &filter, page, offset))?;
        let shown = offset.saturating_add(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        let list: Value = rows.iter().map(job).collect();
        let answer = json!({
            "jobs": list,
            "pagination": {
                "limit": limit,
                "offset": offset,
                "total": total,
                "has_more": shown < total,
            },
        });
        Ok(Response::json(200, &answer))
    }
}

fn job(job: &JobRow) -> Value {
    json!({
        "id": job.id,
        "job_id": job.id,
        "status": job.status.as_str(),
        "created_at": job.created_at.to_seconds_text(),
        "updated_at": job.updated_at.to_seconds_text(),
        "completed_at": job.completed_at.map(Timestamp::to_seconds_text),
        "total_lots": job.total_lots,
        "processed_lots": job.processed_lots,
        "failed_lots": job.failed_lots,
        "languages": job.languages,
        "openai_vision_batch_id": job.vision_batch,
        "openai_translation_batch_id": job.translation_batch,
        "error_message": job.error_message,
    })
}

/// A whole number of the query.
pub(super) fn number(request: &Request, name: &str, otherwise: i64) -> Result<i64, ApiError> {
    let number = parameter(request, name, "a whole number", whole_number)?;
    Ok(number.unwrap_or(otherwise))
}

/// A query parameter, read; an empty one is as good as none.
fn parameter<T, E>(
    request: &Request,
    name: &str,
    what: &str,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, ApiError> {
    let text = super::parameter(request, name)?.filter(|text| !text.is_empty());
    text.map(|text| read(&text)).transpose().map_err(|_| {
        let message = format!("`{name}` must be {what}.");
        ApiError::new(ErrorCode::InvalidParameter, message)
    })
}

/// A time as clients write them: RFC 3339, without an offset (UTC is meant), or a day alone.
fn time(text: &str) -> Result<Timestamp, crate::base::clock::NotATime> {
    // The plus of an offset that was not percent-encoded arrives as a space.
    let text = match text.rsplit_once(' ') {
        Some((time, offset)) if time.contains('T') => format!("{time}+{offset}"),
        _ => text.to_owned(),
    };
    text.parse()
        .or_else(|_| format!("{text}Z").parse())
        .or_else(|_| format!("{text}T00:00:00Z").parse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_as_clients_write_them() {
        for text in [
            "2026-11-24T02:24:00Z",
            "2026-11-24T02:24:00",
            "2026-11-24T04:24:00+02:00",
            "2026-11-24T04:24:00 02:00",
            "2026-11-24 02:24:00",
            "2026-11-24T02:24:00.000Z",
        ] {
            let read = time(text).map(Timestamp::to_seconds_text);
            assert_eq!(read.as_deref(), Ok("2026-11-24T02:24:00Z"), "{text}");
        }
        assert_eq!(
            time("2026-11-24")
                .map(Timestamp::to_seconds_text)
                .as_deref(),
            Ok("2026-11-24T00:00:00Z")
        );
        for text in ["yesterday", "1795400000", "2026-13-01"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
