//! Compares OpenAI's listing with the rows of running batches, in both directions.

use std::collections::HashMap;

use super::Auditor;
use crate::base::clock::Moment;
use crate::domain::alert::{AlertCause, AlertKind, AlertSubject};
use crate::domain::batch::BatchState;
use crate::domain::decide::audit::{ListingDecision, ListingEntry, RunningBatch};
use crate::domain::decide::failed_call::{CallPurpose, FailedCall};
use crate::domain::openai::Batch;
use crate::openai::listing::batches_back_to;
use crate::recovery::reconcile;
use crate::store::batches::{self, BatchRow, META_SUBMISSION};
use crate::store::{Stored, alerts};
use crate::workers::call_failure;
use crate::workers::worker::WorkerError;

/// The most running batches that one comparison looks for.
const BATCHES: u32 = 10_000;

impl Auditor {
    /// Links listed batches that no row knows, and opens alerts for rows whose batch is not listed.
    pub(super) fn compare_listing(&self, now: Moment) -> Result<(), WorkerError> {
        let (running, from) = self.running_batches()?;
        let listed = match batches_back_to(self.api.as_ref(), from) {
            Ok(listed) => listed,
            Err(error) => {
                log::warn!(event = "reconciliation_put_off", error:%; "");
                let call = FailedCall {
                    purpose: CallPurpose::Compare,
                    error: &error,
                    failures: 0,
                    retry_interval: self.config.openai.retry_interval,
                };
                self.store.write(now.wall, |tx| call_failure::apply(tx, &call))?;
                return Ok(());
            }
        };
        let by_id: HashMap<&str, &Batch> = listed.iter().map(|it| (it.id.as_str(), it)).collect();
        let lagging_since = now.wall.before(self.config.openai.settling_time).seconds();
        let (mut not_listed, mut wrong_links) = (Vec::new(), Vec::new());
        for row in &running {
            let id = row.openai_batch_id.as_deref().unwrap_or_default();
            match compare(row, by_id.get(id).copied(), lagging_since) {
                ListingDecision::AsExpected => {}
                ListingDecision::NotListed => {
                    not_listed.push(cause(row, "is not listed by OpenAI any more"));
                }
                ListingDecision::WrongLink => {
                    let problem = "has another submission's key or input at OpenAI";
                    wrong_links.push(cause(row, problem));
                }
            }
        }
        self.store.write(now.wall, |tx| {
            reconcile::compare_with_listing(tx, &self.store, &listed, from)?;
            alerts::set_open(tx, AlertKind::BatchNotListed, &not_listed)?;
            alerts::set_open(tx, AlertKind::WrongLink, &wrong_links)
        })?;
        Ok(())
    }

    /// The running batches of this account, and the time (OpenAI's clock, in seconds) back to which a listing
    /// must go.
    fn running_batches(&self) -> Stored<(Vec<BatchRow>, i64)> {
        let (mut running, reach) = self.store.read(|view| {
            let running = batches::in_states(view, &[BatchState::Submitted], BATCHES)?;
            Ok((running, reconcile::reach(view)?))
        })?;
        running.retain(|row| row.identity == *self.api.identity() && row.abandoned_at.is_none());
        let oldest = running.iter().filter_map(|row| row.openai_time).min();
        let from = oldest.map_or(reach, |oldest| oldest.min(reach));
        Ok((running, from))
    }
}

fn compare(row: &BatchRow, listed: Option<&Batch>, lagging_since: i64) -> ListingDecision {
    let running = RunningBatch {
        key: &row.key,
        input_file_id: row.input_file_id.as_deref(),
        created_at: row.openai_time,
    };
    let listed = listed.map(|batch| ListingEntry {
        key: batch.metadata.get(META_SUBMISSION).map(String::as_str),
        input_file_id: &batch.input_file_id,
    });
    running.compare(listed, lagging_since)
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
