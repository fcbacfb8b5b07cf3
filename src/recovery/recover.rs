//! `recover`: finds jobs without batches and batches without jobs, and links those that evidence connects.
//!
//! Evidence is our key in the batch's metadata, the job that the metadata names, or the custom ids in the
//! batch's files. A creation time alone is never evidence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{RecoveryError, reconcile};
use crate::base::clock::Timestamp;
use crate::domain::alert::PauseScope;
use crate::domain::batch::{Scheme, Stage};
use crate::openai::listing::list_back_to;
use crate::openai::{Batch, BatchApi};
use crate::store::batch_links::{BatchLink, link_legacy_batch, link_own_batch};
use crate::store::batches::{self, ListedBatch, META_SUBMISSION};
use crate::store::orphans::{OrphanedJob, orphaned_jobs};
use crate::store::{Store, Stored, Tx, alerts, unclaimed_lines};

/// How far before the oldest orphaned job the listing goes.
const LISTING_MARGIN: Duration = Duration::from_hours(24);

/// A job or a batch that recovery has found, and whether the two can be linked.
#[derive(Clone, Debug)]
pub struct RecoveryFinding {
    /// The job; `None` if the batch belongs to no single one.
    pub job: Option<String>,
    /// The batch; `None` if OpenAI has none for the job.
    pub batch: Option<Batch>,
    /// What the batch asks for; `None` if that is not known.
    pub stage: Option<Stage>,
    /// Why job and batch belong together, or why nothing is linked.
    pub evidence: String,
    /// Whether it can be linked.
    pub linkable: bool,
    custom_ids: Vec<String>,
}

impl RecoveryFinding {
    /// A batch that can be linked.
    pub(super) fn linkable(
        job: Option<String>,
        batch: Batch,
        stage: Stage,
        evidence: String,
        custom_ids: Vec<String>,
    ) -> Self {
        Self {
            job,
            batch: Some(batch),
            stage: Some(stage),
            evidence,
            linkable: true,
            custom_ids,
        }
    }

    /// A batch that stays as it is.
    pub(super) fn not_linkable(
        job: Option<String>,
        batch: Batch,
        stage: Option<Stage>,
        evidence: String,
    ) -> Self {
        Self {
            job,
            batch: Some(batch),
            stage,
            evidence,
            linkable: false,
            custom_ids: Vec::new(),
        }
    }

    /// A job with held requests for which OpenAI has no batch.
    fn job_without_batch(job: &OrphanedJob) -> Self {
        Self {
            job: Some(job.id.clone()),
            batch: None,
            stage: None,
            evidence: "no batch at OpenAI belongs to it, or to what is left of it; `batchkeeper jobs retry` \
                       sends that, billed again"
                .into(),
            linkable: false,
            custom_ids: Vec::new(),
        }
    }
}

/// Compares jobs and batches with OpenAI's listing, and links what belongs together.
pub struct Recovery {
    pub(super) store: Arc<Store>,
    pub(super) api: Arc<dyn BatchApi>,
    wait: fn(Duration),
}

