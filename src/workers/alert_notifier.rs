//! The herald: tells whoever is configured (`alerts.webhook_url`) of each alert that opens or closes,
//! at least once under one id, signed like every webhook.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::base::clock::{Clock, Moment, Timestamp};
use crate::config::Config;
use crate::domain::alert::AlertChange;
use crate::domain::due::Due;
use crate::domain::signature::webhook_headers;
use crate::outbound::HttpPost;
use crate::store::Store;
use crate::store::notices::{self, Notice, NoticeOutcome};
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// How long beyond its time-out an attempt is waited for before it is made again: after a crash.
const GRACE: Duration = Duration::from_mins(1);
/// The longest that a receiver's `Retry-After` is followed.
const MOST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// How often it is seen that nobody listens.
const NOBODY: Duration = Duration::from_mins(1);

/// See the module.
pub struct AlertNotifier {
    store: Arc<Store>,
    outbound: Arc<dyn HttpPost>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    /// Whether it was told, since the start, what is open.
    introduced: bool,
}

impl AlertNotifier {
    /// A herald; one is enough.
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
            introduced: false,
        }
    }

    fn tell(&self, notice: &Notice, now: Moment) -> Result<TickOutcome, WorkerError> {
        let url = &self.config.alerts.webhook_url;
        let lease = now.wall + self.config.webhooks.timeout + GRACE;
        if !self
            .store
            .write(now.wall, |tx| notices::begin(tx, notice, lease))?
        {
            return Ok(TickOutcome::again());
        }
        let body = self.body(notice);
        let headers = webhook_headers(
            self.config.alerts.keys(),
            &self.config.webhooks.signature_prefix,
            &self.id(notice),
            notice.attempts + 1,
            now.wall,
            &body,
        );
        let timeout = self.config.webhooks.timeout;
        let (status, error, asked) = match self.outbound.post(url, &headers, body, timeout) {
            Ok(reply) => {
                let error = format!("HTTP {} {}", reply.status, reply.body_start);
                (Some(reply.status), error, reply.retry_after)
            }
            Err(error) => (None, error.to_string(), None),
        };
        let ended = self.clock.now();
        let then = match status {
            Some(200..300) => NoticeOutcome::Delivered,
            _ => self.retry(notice, asked, ended.wall),
        };
        let error = match then {
            NoticeOutcome::Delivered => "",
            _ => error.as_str(),
        };
        self.store.write(ended.wall, |tx| {
            notices::end(tx, notice, status, error, then)
        })?;
        let (what, kind, subject) = (notice.change, &notice.alert.kind, &notice.alert.subject);
        let attempt = notice.attempts + 1;
        match then {
            NoticeOutcome::Abandoned => {
                log::error!(
                    event = "alert_told", alert:% = kind, subject:%, what:%, attempt,
                    then = "given_up", error:%; ""
                )
            }
            _ => {
                log::info!(
                    event = "alert_told", alert:% = kind, subject:%, what:%, attempt, then:%,
                    error:%; ""
                )
            }
        }
        Ok(TickOutcome::again())
    }

    /// When it is tried again: after the waits of all webhooks.
    fn retry(&self, notice: &Notice, asked: Option<Duration>, now: Timestamp) -> NoticeOutcome {
        let wait = usize::try_from(notice.attempts)
            .ok()
            .and_then(|at| self.config.webhooks.retry_delays.get(at));
        let asked = asked.unwrap_or_default().min(MOST_RETRY_AFTER);
        wait.map_or(NoticeOutcome::Abandoned, |wait| {
            NoticeOutcome::Retry(now + asked.max(*wait))
        })
    }

    /// The id that a receiver drops repeats by.
    fn id(&self, notice: &Notice) -> String {
        let database = self.store.database_id();
        format!("alert_{database}_{}_{}", notice.alert_id, notice.change)
    }

    fn body(&self, notice: &Notice) -> Vec<u8> {
        let (event, closed_at) = match notice.change {
            // As it was then: that it is closed by now is told apart.
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
            if self.store.read(notices::any_due)? {
                self.store.write(now.wall, notices::discard_pending)?;
            }
            return Ok(TickOutcome::idle(idle.max(NOBODY)));
        }
        if !self.introduced {
            self.store.write(now.wall, notices::enable)?;
            self.introduced = true;
        }
        let retries = self.config.webhooks.retry_delays.iter().max();
        let longest = retries.copied().unwrap_or_default().max(MOST_RETRY_AFTER);
        let first = self
            .store
            .read(|view| notices::next_due(view, now.wall, longest + GRACE))?;
        match first {
            Due::Now(notice) => self.tell(&notice, now),
            Due::At(at) => Ok(TickOutcome::idle(at.since(now.wall).min(idle))),
            Due::Never => Ok(TickOutcome::idle(idle)),
        }
    }
}
