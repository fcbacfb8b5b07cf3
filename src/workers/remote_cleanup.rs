//! The janitor: removes the files of settled batches at OpenAI once their results have been here for
//! long enough. What the earlier service uploaded is left alone.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Moment, Timestamp};
use crate::config::Config;
use crate::openai::{BatchApi, CallError};
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, backup};
use crate::workers::pauses;
use crate::workers::worker::{TickOutcome, Worker, WorkerError, backoff};

/// Longer than a transaction takes.
const LONGEST_COMMIT: Duration = Duration::from_mins(1);

/// See the module.
pub struct RemoteCleanup {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    /// When it is tried again after a failed call, on the steady clock.
    rest_until: Duration,
}

impl RemoteCleanup {
    /// A janitor.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        Self {
            store,
            api,
            config,
            rest_until: Duration::ZERO,
        }
    }

    /// Where backups are made, what was taken in after the newest of them is still OpenAI's to keep;
    /// none: there is no backup yet.
    fn held_by_a_backup(&self, before: Timestamp) -> Result<Option<Timestamp>, WorkerError> {
        if !self.config.backup.is_on() {
            return Ok(Some(before));
        }
        let newest = self.store.read(backup::newest)?;
        // A commit carries the time of its beginning.
        Ok(newest.map(|newest| before.min(newest.before(LONGEST_COMMIT))))
    }

    /// Removes a batch's files; one that is gone already is as good.
    fn remove(&self, row: &BatchRow, with_input: bool) -> Result<(), CallError> {
        let input = row.input_file_id.as_ref().filter(|_| with_input);
        for file in [input, row.output.id.as_ref(), row.error_file.id.as_ref()]
            .into_iter()
            .flatten()
        {
            match self.api.delete_file(file) {
                Err(error) if !error.is_not_found() => return Err(error),
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
        let idle = TickOutcome::idle(
            self.config
                .steps
                .idle
                .max(self.rest_until.saturating_sub(now.steady)),
        );
        let age = self.config.retention.remote_files;
        if age.is_zero()
            || now.steady < self.rest_until
            || pauses::openai_paused(&self.store, &self.config, now)?.is_some()
        {
            return Ok(idle);
        }
        let Some(before) = self.held_by_a_backup(now.wall.before(age))? else {
            return Ok(idle);
        };
        let identity = self.api.identity();
        let row = self
            .store
            .read(|view| batches::unclean(view, before, identity))?;
        let Some(row) = row else { return Ok(idle) };
        // Two batches may have been made from one input: the last of them takes it along.
        let shared = self.store.read(|view| batches::shares_input(view, &row))?;
        match self.remove(&row, !shared) {
            Ok(()) => self
                .store
                .write(now.wall, |tx| batches::mark_cleaned(tx, row.id))?,
            Err(error) => {
                log::warn!(event = "not_cleaned", batch = row.id, error:%; "");
                self.rest_until = now.steady
                    + backoff(
                        self.config.openai.retry_interval,
                        u32::MAX,
                        error.retry_after(),
                    );
            }
        }
        // One a tick, and none in a hurry: nobody waits for it.
        Ok(TickOutcome::idle(self.config.steps.idle))
    }
}
