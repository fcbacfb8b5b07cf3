//! Remote cleanup: removes the files of ingested batches at OpenAI once their retention time is over. The
//! files that the earlier service uploaded stay.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::decide::failed_call::{CallEvidence, CallPurpose, FailedCall, FailedCallDecision};
use crate::domain::decide::remote_cleanup::{Backups, BatchFiles, ingested_before};
use crate::openai::{BatchApi, CallError};
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, Stored, backup};
use crate::workers::worker::{TickOutcome, Worker, WorkerError};
use crate::workers::{clock, pauses};

/// Remote cleanup.
pub struct RemoteCleanup {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    /// No call is made before this time of the steady clock: the last one failed.
    rest_until: Duration,
}

impl RemoteCleanup {
    /// Removes the files of this store's batches.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        Self {
            store,
            api,
            config,
            rest_until: Duration::ZERO,
        }
    }

    fn backups(&self) -> Stored<Backups> {
        if !self.config.backup.is_on() {
            return Ok(Backups::Off);
        }
        let newest = self.store.read(backup::newest)?;
        Ok(newest.map_or(Backups::NoneYet, Backups::Newest))
    }

    /// A batch whose files are removed now; `None` if there is none.
    fn next_batch(&self, now: Moment) -> Stored<Option<BatchRow>> {
        let retention = self.config.retention.remote_files;
        let Some(before) = ingested_before(now.wall, retention, self.backups()?) else {
            return Ok(None);
        };
        let identity = self.api.identity();
        self.store.read(|view| batches::unclean(view, before, identity))
    }

    /// How long no call is made after one has failed.
    fn rest_after(&self, error: &CallError) -> Duration {
        let call = FailedCall {
            purpose: CallPurpose::RemoveFiles,
            error,
            failures: 0,
            retry_interval: self.config.openai.retry_interval,
        };
        match call.decide(CallEvidence::default()) {
            FailedCallDecision::Retry { wait, .. } | FailedCallDecision::PauseAccount { wait, .. } => wait,
        }
    }

    /// Removes a batch's files. A file that is gone already counts as removed.
    fn remove_files(&self, row: &BatchRow, is_input_shared: bool) -> Result<(), CallError> {
        let files = BatchFiles {
            input: row.input_file_id.as_deref(),
            output: row.output.id.as_deref(),
            error: row.error_file.id.as_deref(),
            is_input_shared,
        };
        for file in files.to_remove() {
            match self.api.delete_file(file) {
                // A server without this call keeps its files for as long as it likes.
                Err(error) if !error.is_not_offered() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Worker for RemoteCleanup {
    fn name(&self) -> &'static str {
        "remote_cleanup"
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let idle = self.config.steps.idle;
        if now.steady < self.rest_until {
            return Ok(TickOutcome::idle(idle.max(self.rest_until - now.steady)));
        }
        if pauses::openai_paused(&self.store, &self.config, now)?.is_some() {
            return Ok(TickOutcome::idle(idle));
        }
        if !clock::prepare_deletion_by_age(&self.store, self.api.as_ref(), now)? {
            return Ok(TickOutcome::idle(idle));
        }
        let Some(row) = self.next_batch(now)? else {
            return Ok(TickOutcome::idle(idle));
        };
        let is_input_shared = self.store.read(|view| batches::shares_input(view, &row))?;
        match self.remove_files(&row, is_input_shared) {
            Ok(()) => self
                .store
                .write(now.wall, |tx| batches::mark_cleaned(tx, row.id))?,
            Err(error) => {
                log::warn!(event = "not_cleaned", batch = row.id, error:%; "");
                self.rest_until = now.steady + self.rest_after(&error);
            }
        }
        // One batch a tick: no other work waits for it.
        Ok(TickOutcome::idle(idle))
    }
}
