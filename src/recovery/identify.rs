//! Which job a batch at OpenAI belongs to, and on which evidence.

use super::RecoveryError;
use super::evidence::{count_fitting, custom_ids_of, stage_that_fits};
use super::recover::{Recovery, RecoveryFinding};
use crate::domain::batch::{BatchState, CustomId, Stage};
use crate::domain::legacy;
use crate::domain::openai::BatchStatus;
use crate::openai::Batch;
use crate::store::View;
use crate::store::batches::{self, META_DATABASE, META_SUBMISSION, ignored};
use crate::store::orphans::{OrphanedJob, count_lines_without_job};

impl Recovery {
    /// Whether a listed batch may be identified. Thousands of other programs' batches are not kept.
    pub(super) fn may_matter(&self, batch: &Batch, orphans: &[OrphanedJob]) -> bool {
        let description = batch.metadata.get("description");
        self.is_own(batch)
            || description.is_some_and(|text| legacy::described(text).is_some())
            || batch.metadata.is_empty() && !orphans.is_empty()
    }

    /// What a listed batch is; `None` if it has its row, or belongs to another database or program.
    pub(super) fn identify(
        &self,
        batch: Batch,
        orphans: &[OrphanedJob],
    ) -> Result<Option<RecoveryFinding>, RecoveryError> {
        let row = self.store.read(|view| batches::by_openai_id(view, &batch.id))?;
        let is_ignored = |view: &View| ignored::is_ignored(view, &batch.id);
        if row.is_some() || self.store.read(is_ignored)? {
            return Ok(None);
        }
        if self.is_own(&batch) {
            return self.identify_own(batch).map(Some);
        }
        let description = batch.metadata.get("description");
        if let Some((stage, job)) = description.and_then(|text| legacy::described(text)) {
            let Some(orphan) = orphans.iter().find(|orphan| orphan.id == job) else {
                let evidence = "its metadata names a job that is no orphan here".to_owned();
                let finding = RecoveryFinding::not_linkable(Some(job), batch, Some(stage), evidence);
                return Ok(Some(finding));
            };
            return Ok(Some(self.identify_described(batch, stage, orphan)));
        }
        if orphans.is_empty() || !batch.metadata.is_empty() {
            return Ok(None);
        }
        Ok(self.identify_by_custom_ids(batch, orphans))
    }

    /// A batch without metadata: it is linked if its custom ids fit exactly one orphaned job.
    fn identify_by_custom_ids(&self, batch: Batch, orphans: &[OrphanedJob]) -> Option<RecoveryFinding> {
        let custom_ids = match custom_ids_of(self.api.as_ref(), &batch) {
            Ok(ids) => ids?,
            Err(error) => {
                let evidence =
                    format!("it may be of one of these jobs, but its files cannot be read: {error}");
                return Some(RecoveryFinding::not_linkable(None, batch, None, evidence));
            }
        };
        let fitting: Vec<(&OrphanedJob, Stage)> = orphans
            .iter()
            .filter_map(|orphan| Some((orphan, stage_that_fits(&custom_ids, orphan)?)))
            .collect();
        match fitting.as_slice() {
            [] => None,
            [(orphan, stage)] => {
                let evidence = format!(
                    "all of its {} custom ids fit this job and no other",
                    custom_ids.len()
                );
                let job = Some(orphan.id.clone());
                Some(RecoveryFinding::linkable(
                    job, batch, *stage, evidence, custom_ids,
                ))
            }
            several => {
                let evidence = format!(
                    "its custom ids fit {} jobs; link it by hand with `batchkeeper adopt`",
                    several.len()
                );
                Some(RecoveryFinding::not_linkable(None, batch, None, evidence))
            }
        }
    }

    /// Whether a batch was made by this database.
    pub(super) fn is_own(&self, batch: &Batch) -> bool {
        batch
            .metadata
            .get(META_DATABASE)
            .is_some_and(|id| id == self.store.database_id())
    }

    /// Whether a row says which lines a batch of this database was made with.
    pub(super) fn has_lines(&self, batch: &Batch) -> Result<bool, RecoveryError> {
        let Some(key) = batch.metadata.get(META_SUBMISSION) else {
            return Ok(false);
        };
        let row = self.store.read(|view| batches::by_key(view, key))?;
        Ok(row.is_some_and(|row| row.state != BatchState::Planned))
    }

