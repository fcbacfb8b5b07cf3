//! Asking OpenAI what it has, before anything is created: after each start, and for a create whose
//! answer was lost.

use super::Submitter;
use crate::base::clock::Moment;
use crate::domain::alert::AlertKind;
use crate::domain::batch::BatchState;
use crate::openai::CallError;
use crate::openai::listing::batches_back_to;
use crate::recovery::reconcile::{self, Reconciled};
use crate::store::batches::{self, BatchRow};
use crate::workers::pauses;
use crate::workers::spool::SpoolKind;
use crate::workers::worker::{TickOutcome, WorkerError, backoff};

impl Submitter {
    /// After a start: whether OpenAI has batches of this database that it knows nothing of. Then
    /// the store is older than the world (a restored backup), and all creates stop.
    pub(super) fn compare(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let since = self.store.read(reconcile::reach)?;
        let listed = match batches_back_to(self.api.as_ref(), since) {
            Ok(listed) => listed,
            Err(error) => {
                log::warn!(event = "comparison_put_off", error:%; "");
                self.compare_at =
                    now.steady + backoff(self.config.openai.retry_interval, 1, error.retry_after());
                if error.is_account_trouble() {
                    self.store.write(now.wall, |tx| {
                        pauses::pause_openai(tx, &error, self.longest_wait())
                    })?;
                }
                return Ok(TickOutcome::again());
            }
        };
        let found = self.store.write(now.wall, |tx| {
            batches::mark_compared(tx)?;
            reconcile::compare_with_listing(tx, &self.store, &listed, since)
        })?;
        self.forget_inputs(&found)?;
        log::info!(event = "compared", batches = listed.len(), unheard = found.unknown_batches; "");
        Ok(TickOutcome::again())
    }

    /// The inputs of batches that OpenAI has are not needed here any more.
    fn forget_inputs(&self, found: &Reconciled) -> Result<(), WorkerError> {
        for key in &found.linked {
            self.spool.remove(key, SpoolKind::Input)?;
        }
        Ok(())
    }

    /// Looks for the batch of a create whose answer was lost. Only this batch waits meanwhile.
    pub(super) fn ask(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        let settled = self.asking.waited(row.id, now) >= self.config.openai.settling_time;
        let from = row.input_file_time.unwrap_or(0);
        let listed = match batches_back_to(self.api.as_ref(), from) {
            Ok(listed) => listed,
            Err(error) => return self.failed(row, now, &error, None),
        };
        // Others that are found in it are linked too: they were created while nobody could hear.
        let (reconciled, state) = self.store.write(now.wall, |tx| {
            let reconciled = reconcile::compare_with_listing(tx, &self.store, &listed, from)?;
            Ok((reconciled, batches::get(tx, row.id)?.state))
        })?;
        self.forget_inputs(&reconciled)?;
        if state != BatchState::Creating {
            self.asking.end(row.id);
            return Ok(TickOutcome::again());
        }
        if settled {
            match self.knows_input(row) {
                Ok(true) => {}
                Ok(false) => return self.other_project(row, now),
                Err(error) => return self.failed(row, now, &error, None),
            }
            log::warn!(
                event = "not_found", batch = row.id; "not found at OpenAI after the settling time"
            );
            self.store
                .write(now.wall, |tx| batches::mark_not_created(tx, row.id))?;
            self.asking.end(row.id);
            return self.create(row, now);
        }
        let wait = self
            .config
            .openai
            .retry_interval
            .min(self.config.openai.settling_time);
        self.store.write(now.wall, |tx| {
            batches::set_next_check(tx, row.id, now.wall + wait)
        })?;
        Ok(TickOutcome::again())
    }

    /// Whether OpenAI knows the input of a batch under the present key. Where it does not, that it does
    /// not list the batch either says nothing.
    fn knows_input(&self, row: &BatchRow) -> Result<bool, CallError> {
        match self
            .api
            .file(row.input_file_id.as_deref().unwrap_or_default())
        {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The key seems to be another project's: nothing can be learned of a create under it.
    fn other_project(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        let message = format!(
            "batch {} may have been created, and OpenAI knows nothing of its input file {}: the key seems to be of \
             another project. Put the former one back into openai.api_key_file and: systemctl restart batchkeeper. If \
             that file was deleted and the batch was never made, its requests are sent again by: batchkeeper batches \
             give-up {}",
            row.id,
            row.input_file_id.as_deref().unwrap_or_default(),
            row.id
        );
        self.postpone(row, now, Some(AlertKind::OtherProject), &message, None)
    }
}
