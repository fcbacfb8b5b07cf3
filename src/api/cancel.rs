//! `POST /api/v1/batch-jobs/{job_id}/cancel`.

use serde_json::json;

use super::limits::Kind;
use super::read::no_such_job;
use super::submit::{again, crowded, marks};
use super::{Api, RequestError, parse_body};
use crate::api::intake;
use crate::base::clock::Timestamp;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::JobStatus;
use crate::http::{Request, Response};
use crate::store::cancel;
use crate::store::jobs::{self, JobRow};
use crate::workers::wakeups::Topic;

/// Why a job that its client takes back has no further results.
const REASON: &str = "cancelled by the client";

/// What became of a request to cancel.
enum Done {
    Answer(String),
    NoSuchJob,
    Final(JobStatus),
}

impl Api {
    pub(super) fn cancel(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let caller = self.canceller(request, id, now)?;
        let client = caller.client.name.as_str();
        self.count(client, Kind::Read)?;
        self.refuse_webhook_body(&request.body)?;
        // Cancelling twice is harmless; a key has nothing to add to that.
        let marks = intake::Marks {
            key: None,
            ..marks(request, caller.signature)?
        };
        let done = self.store.write(now, |tx| {
            if let Some(before) = intake::repeated(tx, client, &marks)? {
                return Ok(Err(before));
            }
            let Some(job) = jobs::find(tx, client, id)? else {
                return Ok(Ok(Done::NoSuchJob));
            };
            match job.status {
                JobStatus::Cancelled => {}
                status if status.is_final() => return Ok(Ok(Done::Final(status))),
                _ => cancel::cancel(tx, &job, REASON)?,
            }
            let answer = cancelled(&JobRow {
                completed_at: job.completed_at.or(Some(tx.now)),
                ..job
            });
            intake::remember(tx, client, &marks, job.seq, Some(&answer))?;
            Ok(Ok(Done::Answer(answer)))
        })?;
        match done {
            Err(before) => again(before, 200),
            Ok(Done::Answer(answer)) => {
                self.wakeups.notify(Topic::JobCancelled);
                Ok(Response::bytes(
                    200,
                    "application/json",
                    answer.into_bytes(),
                ))
            }
            Ok(Done::NoSuchJob) => Err(no_such_job(id).into()),
            Ok(Done::Final(status)) => {
                let message = format!("The job is {status} already; it cannot be cancelled.");
                let details = json!({"job_id": id, "status": status.as_str()});
                Err(ApiError::new(ErrorCode::JobNotCancellable, message)
                    .with(details)
                    .into())
            }
        }
    }

    /// A body is JSON, and none of ours: a webhook's signature must open nothing.
    fn refuse_webhook_body(&self, body: &[u8]) -> Result<(), RequestError> {
        if body.is_empty() {
            return Ok(());
        }
        let _turn = self.turns.wait(body).ok_or_else(crowded)?;
        if parse_body(body)?.field("event").is_some() {
            let message =
                "A body with an `event` field is a webhook of this service, never a request.";
            return Err(ApiError::new(ErrorCode::InvalidParameter, message).into());
        }
        Ok(())
    }
}

fn cancelled(job: &JobRow) -> String {
    json!({
        "job_id": job.id,
        "status": JobStatus::Cancelled.as_str(),
        "cancelled_at": job.completed_at.map(Timestamp::to_seconds_text),
        "message": "The job is cancelled. What was done until then can be read from its results.",
    })
    .to_string()
}
