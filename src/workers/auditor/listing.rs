//! Compares OpenAI's listing with the rows of running batches, in both directions.
//!
//! Each listing goes back to where the one before it ended. So a running batch is compared once its listing
//! cannot lag any more, and then only while an alert about it is open; the poller asks for it by its id.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Auditor;
use crate::base::clock::Moment;
use crate::domain::alert::{AlertCause, AlertKind, AlertSubject};
use crate::domain::batch::BatchState;
use crate::domain::decide::audit::{ListingDecision, ListingEntry, RunningBatch};
use crate::domain::decide::failed_call::{CallPurpose, FailedCall};
use crate::domain::openai::Batch;
use crate::recovery::reconcile::{self, ListedPage, Reconciliation};
use crate::store::batches::{self, BatchRow, META_SUBMISSION};
use crate::store::{Stored, alerts};
use crate::workers::call_failure;
use crate::workers::worker::{WorkerError, backoff};

/// The most running batches that one comparison looks for.
const BATCHES: u32 = 10_000;

/// An unfinished comparison.
pub(super) struct ListingAudit {
    reconciliation: Reconciliation,
    /// The running batches that no page has shown yet, by OpenAI's id.
    unlisted: HashMap<String, BatchRow>,
    wrong_links: Vec<AlertCause>,
}

impl Auditor {
    /// Reads one page of OpenAI's listing. Links listed batches that no row knows; after the last page opens
    /// alerts for rows whose batch is not listed. Returns how long the next page waits.
    pub(super) fn compare_listing(&mut self, now: Moment) -> Result<Duration, WorkerError> {
        let mut audit = match self.listing.take() {
            Some(audit) => audit,
            None => self.begin_comparison(now)?,
        };
        match audit
            .reconciliation
            .read_page(self.api.as_ref(), &self.store, now)?
        {
            ListedPage::Failed(error) => {
                log::warn!(event = "reconciliation_put_off", error:%; "");
                let call = FailedCall {
                    purpose: CallPurpose::Compare,
                    error: &error,
                    failures: 0,
                    retry_interval: self.config.openai.retry_interval,
                };
                self.store.write(now.wall, |tx| call_failure::apply(tx, &call))?;
                let failures = audit.reconciliation.listing().failures().saturating_sub(1);
                self.listing = Some(audit);
                Ok(backoff(
                    self.config.openai.retry_interval,
                    failures,
                    error.retry_after(),
                ))
            }
            ListedPage::Compared { batches, .. } => {
                audit.compare(&batches);
                if audit.reconciliation.is_complete() {
                    self.apply_comparison(audit, now)?;
                    return Ok(self.config.steps.reconcile);
                }
                self.listing = Some(audit);
                Ok(Duration::ZERO)
            }
        }
    }

    /// Begins with the batches of this account that run, as far back as the listing goes.
    fn begin_comparison(&self, now: Moment) -> Stored<ListingAudit> {
        let (mut running, reach, reported) = self.store.read(|view| {
            let mut reported: HashSet<AlertSubject> = HashSet::new();
            for kind in [AlertKind::BatchNotListed, AlertKind::WrongLink] {
                reported.extend(alerts::open_subjects(view, kind)?);
            }
            let running = batches::in_states(view, &[BatchState::Submitted], BATCHES)?;
            Ok((running, reconcile::reach(view)?, reported))
        })?;
        running.retain(|row| row.identity == *self.api.identity() && row.abandoned_at.is_none());
        let reported = running
            .iter()
            .filter(|row| reported.contains(&AlertSubject::Batch(row.id)));
        let from = reported.filter_map(|row| row.openai_time).chain([reach]).min();
        let from = from.unwrap_or(reach);
        running.retain(|row| row.openai_time.is_some_and(|time| time >= from));
        Ok(ListingAudit {
            reconciliation: Reconciliation::new(from, self.config.openai.settling_time, now),
            unlisted: running
                .into_iter()
                .filter_map(|row| Some((row.openai_batch_id.clone()?, row)))
                .collect(),
            wrong_links: Vec::new(),
        })
    }

    fn apply_comparison(&self, audit: ListingAudit, now: Moment) -> Result<(), WorkerError> {
        let began = audit.reconciliation.listing().began().wall;
        let lagging_since = began.before(self.config.openai.settling_time).seconds();
        let unlisted = audit.unlisted.values();
        let not_listed: Vec<AlertCause> = unlisted
            .filter(|row| running(row).compare(None, lagging_since) == ListingDecision::NotListed)
            .map(|row| cause(row, "is not listed by OpenAI any more"))
            .collect();
        self.store.write(now.wall, |tx| {
            alerts::set_open(tx, AlertKind::BatchNotListed, &not_listed)?;
            alerts::set_open(tx, AlertKind::WrongLink, &audit.wrong_links)
        })?;
        Ok(())
    }
}

impl ListingAudit {
    /// Compares the batches of a page with their rows.
    fn compare(&mut self, page: &[Batch]) {
        for batch in page {
            let Some(row) = self.unlisted.remove(&batch.id) else {
                continue;
            };
            let listed = ListingEntry {
                key: batch.metadata.get(META_SUBMISSION).map(String::as_str),
                input_file_id: &batch.input_file_id,
            };
            if running(&row).compare(Some(listed), 0) == ListingDecision::WrongLink {
                let problem = "has another submission's key or input at OpenAI";
                self.wrong_links.push(cause(&row, problem));
            }
        }
    }
}

fn running(row: &BatchRow) -> RunningBatch<'_> {
    RunningBatch {
        key: &row.key,
        input_file_id: row.input_file_id.as_deref(),
        created_at: row.openai_time,
    }
}

fn cause(row: &BatchRow, problem: &str) -> AlertCause {
    let BatchRow { id, .. } = row;
    let openai_id = row.openai_batch_id.as_deref().unwrap_or_default();
    AlertCause {
        subject: AlertSubject::Batch(*id),
        message: format!(
            "batch {openai_id} (row {id}) {problem}; it is polled on. If it is lost for good: batchkeeper \
             batches abandon {id}"
        ),
    }
}
