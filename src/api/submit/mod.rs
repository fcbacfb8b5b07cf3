//! `POST /api/v1/generate-descriptions`: a submission is answered as a dry run, as a repeat, synchronously
//! or as a batch job.

use std::time::Duration;

use serde_json::{Value, json};

use super::idempotency::{self, IdempotencyKeys, Replay, replayed};
use super::limits::{RateLimit, too_many_requests};
use super::query::flag_with_value;
use super::status::stage_times;
use super::synchronous::SynchronousPermit;
use super::{Api, JSON, json_response, overloaded, parse_body};
use crate::base::clock::Timestamp;
use crate::config::ClientConfig;
use crate::domain::alert::PauseScope;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::Mode;
use crate::domain::money::Money;
use crate::http::{Request, Response};
use crate::ops::answers::{RETRY_AFTER, RequestError};
use crate::python_json::Json;
use crate::store::jobs::JobRow;
use crate::store::money::BudgetUse;
use crate::store::{StoreError, Stored, alerts};
use crate::workers::pauses;
use crate::workers::wakeups::Topic;

pub mod accept;
mod dry_run;
mod warnings;

use accept::{CheckedSubmission, Refusal, SubmissionOutcome};

impl Api {
    pub(super) fn submit(&self, request: &Request, now: Timestamp) -> Result<Response, RequestError> {
        let started = self.clock.now().steady;
        check_media_type(request)?;
        let permit = self.large_body_permit(request)?;
        let document = parse_body(&request.body)?;
        let body = document.root();
        let caller = self.authenticate_submission(request, body, now)?;
        let client = caller.client;
        let dry_run = flag_with_value(request, "dry_run")?;
        let mut warnings = warnings::of_query(request, client)?;
        let mode = self.mode(request, body);
        let rate = match mode {
            Mode::Synchronous if !dry_run => RateLimit::Synchronous,
            _ => RateLimit::Submissions,
        };
        self.count_request(&client.name, rate)?;
        let is_legacy = caller.signature.is_none();
        let keys = IdempotencyKeys::of_request(request, caller.signature)?;
        let check = || accept::check(body, (client, is_legacy), mode, &self.config, &self.guard);
        if dry_run {
            let submission = check()?;
            warnings.extend(warnings::of_body(&submission));
            warnings.extend(warnings::of_expiry(&submission, mode, now));
            return self.dry_run(client, &submission, mode, &warnings, now);
        }
        if let Some(replay) = idempotency::replay_unchecked(&self.store, &client.name, &keys, now)? {
            drop(permit);
            return self.answer_repeat(client, replay, mode, started);
        }
        self.check_pauses()?;
        let submission = check()?;
        warnings.extend(warnings::of_body(&submission));
        warnings.extend(warnings::of_expiry(&submission, mode, now));
        let content_sha256 = idempotency::content_sha256(body, &submission);
        let checked = CheckedSubmission {
            client: &client.name,
            submission: &submission,
            keys: &keys,
            content_sha256: &content_sha256,
            mode,
            warnings: &warnings,
        };
        let (outcome, waiting) = self.accept(&checked, started, now)?;
        drop(permit);
        match outcome {
            SubmissionOutcome::Accepted(job, answer) => {
                log_received(&job, request, &warnings);
                match waiting {
                    Some(waiting) => {
                        self.wakeups.notify(Topic::SynchronousJobStored);
                        self.wait_for_answer(&waiting, started)
                    }
                    None => {
                        self.wakeups.notify(Topic::BatchJobStored);
                        Ok(json_response(201, answer))
                    }
                }
            }
            SubmissionOutcome::Repeated(replay) => self.answer_repeat(client, replay, mode, started),
            SubmissionOutcome::Refused(refusal) => {
                Err(self.refusal_error(refusal, submission.lots.len(), now))
            }
        }
    }

    /// How a submission is answered: one lot synchronously, unless the client prefers not to wait.
    fn mode(&self, request: &Request, body: Json<'_>) -> Mode {
        let lots = body.field("lots").and_then(Json::as_array);
        let prefers_batch = request
            .headers("prefer")
            .flat_map(|line| line.split([',', ';']))
            .any(|it| it.trim().eq_ignore_ascii_case("respond-async"));
        if self.config.synchronous.enabled
            && lots.is_some_and(|lots| lots.take(2).count() == 1)
            && !prefers_batch
        {
            Mode::Synchronous
        } else {
            Mode::Batch
        }
    }

    /// Refuses a new submission while the operator has paused the intake or free space is short.
    fn check_pauses(&self) -> Result<(), RequestError> {
        let pause = self
            .store
            .read(|view| alerts::paused(view, &PauseScope::Intake))?;
        if let Some(missing) = pauses::missing_free_space(&self.store, &self.config)? {
            log::error!(event = "refused", reason = "disk_reserve", missing; "");
            return Err(StoreError::Full.into());
        }
        if pause.is_some() {
            let message = "The operator has paused the intake: send it again later.";
            return Err(overloaded(message, RETRY_AFTER));
        }
        Ok(())
    }

