//! The courier: delivers webhooks. One sender, one form of signature, at least once under one id.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::base::clock::{Clock, Moment};
use crate::base::hex;
use crate::config::{ClientConfig, Config};
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::due::Due;
use crate::domain::signature::{Key, webhook_headers};
use crate::jobs::results;
use crate::outbound::HttpPost;
use crate::store::jobs::{self, JobRow};
use crate::store::webhook_deliveries::{self, AtOnce, Delivery, Then};
use crate::store::{Store, StoreError, alerts};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// How much later or earlier than planned an attempt may be made, in percent: so that many do not
/// come at once.
const JITTER: u64 = 20;
/// Attempts to one receiver at once.
const PER_RECEIVER: u32 = 8;
/// A receiver that has failed for so long is told to a person.
const FAILING: Duration = Duration::from_hours(1);
/// How long beyond its time-out an attempt is left to its courier before another takes it up.
const GRACE: Duration = Duration::from_mins(1);

/// See the module.
pub struct WebhookSender {
    store: Arc<Store>,
    outbound: Arc<dyn HttpPost>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    /// An attempt that was made and could not be stored.
    unstored: Option<Attempt>,
}

/// An attempt whose outcome is known.
struct Attempt {
    delivery: Delivery,
    job: String,
    status: Option<u16>,
    error: Option<String>,
    then: Then,
    took: Duration,
}

impl WebhookSender {
    /// A courier; several may work side by side.
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
        }
    }

    /// Half of the couriers at most are with receivers that fail: the other half is there for those
    /// that answer.
    fn at_once(&self) -> AtOnce {
        AtOnce {
            receiver: PER_RECEIVER,
            failing: (self.config.webhooks.concurrency / 2).max(1),
        }
    }

    fn deliver(&mut self, delivery: Delivery, now: Moment) -> Result<TickOutcome, WorkerError> {
        let job = self
            .store
            .read(|view| jobs::by_id(view, &delivery.job_id))?;
        let job =
            job.ok_or_else(|| StoreError::Conflict(format!("job {} is gone", delivery.job_id)))?;
        let lease = now.wall + self.config.webhooks.timeout + GRACE;
        if !self.store.write(now.wall, |tx| {
            webhook_deliveries::begin(tx, &delivery, lease, self.at_once())
        })? {
            return Ok(TickOutcome::again());
        }
        let (status, error, asked) = self.send(&delivery, &job, now)?;
        let ended = self.clock.now();
        let then = match (status, &error) {
            (Some(200..300), _) => Then::Delivered,
            (Some(410), _) => Then::GiveUp,
            _ => self.retry(&delivery, asked, ended),
        };
        let attempt = Attempt {
            delivery,
            job: job.id,
            status,
            error,
            then,
            took: ended.steady.saturating_sub(now.steady),
        };
        self.end(attempt)
    }

    /// Stores what came of an attempt. Where the disk is full it is kept for the next tick: a webhook
    /// that has arrived is not to be sent again for that.
    fn end(&mut self, attempt: Attempt) -> Result<TickOutcome, WorkerError> {
        let Attempt {
            delivery,
            job,
            status,
            error,
            then,
            took,
        } = &attempt;
        let (status, then) = (*status, *then);
        let stored = self.store.write(self.clock.now().wall, |tx| {
            webhook_deliveries::end(tx, delivery, status, error.as_deref(), then)?;
            match (status, then) {
                (_, Then::Delivered) => {
                    webhook_deliveries::mark_receiver_healthy(tx, &delivery.host)?;
                    webhook_deliveries::close_failed_alerts(tx, delivery)?;
                }
                // It has answered, for good.
                (Some(410), _) => {}
                _ => webhook_deliveries::mark_receiver_failing(tx, &delivery.host, FAILING)?,
            }
            if then == Then::GiveUp {
                let message = format!(
                    "the webhook of job {job} to {} is given up after {} attempts: {}. When its receiver is well: \
                     batchkeeper webhooks resend {id}; if it never will be: batchkeeper webhooks give-up {id}. The \
                     job is kept until then",
                    delivery.url,
                    delivery.attempts + 1,
                    why(status, error.as_deref()),
                    id = delivery.id,
                );
                alerts::open(
                    tx,
                    AlertKind::WebhookFailed,
                    &AlertSubject::Delivery(delivery.id),
                    &message,
                )?;
            }
            Ok(())
        });
        if let Err(error) = stored {
            if matches!(error, StoreError::Full | StoreError::Busy(_)) {
                self.unstored = Some(attempt);
            }
            return Err(error.into());
        }
        log::info!(
            event = "webhook", job:%, delivery = delivery.id, host:% = delivery.host,
            attempt = delivery.attempts + 1,
            status,
            then:%, took:?; ""
        );
        Ok(TickOutcome::again())
    }

    /// One attempt: the receiver's status or what went wrong, and how long it asks to wait.
    #[allow(clippy::type_complexity, reason = "read by one caller")]
    fn send(
        &self,
        delivery: &Delivery,
        job: &JobRow,
        now: Moment,
    ) -> Result<(Option<u16>, Option<String>, Option<Duration>), WorkerError> {
        let Some(client) = self
            .config
            .clients
            .iter()
            .find(|client| client.name == job.client)
        else {
            let error = format!(
                "client {:?} is not configured any more: its webhooks cannot be signed",
                job.client
            );
            return Ok((None, Some(error), None));
        };
        let body = results::webhook_body(
            &self.store,
            job,
            &delivery.url,
            self.config.webhooks.max_body,
        )?;
        let headers = self.headers(client, client.webhook_keys(), delivery, job, now, &body);
        Ok(
            match self
                .outbound
                .post(&delivery.url, &headers, body, self.config.webhooks.timeout)
            {
                Ok(reply) if (200..300).contains(&reply.status) => (Some(reply.status), None, None),
                Ok(reply) => (
                    Some(reply.status),
                    Some(reply.body_start),
                    reply.retry_after,
                ),
                Err(error) => (None, Some(error.to_string()), None),
            },
        )
    }

    fn headers(
        &self,
        client: &ClientConfig,
        keys: &[Key],
        delivery: &Delivery,
        job: &JobRow,
        now: Moment,
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let id = webhook_id(
            &job.id,
            job.status.event().unwrap_or("batch_job"),
            &delivery.url,
            delivery.again,
        );
        let prefix = client
            .signature_prefix
            .as_ref()
            .unwrap_or(&self.config.webhooks.signature_prefix);
        let attempt = delivery.attempts + 1;
        let mut headers = webhook_headers(keys, prefix, &id, attempt, now.wall, body);
        headers.push(("X-Job-ID", job.id.clone()));
        headers
    }

    fn retry(&self, delivery: &Delivery, asked: Option<Duration>, now: Moment) -> Then {
        let wait = usize::try_from(delivery.attempts)
            .ok()
            .and_then(|at| self.config.webhooks.retry_delays.get(at));
        match wait {
            None => Then::GiveUp,
            Some(wait) => Then::Retry(
                now.wall + jittered(*wait, delivery).max(asked.unwrap_or(Duration::ZERO)),
            ),
        }
    }
}

