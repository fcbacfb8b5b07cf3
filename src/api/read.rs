//! Polls: a job's status and results.

use serde_json::{Map, Value, json};

use super::limits::Kind;
use super::list::number;
use super::submit::USUAL_STAGE;
use super::{Api, RequestError};
use crate::base::clock::Timestamp;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::batch::BatchState;
use crate::domain::job::{JobStatus, MAX_LOTS};
use crate::domain::money::Money;
use crate::domain::usage::TokenUsage;
use crate::http::{Request, Response};
use crate::jobs::results::{self, Frame, ResultsReader};
use crate::store::jobs::{self, JobRow};
use crate::store::{lots, money};

/// How long a poller is asked to wait, seconds.
const RETRY_RESULTS: &str = "30";

impl Api {
    /// The job that a read is about, where the one who reads may see it.
    pub(super) fn find(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<JobRow, RequestError> {
        let client = self.reader(request, id, now)?.client.name.as_str();
        self.count(client, Kind::Read)?;
        let job = self.store.read(|view| jobs::find(view, client, id))?;
        Ok(job.ok_or_else(|| no_such_job(id))?)
    }

    pub(super) fn status(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let job = self.find(request, id, now)?;
        let shows_costs = self.config.budgets.show_costs;
        let (batches, webhooks, cost) = self.store.read(|view| {
            Ok((
                jobs::batches(view, job.seq)?,
                jobs::webhooks(view, &job.id)?,
                shows_costs
                    .then(|| money::of_job(view, job.seq))
                    .transpose()?,
            ))
        })?;
        let mut details = json!({
            "openai_vision_batch_id": job.vision_batch,
            "openai_translation_batch_id": job.translation_batch,
            "current_stage": job.status.stage(),
        });
        if let Some(cost) = cost {
            details["cost"] = cost_json(cost);
        }
        let mut answer = Map::new();
        let fields = [
            ("job_id", json!(job.id)),
            ("status", json!(job.status.as_str())),
            ("created_at", json!(job.created_at.to_seconds_text())),
            ("updated_at", json!(job.updated_at.to_seconds_text())),
            (
                "completed_at",
                job.completed_at.map(Timestamp::to_seconds_text).into(),
            ),
            ("progress", progress(&job, now)),
            ("languages", json!(job.languages)),
            ("processing_details", details),
            ("openai_batch_id", json!(job.vision_batch)),
            ("openai_vision_batch_id", json!(job.vision_batch)),
            ("openai_translation_batch_id", json!(job.translation_batch)),
            ("openai_batch_ids", batches.iter().map(batch).collect()),
            ("error_message", json!(job.error_message)),
            ("error", json!(job.error_message)),
            ("webhook_configured", json!(webhooks > 0)),
        ];
        for (name, value) in fields {
            answer.insert(name.to_owned(), value);
        }
        answer.extend(removed(&job));
        Ok(Response::json(200, &Value::Object(answer)))
    }

    pub(super) fn results(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
        download: bool,
    ) -> Result<Response, RequestError> {
        let job = self.find(request, id, now)?;
        let most = u32::try_from(MAX_LOTS).unwrap_or(u32::MAX);
        let number = |name, otherwise: u32, least| {
            let number = number(request, name, otherwise.into())?.clamp(least, most.into());
            Ok::<u32, ApiError>(u32::try_from(number).unwrap_or(most))
        };
        let limit = number("limit", most, 1)?;
        // While a job is cleaned some of its lots are still here: none is shown.
        let limit = job.cleaning_since.map_or(limit, |_| 0);
        let offset = number("offset", 0, 0)?;
        let (status, head) = match job.status {
            JobStatus::Completed if job.cleaning_since.is_some() => {
                let what = "The job was completed, and its results were removed after their time.";
                (410, gone(&job, ErrorCode::ResultsRemoved, what))
            }
            JobStatus::Completed => {
                let images = self
                    .store
                    .read(|view| lots::images_processed(view, &job.id))?;
                let mut head = json!({
                    "job_id": job.id,
                    "status": job.status.as_str(),
                    "completed_at": job.completed_at.map(Timestamp::to_seconds_text),
                    "processing_summary": results::summary(&job, images),
                });
                if self.config.budgets.show_costs {
                    let cost = self.store.read(|view| money::of_job(view, job.seq))?;
                    head["processing_details"] = json!({"cost": cost_json(cost)});
                }
                (200, head)
            }
            JobStatus::Failed => (410, gone(&job, ErrorCode::JobFailed, "The job failed.")),
            JobStatus::Cancelled => (
                410,
                gone(&job, ErrorCode::JobCancelled, "The job was cancelled."),
            ),
            JobStatus::Pending | JobStatus::Processing | JobStatus::Translating => {
                let answer = json!({
                    "error": "Job not completed",
                    "status": job.status.as_str(),
                    "progress": progress(&job, now),
                    "message": format!("The job is {}; ask again later, or wait for its webhook.", job.status),
                });
                return Ok(Response::json(202, &answer).with_header("Retry-After", RETRY_RESULTS));
            }
        };
        let name = format!("attachment; filename=\"batch_results_{}.json\"", job.id);
        let body = ResultsReader::new(
            self.store.clone(),
            job,
            Frame::results(&head),
            offset,
            limit,
        );
        let response = Response::stream(status, "application/json", body);
        Ok(if download {
            response.with_header("Content-Disposition", &name)
        } else {
            response
        })
    }
}

/// What a job has cost so far, and the tokens that it took.
fn cost_json((cost, tokens): (Option<Money>, TokenUsage)) -> Value {
    json!({
        "usd": cost.map(|cost| cost.to_string()),
        "input_tokens": tokens.input,
        "cached_tokens": tokens.cached,
        "output_tokens": tokens.output,
    })
}

/// The refusal of a job that there is not, for this client.
pub(super) fn no_such_job(id: &str) -> ApiError {
    let message = "There is no such job, or it is another client's.";
    ApiError::new(ErrorCode::JobNotFound, message).with(json!({"job_id": id}))
}

fn batch(batch: &jobs::JobBatch) -> Value {
    let state = match batch.state {
        BatchState::Planned | BatchState::Sealed | BatchState::Uploaded | BatchState::Creating => {
            "preparing"
        }
        BatchState::Submitted => "running",
        BatchState::Ended => "ended",
        BatchState::Ingested => "completed",
        BatchState::Failed => "failed",
    };
    json!({"openai_batch_id": batch.openai_batch_id, "stage": batch.stage.as_str(), "state": state})
}

fn progress(job: &JobRow, now: Timestamp) -> Value {
    let stages = match job.status {
        JobStatus::Pending | JobStatus::Processing => 2,
        _ => 1,
    };
    let estimate = (!job.status.is_final())
        .then(|| (job.created_at + USUAL_STAGE * 2).max(now + USUAL_STAGE * stages / 4));
    json!({
        "total_lots": job.total_lots,
        "processed_lots": job.processed_lots,
        "failed_lots": job.failed_lots,
        "completion_percentage": percentage(job.processed_lots, job.total_lots),
        "estimated_completion": estimate.map(Timestamp::to_seconds_text),
    })
}

/// A part of the whole in percent, to a tenth; a hundred is the whole alone.
fn percentage(part: u32, whole: u32) -> f64 {
    if part >= whole {
        return 100.0;
    }
    let tenths = (f64::from(part) * 1000.0 / f64::from(whole)).round();
    tenths.min(999.0) / 10.0
}

/// When a job's lots were removed, where they were.
fn removed(job: &JobRow) -> Option<(String, Value)> {
    let at = job.cleaning_since?.to_seconds_text();
    Some(("results_removed_at".into(), json!(at)))
}

/// The head of a failed or cancelled job's results: an error with its reason.
fn gone(job: &JobRow, code: ErrorCode, what: &str) -> Value {
    let reason = job
        .error_message
        .as_deref()
        .unwrap_or("no reason is stored");
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
        head.extend(removed(job));
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_percent_is_all_of_it() {
        for (part, whole, expected) in [
            (0, 3, 0.0),
            (1, 3, 33.3),
            (2, 3, 66.7),
            (2999, 3000, 99.9),
            (3000, 3000, 100.0),
            (0, 0, 100.0),
        ] {
            assert!(
                (percentage(part, whole) - expected).abs() < 1e-9,
                "{part} of {whole}"
            );
        }
    }
}
