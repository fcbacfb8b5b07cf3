//! `GET /api/v1/jobs/{job_id}/deliveries` and `POST /api/v1/jobs/{job_id}/deliveries/{delivery_id}/resend`: the webhooks
//! of a job.

use std::time::Duration;

use serde_json::{Value, json};

use super::idempotency::{self, Replay};
use super::limits::{RateLimit, too_many_requests};
use super::page::{MAX_LIMIT, Page};
use super::status::job_not_found;
use super::{Api, json_response};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::decide::resend::{RESEND_INTERVAL, ResendDecision, WantedResend};
use crate::http::{Request, Response};
use crate::ops::answers::RequestError;
use crate::store::job_deliveries::{self, JobDelivery};
use crate::store::jobs::{self, JobRow};
use crate::store::{StoreError, Stored, View, events, webhook_deliveries};
use crate::workers::wakeups::Topic;
use crate::workers::webhook_sender::webhook_id;

/// What became of a request to send a webhook again.
enum ResendOutcome {
    Repeated(Replay),
    /// The new delivery, as JSON.
    Resent(String),
    NoJob,
    NoDelivery,
    NotEnded(String),
    LotsRemoved,
    Wait(Duration),
}

impl Api {
    pub(super) fn deliveries(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let job = self.find_job(request, id, now)?;
        let page = Page::of_request(request, MAX_LIMIT)?;
        let (total, rows) = self
            .store
            .read(|view| job_deliveries::page(view, &job.id, page.limit, page.offset))?;
        let deliveries: Value = rows.iter().map(|row| delivery_json(&job, row)).collect();
        let answer = json!({
            "job_id": job.id,
            "deliveries": deliveries,
            "pagination": page.pagination(total, page.has_more(rows.len(), total)),
        });
        Ok(Response::json(200, &answer))
    }

    /// `delivery` is the delivery's id as sent.
    pub(super) fn resend(
        &self,
        request: &Request,
        id: &str,
        delivery: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let change = self.job_change(request, id, ("A resend", RateLimit::Webhooks), now)?;
        let client = change.client;
        let outcome = self.store.write(now, |tx| {
            if let Some(replay) = idempotency::find_replay(tx, client, &change.keys)? {
                return Ok(ResendOutcome::Repeated(replay));
            }
            let Some(job) = jobs::find(tx, client, id)? else {
                return Ok(ResendOutcome::NoJob);
            };
            let Some(delivery) = find_delivery(tx, &job, delivery)? else {
                return Ok(ResendOutcome::NoDelivery);
            };
            match wanted_resend(tx, &job, &delivery)?.decide(tx.now) {
                ResendDecision::NotEnded => return Ok(ResendOutcome::NotEnded(delivery.state)),
                ResendDecision::LotsRemoved => return Ok(ResendOutcome::LotsRemoved),
                ResendDecision::Wait(wait) => return Ok(ResendOutcome::Wait(wait)),
                ResendDecision::Resend => {}
            }
            let new = webhook_deliveries::resend(tx, delivery.id)?;
            let detail = Fields::new()
                .with("delivery", delivery.id)
                .with("again_as", new)
                .with("by", client);
            events::record(tx, Some(&job.id), None, "webhook_resent", detail)?;
            let new = job_deliveries::find(tx, &job.id, new)?
                .ok_or_else(|| StoreError::Conflict(format!("delivery {new} is gone")))?;
            let answer = json!({
                "job_id": job.id,
                "resent": delivery.id,
                "delivery": delivery_json(&job, &new),
            });
            let answer = answer.to_string();
            idempotency::remember(tx, client, &change.keys, Some(job.seq), Some(&answer))?;
            Ok(ResendOutcome::Resent(answer))
        })?;
        if let ResendOutcome::Resent(_) = outcome {
            self.wakeups.notify(Topic::WebhookResent);
        }
        outcome.into_response(id, delivery)
    }
}

impl ResendOutcome {
    fn into_response(self, job: &str, delivery: &str) -> Result<Response, RequestError> {
        let details = json!({"job_id": job, "delivery": delivery});
        match self {
            Self::Repeated(replay) => Ok(replay.into_response(201)?),
            Self::Resent(answer) => Ok(json_response(201, answer)),
            Self::NoJob => Err(job_not_found(job).into()),
            Self::NoDelivery => {
                let message = "The job has no such delivery: read its deliveries.";
                Err(ApiError::new(ErrorCode::NotFound, message).with(details).into())
            }
            Self::NotEnded(state) => {
                let message = format!(
                    "The delivery is {state}, or another one to the same URL is due: a webhook can be sent again after \
                     its delivery has ended."
                );
                let error = ApiError::new(ErrorCode::DeliveryNotResendable, message);
                Err(error.with(details).into())
            }
            Self::LotsRemoved => {
                let message = "The job's results were removed after their time: there is nothing to send.";
                Err(ApiError::new(ErrorCode::ResultsRemoved, message)
                    .with(details)
                    .into())
            }
            Self::Wait(wait) => {
                let message = format!(
                    "A webhook is sent again to the same URL once in {} s.",
                    RESEND_INTERVAL.as_secs()
                );
                Err(too_many_requests(&message, wait))
            }
        }
    }
}

fn find_delivery(view: &View, job: &JobRow, id: &str) -> Stored<Option<JobDelivery>> {
    match id.parse() {
        Ok(id) => job_deliveries::find(view, &job.id, id),
        Err(_) => Ok(None),
    }
}

fn wanted_resend(view: &View, job: &JobRow, delivery: &JobDelivery) -> Stored<WantedResend> {
    let has_due = job_deliveries::has_due(view, &job.id, &delivery.url)?;
    Ok(WantedResend {
        has_ended: delivery.has_ended() && !has_due && job.completed_at.is_some(),
        are_lots_removed: job.cleaning_since.is_some(),
        last_resend: job_deliveries::last_resend(view, &job.id, &delivery.url)?,
    })
}

fn delivery_json(job: &JobRow, delivery: &JobDelivery) -> Value {
    let seconds = |time: Option<Timestamp>| time.map(Timestamp::to_seconds_text);
    let event = job.status.event();
    let id = event.map(|event| webhook_id(&job.id, event, &delivery.url, delivery.resend_number));
    json!({
        "id": delivery.id,
        "webhook_id": id,
        "event": event,
        "url": delivery.url,
        "status": delivery.state,
        "attempts": delivery.attempts,
        "response_status": delivery.response_status,
        "error": failure(delivery.response_status, delivery.error.as_deref()),
        "created_at": delivery.created_at.to_seconds_text(),
        "last_attempt_at": seconds(delivery.last_attempt_at),
        "next_attempt_at": seconds(delivery.next_at),
        "delivered_at": seconds(delivery.delivered_at),
    })
}

/// Why a webhook did not arrive; `None` if it did, or was not tried. The receiver's body is not quoted: the URL may be of
/// a host whose answers are not meant for the client.
pub(super) fn failure(status: Option<u16>, error: Option<&str>) -> Option<String> {
    match status {
        Some(200..300) => None,
        Some(status) => Some(format!("the receiver answered with status {status}")),
        None => error.map(str::to_owned),
    }
}
