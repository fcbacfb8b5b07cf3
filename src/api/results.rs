//! `GET /api/v1/batch-results/{job_id}` and its download: a job's lots with their texts, as a stream.

use serde_json::{Value, json};

use super::status::{cost_json, removal_member};
use super::{Api, query};
use crate::base::clock::Timestamp;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::{JobStatus, MAX_LOTS};
use crate::http::{Request, Response};
use crate::jobs::lot_json::{metadata_member, processing_summary};
use crate::jobs::results_stream::{ResultsStream, ResultsTemplate};
use crate::ops::answers::RequestError;
use crate::store::jobs::JobRow;
use crate::store::{Stored, lots, money};

/// Seconds after which a client may ask for unfinished results again.
const RETRY_AFTER: &str = "30";

impl Api {
    pub(super) fn download(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let response = self.results(request, id, now)?;
        if response.status == 202 {
            return Ok(response);
        }
        let name = format!("attachment; filename=\"batch_results_{id}.json\"");
        Ok(response.with_header("Content-Disposition", &name))
    }

    pub(super) fn results(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let job = self.find_job(request, id, now)?;
        let most = u32::try_from(MAX_LOTS).unwrap_or(u32::MAX);
        let number = |name, default: u32, least| {
            let number = query::integer(request, name, default.into())?;
            let number = number.clamp(least, most.into());
            Ok::<u32, ApiError>(u32::try_from(number).unwrap_or(most))
        };
        let limit = number("limit", most, 1)?;
        // While retention removes a job's lots, some are still there. None of them is shown.
        let limit = job.cleaning_since.map_or(limit, |_| 0);
        let offset = number("offset", 0, 0)?;
        let is_partial = query::flag(request, "partial")?;
        let (status, head) = match job.status {
            JobStatus::Completed if job.cleaning_since.is_some() => {
                let what = "The job was completed, and its results were removed after their time.";
                (410, error_head(&job, ErrorCode::ResultsRemoved, what))
            }
            JobStatus::Completed => (200, self.results_head(&job)?),
            JobStatus::Failed => {
                let code = ErrorCode::JobFailed;
                (410, error_head(&job, code, "The job failed."))
            }
            JobStatus::Cancelled => {
                let code = ErrorCode::JobCancelled;
                (410, error_head(&job, code, "The job was cancelled."))
            }
            JobStatus::Pending | JobStatus::Processing | JobStatus::Translating => {
                let head = unfinished_head(&job, self.progress(&job, now)?);
                let lots = is_partial.then_some((offset, limit));
                return self.unfinished(job, &head, lots);
            }
        };
        let template = ResultsTemplate::results(&head);
        let client = job.client.clone();
        let body = ResultsStream::new(self.store.clone(), job, template, offset, limit);
        Ok(Response::stream(status, "application/json", body).owned_by(&client))
    }

    /// 202 for a job that is not final. `lots` are the first and the number of the finished lots that it has; `None` if
    /// they were not asked for.
    fn unfinished(
        &self,
        job: JobRow,
        head: &Value,
        lots: Option<(u32, u32)>,
    ) -> Result<Response, RequestError> {
        let response = match lots {
            None => Response::json(202, head),
            Some((offset, limit)) => {
                let first = self
                    .store
                    .read(|view| lots::position_of_finished(view, &job.id, offset))?;
                // Lots that finish after this are not in the answer if there is no first one.
                let limit = first.map_or(0, |_| limit);
                let client = job.client.clone();
                let template = ResultsTemplate::results(head);
                let store = self.store.clone();
                let body = ResultsStream::new(store, job, template, first.unwrap_or(0), limit);
                Response::stream(202, "application/json", body.without_pending()).owned_by(&client)
            }
        };
        Ok(response.with_header("Retry-After", RETRY_AFTER))
    }

    /// What the results of a completed job begin with.
    fn results_head(&self, job: &JobRow) -> Stored<Value> {
        let images = self.store.read(|view| lots::images_processed(view, &job.id))?;
        let mut head = json!({
            "job_id": job.id,
            "status": job.status.as_str(),
            "completed_at": job.completed_at.map(Timestamp::to_seconds_text),
            "processing_summary": processing_summary(job, images),
        });
        if let Some(at) = job.retried_at {
            let changed = self.store.read(|view| lots::ended_since(view, &job.id, at))?;
            head["retried_at"] = json!(at.to_seconds_text());
            head["changed_lots"] = json!(changed);
        }
        if self.config.budgets.show_costs {
            let cost = self.store.read(|view| money::job_cost(view, job.seq))?;
            head["processing_details"] = json!({"cost": cost_json(cost)});
        }
        if let Value::Object(head) = &mut head {
            head.extend(metadata_member(job));
        }
        Ok(head)
    }
}

/// What the answer of a job that is not final begins with.
fn unfinished_head(job: &JobRow, progress: Value) -> Value {
    let mut head = json!({
        "error": "Job not completed",
        "status": job.status.as_str(),
        "progress": progress,
        "message": format!("The job is {}; ask again later, or wait for its webhook.", job.status),
    });
    if let Value::Object(head) = &mut head {
        head.extend(metadata_member(job));
    }
    head
}

/// The error that the results of a job begin with if they are incomplete or were removed.
fn error_head(job: &JobRow, code: ErrorCode, what: &str) -> Value {
    let reason = job.error_message.as_deref().unwrap_or("no reason is stored");
    let message = match (code, job.cleaning_since) {
        (ErrorCode::ResultsRemoved, _) => what.to_owned(),
        (_, Some(_)) => format!("{what} {reason}. Its lots were removed after their time."),
        (_, None) => format!("{what} {reason}. `results` holds what was done."),
    };
    let mut head = ApiError::new(code, message).body();
    if let Value::Object(head) = &mut head {
        head.insert("job_id".into(), json!(job.id));
        head.insert("status".into(), json!(job.status.as_str()));
        head.insert(
            "completed_at".into(),
            job.completed_at.map(Timestamp::to_seconds_text).into(),
        );
        head.extend(removal_member(job));
        head.extend(metadata_member(job));
    }
    head
}
