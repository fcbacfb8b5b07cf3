//! The poller: watches batches at OpenAI until they reach a final state, and carries cancels there.
//!
//! If many batches are due, one call lists a hundred of them. A listing only shows that a batch still runs.
//! How a batch ended is asked by its id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::batch::BatchState;
use crate::domain::decide::abandoned_batch::{CancelledBatchDecision, decide_cancelled};
use crate::domain::decide::failed_call::{CallKind, CallPurpose, FailedCall};
use crate::domain::decide::polled_batch::{self, PolledBatchDecision};
use crate::domain::due::Due;
use crate::domain::openai::BatchStatus;
use crate::openai::{Batch, BatchApi, CallError};
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, Stored, Tx, View, alerts, calls, settle};
use crate::workers::doubtful_create::doubt_create;
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, WaitTimes, Worker, WorkerError};
use crate::workers::{abandonment, call_failure, pauses};

/// A listing is asked for if at least this many batches are due.
const MANY: usize = 4;
/// Batches on one page of a listing.
const PAGE: u32 = 100;

/// The worker that polls batches.
pub struct Poller {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    /// Since when each batch that has ended waits for its files to be named.
    late: WaitTimes,
    /// When the last listing was asked for, on the steady clock.
    listed: Option<Duration>,
}

impl Poller {
    /// A poller that has polled nothing yet.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        Self {
            store,
            api,
            config,
            late: WaitTimes::default(),
            listed: None,
        }
    }

    /// The due batches that one listing may show in fewer calls than polling each takes; `None` if there are
    /// too few, or if a listing was asked for less than an interval ago.
    fn batches_to_list(&self, now: Moment) -> Result<Option<Vec<BatchRow>>, WorkerError> {
        let base = self.config.openai.poll_interval;
        let is_too_soon = self.listed.is_some_and(|at| now.steady < at + base);
        if is_too_soon || !self.config.openai.lists_batches() {
            return Ok(None);
        }
        let soon = now.wall + base / 2;
        let (mut rows, newer) = self.store.read(|view| {
            let rows = batches::due(view, BatchState::Submitted, soon)?;
            let oldest = rows.iter().filter_map(|row| row.openai_time).min();
            Ok((rows, batches::made_since(view, oldest)?))
        })?;
        rows.retain(|row| row.identity == *self.api.identity());
        let pages = newer / PAGE as usize + 1;
        Ok((rows.len() >= MANY && pages * 2 <= rows.len()).then_some(rows))
    }

    /// Lists OpenAI's batches as far back as that takes fewer calls than polling each. A batch that runs is
    /// polled later. One that has ended, or that is not listed, stays due.
    fn poll_by_listing(&mut self, rows: Vec<BatchRow>, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.listed = Some(now.steady);
        let most_pages = rows.len() / 2;
        let mut unseen: HashMap<String, BatchRow> = rows
            .into_iter()
            .filter_map(|row| Some((row.openai_batch_id.clone()?, row)))
            .collect();
        let mut after: Option<String> = None;
        let due = unseen.len();
        for pages in 1..=most_pages {
            let page = match self.api.batches(after.as_deref(), PAGE) {
                Ok(page) => page,
                // Each batch is polled by its id then, and the error is dealt with there.
                Err(error) => {
                    log::info!(event = "listing_failed", error:%; "");
                    break;
                }
            };
            self.record_running(&page.data, &mut unseen, now)?;
            after = page.data.last().map(|remote| remote.id.clone());
            // Other programs' batches may fill the pages.
            let has_saved_calls = due - unseen.len() >= pages;
            if unseen.is_empty() || page.has_more == Some(false) || after.is_none() || !has_saved_calls {
                break;
            }
        }
        Ok(TickOutcome::again())
    }

    /// Records those batches of a page that run, and removes what the page shows from `unseen`.
    fn record_running(
        &self,
        page: &[Batch],
        unseen: &mut HashMap<String, BatchRow>,
        now: Moment,
    ) -> Result<(), WorkerError> {
        let base = self.config.openai.poll_interval;
        let mut running = Vec::new();
        for remote in page {
            let Some(row) = unseen.remove(&remote.id) else {
                continue;
            };
            if is_of_another_create(&row, remote) {
                continue;
            }
            let decision = polled_batch::decide(remote, now.wall, base, true);
            if let PolledBatchDecision::Running {
                wait,
                is_overdue: false,
            } = decision
                && remote.status.is_some()
                && !self.is_to_be_cancelled(&row)?
            {
                running.push((row, remote, wait.max(base)));
            }
        }
        self.store.write(now.wall, |tx| {
            calls::clear_account_pause(tx, &PauseScope::OpenAi)?;
            for (row, remote, wait) in &running {
                let subject = AlertSubject::Batch(row.id);
                close_unread(tx, &subject)?;
                alerts::close(tx, AlertKind::UnknownState, &subject)?;
                batches::record_poll(tx, row.id, remote, now.wall + *wait)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn poll(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        let base = self.config.openai.poll_interval;
        if row.identity != *self.api.identity() {
            self.store.write(now.wall, |tx| match row.abandoned_at {
                Some(_) => self.watch(tx, row, None),
                None => {
                    pauses::report_other_identity(tx, row)?;
                    batches::set_next_check(tx, row.id, now.wall + polled_batch::longest_interval(base))
                }
            })?;
            return Ok(TickOutcome::again());
        }
        let id = row.openai_batch_id.as_deref().unwrap_or_default();
        let answer = if self.is_to_be_cancelled(row)? {
            self.cancel(id)
        } else {
            self.api.batch(id)
        };
        match answer {
            Ok(remote) if is_of_another_create(row, &remote) && self.doubt(row, &remote, now)? => {}
            Ok(remote) => {
                let may_wait_for_files = polled_batch::are_files_late(&remote)
                    && self.late.waited(row.id, now) < self.config.openai.results_timeout;
                let decision = polled_batch::decide(&remote, now.wall, base, may_wait_for_files);
                self.store
                    .write(now.wall, |tx| apply(tx, row, &remote, decision))?;
                if decision == PolledBatchDecision::Ended {
                    self.late.end(row.id);
                }
            }
            Err(error) => {
                let is_overdue = polled_batch::is_overdue(row.openai_expires, now.wall);
                let call = FailedCall {
                    purpose: CallPurpose::Poll { is_overdue },
                    error: &error,
                    failures: row.failures,
                    retry_interval: self.config.openai.retry_interval,
                };
                self.store.write(now.wall, |tx| match row.abandoned_at {
                    Some(_) => self.watch(tx, row, Some(&error)),
                    None => call_failure::apply_to_batch(tx, row, &call),
                })?;
            }
        }
        Ok(TickOutcome::again())
    }

    /// Takes back OpenAI's id, which is another batch's. Returns false if the row's own batch is known beside it: its
    /// answers count, and this row ends as any batch without answers.
    fn doubt(&self, row: &BatchRow, remote: &Batch, now: Moment) -> Stored<bool> {
        self.store.write(now.wall, |tx| {
            if row.abandoned_at.is_some() || batches::has_duplicate(tx, row.id)? {
                return Ok(false);
            }
            batches::mark_wrongly_submitted(tx, row)?;
            doubt_create(tx, row.id, &remote.id, &self.config.openai)?;
            Ok(true)
        })
    }

    /// Stores that a call for an abandoned batch failed, or could not be made: it is asked on for late answers,
    /// or is over.
    fn watch(&self, tx: &Tx<'_>, row: &BatchRow, error: Option<&CallError>) -> Stored<()> {
        let wait = polled_batch::longest_interval(self.config.openai.poll_interval);
        abandonment::watch(tx, row, error, wait)
    }

    /// Abandons a batch for an operator. OpenAI is asked to cancel it first: if OpenAI does, the batch ends with
    /// what it has answered. If not, its unanswered requests are sent again now.
    fn abandon(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if row.settled_to == 0 && row.identity == *self.api.identity() {
            let id = row.openai_batch_id.as_deref().unwrap_or_default();
            match self.cancel(id) {
                Ok(remote) if decide_cancelled(&remote, now.wall) == CancelledBatchDecision::AwaitEnd => {
                    let decision =
                        polled_batch::decide(&remote, now.wall, self.config.openai.poll_interval, true);
                    let reason = format!("OpenAI answers that it is {}", remote.status_text);
                    self.store.write(now.wall, |tx| {
                        batches::withdraw_abandonment(tx, row.id, &reason)?;
                        apply(tx, row, &remote, decision)
                    })?;
                    return Ok(TickOutcome::again());
                }
                Ok(_) => {}
                Err(error) => log::info!(event = "not_cancelled", batch = row.id, error:%; ""),
            }
        }
        if abandonment::release_lines(&self.store, &self.config, row, now)? {
            let wait = polled_batch::longest_interval(self.config.openai.poll_interval);
            self.store
                .write(now.wall, |tx| abandonment::mark_watched(tx, row, wait))?;
        }
        Ok(TickOutcome::again())
    }

    /// Asks OpenAI to cancel a batch, unless it has ended or is being cancelled. OpenAI refuses with 409 to
    /// cancel a batch that has ended. A batch that OpenAI shows and refuses to cancel runs on.
    fn cancel(&self, id: &str) -> Result<Batch, CallError> {
        let remote = self.api.batch(id)?;
        let is_done = remote
            .status
            .is_some_and(|status| status.is_final() || status == BatchStatus::Cancelling);
        if is_done {
            return Ok(remote);
        }
        match self.api.cancel_batch(id) {
            // Some compatible servers say 400.
            Err(CallError::Refused(refusal)) if matches!(refusal.status, 400 | 409) => self.api.batch(id),
            Err(CallError::Refused(refusal)) if matches!(refusal.status, 403 | 404 | 405 | 501) => {
                log::warn!(event = "cancel_refused", openai_batch:% = id, error:% = refusal; "");
                Ok(remote)
            }
            answer => answer,
        }
    }

    fn is_to_be_cancelled(&self, row: &BatchRow) -> Result<bool, WorkerError> {
        let is_unwanted = || self.store.read(|view| settle::is_unwanted(view, row.id));
        Ok(row.cancel_wanted || row.lines > 0 && is_unwanted()?)
    }
}

/// Closes the alerts about a batch that could not be read.
fn is_of_another_create(row: &BatchRow, remote: &Batch) -> bool {
    polled_batch::is_of_another_create(remote, row.input_file_id.as_deref(), row.input_file_time)
}

fn close_unread(tx: &Tx<'_>, subject: &AlertSubject) -> Stored<()> {
    alerts::close(tx, AlertKind::BatchGone, subject)?;
    alerts::close(tx, AlertKind::BatchRefused, subject)
}

/// Stores what OpenAI reported of a batch, and what follows.
fn apply(tx: &Tx<'_>, row: &BatchRow, remote: &Batch, decision: PolledBatchDecision) -> Stored<()> {
    let subject = AlertSubject::Batch(row.id);
    pauses::record_success(tx, CallKind::Poll, row.id)?;
    close_unread(tx, &subject)?;
    if remote.status.is_none() && row.abandoned_at.is_none() {
        let message = format!(
            "OpenAI reports the unknown state {:?} of batch {}; it is asked on. Look at it: batchkeeper batches show {}; \
             if it is lost for good: batchkeeper batches abandon {}",
            remote.status_text, remote.id, row.id, row.id
        );
        alerts::open(tx, AlertKind::UnknownState, &subject, &message)?;
    } else {
        alerts::close(tx, AlertKind::UnknownState, &subject)?;
    }
    match decision {
        PolledBatchDecision::Ended => {
            alerts::close_all(tx, &subject)?;
            batches::mark_ended(tx, row.id, remote)
        }
        PolledBatchDecision::FilesLate { wait } => batches::record_poll(tx, row.id, remote, tx.now + wait),
        PolledBatchDecision::Running { wait, is_overdue } => {
            if is_overdue && row.abandoned_at.is_none() {
                let message = format!(
                    "batch {} is past its window and still {}; it is not sent again before it ends. If it is lost for \
                     good: batchkeeper batches abandon {}",
                    remote.id, remote.status_text, row.id
                );
                alerts::open(tx, AlertKind::BatchOverdue, &subject, &message)?;
            }
            batches::record_poll(tx, row.id, remote, tx.now + wait)
        }
    }
}

impl Worker for Poller {
    fn name(&self) -> &'static str {
        "poller"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::BatchPolled)
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[Topic::JobCancelled, Topic::BatchSubmitted, Topic::Audited]
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let idle = self.config.steps.idle;
        let to_abandon = |view: &View| batches::next_to_abandon(view, BatchState::Submitted);
        if let Some(row) = self.store.read(to_abandon)? {
            return self.abandon(&row, now);
        }
        if let Some(wait) = pauses::openai_paused(&self.store, &self.config, now)? {
            return Ok(TickOutcome::idle(wait.min(idle)));
        }
        let longest = pauses::longest_wait(&self.config);
        let due = self
            .store
            .read(|view| batches::next_due(view, &[BatchState::Submitted], now.wall, longest))?;
        match due {
            Due::Now(row) => match self.batches_to_list(now)? {
                Some(rows) => self.poll_by_listing(rows, now),
                None => {
                    let tick = self.poll(&row, now);
                    call_failure::set_aside_unreadable(&self.store, &row, now, tick)
                }
            },
            Due::At(at) => Ok(TickOutcome::idle(at.since(now.wall).min(idle))),
            Due::Never => Ok(TickOutcome::idle(idle)),
        }
    }
}
