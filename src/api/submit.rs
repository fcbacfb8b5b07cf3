//! `POST /api/v1/generate-descriptions`.

use std::time::Duration;

use serde_json::json;

use super::{Api, Failure, parse_body};
use crate::clock::Timestamp;
use crate::http::{Request, Response};
use crate::intake;
use crate::refusal::{Code, Refusal};

/// How long a stage usually takes: four of five batches at OpenAI end within an hour.
pub(super) const USUAL_STAGE: Duration = Duration::from_hours(1);

/// How long a client is asked to wait when too many large submissions are there, seconds.
const RETRY_CROWDED: &str = "5";

/// The media type of a submission, whatever parameters follow it.
const JSON: &str = "application/json";

impl Api {
    pub(super) fn submit(&self, request: &Request, now: Timestamp) -> Result<Response, Failure> {
        let started = self.clock.now().steady;
        let media_type = request.header("content-type").unwrap_or(JSON);
        let essence = media_type.split(';').next().unwrap_or(media_type);
        if !essence.trim().eq_ignore_ascii_case(JSON) {
            let message = "The body must be JSON: send `Content-Type: application/json`.";
            return Err(Refusal::new(Code::UnsupportedMediaType, message).into());
        }
        let _turn = self.turns.wait(&request.body).ok_or_else(crowded)?;
        let body = parse_body(&request.body)?;
        let client = self.submitter(request, &body, now)?;
        let submission = intake::check(&body, &self.config, &self.guard)?;
        let job = intake::store(&self.store, &self.config, &client.name, &submission, now)?;
        (self.wake)();
        let took = self.clock.now().steady.saturating_sub(started);
        let answer = json!({
            "job_id": job.id,
            "status": "accepted",
            "created_at": job.created_at.to_seconds_text(),
            "total_lots": job.total_lots,
            "lots_count": job.total_lots,
            "languages": job.languages,
            "estimated_completion": (job.created_at + USUAL_STAGE * 2).to_seconds_text(),
            "creation_time": format!("{:.2}s", took.as_secs_f64()),
            "processing_mode": "batch",
            "webhook_configured": !submission.webhooks().is_empty(),
        });
        Ok(Response::json(201, &answer))
    }
}

fn crowded() -> Failure {
    let message = "Too many large submissions are being read: send it again in some seconds.";
    let retry_after = vec![("Retry-After", RETRY_CROWDED.to_owned())];
    Failure::Refused(Refusal::new(Code::Overloaded, message), retry_after)
}
