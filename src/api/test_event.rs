//! `POST /api/v1/webhooks/test`: sends a signed test event to a URL of the client, and answers with what the receiver said.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::deliveries::failure;
use super::idempotency::{self, IdempotencyKeys, Replay};
use super::job_change::refuse_webhook_body;
use super::limits::{RateLimit, too_many_requests};
use super::submit::accept::check_receiver;
use super::{Api, json_response, overloaded, parse_body};
use crate::base::clock::Timestamp;
use crate::config::ClientConfig;
use crate::domain::alert::PauseScope;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::check_webhook;
use crate::domain::signature::webhook_headers;
use crate::http::{Request, Response};
use crate::jobs::test_event::test_event_body;
use crate::ops::answers::RequestError;
use crate::outbound::HttpPost;
use crate::python_json::Json;
use crate::store::alerts;

/// How long the receiver has. An HTTP worker waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most test events that are sent at the same time.
const AT_ONCE: usize = 2;
/// Seconds after which a client may try again if others send test events.
const RETRY_AFTER: &str = "5";

/// The clients whose test events are being sent.
#[derive(Default)]
pub(super) struct TestEventPermits(Mutex<BTreeSet<String>>);

/// Permission to send one test event, until it is dropped.
struct TestEventPermit<'a> {
    permits: &'a TestEventPermits,
    client: &'a str,
}

impl TestEventPermits {
    /// A permit for a client.
    fn take<'a>(&'a self, client: &'a str) -> Result<TestEventPermit<'a>, RequestError> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.contains(client) {
            let message = "A test event of this client is being sent.";
            return Err(too_many_requests(message, TIMEOUT));
        }
        if clients.len() >= AT_ONCE {
            let message = "As many test events as are sent at once are being sent: send it again later.";
            return Err(overloaded(message, RETRY_AFTER));
        }
        clients.insert(client.to_owned());
        Ok(TestEventPermit {
            permits: self,
            client,
        })
    }
}

impl Drop for TestEventPermit<'_> {
    fn drop(&mut self) {
        let mut clients = self.permits.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.remove(self.client);
    }
}

impl Api {
    pub(super) fn test_event(&self, request: &Request, now: Timestamp) -> Result<Response, RequestError> {
        let permit = self.large_body_permit(request)?;
        let document = parse_body(&request.body)?;
        let body = document.root();
        let caller = self.authenticate_body(request, now)?;
        let client = caller.client;
        self.count_request(&client.name, RateLimit::Webhooks)?;
        refuse_webhook_body(Some(body))?;
        let url = self.check_test_url(body, client)?;
        drop(permit);
        let keys = IdempotencyKeys::of_request(request, caller.signature)?.without_header();
        let _permit = self.test_events.take(&client.name)?;
        let (replay, is_paused) = self.store.read(|view| {
            Ok((
                idempotency::find_replay(view, &client.name, &keys)?,
                alerts::paused(view, &PauseScope::Webhooks)?.is_some(),
            ))
        })?;
        if let Some(replay) = replay {
            return Ok(replay.into_response(200)?);
        }
        if is_paused {
            let message = "The operator has paused webhooks: send it again later.";
            return Err(overloaded(message, RETRY_AFTER));
        }
        let answer = self.send_test_event(client, &url, now)?.to_string();
        let replay = self.store.write(now, |tx| {
            let replay = idempotency::find_replay(tx, &client.name, &keys)?;
            if replay.is_none() {
                idempotency::remember(tx, &client.name, &keys, None, Some(&answer))?;
            }
            Ok(replay)
        })?;
        Ok(replay.map_or_else(
            || Ok(json_response(200, answer)),
            |it: Replay| it.into_response(200),
        )?)
    }

    /// The URL of a request for a test event.
    fn check_test_url(&self, body: Json<'_>, client: &ClientConfig) -> Result<String, ApiError> {
        let check = |url: &str| check_receiver(url, client, &self.guard);
        let url = match body {
            // `webhook_url` as in a submission, or `url` as deliveries name it.
            Json::Object(_) => match body.field("webhook_url") {
                Some(url) => check_webhook(Some(url), "webhook_url", &check)?,
                None => check_webhook(body.field("url"), "url", &check)?,
            },
            _ => {
                let message = "The body must be a JSON object with `url`.";
                return Err(ApiError::new(ErrorCode::InvalidParameter, message));
            }
        };
        url.map(std::borrow::Cow::into_owned).ok_or_else(|| {
            let message = "`url` is missing: name the receiver.";
            ApiError::new(ErrorCode::MissingField, message).with(json!({"field": "url"}))
        })
    }

    /// Sends a test event through the SSRF guard, signed as every webhook of the client; gives what came of it.
    fn send_test_event(
        &self,
        client: &ClientConfig,
        url: &str,
        now: Timestamp,
    ) -> Result<Value, RequestError> {
        let body = test_event_body(&client.name, now);
        let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
        let prefix = self.config.signature_prefix(client);
        let headers = webhook_headers(client.webhook_keys(), prefix, &id, 1, now, &body);
        let started = self.clock.now().steady;
        let timeout = TIMEOUT.min(self.config.webhooks.timeout);
        let sent = self.outbound.post(url, &headers, body, timeout);
        let took = self.clock.now().steady.saturating_sub(started);
        let (status, error) = match sent {
            Ok(reply) => (Some(reply.status), None),
            Err(error) if !error.is_retryable() => {
                let message = format!("`url` cannot be used: {error}.");
                return Err(ApiError::new(ErrorCode::InvalidWebhookUrl, message).into());
            }
            Err(error) => (None, Some(error.to_string())),
        };
        let error = failure(status, error.as_deref());
        log::info!(event = "test_webhook", client:% = client.name, status, took:?; "");
        Ok(json!({
            "event": "test",
            "url": url,
            "webhook_id": id,
            "delivered": error.is_none(),
            "response_status": status,
            "error": error,
            "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }))
    }
}
