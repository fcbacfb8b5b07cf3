//! The alert notifier: posts each alert that opens or closes to `alerts.webhook_url`, at least once under one
//! id, signed like every webhook.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::base::clock::{Clock, Moment, Timestamp};
use crate::config::Config;
use crate::domain::alert::AlertChange;
use crate::domain::decide::webhook_answer::{
    DeliveryDecision, EndedAttempt, ReceiverAnswer, longest_notification_wait,
};
use crate::domain::due::Due;
use crate::domain::signature::webhook_headers;
use crate::outbound::HttpPost;
use crate::store::Store;
use crate::store::notices::{self, Notice};
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// An attempt that has not ended this long after its time-out is made again: its process has ended.
const LEASE_MARGIN: Duration = Duration::from_mins(1);
/// How often pending notifications are discarded if no receiver is configured.
const DISCARD_INTERVAL: Duration = Duration::from_mins(1);

/// The alert notifier. One is enough.
pub struct AlertNotifier {
    store: Arc<Store>,
    outbound: Arc<dyn HttpPost>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    /// Whether the open alerts have been queued since the start.
    has_queued_open_alerts: bool,
}

impl AlertNotifier {
    /// Notifies the receiver of this configuration.
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
            has_queued_open_alerts: false,
        }
    }

    /// Makes one attempt at a notification.
    fn notify(&self, notice: &Notice, now: Moment) -> Result<TickOutcome, WorkerError> {
        let lease = now.wall + self.config.webhooks.timeout + LEASE_MARGIN;
        if !self
            .store
            .write(now.wall, |tx| notices::begin(tx, notice, lease))?
        {
            return Ok(TickOutcome::again());
        }
        let (answer, error) = self.post(notice, now);
        let ended = self.clock.now().wall;
        let attempt = EndedAttempt {
            id: notice.id,
            earlier: notice.attempts,
            delays: &self.config.webhooks.retry_delays,
            at: ended,
            answer,
        };
        let decision = attempt.decide_notification();
        let error = match decision {
            DeliveryDecision::Delivered => "",
            _ => error.as_str(),
        };
        self.store.write(ended, |tx| {
            notices::end(tx, notice, answer.status, error, decision)
        })?;
        let level = match decision {
            DeliveryDecision::Abandoned => log::Level::Error,
            _ => log::Level::Info,
        };
        log::log!(
            level, event = "alert_notification", alert:% = notice.alert.kind,
            subject:% = notice.alert.subject, change:% = notice.change, attempt = notice.attempts + 1,
            outcome:% = decision, error:%; ""
        );
        Ok(TickOutcome::again())
    }

    fn post(&self, notice: &Notice, now: Moment) -> (ReceiverAnswer, String) {
        let body = self.body(notice);
        let headers = webhook_headers(
            self.config.alerts.keys(),
            &self.config.webhooks.signature_prefix,
            &self.id(notice),
            notice.attempts + 1,
            now.wall,
            &body,
        );
        let url = &self.config.alerts.webhook_url;
        let timeout = self.config.webhooks.timeout;
        match self.outbound.post(url, &headers, body, timeout) {
            Ok(reply) => {
                let answer = ReceiverAnswer {
                    status: Some(reply.status),
                    retry_after: reply.retry_after,
                };
                (answer, format!("HTTP {} {}", reply.status, reply.body_start))
            }
            Err(error) => (ReceiverAnswer::default(), error.to_string()),
        }
    }

    /// The id by which the receiver recognises repeats.
    fn id(&self, notice: &Notice) -> String {
        let database = self.store.database_id();
        format!("alert_{database}_{}_{}", notice.alert_id, notice.change)
    }

    fn body(&self, notice: &Notice) -> Vec<u8> {
        let (event, closed_at) = match notice.change {
            // The alert as it was when it opened: its closing has a notification of its own.
            AlertChange::Opened => ("alert_opened", None),
            AlertChange::Closed => ("alert_closed", notice.alert.closed_at),
        };
        let body = json!({
            "event": event,
            "alert_id": notice.alert_id,
            "kind": notice.alert.kind.as_str(),
            "subject": notice.alert.subject.to_string(),
            "message": notice.alert.message,
            "opened_at": notice.alert.opened_at.to_seconds_text(),
            "closed_at": closed_at.map(Timestamp::to_seconds_text),
            "database_id": self.store.database_id(),
        });
        body.to_string().into_bytes()
    }
}

impl Worker for AlertNotifier {
    fn name(&self) -> &'static str {
        "alert_notifier"
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let idle = self.config.steps.idle;
        if self.config.alerts.webhook_url.is_empty() {
            if self.store.read(notices::has_due)? {
                self.store.write(now.wall, notices::discard_due)?;
            }
            return Ok(TickOutcome::idle(idle.max(DISCARD_INTERVAL)));
        }
        if !self.has_queued_open_alerts {
            self.store.write(now.wall, notices::add_for_open_alerts)?;
            self.has_queued_open_alerts = true;
        }
        let longest = longest_notification_wait(&self.config.webhooks.retry_delays) + LEASE_MARGIN;
        let due = self
            .store
            .read(|view| notices::next_due(view, now.wall, longest))?;
        match due {
            Due::Now(notice) => self.notify(&notice, now),
            Due::At(at) => Ok(TickOutcome::idle(at.since(now.wall).min(idle))),
            Due::Never => Ok(TickOutcome::idle(idle)),
        }
    }
}