    /// Stores a checked submission. A new synchronous job comes with the permit to wait for it.
    fn accept(
        &self,
        checked: &CheckedSubmission<'_>,
        started: Duration,
        now: Timestamp,
    ) -> Stored<(SubmissionOutcome, Option<SynchronousPermit<'_>>)> {
        let mut permit = None;
        let admit = |job: &str| match checked.mode {
            Mode::Batch => true,
            Mode::Synchronous => {
                permit = self.synchronous_permit(checked.client, job);
                permit.is_some()
            }
        };
        let times = self.store.read(stage_times)?;
        let acceptance = |job: &JobRow| {
            let took = self.clock.now().steady.saturating_sub(started);
            acceptance(job, checked, self.estimated_end(job, times, now), took)
        };
        let outcome = accept::accept(&self.store, &self.config, checked, admit, acceptance, now)?;
        Ok((outcome, permit))
    }

    /// The answer to a repeated submission: the first answer again. A synchronous job is answered with what
    /// it has by now. `mode` is how the repeat itself wants to be answered.
    fn answer_repeat(
        &self,
        client: &ClientConfig,
        replay: Replay,
        mode: Mode,
        started: Duration,
    ) -> Result<Response, RequestError> {
        let Replay::Answer(answer) = &replay else {
            return Ok(replay.into_response(201)?);
        };
        let mut acceptance: Value = serde_json::from_str(answer).map_err(StoreError::from)?;
        if acceptance["processing_mode"] != Mode::Synchronous.as_str() {
            return Ok(replay.into_response(201)?);
        }
        let id = acceptance["job_id"].as_str().unwrap_or_default();
        let known = self.answer_synchronous_repeat(id, &client.name, mode, started)?;
        Ok(replayed(known.unwrap_or_else(|| {
            // The client polls it like a batch job.
            acceptance["processing_mode"] = json!(Mode::Batch.as_str());
            Response::json(201, &acceptance)
        })))
    }

    /// The error for a submission that was not accepted.
    fn refusal_error(&self, refusal: Refusal, lots: usize, now: Timestamp) -> RequestError {
        match refusal {
            Refusal::NoPermit => overloaded(
                "As many synchronous requests as are served at once are being worked on: send it again, or with \
                 `Prefer: respond-async`.",
                RETRY_AFTER,
            ),
            Refusal::OverBudget { standing, cost } => over_budget(&standing, cost).into(),
            Refusal::DailyLimit { accepted } => {
                let most = self.config.limits.lots_per_day;
                let message = format!(
                    "A client may send {most} lots a day (UTC); {accepted} were taken today, this job has {lots}."
                );
                too_many_requests(&message, now.until_midnight())
            }
        }
    }
}

fn check_media_type(request: &Request) -> Result<(), ApiError> {
    // A list, which may have several field lines.
    let codings = request.headers("content-encoding");
    let mut codings = codings.flat_map(|value| value.split(','));
    if codings.any(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
        let message = "The body must not be compressed: send it without `Content-Encoding`.";
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, message));
    }
    let media_type = request.header("content-type").unwrap_or(JSON);
    // Parameters may follow.
    let essence = media_type.split(';').next().unwrap_or(media_type);
    if essence.trim().eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    let message = "The body must be JSON: send `Content-Type: application/json`.";
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
}

fn log_received(job: &JobRow, request: &Request, warnings: &[String]) {
    log::info!(
        event = "received", job:% = job.id, client:% = job.client, request:% = request.id,
        peer:% = request.peer; ""
    );
    if !warnings.is_empty() {
        let warnings = warnings.join(" ");
        log::warn!(event = "warned", job:% = job.id, client:% = job.client, warnings; "");
    }
}

/// The answer to a new batch job. It is stored with the job and given again to repeats.
fn acceptance(
    job: &JobRow,
    checked: &CheckedSubmission<'_>,
    estimated_end: Timestamp,
    took: Duration,
) -> Value {
    json!({
        "job_id": job.id,
        "status": "accepted",
        "created_at": job.created_at.to_seconds_text(),
        "total_lots": job.total_lots,
        "lots_count": job.total_lots,
        "languages": job.languages,
        "estimated_completion": estimated_end.to_seconds_text(),
        "creation_time": format!("{:.2}s", took.as_secs_f64()),
        "processing_mode": checked.mode.as_str(),
        "webhook_configured": !checked.submission.webhooks().is_empty(),
        "warnings": checked.warnings,
    })
}

/// 402 for a job that would exceed a budget. What other clients have spent stays hidden.
fn over_budget(standing: &BudgetUse, cost: Money) -> ApiError {
    let period = &standing.period;
    let (whose, left) = match &standing.client {
        Some(_) => ("its client's budget", json!(standing.left().to_string())),
        None => ("the budget of all clients", Value::Null),
    };
    let message = format!(
        "The job is estimated to cost {cost} USD, which {whose} of {period} (UTC) does not hold any more. Send fewer lots, \
         or send it again when the next one begins."
    );
    let details = json!({"estimated_cost_usd": cost.to_string(), "period": period, "left_usd": left});
    ApiError::new(ErrorCode::BudgetExceeded, message).with(details)
}
