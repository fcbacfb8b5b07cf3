//! `POST /api/v1/generate-descriptions`.

use std::time::Duration;

use serde_json::{Value, json};

use super::limits::{Kind, too_many};
use super::{Api, RequestError, overloaded, parameter, parse_body};
use crate::api::intake::{self, Before, Incoming, Marks, Taken};
use crate::base::clock::Timestamp;
use crate::config::ClientConfig;
use crate::domain::alert::PauseScope;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::{Mode, Submission};
use crate::domain::money::Money;
use crate::http::{Request, Response};
use crate::python_json::Json;
use crate::store::jobs::JobRow;
use crate::store::money::Standing;
use crate::store::{StoreError, alerts};
use crate::workers::pauses;
use crate::workers::wakeups::Topic;

/// How long a stage usually takes: four of five batches at OpenAI end within an hour.
pub(super) const USUAL_STAGE: Duration = Duration::from_hours(1);

/// How long a client is asked to wait when too many large submissions are there, seconds.
const RETRY_CROWDED: &str = "5";

/// The media type of a submission, whatever parameters follow it.
const JSON: &str = "application/json";
/// Characters of an `Idempotency-Key`.
const MAX_KEY: usize = 255;

impl Api {
    pub(super) fn submit(
        &self,
        request: &Request,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let started = self.clock.now().steady;
        let media_type = request.header("content-type").unwrap_or(JSON);
        let essence = media_type.split(';').next().unwrap_or(media_type);
        if !essence.trim().eq_ignore_ascii_case(JSON) {
            let message = "The body must be JSON: send `Content-Type: application/json`.";
            return Err(ApiError::new(ErrorCode::UnsupportedMediaType, message).into());
        }
        let turn = self.turns.wait(&request.body).ok_or_else(crowded)?;
        let body = parse_body(&request.body)?;
        let caller = self.submitter(request, &body, now)?;
        let client = caller.client;
        let dry_run = is_dry_run(request)?;
        let mode = self.mode(request, &body);
        let at_once = mode == Mode::Synchronous && !dry_run;
        let kind = if at_once {
            Kind::Synchronous
        } else {
            Kind::Submit
        };
        self.count(&client.name, kind)?;
        let marks = marks(request, caller.signature)?;
        if !dry_run {
            if let Some(before) = intake::again(&self.store, &client.name, &marks, now)? {
                drop(turn);
                return self.again(client, before, mode, started);
            }
            let pause = self
                .store
                .read(|view| alerts::paused(view, &PauseScope::Intake))?;
            if let Some(missing) = pauses::missing_room(&self.store, &self.config)? {
                log::error!("event=refused reason=disk_reserve missing={missing}");
                return Err(StoreError::Full.into());
            }
            if pause.is_some() {
                return Err(overloaded(
                    "The operator has paused the intake: send it again later.",
                ));
            }
        }
        let submission = intake::check(&body, client, mode, &self.config, &self.guard)?;
        if dry_run {
            let estimate = self.estimate(&submission, mode, now)?;
            return Ok(Response::json(200, &estimate));
        }
        let content_sha256 = intake::content_sha256(&body, &submission);
        drop(body);
        let incoming = Incoming {
            client: &client.name,
            submission: &submission,
            marks: &marks,
            content_sha256: &content_sha256,
            mode,
        };
        let acceptance = |job: &JobRow| {
            let took = self.clock.now().steady.saturating_sub(started);
            acceptance(job, &submission, mode, took)
        };
        let mut permit = None;
        let admit = |job: &str| {
            if at_once {
                permit = self.permit(&client.name, job);
            }
            permit.is_some() || !at_once
        };
        let store = &self.store;
        match intake::accept(store, &self.config, &incoming, admit, acceptance, now)? {
            Taken::New(job, answer) => {
                log::info!(
                    "event=received job={} client={} request={} peer={}",
                    job.id,
                    client.name,
                    request.id,
                    request.peer
                );
                self.wakeups.notify(match permit {
                    Some(_) => Topic::SynchronousJobStored,
                    None => Topic::BatchJobStored,
                });
                drop(turn);
                match permit {
                    Some(permit) => self.answer_at_once(&permit, started),
                    None => Ok(Response::bytes(201, JSON, answer.into_bytes())),
                }
            }
            Taken::Again(before) => {
                drop(turn);
                self.again(client, before, mode, started)
            }
            Taken::NotNow => Err(overloaded(
                "As many synchronous requests as are served at once are being worked on: send it again, or with \
                 `Prefer: respond-async`.",
            )),
            Taken::OverBudget { standing, cost } => Err(over_budget(&standing, cost).into()),
            Taken::DayIsFull { taken } => Err(self.day_is_full(taken, submission.lots.len(), now)),
        }
    }

