//! Lists what is orphaned on either side, and links what evidence allows. For what came from outside
//! the protocol: an import, a restore, a hand.
//!
//! Evidence is our key in the metadata, the job that the metadata names, or the custom ids in the
//! batch's files; never time alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::domain::alert::PauseScope;
use crate::domain::batch::{BatchState, CustomId, Scheme, Stage};
use crate::domain::legacy;
use crate::domain::openai::BatchStatus;
use crate::openai::listing::batches_back_to;
use crate::openai::{Batch, BatchApi, CallError};
use crate::store::batches::{self, Known, META_DATABASE, META_SUBMISSION};
use crate::store::legacy::{Link, Orphan, link_legacy, link_own, orphans, without_a_job};
use crate::store::{Store, Stored, Tx, alerts};

use super::evidence::{fits, fitting};
use super::reconcile;

/// How far before the oldest orphan the listing goes.
const BACK: Duration = Duration::from_hours(24);

/// One thing that was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The job, where one is concerned.
    pub job: Option<String>,
    /// The batch, where one is concerned.
    pub batch: Option<Batch>,
    /// What the batch asks for.
    pub stage: Option<Stage>,
    /// Why they belong together, or why nothing is done.
    pub evidence: String,
    /// Whether it can be linked.
    pub linkable: bool,
    pub(super) custom_ids: Vec<String>,
}

/// See the module.
pub struct Recovery {
    pub(super) store: Arc<Store>,
    pub(super) api: Arc<dyn BatchApi>,
}

