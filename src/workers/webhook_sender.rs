//! The webhook sender: delivers the webhooks of final jobs, each at least once under one id.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::base::clock::{Clock, Moment};
use crate::base::hex;
use crate::config::{ClientConfig, Config};
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::decide::webhook_answer::{
    DeliveryDecision, EndedAttempt, FAILING_RECEIVER_ALERT, ReceiverAnswer, ReceiverDecision,
    longest_delivery_wait,
};
use crate::domain::due::Due;
use crate::domain::signature::webhook_headers;
use crate::jobs::webhook_body::webhook_body;
use crate::outbound::HttpPost;
use crate::store::jobs::{self, JobRow};
use crate::store::webhook_deliveries::{self, DeliveryLimits, DueDelivery};
use crate::store::{Store, StoreError, Stored, Tx, alerts};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{SET_ASIDE, Successor, TickOutcome, Worker, WorkerError};

/// Attempts to one receiver at the same time.
const PER_RECEIVER: u32 = 8;
/// An attempt that has not ended this long after its time-out is made again: its process has ended.
const LEASE_MARGIN: Duration = Duration::from_mins(1);

/// The webhook sender; several may run side by side.
pub struct WebhookSender {
    store: Arc<Store>,
    outbound: Arc<dyn HttpPost>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    /// An attempt whose outcome could not be stored yet. It is kept while the disk is full: a webhook that
    /// has arrived is not sent again.
    unstored: Option<DeliveryAttempt>,
    successor: Successor,
}

/// An attempt that has ended.
struct DeliveryAttempt {
    delivery: DueDelivery,
    answer: ReceiverAnswer,
    /// The start of the response body, or why there was no response; `None` if the webhook arrived.
    error: Option<String>,
    decision: DeliveryDecision,
    receiver: ReceiverDecision,
    took: Duration,
}

impl WebhookSender {
    /// Delivers the webhooks of this store.
    pub fn new(
        store: Arc<Store>,
        outbound: Arc<dyn HttpPost>,
        clock: Arc<dyn Clock>,
        config: Arc<Config>,
    ) -> Self {
        Self {
            store,
            outbound,
            clock,
            config,
            unstored: None,
            successor: Successor::default(),
        }
    }

    /// Has another worker started for each call that this one begins.
    pub fn with_successor(mut self, successor: Successor) -> Self {
        self.successor = successor;
        self
    }

    /// At most half of the senders call receivers that fail: the other half stays free for those that answer.
    fn limits(&self) -> DeliveryLimits {
        DeliveryLimits {
            per_receiver: PER_RECEIVER,
            failing_receivers: (self.config.webhooks.concurrency / 2).max(1),
        }
    }

    fn deliver(&mut self, delivery: DueDelivery, now: Moment) -> Result<TickOutcome, WorkerError> {
        let job = match self.store.read(|view| jobs::by_id(view, &delivery.job_id)) {
            Err(StoreError::Unreadable(_)) => {
                let wait = SET_ASIDE.min(longest_delivery_wait(&self.config.webhooks.retry_delays));
                let set_aside = |tx: &Tx<'_>| webhook_deliveries::set_aside(tx, delivery.id, tx.now + wait);
                self.store.write(now.wall, set_aside)?;
                return Ok(TickOutcome::again());
            }
            job => job?,
        };
        let job = job.ok_or_else(|| StoreError::Conflict(format!("job {} is gone", delivery.job_id)))?;
        let lease = now.wall + self.config.webhooks.timeout + LEASE_MARGIN;
        if !self.store.write(now.wall, |tx| {
            webhook_deliveries::begin(tx, &delivery, lease, self.limits())
        })? {
            return Ok(TickOutcome::again());
        }
        self.successor.start();
        let (answer, error) = self.send(&delivery, &job, now)?;
        let ended = self.clock.now();
        let attempt = EndedAttempt {
            id: delivery.id,
            earlier: delivery.attempts,
            delays: &self.config.webhooks.retry_delays,
            at: ended.wall,
            answer,
        };
        let (decision, receiver) = attempt.decide_delivery();
        self.end(DeliveryAttempt {
            delivery,
            answer,
            error,
            decision,
            receiver,
            took: ended.steady.saturating_sub(now.steady),
        })
    }