impl Recovery {
    /// Works on this store and this account at OpenAI. `wait` waits between a failed call and the next one.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, wait: fn(Duration)) -> Self {
        Self { store, api, wait }
    }

    /// Lists orphaned jobs and batches, with the evidence for each match. Changes nothing.
    ///
    /// # Errors
    /// When the store or OpenAI cannot be read: then nothing is known.
    pub fn survey(&self) -> Result<Vec<RecoveryFinding>, RecoveryError> {
        let (orphans, reach) = self
            .store
            .read(|view| Ok((orphaned_jobs(view, None)?, reconcile::reach(view)?)))?;
        let oldest = orphans
            .iter()
            .map(|orphan| orphan.created_at.before(LISTING_MARGIN).seconds())
            .min();
        let from = oldest.map_or(reach, |oldest| oldest.min(reach));
        let mut listed = Vec::new();
        let take = |page: Vec<Batch>| {
            listed.extend(page.into_iter().filter(|batch| self.may_matter(batch, &orphans)));
        };
        list_back_to(self.api.as_ref(), from, self.wait, take)
            .map_err(|error| RecoveryError::Listing(Box::new(error)))?;
        let mut findings = Vec::new();
        for batch in listed {
            findings.extend(self.identify(batch, &orphans)?);
        }
        for orphan in &orphans {
            findings.extend(self.find_batches_named_by(orphan, &findings)?);
            let is_about_it = |finding: &RecoveryFinding| finding.job.as_ref() == Some(&orphan.id);
            if orphan.is_held && !findings.iter().any(is_about_it) {
                findings.push(RecoveryFinding::job_without_batch(orphan));
            }
        }
        Ok(findings)
    }

    /// Links every finding that has evidence; both stages of a job in one transaction. Ends the stop of
    /// creates if the batch that caused it has its row. Gives how many batches were linked.
    ///
    /// # Errors
    /// The store's.
    pub fn apply(&self, findings: &[RecoveryFinding], now: Timestamp) -> Result<usize, RecoveryError> {
        let linked = self.link(findings, now)?;
        // A batch of this database that cannot be linked still answers its requests at OpenAI.
        let is_own_left_behind = |finding: &RecoveryFinding| {
            !finding.linkable && finding.batch.as_ref().is_some_and(|it| self.is_own(it))
        };
        if !findings.iter().any(is_own_left_behind) {
            self.store.write(now, reconcile::resume_creates)?;
        }
        Ok(linked)
    }

    /// Whether creates are stopped, as after a restore.
    ///
    /// # Errors
    /// The store's.
    pub fn are_creates_stopped(&self) -> Result<bool, RecoveryError> {
        let pause = self
            .store
            .read(|view| alerts::paused(view, &PauseScope::Creates))?;
        Ok(pause.is_some())
    }

    /// Links what can be linked: the batches of one job in one transaction, a batch of this database in a
    /// transaction of its own. The lines of the latter claim their requests in chunks, as there may be 50,000.
    pub(super) fn link(&self, findings: &[RecoveryFinding], now: Timestamp) -> Result<usize, RecoveryError> {
        let linkable: Vec<&RecoveryFinding> = findings.iter().filter(|finding| finding.linkable).collect();
        let mut groups: BTreeMap<(Option<&str>, &str), Vec<_>> = BTreeMap::new();
        for finding in &linkable {
            if let (Some(batch), Some(stage)) = (&finding.batch, finding.stage) {
                let job = finding.job.as_deref();
                let own_batch = if job.is_none() { batch.id.as_str() } else { "" };
                let group = groups.entry((job, own_batch)).or_default();
                group.push((*finding, batch, stage));
            }
        }
        for ((job, _), mut group) in groups {
            group.sort_by_key(|(_, batch, stage)| (*stage, batch.created_at));
            self.store.write(now, |tx| {
                for (finding, batch, stage) in group {
                    self.link_batch(tx, job, finding, batch, stage)?;
                }
                Ok(())
            })?;
            // If this process ends in between, the submitter goes on.
            while self
                .store
                .write(now, |tx| unclaimed_lines::claim(tx, unclaimed_lines::LINES))?
            {}
        }
        Ok(linkable.len())
    }

    fn link_batch(
        &self,
        tx: &Tx<'_>,
        job: Option<&str>,
        finding: &RecoveryFinding,
        batch: &Batch,
        stage: Stage,
    ) -> Stored<()> {
        let link = |scheme, key| BatchLink {
            batch,
            identity: self.api.identity(),
            stage,
            scheme,
            key,
            custom_ids: &finding.custom_ids,
            evidence: &finding.evidence,
        };
        match job {
            Some(job) => link_legacy_batch(tx, job, &link(Scheme::Legacy, &batch.id)).map(drop),
            None => {
                let key = batch.metadata.get(META_SUBMISSION).unwrap_or(&batch.id);
                // If a row has the batch's key, the batch is that row's, or a second one under that key: this
                // is the last time that it is sure to be listed.
                match batches::link_listed(tx, self.store.database_id(), batch)? {
                    ListedBatch::Unknown => link_own_batch(tx, &link(Scheme::Own, key)),
                    _ => Ok(()),
                }
            }
        }
    }
}
