//! After a start, OpenAI's batches are compared with the database before anything is created.

use super::Submitter;
use crate::base::clock::Moment;
use crate::domain::decide::backoff::backoff;
use crate::domain::decide::failed_call::{CallPurpose, FailedCall};
use crate::openai::listing::batches_back_to;
use crate::recovery::reconcile::{self, Reconciled};
use crate::store::batches;
use crate::workers::call_failure;
use crate::workers::spool::SpoolKind;
use crate::workers::worker::{TickOutcome, WorkerError};

impl Submitter {
    /// Compares OpenAI's batches with the database. If OpenAI has one of this database that the database
    /// does not know, the database is an older one that was put back, and all creates stop.
    pub(super) fn compare(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let since = self.store.read(reconcile::reach)?;
        let listed = match batches_back_to(self.api.as_ref(), since) {
            Ok(listed) => listed,
            Err(error) => {
                log::warn!(event = "comparison_put_off", error:%; "");
                let retry_interval = self.config.openai.retry_interval;
                self.compare_at = now.steady + backoff(retry_interval, 1, error.retry_after());
                let call = FailedCall {
                    purpose: CallPurpose::Compare,
                    error: &error,
                    failures: 1,
                    retry_interval,
                };
                self.store.write(now.wall, |tx| call_failure::apply(tx, &call))?;
                return Ok(TickOutcome::again());
            }
        };
        let found = self.store.write(now.wall, |tx| {
            batches::mark_compared(tx)?;
            reconcile::compare_with_listing(tx, &self.store, &listed, since)
        })?;
        self.remove_inputs(&found)?;
        log::info!(event = "compared", batches = listed.len(), unheard = found.unknown_batches; "");
        Ok(TickOutcome::again())
    }

    /// Removes the input files of batches that were found at OpenAI.
    pub(super) fn remove_inputs(&self, found: &Reconciled) -> Result<(), WorkerError> {
        for key in &found.linked {
            self.spool.remove(key, SpoolKind::Input)?;
        }
        Ok(())
    }
}
