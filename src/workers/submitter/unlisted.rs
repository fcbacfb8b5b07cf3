//! The server lists no batches (`openai.batch_listing = "none"`). Nothing shows whether a create that was not answered
//! has made a batch, or whether the database was restored from a backup. Operators decide.

use super::Submitter;
use crate::base::clock::Moment;
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::decide::restored_database::is_restored;
use crate::store::batches::{self, BatchRow};
use crate::store::{Stored, Tx, alerts, create_count};
use crate::workers::worker::{TickOutcome, WorkerError};

impl Submitter {
    /// Stops all creates if the database is older than the file beside it. This takes the place of the comparison
    /// with a list.
    pub(super) fn check_unlisted(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let begun = self.store.read(create_count::begun)?;
        let is_restored = is_restored(begun, self.store.recorded_creates()?);
        self.store.write(now.wall, |tx| {
            if is_restored {
                stop_creates(tx, &self.store.create_count_path().display().to_string())?;
            }
            batches::mark_compared(tx)
        })?;
        Ok(TickOutcome::again())
    }

    /// Reports a create that was not answered. It waits for an operator.
    pub(super) fn report_unanswered(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        let id = row.id;
        let message = format!(
            "the create of batch {id} was not answered, and this server lists no batches: only the provider knows \
             whether a batch was made of {}. Nothing is sent again. Look at the provider's own pages, then say what is \
             there: batchkeeper batches resolve {id} --created batch_…, or: batchkeeper batches resolve {id} \
             --not-created, which creates it again",
            row.input_file_id.as_deref().unwrap_or("its input")
        );
        self.store.write(now.wall, |tx| {
            self.report_stuck(tx, row, AlertKind::CreateUnclear, &message)
        })?;
        Ok(TickOutcome::again())
    }
}

fn stop_creates(tx: &Tx<'_>, file: &str) -> Stored<()> {
    let reason = format!(
        "this database has begun fewer creates than {file} says, or that file is missing: the database was restored \
         from a backup, or moved without that file. This server lists no batches, so nothing shows which ones were \
         made since. Nothing is created. Compare the provider's own pages with: batchkeeper batches. Requests that were \
         sent since the backup are sent, and billed, again after: batchkeeper recover --accept-unlisted"
    );
    let scope = PauseScope::Creates;
    alerts::pause(tx, &scope, &reason, None)?;
    alerts::open(
        tx,
        AlertKind::RestoredDatabase,
        &AlertSubject::Scope(scope),
        &reason,
    )
    .map(drop)
}
