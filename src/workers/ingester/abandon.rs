//! An operator abandons a batch whose results cannot all be fetched.

use super::Ingester;
use crate::base::clock::Moment;
use crate::domain::batch::ResultKind;
use crate::domain::decide::backoff::longest_backoff;
use crate::store::batches::{self, BatchRow};
use crate::workers::abandonment;
use crate::workers::worker::{TickOutcome, WorkerError};

impl Ingester {
    /// Ingests every complete line that is in the spool, then releases the requests that have no answer. If both
    /// files are in the spool, the batch is settled as any other.
    pub(super) fn abandon(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        let kinds = [ResultKind::Output, ResultKind::Error];
        for kind in kinds {
            if row.file(kind).is_unread() {
                return self.ingest_lines(row, kind, now);
            }
            if !row.file(kind).is_spooled() && self.ingest_part(row, kind, now)? {
                return Ok(TickOutcome::again());
            }
        }
        if kinds.iter().all(|kind| row.file(*kind).is_spooled()) {
            let reason = "both result files are in the spool";
            self.store
                .write(now.wall, |tx| batches::withdraw_abandonment(tx, row.id, reason))?;
        } else if abandonment::release_lines(&self.store, &self.config, row, now)? {
            let wait = longest_backoff(self.config.openai.retry_interval);
            self.store
                .write(now.wall, |tx| abandonment::mark_watched(tx, row, wait))?;
        }
        Ok(TickOutcome::again())
    }
}
