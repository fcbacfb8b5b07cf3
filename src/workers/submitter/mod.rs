//! The submitter: waiting requests become batches at OpenAI, by the submission protocol.
//!
//! A tick does one step of one batch: `planned → sealed → uploaded → creating → submitted`.
//!
//! 1. After a start, OpenAI's batches are compared with the database before anything is created (`listing`).
//! 2. Waiting requests are claimed for a new batch, in fair shares (`pack`, `shares`).
//! 3. The batch's input file is written and sealed (`input`), and uploaded (`upload`).
//! 4. The batch is created (`create`). A committed row says so before the call. If the answer is lost, the
//!    batch is looked for before it is created again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::batch::{BatchState, Stage};
use crate::domain::decide::backoff::longest_backoff;
use crate::domain::decide::failed_call::{CallKind, CallPurpose, FailedCall};
use crate::domain::decide::lost_create::LostCreate;
use crate::domain::due::Due;
use crate::openai::{BatchApi, CallError};
use crate::recovery::reconcile::Reconciliation;
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, Stored, Tx, View, alerts, calls, settle, unclaimed_lines};
use crate::workers::spool::{Spool, SpoolKind};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};
use crate::workers::{abandonment, call_failure, pauses};

mod create;
mod input;
mod listing;
mod pack;
mod shares;
mod unlisted;
mod upload;

use pack::PackDecision;

/// The worker that submits batches.
pub struct Submitter {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    spool: Spool,
    /// The unfinished comparison with OpenAI's listing.
    listing: Option<Reconciliation>,
    /// Since when creates wait for a complete listing.
    listing_since: Option<Moment>,
    /// Why the last call of it failed.
    listing_error: Option<String>,
    /// When the next page of the listing may be asked for, on the steady clock.
    list_at: Duration,
    /// The creates whose answers were lost, by row.
    lost_creates: HashMap<i64, LostCreate>,
    /// The stage whose requests were packed last.
    last_stage: Stage,
    /// The cap of the requests that were packed last, by stage.
    last_caps: BTreeMap<Stage, Option<u32>>,
    /// Lines of one chunk of a batch that was found, or is dropped.
    chunk: u32,
}

impl Submitter {
    /// A submitter that has not compared OpenAI's batches yet.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        Self::with_chunks(store, api, config, unclaimed_lines::LINES)
    }

    /// The same, with up to `chunk` lines of a batch that was found, or is dropped, in one transaction.
    pub fn with_chunks(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>, chunk: u32) -> Self {
        let spool = Spool::new(config.spool());
        Self {
            store,
            api,
            config,
            spool,
            listing: None,
            listing_since: None,
            listing_error: None,
            list_at: Duration::ZERO,
            lost_creates: HashMap::new(),
            last_stage: Stage::Vision,
            last_caps: BTreeMap::new(),
            chunk,
        }
    }

    /// Does the next step of one batch.
    fn advance(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if row.identity != *self.api.identity() {
            return self.skip_other_identity(row, now);
        }
        match row.state {
            BatchState::Planned => self.seal(row, now),
            BatchState::Sealed => self.upload(row, now),
            BatchState::Uploaded => self.create(row, now),
            BatchState::Creating if self.config.openai.lists_batches() => self.find_created(row, now),
            BatchState::Creating => self.report_unanswered(row, now),
            BatchState::Submitted | BatchState::Ended | BatchState::Ingested | BatchState::Failed => {
                Ok(TickOutcome::idle(self.config.steps.idle))
            }
        }
    }

    /// Leaves a batch of another account alone: OpenAI shows nothing of it under this one. A batch of which
    /// OpenAI has nothing yet is moved to this account.
    fn skip_other_identity(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.store.write(now.wall, |tx| {
            if matches!(row.state, BatchState::Planned | BatchState::Sealed) {
                return batches::set_identity(tx, row.id, self.api.identity());
            }
            pauses::report_other_identity(tx, row)?;
            batches::set_next_check(tx, row.id, now.wall + self.longest_wait())
        })?;
        Ok(TickOutcome::again())
    }

    /// Whether batches may be created: OpenAI has none that this database does not know, and results would
    /// fit on the disk. Until then no request is claimed either: an unknown batch may hold it, and recovery
    /// must find it free.
    fn may_create(&self) -> Stored<bool> {
        let paused = self
            .store
            .read(|view| alerts::paused(view, &PauseScope::Creates))?;
        Ok(paused.is_none() && pauses::missing_free_space(&self.store, &self.config)?.is_none())
    }

    /// A failed call for a batch, ready to be decided on.
    fn failed_call<'a>(&self, row: &BatchRow, purpose: CallPurpose, error: &'a CallError) -> FailedCall<'a> {
        FailedCall {
            purpose,
            error,
            failures: row.failures,
            retry_interval: self.config.openai.retry_interval,
        }
    }

    /// Stores that a call for a batch failed, and what follows.
    fn fail_call(
        &self,
        row: &BatchRow,
        now: Moment,
        purpose: CallPurpose,
        error: &CallError,
    ) -> Result<TickOutcome, WorkerError> {
        let call = self.failed_call(row, purpose, error);
        self.store
            .write(now.wall, |tx| call_failure::apply_to_batch(tx, row, &call))?;
        Ok(TickOutcome::again())
    }

    /// Reports a batch that cannot go on before an operator has fixed something.
    fn report_stuck(&self, tx: &Tx<'_>, row: &BatchRow, kind: AlertKind, message: &str) -> Stored<()> {
        let alert = format!("{message}. Look at it: batchkeeper batches show {}", row.id);
        alerts::open(tx, kind, &AlertSubject::Batch(row.id), &alert)?;
        batches::postpone(tx, row.id, tx.now + self.longest_wait(), message)
    }

    /// Abandons a batch before it is created, if none of its requests is wanted any more: one chunk of its
    /// lines a tick. Returns whether it is unwanted.
    fn abandon_if_unwanted(&self, row: &BatchRow, now: Moment) -> Result<bool, WorkerError> {
        let is_unwanted = self.store.read(|view| settle::is_unwanted(view, row.id))?;
        if is_unwanted && abandonment::release_lines(&self.store, &self.config, row, now)? {
            self.store.write(now.wall, |tx| {
                alerts::close_all(tx, &AlertSubject::Batch(row.id))?;
                batches::mark_abandoned(tx, row.id, "not wanted any more before it was created")
            })?;
            self.spool.remove(&row.key, SpoolKind::Input)?;
        }
        Ok(is_unwanted)
    }

    fn count_refused(&self, kind: CallKind, state: BatchState) -> Stored<u32> {
        self.store.read(|view| calls::count_refused(view, kind, state))
    }

    /// Does the next part of what was only marked: a batch that was found claims its requests, or a planned batch
    /// that a listing has shown to be made differently loses them. Returns whether there was one.
    fn do_marked(&self, now: Moment) -> Stored<bool> {
        if self.store.read(unclaimed_lines::has_any)? {
            return self
                .store
                .write(now.wall, |tx| unclaimed_lines::claim(tx, self.chunk));
        }
        let unplanned = |view: &View| batches::next_to_abandon(view, BatchState::Planned);
        let Some(row) = self.store.read(unplanned)? else {
            return Ok(false);
        };
        self.store
            .write(now.wall, |tx| batches::unplan(tx, row.id, self.chunk))?;
        Ok(true)
    }

    /// The batch on its way to OpenAI that an operator wants abandoned.
    fn next_to_abandon(&self) -> Stored<Option<BatchRow>> {
        self.store.read(|view| {
            for state in [BatchState::Sealed, BatchState::Uploaded, BatchState::Creating] {
                if let Some(row) = batches::next_to_abandon(view, state)? {
                    return Ok(Some(row));
                }
            }
            Ok(None)
        })
    }

    /// Abandons a batch for an operator. If OpenAI has it all the same, a listing shows it, and it gets a row
    /// as a second batch of its submission.
    fn abandon(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if abandonment::release_lines(&self.store, &self.config, row, now)? {
            self.store.write(now.wall, |tx| {
                alerts::close_all(tx, &AlertSubject::Batch(row.id))?;
                batches::mark_abandoned(tx, row.id, "abandoned by the operator")
            })?;
            self.lost_creates.remove(&row.id);
            self.spool.remove(&row.key, SpoolKind::Input)?;
        }
        Ok(TickOutcome::again())
    }

    fn longest_wait(&self) -> Duration {
        longest_backoff(self.config.openai.retry_interval)
    }
}