    /// Stores what follows from an attempt.
    fn end(&mut self, attempt: DeliveryAttempt) -> Result<TickOutcome, WorkerError> {
        let now = self.clock.now().wall;
        if let Err(error) = self.store.write(now, |tx| store_attempt(tx, &attempt)) {
            if matches!(error, StoreError::Full | StoreError::Busy(_)) {
                self.unstored = Some(attempt);
            }
            return Err(error.into());
        }
        let DeliveryAttempt {
            delivery,
            answer,
            decision,
            took,
            ..
        } = &attempt;
        log::info!(
            event = "webhook", job:% = delivery.job_id, delivery = delivery.id, host:% = delivery.host,
            attempt = delivery.attempts + 1,
            status = answer.status,
            outcome:% = decision, took:?; ""
        );
        Ok(TickOutcome::again())
    }

    /// Makes one attempt; gives the receiver's answer, and what went wrong.
    fn send(
        &self,
        delivery: &DueDelivery,
        job: &JobRow,
        now: Moment,
    ) -> Result<(ReceiverAnswer, Option<String>), WorkerError> {
        let mut clients = self.config.clients.iter();
        let Some(client) = clients.find(|client| client.name == job.client) else {
            let error = format!(
                "client {:?} is not configured any more: its webhooks cannot be signed",
                job.client
            );
            return Ok((ReceiverAnswer::default(), Some(error)));
        };
        let config = &self.config.webhooks;
        let body = webhook_body(&self.store, job, &delivery.url, config.max_body)?;
        let headers = self.headers(client, delivery, job, now, &body);
        Ok(
            match self.outbound.post(&delivery.url, &headers, body, config.timeout) {
                Ok(reply) => {
                    let answer = ReceiverAnswer {
                        status: Some(reply.status),
                        retry_after: reply.retry_after,
                    };
                    let is_delivered = (200..300).contains(&reply.status);
                    (answer, (!is_delivered).then_some(reply.body_start))
                }
                Err(error) => (ReceiverAnswer::default(), Some(error.to_string())),
            },
        )
    }

    fn headers(
        &self,
        client: &ClientConfig,
        delivery: &DueDelivery,
        job: &JobRow,
        now: Moment,
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let event = job.status.event().unwrap_or("batch_job");
        let id = webhook_id(&job.id, event, &delivery.url, delivery.resend_number);
        let prefix = self.config.signature_prefix(client);
        let attempt = delivery.attempts + 1;
        let keys = client.webhook_keys();
        let mut headers = webhook_headers(keys, prefix, &id, attempt, now.wall, body);
        headers.push(("X-Job-ID", job.id.clone()));
        headers
    }
}

fn store_attempt(tx: &Tx<'_>, attempt: &DeliveryAttempt) -> Stored<()> {
    let DeliveryAttempt {
        delivery,
        answer,
        error,
        decision,
        receiver,
        ..
    } = attempt;
    webhook_deliveries::end(tx, delivery, answer.status, error.as_deref(), *decision)?;
    match receiver {
        ReceiverDecision::Healthy => webhook_deliveries::mark_receiver_healthy(tx, &delivery.host)?,
        ReceiverDecision::AsBefore => {}
        ReceiverDecision::Failing => {
            let alert_after = FAILING_RECEIVER_ALERT;
            let reason = failure_reason(answer.status, error.as_deref());
            webhook_deliveries::mark_receiver_failing(tx, &delivery.host, alert_after, &reason)?;
        }
    }
    match decision {
        DeliveryDecision::Delivered => webhook_deliveries::close_abandoned_alerts(tx, delivery),
        DeliveryDecision::RetryAt(_) => Ok(()),
        DeliveryDecision::Abandoned => open_abandoned_alert(tx, attempt),
    }
}

