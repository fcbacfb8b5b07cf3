//! Carries out what persons have asked for on the pages and what takes longer than a form may: many webhooks again, a
//! test event, a backup. The outcome is a second row of the audit.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Clock, Moment};
use crate::base::fields::Fields;
use crate::config::Config;
use crate::domain::operator_action::{ActionKind, ResendRange};
use crate::domain::signature::webhook_headers;
use crate::jobs::test_event::test_event_body;
use crate::outbound::HttpPost;
use crate::store::operator_tasks::{self, OperatorTask};
use crate::store::{Store, StoreError, jobs, resends, status, webhook_deliveries};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// Webhooks that are made due in one transaction.
const CHUNK: u32 = 50;
/// The wait between two chunks, so that other workers can write.
const WAIT: Duration = Duration::from_millis(20);

/// The worker of operators' tasks.
pub struct OperatorTasks {
    store: Arc<Store>,
    outbound: Arc<dyn HttpPost>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
}

impl OperatorTasks {
    /// Carries out the tasks of this store.
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
        }
    }

    fn end(&self, task: &OperatorTask, outcome: Fields) -> Result<TickOutcome, WorkerError> {
        let now = self.clock.now().wall;
        self.store
            .write(now, |tx| operator_tasks::end(tx, task, outcome))?;
        Ok(TickOutcome::again())
    }

    fn fail(&self, task: &OperatorTask, error: &str) -> Result<TickOutcome, WorkerError> {
        self.end(task, Fields::new().with("failed", error))
    }

    /// Sends the next webhooks of a range again.
    fn resend(&self, task: &OperatorTask, now: Moment) -> Result<TickOutcome, WorkerError> {
        let Ok(range) = task.subject.parse::<ResendRange>() else {
            return self.fail(task, "the range cannot be read");
        };
        let ids = self
            .store
            .read(|view| resends::next(view, &range, task.position, CHUNK))?;
        let Some(last) = ids.last() else {
            return self.end(task, Fields::new().with("sent_again", task.done));
        };
        self.store.write(now.wall, |tx| {
            let mut done = task.done;
            for id in &ids {
                match webhook_deliveries::resend(tx, *id) {
                    Ok(_) => done += 1,
                    // A client or a person was faster.
                    Err(StoreError::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            operator_tasks::advance(tx, task, *last, done)
        })?;
        Ok(TickOutcome::worked(WAIT))
    }

    /// Sends a test event to the receiver of a delivery, once.
    fn send_test_event(&self, task: &OperatorTask, now: Moment) -> Result<TickOutcome, WorkerError> {
        let found = self.store.read(|view| {
            let Some(delivery) = task.subject.parse().ok().map(|id| status::delivery(view, id)) else {
                return Ok(None);
            };
            let Some(delivery) = delivery? else {
                return Ok(None);
            };
            let job = jobs::by_id(view, &delivery.job)?;
            Ok(job.map(|job| (delivery.receiver, job.client)))
        })?;
        let Some((url, client)) = found else {
            return self.fail(task, "the delivery is gone");
        };
        let Some(client) = self.config.clients.iter().find(|it| it.name == client) else {
            return self.fail(task, "its client is no longer in the configuration");
        };
        let body = test_event_body(&client.name, now.wall);
        let headers = webhook_headers(
            client.webhook_keys(),
            self.config.signature_prefix(client),
            &format!("msg_{}", uuid::Uuid::new_v4().simple()),
            1,
            now.wall,
            &body,
        );
        let outcome = match self
            .outbound
            .post(&url, &headers, body, self.config.webhooks.timeout)
        {
            Ok(reply) => Fields::new().with("status", u32::from(reply.status)),
            Err(error) => Fields::new().with("failed", error.to_string()),
        };
        self.end(task, outcome)
    }

    fn back_up(&self, task: &OperatorTask) -> Result<TickOutcome, WorkerError> {
        let backup = &self.config.backup;
        let made = self
            .store
            .back_up_into(&backup.dir, backup.keep, &*self.clock, &mut |_, _| {});
        match made {
            Ok((copied, removed)) => {
                let outcome = Fields::new()
                    .with("file", copied.path.display().to_string())
                    .with("bytes", copied.bytes)
                    .with("rows", copied.rows)
                    .with("removed", removed.len());
                self.end(task, outcome)
            }
            Err(error) => self.fail(task, &error.to_string()),
        }
    }
}

impl Worker for OperatorTasks {
    fn name(&self) -> &'static str {
        "operator_tasks"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::JobFinished)
    }

    fn longest_tick(&self) -> Duration {
        // A backup of a large database. The unit of the timer allows the same.
        Duration::from_hours(6)
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let Some(task) = self.store.read(operator_tasks::next)? else {
            return Ok(TickOutcome::idle(self.config.steps.idle));
        };
        match task.kind {
            ActionKind::ResendWebhooks => self.resend(&task, now),
            ActionKind::SendTestEvent => self.send_test_event(&task, now),
            ActionKind::BackUp => self.back_up(&task),
            _ => self.fail(&task, "no worker carries it out"),
        }
    }
}
