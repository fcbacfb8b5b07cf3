//! `GET /api/v1/batch-jobs`: a client's jobs, newest first.

use serde_json::{Value, json};

use super::limits::RateLimit;
use super::{Api, query};
use crate::base::clock::Timestamp;
use crate::http::{Request, Response};
use crate::jobs::lot_json::metadata_member;
use crate::ops::answers::RequestError;
use crate::store::jobs::{self, JobFilter, JobRow};

/// Jobs in an answer if the request has no `limit`.
const DEFAULT_LIMIT: i64 = 10;
/// The most jobs in an answer.
const MAX_LIMIT: i64 = 100;

impl Api {
    pub(super) fn list(&self, request: &Request, now: Timestamp) -> Result<Response, RequestError> {
        let caller = self.authenticate_list(request, now)?;
        let client = caller.client.name.as_str();
        self.count_request(client, RateLimit::Reads)?;
        let limit = query::integer(request, "limit", DEFAULT_LIMIT)?.clamp(1, MAX_LIMIT);
        let offset = query::integer(request, "offset", 0)?.max(0).unsigned_abs();
        let filter = JobFilter {
            status: query::parsed(request, "status", "a job's state", str::parse)?,
            created_after: query::time(request, "created_after")?,
            created_before: query::time(request, "created_before")?,
        };
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        let (total, rows) = self
            .store
            .read(|view| jobs::list(view, client, &filter, most, offset))?;
        let end = offset.saturating_add(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        let list: Value = rows.iter().map(job_json).collect();
        let answer = json!({
            "jobs": list,
            "pagination": {
                "limit": limit,
                "offset": offset,
                "total": total,
                "has_more": end < total,
            },
        });
        Ok(Response::json(200, &answer))
    }
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