    /// How a submission is to be answered.
    fn mode(&self, request: &Request, body: &Json<'_>) -> Mode {
        let lots = body.field("lots").and_then(Json::as_array);
        let later = request
            .headers("prefer")
            .flat_map(|line| line.split([',', ';']))
            .any(|it| it.trim().eq_ignore_ascii_case("respond-async"));
        if self.config.synchronous.enabled && lots.is_some_and(|lots| lots.len() == 1) && !later {
            Mode::Synchronous
        } else {
            Mode::Batch
        }
    }

    /// The answer to a submission that came before: the same, or where that was to be answered at
    /// once, what there is of it by now. `mode`: how this one is to be answered.
    fn again(
        &self,
        client: &ClientConfig,
        before: Before,
        mode: Mode,
        started: Duration,
    ) -> Result<Response, RequestError> {
        let Before::Answered(answer) = &before else {
            return again(before, 201);
        };
        let mut accepted: Value = serde_json::from_str(answer).map_err(StoreError::from)?;
        if accepted["processing_mode"] != Mode::Synchronous.as_str() {
            return again(before, 201);
        }
        let id = accepted["job_id"].as_str().unwrap_or_default();
        let known = self.answer_again(id, &client.name, mode == Mode::Batch, started)?;
        Ok(known.unwrap_or_else(|| {
            // It is to be polled, as a batch job is.
            accepted["processing_mode"] = json!(Mode::Batch.as_str());
            Response::json(201, &accepted)
        }))
    }

    fn day_is_full(&self, taken: u64, lots: usize, now: Timestamp) -> RequestError {
        let most = self.config.limits.lots_per_day;
        let message = format!(
            "A client may send {most} lots a day (UTC); {taken} were taken today, this job has {lots}."
        );
        too_many(message, now.until_midnight())
    }
}

/// The answer to a request that counts once and came before.
pub(super) fn again(before: Before, status: u16) -> Result<Response, RequestError> {
    match before {
        Before::Answered(answer) => Ok(Response::bytes(status, JSON, answer.into_bytes())),
        Before::KeyReused => Err(ApiError::new(
            ErrorCode::IdempotencyKeyReused,
            "This Idempotency-Key was used for another body: send a new key, or the same bytes.",
        )
        .into()),
    }
}

fn acceptance(job: &JobRow, submission: &Submission<'_>, mode: Mode, took: Duration) -> Value {
    json!({
        "job_id": job.id,
        "status": "accepted",
        "created_at": job.created_at.to_seconds_text(),
        "total_lots": job.total_lots,
        "lots_count": job.total_lots,
        "languages": job.languages,
        "estimated_completion": (job.created_at + USUAL_STAGE * 2).to_seconds_text(),
        "creation_time": format!("{:.2}s", took.as_secs_f64()),
        "processing_mode": mode.as_str(),
        "webhook_configured": !submission.webhooks().is_empty(),
    })
}

/// What a POST counts once by.
pub(super) fn marks(request: &Request, signature: Option<String>) -> Result<Marks, ApiError> {
    let key = request.header("idempotency-key");
    if let Some(key) = key
        && !(1..=MAX_KEY).contains(&key.chars().count())
    {
        let message = format!("`Idempotency-Key` must have 1 to {MAX_KEY} characters.");
        return Err(ApiError::new(ErrorCode::InvalidParameter, message));
    }
    let body_sha256 = match (key, &signature) {
        (None, None) => String::new(),
        _ => intake::sha256(&request.body),
    };
    Ok(Marks {
        signature,
        key: key.map(str::to_owned),
        body_sha256,
    })
}

fn is_dry_run(request: &Request) -> Result<bool, ApiError> {
    match parameter(request, "dry_run")?.as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(ApiError::new(
            ErrorCode::InvalidParameter,
            "`dry_run` must be true or false.",
        )),
    }
}

/// The budget that a job would break. What others have spent is not told to a client.
fn over_budget(standing: &Standing, cost: Money) -> ApiError {
    let period = &standing.period;
    let (whose, left) = match &standing.client {
        Some(_) => ("its client's budget", json!(standing.left().to_string())),
        None => ("the budget of all clients", serde_json::Value::Null),
    };
    let message = format!(
        "The job is estimated to cost {cost} USD, which {whose} of {period} (UTC) does not hold any more. Send fewer lots, \
         or send it again when the next one begins."
    );
    let details =
        json!({"estimated_cost_usd": cost.to_string(), "period": period, "left_usd": left});
    ApiError::new(ErrorCode::BudgetExceeded, message).with(details)
}

pub(super) fn crowded() -> RequestError {
    let message = "Too many large submissions are being read: send it again in some seconds.";
    let retry_after = vec![("Retry-After", RETRY_CROWDED.to_owned())];
    RequestError::Refused(ApiError::new(ErrorCode::Overloaded, message), retry_after)
}