/// Why an attempt failed, for people: many receivers say it by their status alone.
fn why(status: Option<u16>, error: Option<&str>) -> String {
    let said = error.filter(|said| !said.is_empty());
    match (status, said) {
        (Some(status), None) => format!("HTTP {status}"),
        (Some(status), Some(said)) => format!("HTTP {status}: {said}"),
        (None, said) => said.unwrap_or("no reason").to_owned(),
    }
}

/// The id that a receiver drops repeats by: of job, event and URL alone, so that every attempt has
/// the same, also after a restore. `again`: an operator's resend is another delivery.
pub fn webhook_id(job: &str, event: &str, url: &str, again: u32) -> String {
    let digest = Sha256::digest(format!("{job}\n{event}\n{url}\n{again}"));
    format!("msg_{}", hex::encode(&digest[..16]))
}

/// The wait, up to [`JITTER`] percent more or less; the same for the same attempt.
fn jittered(wait: Duration, delivery: &Delivery) -> Duration {
    let digest = Sha256::digest(format!("{} {}", delivery.id, delivery.attempts));
    let percent = 100 - JITTER + u64::from(digest[0]) * 2 * JITTER / 255;
    Duration::from_millis(
        u64::try_from(wait.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(percent)
            / 100,
    )
}

impl Worker for WebhookSender {
    fn name(&self) -> &'static str {
        "webhook_sender"
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[Topic::JobCancelled, Topic::JobFinished]
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if let Some(attempt) = self.unstored.take() {
            return self.end(attempt);
        }
        let longest = self
            .config
            .webhooks
            .retry_delays
            .iter()
            .max()
            .copied()
            .unwrap_or_default();
        let longest = (longest * 2).max(Duration::from_hours(24));
        let (paused, odd, first) = self.store.read(|view| {
            Ok((
                alerts::paused(view, &PauseScope::Webhooks)?.is_some(),
                webhook_deliveries::has_odd_due_times(view, now.wall, longest)?,
                webhook_deliveries::next_due(view, now.wall, self.at_once())?,
            ))
        })?;
        if odd {
            self.store.write(now.wall, |tx| {
                webhook_deliveries::correct_due_times(tx, longest)
            })?;
            return Ok(TickOutcome::again());
        }
        match first {
            _ if paused => Ok(TickOutcome::idle(self.config.steps.idle)),
            Due::Now(delivery) => self.deliver(delivery, now),
            Due::At(at) => Ok(TickOutcome::idle(
                at.since(now.wall).min(self.config.steps.idle),
            )),
            Due::Never => Ok(TickOutcome::idle(self.config.steps.idle)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_says_nothing_is_quoted_by_its_status() {
        assert_eq!(why(Some(410), Some("")), "HTTP 410");
        assert_eq!(why(Some(500), Some("oops")), "HTTP 500: oops");
        assert_eq!(why(None, Some("timed out")), "timed out");
    }

    #[test]
    fn the_webhook_id_depends_on_job_event_and_url_alone() {
        let id = |job, url, again| webhook_id(job, "batch_job_completed", url, again);
        assert_eq!(id("a", "u", 0), id("a", "u", 0));
        assert_ne!(id("a", "u", 0), id("b", "u", 0));
        assert_ne!(id("a", "u", 0), id("a", "v", 0));
        assert_ne!(id("a", "u", 0), id("a", "u", 1));
    }
}
