//! Links a batch to a job by hand.

use super::evidence::fits;
use super::recover::{Finding, Recovery};
use crate::base::clock::Timestamp;
use crate::store::legacy::orphans;
use crate::store::{batches, jobs};

impl Recovery {
    /// Links a batch to a job by hand.
    ///
    /// # Errors
    /// When either is not there, the job is final, the batch has its row already, or its custom ids
    /// don't fit the job.
    pub fn adopt(&self, job: &str, batch: &str, now: Timestamp) -> Result<usize, String> {
        let (orphan, kept, known) = self
            .store
            .read(|view| {
                Ok((
                    orphans(view, Some(job))?.pop(),
                    jobs::by_id(view, job)?,
                    batches::by_openai_id(view, batch)?,
                ))
            })
            .map_err(|error| error.to_string())?;
        let orphan = orphan.ok_or_else(|| format!("there is no job {job}"))?;
        if let Some(row) = known {
            return Err(format!(
                "batch {batch} has its row already: batchkeeper batches show {}",
                row.id
            ));
        }
        if let Some(kept) = kept.filter(|kept| kept.status.is_final()) {
            return Err(format!(
                "job {job} is {} for good; nothing is linked",
                kept.status
            ));
        }
        let remote = self
            .api
            .batch(batch)
            .map_err(|error| format!("batch {batch}: {error}"))?;
        let custom_ids = self
            .custom_ids(&remote)
            .map_err(|error| format!("batch {batch}: {error}"))?
            .ok_or_else(|| format!("the files of batch {batch} are gone; nothing is linked"))?;
        let stage = fits(&custom_ids, &orphan).ok_or_else(|| {
            format!("the custom ids of batch {batch} don't fit job {job}; nothing is linked")
        })?;
        let finding = Finding {
            job: Some(orphan.id),
            batch: Some(remote),
            stage: Some(stage),
            evidence: "linked by hand; custom ids fit".into(),
            linkable: true,
            custom_ids,
        };
        self.link(&[finding], now)
    }
}
