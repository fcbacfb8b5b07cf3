//! `GET /api/v1/batch-jobs`: a client's jobs, newest first.

use serde_json::{Value, json};

use super::limits::RateLimit;
use super::page::Page;
use super::{Api, query};
use crate::base::clock::Timestamp;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::http::{Request, Response};
use crate::jobs::lot_json::metadata_member;
use crate::ops::answers::RequestError;
use crate::store::jobs::{self, JobFilter, JobPage, JobRow};

/// Rows of a page if the request has no `limit`.
pub(super) const DEFAULT_LIMIT: u32 = 10;

impl Api {
    pub(super) fn list(&self, request: &Request, now: Timestamp) -> Result<Response, RequestError> {
        let caller = self.authenticate_list(request, now)?;
        let client = caller.client.name.as_str();
        self.count_request(client, RateLimit::Reads)?;
        let page = Page::of_request(request, DEFAULT_LIMIT)?;
        let filter = JobFilter {
            status: query::parsed(request, "status", "a job's state", str::parse)?,
            created_after: query::time(request, "created_after")?,
            created_before: query::time(request, "created_before")?,
        };
        let cursor = query::parameter(request, "cursor")?;
        let begins_at_cursor = cursor.as_deref().filter(|cursor| !cursor.is_empty());
        if begins_at_cursor.is_some() && page.offset > 0 {
            let message = "A request has either `cursor` or `offset`: leave one out.";
            return Err(ApiError::new(ErrorCode::InvalidParameter, message).into());
        }
        let (total, mut rows) = self
            .store
            .read(|view| {
                let after = match begins_at_cursor.map(|cursor| jobs::find(view, client, cursor)) {
                    None => None,
                    Some(found) => match found? {
                        Some(job) => Some(job),
                        None => return Ok(None),
                    },
                };
                let asked = JobPage {
                    after: after.as_ref(),
                    offset: page.offset,
                    // One more shows whether there is another page.
                    limit: page.limit + 1,
                };
                jobs::list(view, client, &filter, asked).map(Some)
            })?
            .ok_or_else(unknown_cursor)?;
        let most = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > most;
        rows.truncate(most);
        let list: Value = rows.iter().map(job_json).collect();
        let mut answer = json!({
            "jobs": list,
            "pagination": page.pagination(total, has_more),
        });
        if cursor.is_some() {
            let last = rows.last().filter(|_| has_more);
            answer["pagination"]["next_cursor"] = json!(last.map(|job| &job.id));
        }
        Ok(Response::json(200, &answer))
    }
}

fn unknown_cursor() -> ApiError {
    let message = "`cursor` is unknown: take `next_cursor` of the page before, or begin with an empty one.";
    ApiError::new(ErrorCode::InvalidParameter, message)
}

fn job_json(job: &JobRow) -> Value {
    let mut listed = json!({
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
    });
    if let Value::Object(listed) = &mut listed {
        listed.extend(metadata_member(job));
    }
    listed
}