fn open_abandoned_alert(tx: &Tx<'_>, attempt: &DeliveryAttempt) -> Stored<()> {
    let DueDelivery {
        id,
        job_id,
        url,
        attempts,
        ..
    } = &attempt.delivery;
    let attempts = match attempts + 1 {
        1 => "1 attempt".to_owned(),
        number => format!("{number} attempts"),
    };
    let reason = failure_reason(attempt.answer.status, attempt.error.as_deref());
    let message = format!(
        "the webhook of job {job_id} to {url} was abandoned after {attempts}: {reason}. When its receiver \
         works: batchkeeper webhooks resend {id}; if it never will: batchkeeper webhooks abandon {id}. The \
         job is kept until then"
    );
    let subject = AlertSubject::Delivery(*id);
    alerts::open(tx, AlertKind::WebhookFailed, &subject, &message).map(drop)
}

/// Why an attempt failed, for people: many receivers send a status and no text.
fn failure_reason(status: Option<u16>, error: Option<&str>) -> String {
    let text = error.filter(|text| !text.is_empty());
    match (status, text) {
        (Some(status), None) => format!("HTTP {status}"),
        (Some(status), Some(text)) => format!("HTTP {status}: {text}"),
        (None, text) => text.unwrap_or("no reason").to_owned(),
    }
}

/// The id by which a receiver recognises repeats. It is made of job, event and URL alone: every attempt has
/// the same id, also after a restore. `resend_number`: a resend is another delivery.
pub fn webhook_id(job: &str, event: &str, url: &str, resend_number: u32) -> String {
    let digest = Sha256::digest(format!("{job}\n{event}\n{url}\n{resend_number}"));
    format!("msg_{}", hex::encode(&digest[..16]))
}

impl Worker for WebhookSender {
    fn name(&self) -> &'static str {
        "webhook_sender"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::WebhookAttempted)
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[
            Topic::JobCancelled,
            Topic::JobFinished,
            Topic::WebhookResent,
            Topic::WebhookAttempted,
        ]
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if let Some(attempt) = self.unstored.take() {
            return self.end(attempt);
        }
        let longest = longest_delivery_wait(&self.config.webhooks.retry_delays);
        let (is_paused, has_odd_due_times, due) = self.store.read(|view| {
            Ok((
                alerts::paused(view, &PauseScope::Webhooks)?.is_some(),
                webhook_deliveries::has_odd_due_times(view, now.wall, longest)?,
                webhook_deliveries::next_due(view, now.wall, self.limits())?,
            ))
        })?;
        if has_odd_due_times {
            self.store
                .write(now.wall, |tx| webhook_deliveries::correct_due_times(tx, longest))?;
            return Ok(TickOutcome::again());
        }
        let idle = self.config.steps.idle;
        match due {
            _ if is_paused => Ok(TickOutcome::idle(idle)),
            Due::Now(delivery) => self.deliver(delivery, now),
            Due::At(at) => Ok(TickOutcome::idle(at.since(now.wall).min(idle))),
            Due::Never => Ok(TickOutcome::idle(idle)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_sends_no_text_is_quoted_by_its_status() {
        assert_eq!(failure_reason(Some(410), Some("")), "HTTP 410");
        assert_eq!(failure_reason(Some(500), Some("oops")), "HTTP 500: oops");
        assert_eq!(failure_reason(None, Some("timed out")), "timed out");
    }

    #[test]
    fn the_webhook_id_depends_on_job_event_and_url_alone() {
        let id = |job, url, resends| webhook_id(job, "batch_job_completed", url, resends);
        assert_eq!(id("a", "u", 0), id("a", "u", 0));
        assert_ne!(id("a", "u", 0), id("b", "u", 0));
        assert_ne!(id("a", "u", 0), id("a", "v", 0));
        assert_ne!(id("a", "u", 0), id("a", "u", 1));
    }
}
