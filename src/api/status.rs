//! `GET /api/v1/batch-status/{job_id}`: a job's state and progress.

use serde_json::{Map, Value, json};

use super::Api;
use super::limits::RateLimit;
use crate::base::clock::Timestamp;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::batch::{BatchState, Stage};
use crate::domain::decide::estimated_end::{LAST_BATCHES, OpenJob, StageTimes};
use crate::domain::job::{JobStatus, is_english};
use crate::domain::money::Money;
use crate::domain::usage::TokenUsage;
use crate::http::{Request, Response};
use crate::jobs::lot_json::metadata_member;
use crate::ops::answers::RequestError;
use crate::store::jobs::{self, JobRow};
use crate::store::{Stored, View, batches, money};

impl Api {
    /// The job that a signed request reads. A job of another client is not found.
    pub(super) fn find_job(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<JobRow, RequestError> {
        let caller = self.authenticate_read(request, id, now)?;
        let client = caller.client.name.as_str();
        self.count_request(client, RateLimit::Reads)?;
        let job = self.store.read(|view| jobs::find(view, client, id))?;
        Ok(job.ok_or_else(|| job_not_found(id))?)
    }

    pub(super) fn status(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let job = self.find_job(request, id, now)?;
        let shows_costs = self.config.budgets.show_costs;
        let (working, webhooks, cost) = self.store.read(|view| {
            Ok((
                jobs::batches(view, job.seq)?,
                jobs::count_webhooks(view, &job.id)?,
                shows_costs.then(|| money::job_cost(view, job.seq)).transpose()?,
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
            ("progress", self.progress(&job, now)?),
            ("languages", json!(job.languages)),
            ("processing_details", details),
            ("openai_batch_id", json!(job.vision_batch)),
            ("openai_vision_batch_id", json!(job.vision_batch)),
            ("openai_translation_batch_id", json!(job.translation_batch)),
            ("openai_batch_ids", working.iter().map(batch_json).collect()),
            ("error_message", json!(job.error_message)),
            ("error", json!(job.error_message)),
            ("webhook_configured", json!(webhooks > 0)),
        ];
        for (name, value) in fields {
            answer.insert(name.to_owned(), value);
        }
        answer.extend(removal_member(&job));
        answer.extend(metadata_member(&job));
        Ok(Response::json(200, &Value::Object(answer)))
    }

    /// How far a job is, and when it probably ends.
    pub(super) fn progress(&self, job: &JobRow, now: Timestamp) -> Stored<Value> {
        let estimate = match job.status.is_final() {
            true => None,
            false => Some(self.estimated_end(job, self.store.read(stage_times)?, now)),
        };
        Ok(json!({
            "total_lots": job.total_lots,
            "processed_lots": job.processed_lots,
            "failed_lots": job.failed_lots,
            "completion_percentage": percentage(job.processed_lots, job.total_lots),
            "estimated_completion": estimate.map(Timestamp::to_seconds_text),
            "requests": requests(job),
        }))
    }

    /// When an open job probably ends.
    pub(super) fn estimated_end(&self, job: &JobRow, times: StageTimes, now: Timestamp) -> Timestamp {
        let open = OpenJob {
            created_at: job.created_at,
            is_described: job.status == JobStatus::Translating,
            has_translations: job.languages.iter().any(|tag| !is_english(tag)),
            longest_wait: self.config.batch.max_wait,
        };
        open.estimated_end(times, now)
    }
}

/// How long the last batches of each stage took.
pub(super) fn stage_times(view: &View) -> Stored<StageTimes> {
    Ok(StageTimes::of(
        batches::last_durations(view, Stage::Vision, LAST_BATCHES)?,
        batches::last_durations(view, Stage::Translation, LAST_BATCHES)?,
    ))
}

/// 404 for a job that the client does not have.
pub(super) fn job_not_found(id: &str) -> ApiError {
    let message = "There is no such job, or it is another client's.";
    ApiError::new(ErrorCode::JobNotFound, message).with(json!({"job_id": id}))
}

fn batch_json(batch: &jobs::JobBatch) -> Value {
    let state = match batch.state {
        BatchState::Planned | BatchState::Sealed | BatchState::Uploaded | BatchState::Creating => "preparing",
        BatchState::Submitted => "running",
        BatchState::Ended => "ended",
        BatchState::Ingested => "completed",
        BatchState::Failed => "failed",
    };
    json!({"openai_batch_id": batch.openai_batch_id, "stage": batch.stage.as_str(), "state": state})
}

/// The requests of a job: all that it needs, and those that are settled.
fn requests(job: &JobRow) -> Value {
    let translated = job.languages.iter().filter(|tag| !is_english(tag)).count();
    let (total, settled) = count_requests(
        job.total_lots.into(),
        u64::try_from(translated).unwrap_or(u64::MAX),
        job.open_vision.into(),
        job.open_translations.into(),
    );
    json!({"total": total, "settled": settled})
}

/// Number of all requests of a job, and of those that are settled. Each lot needs a description, and a translation into
/// each of `translated` languages. The translations of a lot are counted before they can be asked for: a lot whose
/// description is open has all of them to come, and a lot whose description failed has none.
fn count_requests(lots: u64, translated: u64, open_vision: u64, open_translations: u64) -> (u64, u64) {
    let of_lot = 1 + translated;
    let total = lots * of_lot;
    // A recovered batch may have translations of a lot whose description is open.
    let open = open_vision * of_lot + open_translations;
    (total, total.saturating_sub(open))
}

/// A part of the whole in percent, rounded to a tenth. Only the whole gives 100.
fn percentage(part: u32, whole: u32) -> f64 {
    if part >= whole {
        return 100.0;
    }
    let tenths = (f64::from(part) * 1000.0 / f64::from(whole)).round();
    tenths.min(999.0) / 10.0
}

/// What a job has cost so far, and the tokens that it used.
pub(super) fn cost_json((cost, tokens): (Option<Money>, TokenUsage)) -> Value {
    json!({
        "usd": cost.map(|cost| cost.to_string()),
        "input_tokens": tokens.input,
        "cached_tokens": tokens.cached,
        "output_tokens": tokens.output,
    })
}

/// The member that says when retention removed a job's lots; `None` if it has not.
pub(super) fn removal_member(job: &JobRow) -> Option<(String, Value)> {
    let at = job.cleaning_since?.to_seconds_text();
    Some(("results_removed_at".into(), json!(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_settled_one_by_one_and_their_total_stays() {
        // Lots, translated languages, open descriptions, open translations; all requests, settled ones.
        for (lots, translated, vision, translations, expected) in [
            (400, 9, 400, 0, (4_000, 0)),
            // Each description that came has its translations to come.
            (400, 9, 100, 2_700, (4_000, 300)),
            (400, 9, 0, 3_600, (4_000, 400)),
            (400, 9, 0, 1, (4_000, 3_999)),
            // A description that failed settles its translations, too.
            (2, 3, 1, 0, (8, 4)),
            (2, 3, 0, 0, (8, 8)),
            (3, 0, 1, 0, (3, 2)),
            (50_000, 10, 50_000, 0, (550_000, 0)),
            // Translations of a recovered batch, beside their open description.
            (1, 2, 1, 2, (3, 0)),
        ] {
            let counted = count_requests(lots, translated, vision, translations);
            assert_eq!(counted, expected, "{lots} {translated} {vision} {translations}");
        }
    }

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
