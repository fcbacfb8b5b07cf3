//! The poller: watches batches at OpenAI until they reach a final state, and carries cancels there.
//!
//! Where many are due, a listing shows a hundred of them in one call. It only says of those that run
//! that they run: how one ended is asked of itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Moment, Timestamp};
use crate::config::Config;
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::batch::BatchState;
use crate::domain::due::Due;
use crate::domain::openai::BatchStatus;
use crate::openai::{Batch, BatchApi, CallError};
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, alerts, settle};
use crate::workers::pauses;
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, WaitTimes, Worker, WorkerError, backoff};

/// How long after its window a batch that has not ended is reported.
const OVERDUE: Duration = Duration::from_mins(30);
/// From so many due batches on, a listing is asked for where it takes fewer calls.
const MANY: usize = 4;
/// Batches on one page of a listing.
const PAGE: u32 = 100;

/// See the module.
pub struct Poller {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    /// Since when each ended batch whose files are not named is waited for.
    late: WaitTimes,
    /// When the last listing was asked for, on the steady clock.
    listed: Option<Duration>,
}

impl Poller {
    /// A poller.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        Self {
            store,
            api,
            config,
            late: WaitTimes::default(),
            listed: None,
        }
    }

    /// How long until a batch is looked at again: quicker while it is young, slower when it is old.
    fn interval(&self, age: Duration) -> Duration {
        let base = self.config.openai.poll_interval;
        (age / 20).clamp(base / 2, base * pauses::SLOWEST_POLL)
    }

    /// The batches that one listing may answer for, where that takes fewer calls than asking for each;
    /// once in a base interval.
    fn crowd(&self, now: Moment) -> Result<Option<Vec<BatchRow>>, WorkerError> {
        let base = self.config.openai.poll_interval;
        if self.listed.is_some_and(|at| now.steady < at + base) {
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

    /// Asks for a listing, as far back as it takes fewer calls: what runs is looked at later, what does
    /// not, or is not in it, stays due.
    fn survey(&mut self, rows: Vec<BatchRow>, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.listed = Some(now.steady);
        let most = rows.len() / 2;
        let mut left: HashMap<String, BatchRow> = rows
            .into_iter()
            .filter_map(|row| Some((row.openai_batch_id.clone()?, row)))
            .collect();
        let mut after: Option<String> = None;
        for _ in 0..most {
            let page = match self.api.batches(after.as_deref(), PAGE) {
                Ok(page) => page,
                // Each is asked for itself, and what is wrong is found there.
                Err(error) => {
                    log::info!(event = "listing_failed", error:%; "");
                    break;
                }
            };
            self.take_note(&page.data, &mut left, now)?;
            after = page.data.last().map(|remote| remote.id.clone());
            if left.is_empty() || !page.has_more || after.is_none() {
                break;
            }
        }
        Ok(TickOutcome::again())
    }

    /// Of the batches on one page: those that run are looked at later.
    fn take_note(
        &self,
        page: &[Batch],
        left: &mut HashMap<String, BatchRow>,
        now: Moment,
    ) -> Result<(), WorkerError> {
        let mut running = Vec::new();
        for remote in page {
            let Some(row) = left.remove(&remote.id) else {
                continue;
            };
            let runs = remote.status.is_some_and(|status| !status.is_final());
            if runs && !is_overdue(remote.expires_at, now) && !self.is_to_be_cancelled(&row)? {
                running.push((row, remote));
            }
        }
        self.store.write(now.wall, |tx| {
            pauses::clear_pause(tx, &PauseScope::OpenAi)?;
            for (row, remote) in &running {
                let subject = AlertSubject::Batch(row.id);
                alerts::close(tx, AlertKind::BatchGone, &subject)?;
                alerts::close(tx, AlertKind::UnknownState, &subject)?;
                let age = now.wall.since(Timestamp::from_seconds(remote.created_at));
                let wait = self.interval(age).max(self.config.openai.poll_interval);
                batches::record_poll(tx, row.id, remote, now.wall + wait)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn poll(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if row.identity != *self.api.identity() {
            self.store.write(now.wall, |tx| {
                pauses::other_identity(tx, row)?;
                batches::set_next_check(tx, row.id, now.wall + self.interval(Duration::MAX))
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
            Ok(remote) => self.seen(row, &remote, now),
            Err(error) => self.failed(row, &error, now),
        }
    }

    /// Asks OpenAI to cancel, or how far that is; a batch that has ended refuses with 409.
    fn cancel(&self, id: &str) -> Result<Batch, CallError> {
        let remote = self.api.batch(id)?;
        let done = remote
            .status
            .is_some_and(|status| status.is_final() || status == BatchStatus::Cancelling);
        if done {
            return Ok(remote);
        }
        match self.api.cancel_batch(id) {
            Err(CallError::Refused(refusal)) if refusal.status == 409 => self.api.batch(id),
            answer => answer,
        }
    }

    fn is_to_be_cancelled(&self, row: &BatchRow) -> Result<bool, WorkerError> {
        let is_unwanted = || self.store.read(|view| settle::is_unwanted(view, row.id));
        Ok(row.cancel_wanted || row.lines > 0 && is_unwanted()?)
    }

    fn seen(
        &mut self,
        row: &BatchRow,
        remote: &Batch,
        now: Moment,
    ) -> Result<TickOutcome, WorkerError> {
        let subject = AlertSubject::Batch(row.id);
        let made = Timestamp::from_seconds(remote.created_at);
        let age = now.wall.since(made);
        let mut wait = self.interval(age);
        let is_final = remote.status.is_some_and(BatchStatus::is_final);
        let files_late = are_files_late(remote)
            && self.late.waited(row.id, now) < self.config.openai.results_timeout;
        self.store.write(now.wall, |tx| {
            pauses::clear_pause(tx, &PauseScope::OpenAi)?;
            alerts::close(tx, AlertKind::BatchGone, &subject)?;
            if remote.status.is_none() {
                let message = format!(
                    "OpenAI reports the unknown state {:?} of batch {}; it is asked on. Look at it: batchkeeper batches \
                     show {}; if it is lost for good: batchkeeper batches give-up {}",
                    remote.status_text, remote.id, row.id, row.id
                );
                alerts::open(tx, AlertKind::UnknownState, &subject, &message)?;
            } else {
                alerts::close(tx, AlertKind::UnknownState, &subject)?;
            }
            if files_late {
                wait = wait.min(self.config.openai.poll_interval);
                return batches::record_poll(tx, row.id, remote, now.wall + wait);
            }
            if is_final {
                alerts::close_all(tx, &subject)?;
                return batches::mark_ended(tx, row.id, remote);
            }
            if is_overdue(remote.expires_at, now) {
                let message = format!(
                    "batch {} is past its window and still {}; it is not sent again before it ends. If it is lost for \
                     good: batchkeeper batches give-up {}",
                    remote.id, remote.status_text, row.id
                );
                alerts::open(tx, AlertKind::BatchOverdue, &subject, &message)?;
            }
            batches::record_poll(tx, row.id, remote, now.wall + wait)
        })?;
        if is_final && !files_late {
            self.late.end(row.id);
        }
        Ok(TickOutcome::again())
    }

    fn failed(
        &self,
        row: &BatchRow,
        error: &CallError,
        now: Moment,
    ) -> Result<TickOutcome, WorkerError> {
        let wait = backoff(
            self.config.openai.retry_interval,
            row.failures,
            error.retry_after(),
        );
        self.store.write(now.wall, |tx| {
            if error.is_account_trouble() {
                // Others come first when the pause is over: it may be this one alone that is refused.
                let probe = backoff(self.config.openai.retry_interval, u32::MAX, None);
                batches::set_next_check(tx, row.id, now.wall + probe)?;
                return pauses::pause_openai(tx, error, probe);
            }
            if batches::is_given_up(tx, row.id)? {
                return Ok(());
            }
            let gone = error.is_not_found();
            if gone && row.failures >= pauses::NOT_YET {
                let message = format!(
                    "OpenAI says that there is no batch {}: {error}. It is asked again; if it is lost for good, \
                     `batchkeeper batches give-up {}` sends its requests again",
                    row.openai_batch_id.as_deref().unwrap_or_default(),
                    row.id
                );
                alerts::open(tx, AlertKind::BatchGone, &AlertSubject::Batch(row.id), &message)?;
            } else if !gone && is_overdue(row.openai_expires, now) {
                let message = format!(
                    "batch {} is past its window, and how it ended cannot be learned: {error}. It is asked on; if it is \
                     lost for good, `batchkeeper batches give-up {}` sends its requests again",
                    row.openai_batch_id.as_deref().unwrap_or_default(),
                    row.id
                );
                alerts::open(tx, AlertKind::BatchOverdue, &AlertSubject::Batch(row.id), &message)?;
            }
            batches::postpone(tx, row.id, now.wall + wait, &error.to_string())
        })?;
        Ok(TickOutcome::again())
    }
}

/// Whether a batch whose window closes then should have ended long ago.
fn is_overdue(expires: Option<i64>, now: Moment) -> bool {
    expires.is_some_and(|at| now.wall > Timestamp::from_seconds(at) + OVERDUE)
}

/// Whether OpenAI has yet to name a file that a batch which ended must have, by its status or its
/// counts. An answered line whose file came too late would be sent, and paid, again.
fn are_files_late(remote: &Batch) -> bool {
    let (no_output, no_errors) = (
        remote.output_file_id.is_none(),
        remote.error_file_id.is_none(),
    );
    match remote.status {
        Some(BatchStatus::Completed) if no_output && no_errors => true,
        Some(BatchStatus::Completed | BatchStatus::Expired | BatchStatus::Cancelled) => {
            no_output && remote.counts.completed > 0 || no_errors && remote.counts.failed > 0
        }
        _ => false,
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
        if let Some(wait) = pauses::openai_paused(&self.store, &self.config, now)? {
            return Ok(TickOutcome::idle(wait.min(self.config.steps.idle)));
        }
        let longest = pauses::longest_wait(&self.config);
        let first = self
            .store
            .read(|view| batches::next_due(view, &[BatchState::Submitted], now.wall, longest))?;
        match first {
            Due::Now(row) => match self.crowd(now)? {
                Some(rows) => self.survey(rows, now),
                None => self.poll(&row, now),
            },
            Due::At(at) => Ok(TickOutcome::idle(
                at.since(now.wall).min(self.config.steps.idle),
            )),
            Due::Never => Ok(TickOutcome::idle(self.config.steps.idle)),
        }
    }
}