impl Recovery {
    /// A recovery.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>) -> Self {
        Self { store, api }
    }

    /// Lists what is orphaned on either side, with the evidence for each match. Changes nothing.
    ///
    /// # Errors
    /// When the store or OpenAI cannot be read: then nothing is known.
    pub fn survey(&self) -> Result<Vec<Finding>, String> {
        let (orphans, reach) = self
            .store
            .read(|view| Ok((orphans(view, None)?, reconcile::reach(view)?)))
            .map_err(|error| error.to_string())?;
        let oldest = orphans
            .iter()
            .map(|orphan| orphan.created_at.before(BACK).seconds())
            .min();
        let from = oldest.map_or(reach, |oldest| oldest.min(reach));
        let listed = batches_back_to(self.api.as_ref(), from)
            .map_err(|error| format!("OpenAI's batches cannot be listed: {error}"))?;
        let mut findings = Vec::new();
        for remote in listed {
            if let Some(finding) = self.judge(remote, &orphans)? {
                findings.push(finding);
            }
        }
        for orphan in &orphans {
            findings.extend(self.named(orphan, &findings)?);
            let is_of_it = |finding: &Finding| finding.job.as_ref() == Some(&orphan.id);
            if orphan.is_held && !findings.iter().any(is_of_it) {
                findings.push(Finding {
                    job: Some(orphan.id.clone()),
                    batch: None,
                    stage: None,
                    evidence: "no batch at OpenAI belongs to it, or to what is left of it; `batchkeeper jobs retry` \
                               sends that, paid anew"
                        .into(),
                    linkable: false,
                    custom_ids: Vec::new(),
                });
            }
        }
        Ok(findings)
    }

    /// Links what has evidence, both stages of a job in one transaction, and lets creates go on where
    /// what stopped them is known by now. Gives how many batches were linked.
    ///
    /// # Errors
    /// The store's.
    pub fn apply(&self, findings: &[Finding], now: Timestamp) -> Result<usize, String> {
        let linked = self.link(findings, now)?;
        // A batch of our own that cannot be taken up now still holds its requests at OpenAI.
        let left_behind = |it: &Finding| {
            !it.linkable && it.batch.as_ref().is_some_and(|batch| self.is_ours(batch))
        };
        if !findings.iter().any(left_behind) {
            self.store
                .write(now, reconcile::go_on)
                .map_err(|error| error.to_string())?;
        }
        Ok(linked)
    }

    /// Whether creates are stopped, as after a restore.
    ///
    /// # Errors
    /// The store's.
    pub fn is_stopped(&self) -> Result<bool, String> {
        let pause = self
            .store
            .read(|view| alerts::paused(view, &PauseScope::Creates));
        Ok(pause.map_err(|error| error.to_string())?.is_some())
    }

    pub(super) fn link(&self, findings: &[Finding], now: Timestamp) -> Result<usize, String> {
        let linkable: Vec<&Finding> = findings.iter().filter(|finding| finding.linkable).collect();
        // Our own one by one: each may be as large as a batch can be.
        let mut together: BTreeMap<(Option<&str>, &str), Vec<_>> = BTreeMap::new();
        for finding in &linkable {
            if let (Some(remote), Some(stage)) = (&finding.batch, finding.stage) {
                let job = finding.job.as_deref();
                let one = if job.is_none() {
                    remote.id.as_str()
                } else {
                    ""
                };
                let group = together.entry((job, one)).or_default();
                group.push((*finding, remote, stage));
            }
        }
        for ((job, _), mut of_job) in together {
            of_job.sort_by_key(|(_, remote, stage)| (*stage, remote.created_at));
            self.store
                .write(now, |tx| {
                    for (finding, remote, stage) in of_job {
                        let key = remote
                            .metadata
                            .get(META_SUBMISSION)
                            .filter(|_| job.is_none());
                        let link = Link {
                            remote,
                            identity: self.api.identity(),
                            stage,
                            scheme: if job.is_some() {
                                Scheme::Legacy
                            } else {
                                Scheme::Own
                            },
                            key: key.unwrap_or(&remote.id),
                            custom_ids: &finding.custom_ids,
                            evidence: &finding.evidence,
                        };
                        match job {
                            Some(job) => link_legacy(tx, job, &link)?,
                            None => self.take_up(tx, &link)?,
                        };
                    }
                    Ok(())
                })
                .map_err(|error| error.to_string())?;
        }
        Ok(linkable.len())
    }

    /// Takes a batch of our own up. Where a row has its key, it is that row's, or a second batch under
    /// the key: this is the last time that it is sure to be listed.
    fn take_up(&self, tx: &Tx<'_>, link: &Link<'_>) -> Stored<usize> {
        match batches::link_listed(tx, self.store.database_id(), link.remote)? {
            Known::Unheard => link_own(tx, link),
            _ => Ok(0),
        }
    }

    /// What a listed batch is to us; none: its row is there, or it is somebody else's.
    fn judge(&self, remote: Batch, orphans: &[Orphan]) -> Result<Option<Finding>, String> {
        let known = self
            .store
            .read(|view| Ok(batches::by_openai_id(view, &remote.id)?.is_some()));
        if known.map_err(|error| error.to_string())? {
            return Ok(None);
        }
        if self.is_ours(&remote) {
            return self.judge_own(remote).map(Some);
        }
        if let Some((stage, job)) = remote
            .metadata
            .get("description")
            .and_then(|text| legacy::described(text))
        {
            let Some(orphan) = orphans.iter().find(|orphan| orphan.id == job) else {
                let evidence = "its metadata names a job that is no orphan here".to_owned();
                return Ok(Some(left(Some(job), remote, Some(stage), evidence)));
            };
            return Ok(Some(self.judge_described(remote, stage, orphan)));
        }
        if orphans.is_empty() || !remote.metadata.is_empty() {
            return Ok(None);
        }
        // No metadata at all: what its custom ids say, where they fit one job and no other.
        let custom_ids = match self.custom_ids(&remote) {
            Ok(Some(ids)) => ids,
            Ok(None) => return Ok(None),
            Err(error) => {
                let evidence = format!(
                    "it may be of one of these jobs, but its files cannot be read: {error}"
                );
                return Ok(Some(left(None, remote, None, evidence)));
            }
        };
        let fitting: Vec<(&Orphan, Stage)> = orphans
            .iter()
            .filter_map(|orphan| Some((orphan, fits(&custom_ids, orphan)?)))
            .collect();
        Ok(match fitting.as_slice() {
            [] => None,
            [(orphan, stage)] => Some(Finding {
                job: Some(orphan.id.clone()),
                evidence: format!(
                    "all of its {} custom ids fit this job and no other",
                    custom_ids.len()
                ),
                stage: Some(*stage),
                batch: Some(remote),
                linkable: true,
                custom_ids,
            }),
            several => {
                let evidence = format!(
                    "its custom ids fit {} jobs; link it by hand with `batchkeeper adopt`",
                    several.len()
                );
                Some(left(None, remote, None, evidence))
            }
        })
    }

    /// Whether a batch was made by this database.
    fn is_ours(&self, remote: &Batch) -> bool {
        remote
            .metadata
            .get(META_DATABASE)
            .is_some_and(|id| id == self.store.database_id())
    }

    /// Whether a row says which lines a batch of our own was made with.
    fn has_lines(&self, remote: &Batch) -> Result<bool, String> {
        let Some(key) = remote.metadata.get(META_SUBMISSION) else {
            return Ok(false);
        };
        let row = self.store.read(|view| batches::by_key(view, key));
        let row = row.map_err(|error| error.to_string())?;
        Ok(row.is_some_and(|row| row.state != BatchState::Planned))
    }

    /// A batch of our own that no row has yet: its create's answer was lost, it is a second one under
    /// its key, or the store is older than the world.
    fn judge_own(&self, remote: Batch) -> Result<Finding, String> {
        if self.has_lines(&remote)? {
            return Ok(Finding {
                stage: Some(stage_named(&remote)),
                linkable: true,
                ..left(
                    None,
                    remote,
                    None,
                    "its key in the metadata is a row's".to_owned(),
                )
            });
        }
        let custom_ids = match self.custom_ids(&remote) {
            Ok(Some(ids)) if !ids.is_empty() => ids,
            Ok(None) if remote.status.is_some_and(BatchStatus::is_final) => {
                let evidence = "our own and over, but all of its files are gone: nothing of it can be taken in, and what \
                                still waits is sent again, paid anew"
                    .to_owned();
                return Ok(Finding {
                    stage: Some(stage_named(&remote)),
                    linkable: true,
                    ..left(None, remote, None, evidence)
                });
            }
            Ok(_) => {
                let evidence = "our own, but no file of it says what it asks for".to_owned();
                return Ok(left(None, remote, None, evidence));
            }
            Err(error) => {
                let evidence = format!("our own, but its files cannot be read: {error}");
                return Ok(left(None, remote, None, evidence));
            }
        };
        let lost = self.store.read(|view| without_a_job(view, &custom_ids));
        let lost = lost.map_err(|error| error.to_string())?;
        let evidence = match lost {
            0 => "our key is in its metadata".to_owned(),
            lost => format!(
                "our key is in its metadata; {lost} of its {} lines are of jobs accepted after the backup: their clients \
                 must send them again",
                custom_ids.len()
            ),
        };
        let first = custom_ids
            .first()
            .and_then(|id| id.parse::<CustomId>().ok());
        let stage = first.map_or(Stage::Vision, |id| id.stage());
        Ok(Finding {
            job: None,
            batch: Some(remote),
            stage: Some(stage),
            evidence,
            linkable: true,
            custom_ids,
        })
    }

    /// A batch whose metadata names an orphan.
    fn judge_described(&self, remote: Batch, stage: Stage, orphan: &Orphan) -> Finding {
        let custom_ids = match self.custom_ids(&remote) {
            Ok(ids) => ids.unwrap_or_default(),
            Err(error) => {
                let evidence =
                    format!("its metadata names the job, but its files cannot be read: {error}");
                return left(Some(orphan.id.clone()), remote, Some(stage), evidence);
            }
        };
        let fitting = fitting(&custom_ids, orphan, stage);
        if fitting == 0 {
            let evidence =
                "its metadata names the job, but none of its custom ids is a lot of it".to_owned();
            return left(Some(orphan.id.clone()), remote, Some(stage), evidence);
        }
        Finding {
            job: Some(orphan.id.clone()),
            evidence: format!(
                "its metadata names the job; {fitting} of {} custom ids fit",
                custom_ids.len()
            ),
            stage: Some(stage),
            batch: Some(remote),
            linkable: true,
            custom_ids,
        }
    }

    /// Batches that an orphan named itself, as far as the listing did not bring them.
    fn named(&self, orphan: &Orphan, found: &[Finding]) -> Result<Vec<Finding>, String> {
        let mut named = Vec::new();
        for id in &orphan.batches {
            let seen =
                |finding: &Finding| finding.batch.as_ref().is_some_and(|batch| batch.id == *id);
            let is_linked = self
                .store
                .read(|view| Ok(batches::by_openai_id(view, id)?.is_some()))
                .map_err(|error| error.to_string())?;
            if is_linked || found.iter().any(seen) {
                continue;
            }
            let remote = match self.api.batch(id) {
                Ok(remote) => remote,
                Err(CallError::Refused(refusal)) if refusal.status == 404 => continue,
                Err(error) => return Err(format!("batch {id}: {error}")),
            };
            let job = Some(orphan.id.clone());
            let custom_ids = match self.custom_ids(&remote) {
                Ok(ids) => ids.unwrap_or_default(),
                Err(error) => {
                    let evidence =
                        format!("the job named it, but its files cannot be read: {error}");
                    named.push(left(job, remote, None, evidence));
                    continue;
                }
            };
            if let Some(stage) = fits(&custom_ids, orphan) {
                named.push(Finding {
                    job,
                    batch: Some(remote),
                    stage: Some(stage),
                    evidence: "the job named it, and its custom ids fit".into(),
                    linkable: true,
                    custom_ids,
                });
            }
        }
        Ok(named)
    }
}

/// What one of our own asks for, by its metadata.
fn stage_named(remote: &Batch) -> Stage {
    let named = remote.metadata.get("stage");
    named
        .and_then(|stage| stage.parse().ok())
        .unwrap_or(Stage::Vision)
}

fn left(job: Option<String>, remote: Batch, stage: Option<Stage>, evidence: String) -> Finding {
    Finding {
        job,
        batch: Some(remote),
        stage,
        evidence,
        linkable: false,
        custom_ids: Vec::new(),
    }
}
