//! `POST /api/v1/batch-jobs/{job_id}/cancel`.

use serde_json::json;

use super::idempotency::{self, Replay};
use super::limits::RateLimit;
use super::status::job_not_found;
use super::{Api, json_response};
use crate::base::clock::Timestamp;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::JobStatus;
use crate::http::{Request, Response};
use crate::ops::answers::RequestError;
use crate::store::jobs::{self, JobRow};
use crate::store::{cancel, job_changes};
use crate::workers::wakeups::Topic;

/// The `error_message` of a cancelled job.
const REASON: &str = "cancelled by the client";

/// What became of a request to cancel.
enum CancelOutcome {
    Repeated(Replay),
    /// The job is cancelled now, or was before. The answer as JSON.
    Cancelled(String),
    NotFound,
    AlreadyFinal(JobStatus),
}

impl Api {
    pub(super) fn cancel(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let change = self.job_change(request, id, ("A cancel", RateLimit::Reads), now)?;
        let (client, keys) = (change.client, &change.keys);
        let outcome = self.store.write(now, |tx| {
            if let Some(replay) = idempotency::find_replay(tx, client, keys)? {
                return Ok(CancelOutcome::Repeated(replay));
            }
            let Some(job) = jobs::find(tx, client, id)? else {
                return Ok(CancelOutcome::NotFound);
            };
            match job.status {
                JobStatus::Cancelled => {}
                status if status.is_final() => return Ok(CancelOutcome::AlreadyFinal(status)),
                _ => cancel::cancel(tx, &job, REASON, job_changes::LOTS)?,
            }
            let cancelled_at = job.completed_at.unwrap_or(tx.now);
            let answer = cancelled(&job, cancelled_at);
            idempotency::remember(tx, client, keys, Some(job.seq), Some(&answer))?;
            Ok(CancelOutcome::Cancelled(answer))
        })?;
        match outcome {
            CancelOutcome::Repeated(replay) => Ok(replay.into_response(200)?),
            CancelOutcome::Cancelled(answer) => {
                self.wakeups.notify(Topic::JobCancelled);
                Ok(json_response(200, answer))
            }
            CancelOutcome::NotFound => Err(job_not_found(id).into()),
            CancelOutcome::AlreadyFinal(status) => {
                let message = format!("The job is {status} already; it cannot be cancelled.");
                let details = json!({"job_id": id, "status": status.as_str()});
                Err(ApiError::new(ErrorCode::JobNotCancellable, message)
                    .with(details)
                    .into())
            }
        }
    }
}

fn cancelled(job: &JobRow, cancelled_at: Timestamp) -> String {
    json!({
        "job_id": job.id,
        "status": JobStatus::Cancelled.as_str(),
        "cancelled_at": cancelled_at.to_seconds_text(),
        "message": "The job is cancelled. What was done until then can be read from its results.",
    })
    .to_string()
}