impl Worker for Submitter {
    fn name(&self) -> &'static str {
        "submitter"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::BatchSubmitted)
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[
            Topic::BatchJobStored,
            Topic::ImagesChecked,
            Topic::ResultsIngested,
            Topic::SynchronousCallEnded,
            Topic::BatchPolled,
            Topic::Audited,
        ]
    }

    fn longest_tick(&self) -> Duration {
        // An upload of a whole file is bounded by the least rate of a transfer.
        Duration::from_hours(2)
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if self.do_marked(now)? {
            return Ok(TickOutcome::again());
        }
        if let Some(row) = self.next_to_abandon()? {
            return self.abandon(&row, now);
        }
        if let Some(wait) = pauses::sending_paused(&self.store, &self.config, now)? {
            return Ok(TickOutcome::idle(wait.min(self.config.steps.idle)));
        }
        if !self.store.read(batches::is_compared)? {
            if !self.config.openai.lists_batches() {
                return self.check_unlisted(now);
            }
            let wait = self.list_at.saturating_sub(now.steady);
            return if wait.is_zero() {
                self.compare(now)
            } else {
                Ok(TickOutcome::idle(wait))
            };
        }
        let stopped = |view: &View| alerts::paused(view, &PauseScope::Submissions);
        if self.store.read(stopped)?.is_some() {
            return Ok(TickOutcome::idle(self.config.steps.idle));
        }
        self.drop_unneeded_listing(now)?;
        let may_send_new = !self.store.read(calls::is_probing)?;
        let may_pack = may_send_new && self.may_create()?;
        let mut unsubmitted = vec![BatchState::Uploaded, BatchState::Creating];
        if may_send_new || self.count_refused(CallKind::Create, BatchState::Uploaded)? == 0 {
            unsubmitted.push(BatchState::Sealed);
        }
        if may_pack {
            unsubmitted.push(BatchState::Planned);
        }
        let longest = pauses::longest_wait(&self.config);
        let due = self
            .store
            .read(|view| batches::next_due(view, &unsubmitted, now.wall, longest))?;
        let mut idle = self.config.steps.idle;
        match due {
            Due::Now(row) => {
                let tick = self.advance(&row, now);
                return call_failure::set_aside_unreadable(&self.store, &row, now, tick);
            }
            Due::At(at) => idle = idle.min(at.since(now.wall)),
            Due::Never => {}
        }
        if !may_pack {
            return Ok(TickOutcome::idle(idle));
        }
        if self.release_due(now)? {
            return Ok(TickOutcome::again());
        }
        match self.decide_packing(now)? {
            PackDecision::Pack(batch) => self.pack(&batch, now),
            PackDecision::Wait(wait) => Ok(TickOutcome::idle(idle.min(wait))),
        }
    }
}