    /// A batch of this database that no row has yet: its create's answer was lost, it is a second batch
    /// under its key, or the database was restored from a backup that is older than the batch.
    fn identify_own(&self, batch: Batch) -> Result<RecoveryFinding, RecoveryError> {
        if self.has_lines(&batch)? {
            let evidence = "its key in the metadata is a row's".to_owned();
            let stage = stage_in_metadata(&batch);
            return Ok(RecoveryFinding::linkable(
                None,
                batch,
                stage,
                evidence,
                Vec::new(),
            ));
        }
        let custom_ids = match custom_ids_of(self.api.as_ref(), &batch) {
            Ok(Some(ids)) if !ids.is_empty() => ids,
            Ok(None) if batch.status.is_some_and(BatchStatus::is_final) => {
                let evidence =
                    "our own and over, but all of its files are gone: nothing of it can be ingested, \
                     and what still waits is sent again, billed again"
                        .to_owned();
                let stage = stage_in_metadata(&batch);
                return Ok(RecoveryFinding::linkable(
                    None,
                    batch,
                    stage,
                    evidence,
                    Vec::new(),
                ));
            }
            Ok(Some(_)) => {
                let evidence = format!(
                    "our database's id is in its metadata, and no line of it has a custom id, so this program did not \
                     make it; leave it alone with: batchkeeper recover --ignore {} --apply",
                    batch.id
                );
                return Ok(RecoveryFinding::not_linkable(None, batch, None, evidence));
            }
            Ok(None) => {
                let evidence = "our own, but no file of it says what it asks for".to_owned();
                return Ok(RecoveryFinding::not_linkable(None, batch, None, evidence));
            }
            Err(error) => {
                let evidence = format!(
                    "our database's id is in its metadata, but its files cannot be read: {error}. If this program did \
                     not make it: batchkeeper recover --ignore {}",
                    batch.id
                );
                return Ok(RecoveryFinding::not_linkable(None, batch, None, evidence));
            }
        };
        let without_job = self
            .store
            .read(|view| count_lines_without_job(view, &custom_ids))?;
        let evidence = match without_job {
            0 => "our key is in its metadata".to_owned(),
            lines => format!(
                "our key is in its metadata; {lines} of its {} lines are of jobs accepted after the backup: \
                 their clients must send them again",
                custom_ids.len()
            ),
        };
        let first = custom_ids.first().and_then(|id| id.parse().ok());
        let stage = first.map_or(Stage::Vision, |id: CustomId| id.stage());
        Ok(RecoveryFinding::linkable(
            None, batch, stage, evidence, custom_ids,
        ))
    }

    /// A batch of the earlier service whose metadata names an orphaned job.
    fn identify_described(&self, batch: Batch, stage: Stage, orphan: &OrphanedJob) -> RecoveryFinding {
        let job = Some(orphan.id.clone());
        let custom_ids = match custom_ids_of(self.api.as_ref(), &batch) {
            Ok(ids) => ids.unwrap_or_default(),
            Err(error) => {
                let evidence = format!("its metadata names the job, but its files cannot be read: {error}");
                return RecoveryFinding::not_linkable(job, batch, Some(stage), evidence);
            }
        };
        let fitting = count_fitting(&custom_ids, orphan, stage);
        if fitting == 0 {
            let evidence = "its metadata names the job, but none of its custom ids is a lot of it".to_owned();
            return RecoveryFinding::not_linkable(job, batch, Some(stage), evidence);
        }
        let evidence = format!(
            "its metadata names the job; {fitting} of {} custom ids fit",
            custom_ids.len()
        );
        RecoveryFinding::linkable(job, batch, stage, evidence, custom_ids)
    }

    /// The batches that an orphaned job names itself, except those that the listing brought already.
    pub(super) fn find_batches_named_by(
        &self,
        orphan: &OrphanedJob,
        found: &[RecoveryFinding],
    ) -> Result<Vec<RecoveryFinding>, RecoveryError> {
        let mut named = Vec::new();
        for id in &orphan.batches {
            let is_it =
                |finding: &RecoveryFinding| finding.batch.as_ref().is_some_and(|batch| batch.id == *id);
            let row = self.store.read(|view| batches::by_openai_id(view, id))?;
            if row.is_some() || found.iter().any(is_it) {
                continue;
            }
            let batch = match self.api.batch(id) {
                Ok(batch) => batch,
                Err(error) if error.is_not_found() => continue,
                Err(error) => {
                    return Err(RecoveryError::Batch {
                        batch: id.clone(),
                        error: Box::new(error),
                    });
                }
            };
            let job = Some(orphan.id.clone());
            let custom_ids = match custom_ids_of(self.api.as_ref(), &batch) {
                Ok(ids) => ids.unwrap_or_default(),
                Err(error) => {
                    let evidence = format!("the job named it, but its files cannot be read: {error}");
                    named.push(RecoveryFinding::not_linkable(job, batch, None, evidence));
                    continue;
                }
            };
            if let Some(stage) = stage_that_fits(&custom_ids, orphan) {
                let evidence = "the job named it, and its custom ids fit".to_owned();
                named.push(RecoveryFinding::linkable(job, batch, stage, evidence, custom_ids));
            }
        }
        Ok(named)
    }
}

/// What a batch of this database asks for, as its metadata says.
fn stage_in_metadata(batch: &Batch) -> Stage {
    let stage = batch.metadata.get("stage");
    stage
        .and_then(|stage| stage.parse().ok())
        .unwrap_or(Stage::Vision)
}
