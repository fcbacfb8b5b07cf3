//! `adopt`: links a batch to a job because an operator says so.

use super::RecoveryError;
use super::evidence::{custom_ids_of, stage_that_fits};
use super::recover::{Recovery, RecoveryFinding};
use crate::base::clock::Timestamp;
use crate::store::orphans::orphaned_jobs;
use crate::store::{batches, jobs};

impl Recovery {
    /// Links a batch to a job by hand; gives how many batches were linked.
    ///
    /// # Errors
    /// When the job or the batch does not exist, the job is final, the batch has its row already, or its
    /// custom ids don't fit the job.
    pub fn adopt(&self, job: &str, batch: &str, now: Timestamp) -> Result<usize, RecoveryError> {
        let (orphan, row, known_batch) = self.store.read(|view| {
            Ok((
                orphaned_jobs(view, Some(job))?.pop(),
                jobs::by_id(view, job)?,
                batches::by_openai_id(view, batch)?,
            ))
        })?;
        let orphan = orphan.ok_or_else(|| RecoveryError::UnknownJob(job.to_owned()))?;
        if let Some(known_batch) = known_batch {
            return Err(RecoveryError::BatchIsKnown {
                batch: batch.to_owned(),
                row: known_batch.id,
            });
        }
        if let Some(row) = row.filter(|row| row.status.is_final()) {
            return Err(RecoveryError::JobIsFinal {
                job: job.to_owned(),
                status: row.status,
            });
        }
        let openai_error = |error| RecoveryError::Batch {
            batch: batch.to_owned(),
            error: Box::new(error),
        };
        let found = self.api.batch(batch).map_err(openai_error)?;
        let custom_ids = custom_ids_of(self.api.as_ref(), &found)
            .map_err(openai_error)?
            .ok_or_else(|| RecoveryError::FilesAreGone(batch.to_owned()))?;
        let stage = stage_that_fits(&custom_ids, &orphan).ok_or_else(|| RecoveryError::CustomIdsDiffer {
            batch: batch.to_owned(),
            job: job.to_owned(),
        })?;
        let evidence = "linked by hand; custom ids fit".to_owned();
        let finding = RecoveryFinding::linkable(Some(orphan.id), found, stage, evidence, custom_ids);
        self.link(&[finding], now)
    }
}
