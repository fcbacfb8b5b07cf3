//! The calls that poll, list and cancel batches.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;

use serde_json::Value;

use super::view::BatchView;
use crate::domain::openai::BatchStatus;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::{ApiCall, Fault, FaultTarget};
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::list_page::{ListPage, page_limit};
use crate::sandbox::model::lock::lock;
use crate::sandbox::model::records::{BatchRecord, SharedBatch};
use crate::sandbox::model::simulated_openai::{CallingProject, SimulatedOpenAi};

/// The query of a listing of batches, as sent; `None` where a value is absent.
#[derive(Clone, Debug, Default)]
pub struct BatchListQuery {
    /// The batch before the page.
    pub after: Option<String>,
    /// The most batches of the page.
    pub limit: Option<String>,
}

/// A batch with its place in a listing: its creation and its `seq`.
type ListedBatch = ((i64, u64), SharedBatch);

impl SimulatedOpenAi {
    /// `GET /batches/{id}`.
    ///
    /// # Errors
    /// 404 if the project has no such batch.
    pub fn poll_batch(&self, caller: &CallingProject, id: &str) -> Result<BatchView, ErrorReply> {
        let shared = self.find_batch(caller, id)?;
        let mut batch = lock(&shared);
        self.advance(&mut batch)?;
        self.view_batch(&mut batch)
    }

    /// `POST /batches/{id}/cancel`.
    ///
    /// # Errors
    /// 404 if the project has no such batch, 409 if it has ended otherwise.
    pub fn cancel_batch(&self, caller: &CallingProject, id: &str) -> Result<BatchView, ErrorReply> {
        let shared = self.find_batch(caller, id)?;
        let mut batch = lock(&shared);
        self.advance(&mut batch)?;
        match batch.status {
            BatchStatus::Cancelling | BatchStatus::Cancelled => {}
            BatchStatus::Completed | BatchStatus::Failed | BatchStatus::Expired => {
                return Err(ErrorReply::new(
                    409,
                    format!("Cannot cancel a batch with status '{}'.", batch.status),
                ));
            }
            BatchStatus::Validating | BatchStatus::InProgress | BatchStatus::Finalizing => {
                self.start_cancel(&mut batch)?;
                let entry = LedgerEntry::Cancel { batch: id.into() };
                self.ledger.append(self.now(), entry)?;
                // If cancelling takes no time, the answer already says `cancelled`.
                self.advance(&mut batch)?;
            }
        }
        self.view_batch(&mut batch)
    }

    /// `GET /batches`: newest first. `call` is for the fault `list_loop`.
    ///
    /// # Errors
    /// The refusal.
    pub fn list_batches(
        &self,
        caller: &CallingProject,
        query: &BatchListQuery,
        call: &ApiCall<'_>,
    ) -> Result<ListPage<BatchView>, ErrorReply> {
        let limit = page_limit(query.limit.as_deref(), 20, 100, || {
            ErrorReply::invalid("invalid_value", "limit", "Invalid 'limit': expected 1 to 100.")
        })?;
        let mut listed = self.listed_batches(caller)?;
        listed.sort_by_key(|(place, _)| Reverse(*place));
        let target = FaultTarget {
            names: &[call.target],
            seed: call.id,
        };
        let is_endless = self.trigger_fault(Fault::ListLoop, target)?.is_some();
        let has_no_times = self.trigger_fault(Fault::NoCreatedAt, target)?.is_some();
        let shortest = self.trigger_fault(Fault::ShortPages, target)?;
        let limit = shortest.map_or(limit, |value| {
            let most = value.as_u64().and_then(|most| usize::try_from(most).ok());
            limit.min(most.unwrap_or(2).max(1))
        });
        let start = match &query.after {
            Some(after) if !is_endless => self.count_up_to(caller, after, &listed)?,
            _ => 0,
        };
        let mut items = Vec::new();
        for (_, shared) in listed.iter().skip(start).take(limit) {
            let mut batch = lock(shared);
            self.advance(&mut batch)?;
            let mut view = self.view_batch(&mut batch)?;
            if has_no_times {
                view.created_at = 0;
            }
            items.push(view);
        }
        Ok(ListPage {
            items,
            has_more: is_endless || listed.len() > start + limit,
        })
    }

