//! `GET /api/v1/lots/{lot_id}`: a lot in all jobs of a client, the newest job first.

use serde_json::{Value, json};

use super::Api;
use super::limits::RateLimit;
use super::list::DEFAULT_LIMIT;
use super::page::Page;
use crate::base::clock::Timestamp;
use crate::base::percent;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::http::{Request, Response};
use crate::jobs::lot_json::{LotJson, metadata_member};
use crate::ops::answers::RequestError;
use crate::store::jobs::JobRow;
use crate::store::lots::{self, LotRow};

impl Api {
    /// `id` is the lot's id as the path has it, percent-encoded.
    pub(super) fn lot(&self, request: &Request, id: &str, now: Timestamp) -> Result<Response, RequestError> {
        let id = percent::decode(id);
        let caller = self.authenticate_lot(request, &id, now)?;
        let client = caller.client.name.as_str();
        self.count_request(client, RateLimit::Reads)?;
        let page = Page::of_request(request, DEFAULT_LIMIT)?;
        let (total, found) = self
            .store
            .read(|view| lots::of_client(view, client, &id, page.limit, page.offset))?;
        if total == 0 {
            return Err(lot_not_found(&id).into());
        }
        let jobs: Value = found.iter().map(|(job, lot)| entry(job, lot)).collect();
        let answer = json!({
            "lot_id": id,
            "jobs": jobs,
            "pagination": page.pagination(total, page.has_more(found.len(), total)),
        });
        Ok(Response::json(200, &answer))
    }
}

/// 404 for a lot that no job of the client has.
fn lot_not_found(id: &str) -> ApiError {
    let message =
        "No job has such a lot, it is another client's, or its results were removed after their time.";
    ApiError::new(ErrorCode::NotFound, message).with(json!({"lot_id": id}))
}

fn entry(job: &JobRow, lot: &LotRow) -> Value {
    let mut entry = json!({
        "job_id": job.id,
        "status": job.status.as_str(),
        "created_at": job.created_at.to_seconds_text(),
        "completed_at": job.completed_at.map(Timestamp::to_seconds_text),
        "lot": LotJson::new(&job.languages, lot).to_value(),
    });
    if let Value::Object(entry) = &mut entry {
        entry.extend(metadata_member(job));
    }
    entry
}
