//! The alert notifier: tells one receiver of each alert that opens or closes, at least once. Each receiver has a
//! notifier of its own, so that one that fails holds up no other.
//!
//! The receiver of `alerts.webhook_url` gets one signed JSON object an alert, under one id. The others get texts for
//! people, in which everything that is due together is summed up.

mod send;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

pub use self::send::{AlertSender, Attempt, SignedNotification};
use crate::base::clock::{Clock, Moment, Timestamp};
use crate::config::{AlertChannel, AlertReceiver, Config};
use crate::domain::alert::{AlertChange, SIGNED_RECEIVER};
use crate::domain::alert_text::{AlertText, ChangedAlert};
use crate::domain::decide::webhook_answer::{DeliveryDecision, EndedAttempt, longest_notification_wait};
use crate::domain::due::Due;
use crate::outbound::{HttpPost, PROGRAM_TIMEOUT};
use crate::store::Store;
use crate::store::notices::{self, Notice};
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// An attempt that has not ended this long after its time-out is made again: its process has ended.
const LEASE_MARGIN: Duration = Duration::from_mins(1);
/// The most alerts that one text sums up.
const MOST_TOGETHER: usize = 200;
/// The pause after a text that was taken: what changes meanwhile is summed up in the next one.
const TEXT_PAUSE: Duration = Duration::from_secs(3);

/// The alert notifier of one receiver.
pub struct AlertNotifier {
    name: String,
    store: Arc<Store>,
    sender: AlertSender,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    receiver: AlertReceiver,
}

impl AlertNotifier {
    /// The notifier of a receiver of this configuration.
    pub fn new(
        store: Arc<Store>,
        outbound: Arc<dyn HttpPost>,
        clock: Arc<dyn Clock>,
        config: Arc<Config>,
        receiver: AlertReceiver,
    ) -> Self {
        Self {
            name: match receiver.name.as_str() {
                SIGNED_RECEIVER => "alert_notifier".to_owned(),
                name => format!("alert_notifier-{name}"),
            },
            sender: AlertSender::new(outbound, config.clone()),
            store,
            clock,
            config,
            receiver,
        }
    }

    fn is_signed(&self) -> bool {
        matches!(self.receiver.channel, AlertChannel::Signed { .. })
    }

    /// Makes one attempt at notifications, which end together.
    fn notify(&self, notices: Vec<Notice>, now: Moment) -> Result<TickOutcome, WorkerError> {
        let timeout = self.config.webhooks.timeout.max(PROGRAM_TIMEOUT);
        let lease = now.wall + timeout + LEASE_MARGIN;
        let begun = self.store.write(now.wall, |tx| {
            let mut begun = Vec::new();
            for notice in notices {
                if notices::begin(tx, &notice, lease)? {
                    begun.push(notice);
                }
            }
            Ok(begun)
        })?;
        let Some(first) = begun.first() else {
            return Ok(TickOutcome::again());
        };
        let attempt = match self.is_signed() {
            true => self
                .sender
                .send_signed(&self.receiver.channel, &self.signed(first), now.wall),
            false => {
                let changed: Vec<ChangedAlert<'_>> = begun.iter().map(changed_alert).collect();
                let text = AlertText::of(&self.config.alerts.instance, &changed);
                self.sender.send_text(&self.receiver.channel, &text)
            }
        };
        self.end(&begun, &attempt)?;
        Ok(match attempt.error.is_none() && !self.is_signed() {
            true => TickOutcome::worked(TEXT_PAUSE),
            false => TickOutcome::again(),
        })
    }

    /// Stores how an attempt ended, and logs it.
    fn end(&self, begun: &[Notice], attempt: &Attempt) -> Result<(), WorkerError> {
        let at = self.clock.now().wall;
        let error = attempt.error.as_deref().unwrap_or_default();
        let decide = |notice: &Notice| match attempt.error {
            None => DeliveryDecision::Delivered,
            Some(_) => EndedAttempt {
                id: notice.id,
                earlier: notice.attempts,
                delays: &self.config.webhooks.retry_delays,
                at,
                answer: attempt.answer,
            }
            .decide_notification(),
        };
        self.store.write(at, |tx| {
            begun
                .iter()
                .try_for_each(|notice| notices::end(tx, notice, attempt.answer.status, error, decide(notice)))
        })?;
        for notice in begun {
            let decision = decide(notice);
            let level = match decision {
                DeliveryDecision::Abandoned => log::Level::Error,
                _ => log::Level::Info,
            };
            log::log!(
                level, event = "alert_notification", receiver:% = self.receiver.name,
                alert:% = notice.alert.kind, subject:% = notice.alert.subject, change:% = notice.change,
                attempt = notice.attempts + 1, outcome:% = decision, error:%; ""
            );
        }
        Ok(())
    }

    fn signed(&self, notice: &Notice) -> SignedNotification {
        let database = self.store.database_id();
        let (event, closed_at) = match notice.change {
            // The alert as it was when it opened: its closing has a notification of its own.
            AlertChange::Opened => ("alert_opened", None),
            AlertChange::Closed => ("alert_closed", notice.alert.closed_at),
        };
        SignedNotification {
            id: format!("alert_{database}_{}_{}", notice.alert_id, notice.change),
            attempt: notice.attempts + 1,
            body: json!({
                "event": event,
                "alert_id": notice.alert_id,
                "kind": notice.alert.kind.as_str(),
                "subject": notice.alert.subject.to_string(),
                "message": notice.alert.message,
                "opened_at": notice.alert.opened_at.to_seconds_text(),
                "closed_at": closed_at.map(Timestamp::to_seconds_text),
                "database_id": database,
            }),
        }
    }
}

fn changed_alert(notice: &Notice) -> ChangedAlert<'_> {
    ChangedAlert {
        change: notice.change,
        kind: notice.alert.kind,
        subject: notice.alert.subject.to_string(),
        message: &notice.alert.message,
        opened_at: notice.alert.opened_at,
        closed_at: notice.alert.closed_at,
    }
}

impl Worker for AlertNotifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let idle = self.config.steps.idle;
        let longest = longest_notification_wait(&self.config.webhooks.retry_delays) + LEASE_MARGIN;
        let most = match self.is_signed() {
            true => 1,
            false => MOST_TOGETHER,
        };
        let due = self
            .store
            .read(|view| notices::next_due(view, &self.receiver.name, now.wall, longest, most))?;
        match due {
            Due::Now(notices) => self.notify(notices, now),
            Due::At(at) => Ok(TickOutcome::idle(at.since(now.wall).min(idle))),
            Due::Never => Ok(TickOutcome::idle(idle)),
        }
    }
}