    /// The batches that a project's listing shows, in no order.
    fn listed_batches(&self, caller: &CallingProject) -> Result<Vec<ListedBatch>, ErrorReply> {
        let now = self.now();
        let mut listed = Vec::new();
        for shared in self.batches.all() {
            let mut batch = lock(&shared);
            if batch.project != caller.project || self.make_gone(&mut batch)? {
                continue;
            }
            let lag = self
                .trigger_batch_fault(&mut batch, Fault::ListLag)?
                .map_or(0, |value| value.as_i64().unwrap_or(1_000));
            if now.millis() >= batch.created_ms.saturating_add(lag) {
                let place = (batch.created_ms, batch.seq);
                drop(batch);
                listed.push((place, shared));
            }
        }
        Ok(listed)
    }

    /// The number of listed batches up to and including the one of that id.
    fn count_up_to(
        &self,
        caller: &CallingProject,
        id: &str,
        listed: &[ListedBatch],
    ) -> Result<usize, ErrorReply> {
        let shared = self.find_batch(caller, id)?;
        let batch = lock(&shared);
        let place = (batch.created_ms, batch.seq);
        Ok(listed.iter().filter(|(other, _)| *other >= place).count())
    }

    fn find_batch(&self, caller: &CallingProject, id: &str) -> Result<SharedBatch, ErrorReply> {
        let shared = self.batches.get(id).ok_or_else(|| no_such_batch(id))?;
        let mut batch = lock(&shared);
        if batch.project != caller.project || self.make_gone(&mut batch)? {
            return Err(no_such_batch(id));
        }
        drop(batch);
        Ok(shared)
    }

    /// Triggers the fault `batch_gone` if a rule says so; gives whether the batch is gone.
    fn make_gone(&self, batch: &mut BatchRecord) -> io::Result<bool> {
        let value = self.trigger_batch_fault(batch, Fault::BatchGone)?;
        Ok(value.is_some())
    }

    /// Makes every late create and every change of status that is due by now.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub fn advance_all(&self) -> io::Result<()> {
        self.make_late_creates()?;
        for shared in self.batches.all() {
            self.advance(&mut lock(&shared))?;
        }
        Ok(())
    }

    /// The metadata of a batch; empty if there is none.
    pub fn batch_metadata(&self, id: &str) -> BTreeMap<String, String> {
        let metadata = self
            .batches
            .get(id)
            .and_then(|shared| lock(&shared).metadata.clone());
        metadata.unwrap_or_default()
    }

    /// Gives a batch faults, as if it had triggered them.
    ///
    /// # Errors
    /// 404 if there is no such batch.
    pub fn put_faults_on(&self, id: &str, faults: &[(Fault, Value)]) -> Result<(), ErrorReply> {
        let shared = self.batches.get(id).ok_or_else(|| no_such_batch(id))?;
        let mut batch = lock(&shared);
        let faults = faults
            .iter()
            .map(|(fault, value)| (fault.to_string(), value.clone()));
        batch.faults.extend(faults);
        Ok(self.batches.save(&batch)?)
    }

    /// Triggers a fault of a batch if a rule says so. A fault that was triggered stays with the batch, with
    /// its value.
    pub(super) fn trigger_batch_fault(
        &self,
        batch: &mut BatchRecord,
        fault: Fault,
    ) -> io::Result<Option<Value>> {
        if let Some(value) = batch.fault_value(fault) {
            return Ok(Some(value.clone()));
        }
        if self.fault_rules.is_empty() {
            return Ok(None);
        }
        let names = batch.fault_names();
        let target = FaultTarget {
            names: &names,
            seed: &batch.id,
        };
        let Some(value) = self.trigger_fault(fault, target)? else {
            return Ok(None);
        };
        batch.faults.insert(fault.to_string(), value.clone());
        self.batches.save(batch)?;
        Ok(Some(value))
    }
}

fn no_such_batch(id: &str) -> ErrorReply {
    ErrorReply::new(404, format!("No batch found with id '{id}'."))
}
