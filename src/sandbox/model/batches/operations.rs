//! The Batches API: records, their form on the wire, and the calls.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::openai::BatchStatus;
use crate::http::{Request, Response};
use crate::sandbox::CallingProject;
use crate::sandbox::Sandbox;
use crate::sandbox::lock;
use crate::sandbox::model::batches::create;
use crate::sandbox::model::disk::{self, StateFolderError};
use crate::sandbox::model::error_reply::{self, ErrorReply, ListPage, ok};
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::responses::object::UsageObject;

/// An entry of `errors.data`, members in the order of the schema `BatchErrors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) struct LineError {
    pub(in crate::sandbox) code: String,
    pub(in crate::sandbox) message: String,
    pub(in crate::sandbox) param: Option<String>,
    pub(in crate::sandbox) line: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) struct LineCounts {
    pub(in crate::sandbox) total: u64,
    pub(in crate::sandbox) completed: u64,
    pub(in crate::sandbox) failed: u64,
}

/// A batch, as it is kept. Times are milliseconds since the epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct BatchRecord {
    pub(in crate::sandbox) id: String,
    pub(in crate::sandbox) seq: u64,
    pub(in crate::sandbox) project: String,
    #[serde(with = "error_reply::text")]
    pub(in crate::sandbox) status: BatchStatus,
    pub(in crate::sandbox) endpoint: String,
    pub(in crate::sandbox) completion_window: String,
    pub(in crate::sandbox) input_file_id: String,
    /// None where there was no such file.
    pub(in crate::sandbox) input_name: Option<String>,
    pub(in crate::sandbox) metadata: Option<BTreeMap<String, String>>,
    /// Lifetime of the result files, in seconds.
    pub(in crate::sandbox) output_lifetime: u64,
    pub(in crate::sandbox) model: Option<String>,
    pub(in crate::sandbox) errors: Vec<LineError>,
    pub(in crate::sandbox) output_file_id: Option<String>,
    pub(in crate::sandbox) error_file_id: Option<String>,
    pub(in crate::sandbox) created_ms: i64,
    pub(in crate::sandbox) in_progress_ms: Option<i64>,
    pub(in crate::sandbox) finalizing_ms: Option<i64>,
    pub(in crate::sandbox) completed_ms: Option<i64>,
    pub(in crate::sandbox) failed_ms: Option<i64>,
    pub(in crate::sandbox) expired_ms: Option<i64>,
    pub(in crate::sandbox) cancelling_ms: Option<i64>,
    pub(in crate::sandbox) cancelled_ms: Option<i64>,
    pub(in crate::sandbox) expires_at: i64,
    pub(in crate::sandbox) counts: LineCounts,
    pub(in crate::sandbox) usage: UsageObject,
    /// What it holds of its model's queue: estimated input tokens and output caps.
    pub(in crate::sandbox) tokens: u64,
    /// Lines that will certainly fail.
    pub(in crate::sandbox) doomed: u64,
    /// How many lines were run before it was stopped; none: all.
    pub(in crate::sandbox) limit: Option<u64>,
    pub(in crate::sandbox) executed: bool,
    /// Its window closed; `finalizing` ends in `expired`.
    pub(in crate::sandbox) expiring: bool,
    /// Planted, not made by a client.
    #[serde(default)]
    pub(in crate::sandbox) seeded: bool,
    /// Faults that struck it, with their values.
    pub(in crate::sandbox) drawn: BTreeMap<String, Value>,
    /// What was shown last; nothing of it may go back.
    #[serde(skip)]
    pub(in crate::sandbox) shown: Option<(BatchStatus, LineCounts)>,
}

impl BatchRecord {
    pub(in crate::sandbox) fn has(&self, fault: Fault) -> bool {
        self.drawn.contains_key(fault.as_str())
    }

    pub(in crate::sandbox) fn drawn(&self, fault: Fault) -> Option<&Value> {
        self.drawn.get(fault.as_str())
    }

    /// Counts before anything was run.
    pub(in crate::sandbox) fn counts_of_total(&self) -> LineCounts {
        LineCounts {
            total: self.counts.total,
            ..LineCounts::default()
        }
    }

    /// When it reached its final state.
    pub(in crate::sandbox) fn ended_ms(&self) -> Option<i64> {
        self.completed_ms
            .or(self.failed_ms)
            .or(self.expired_ms)
            .or(self.cancelled_ms)
    }
}

/// One batch, shared.
pub(in crate::sandbox) type SharedBatch = Arc<Mutex<BatchRecord>>;

/// A batch with its place in a listing: when it was made, and its number.
type ListedBatch = ((i64, u64), SharedBatch);

/// All batches. A batch's own lock is taken after this one is released, never within it.
pub(in crate::sandbox) struct BatchRecords {
    folder: PathBuf,
    records: Mutex<BTreeMap<String, SharedBatch>>,
}

impl BatchRecords {
    pub(in crate::sandbox) fn open(folder: &Path) -> Result<Self, StateFolderError> {
        let folder = folder.join("batches");
        let records = disk::read_records::<BatchRecord>(&folder)?
            .into_iter()
            .map(|record| (record.id.clone(), Arc::new(Mutex::new(record))))
            .collect();
        Ok(Self {
            folder,
            records: Mutex::new(records),
        })
    }

    /// Keeps a new batch.
    pub(in crate::sandbox) fn put(&self, record: BatchRecord) -> io::Result<SharedBatch> {
        self.save(&record)?;
        let id = record.id.clone();
        let shared = Arc::new(Mutex::new(record));
        self.lock().insert(id, Arc::clone(&shared));
        Ok(shared)
    }

    /// Writes a changed record down.
    pub(in crate::sandbox) fn save(&self, record: &BatchRecord) -> io::Result<()> {
        disk::write_json(&self.folder.join(format!("{}.json", record.id)), record)
    }

    /// Its own copy of the input.
    pub(in crate::sandbox) fn input(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.input"))
    }

    /// What its execution gave, between the results and the record.
    pub(in crate::sandbox) fn result(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.result"))
    }

    /// The highest number of any record.
    pub(in crate::sandbox) fn newest_seq(&self) -> u64 {
        let newest = self.all().iter().map(|batch| lock(batch).seq).max();
        newest.unwrap_or(0)
    }

    pub(in crate::sandbox) fn get(&self, id: &str) -> Option<SharedBatch> {
        self.lock().get(id).cloned()
    }

    pub(in crate::sandbox) fn all(&self) -> Vec<SharedBatch> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SharedBatch>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandbox {
    /// `POST /batches`.
    pub(in crate::sandbox) fn create_batch(
        &self,
        caller: &CallingProject,
        request: &Request,
    ) -> Result<Response, ErrorReply> {
        let wanted = create::check(&request.body)?;
        let now = self.now();
        self.check_create_rate(caller, now)?;
        let record = self.plan(caller, wanted, now)?;
        let twin = self
            .draw_first(&record, Fault::CreateTwice)
            .then(|| record.clone());
        let shared = self.make(caller, record, now, false)?;
        if let Some(twin) = twin {
            let again = self.renamed(twin, now);
            self.make(caller, again, now, true)?;
        }
        self.show(&mut lock(&shared))
    }

    /// `GET /batches/{id}`.
    pub(in crate::sandbox) fn get_batch(
        &self,
        caller: &CallingProject,
        id: &str,
    ) -> Result<Response, ErrorReply> {
        let shared = self.find_batch(caller, id)?;
        let mut batch = lock(&shared);
        self.advance(&mut batch)?;
        self.show(&mut batch)
    }

    /// `POST /batches/{id}/cancel`.
    pub(in crate::sandbox) fn cancel_batch(
        &self,
        caller: &CallingProject,
        id: &str,
    ) -> Result<Response, ErrorReply> {
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
                self.ledger.note(self.now(), entry)?;
                // With no latency it is cancelled before the answer is written.
                self.advance(&mut batch)?;
            }
        }
        self.show(&mut batch)
    }

    /// `GET /batches`.
    pub(in crate::sandbox) fn list_batches(
        &self,
        caller: &CallingProject,
        request: &Request,
    ) -> Result<Response, ErrorReply> {
        let limit = match request.parameter("limit") {
            None => 20,
            Some(text) => text
                .parse::<usize>()
                .ok()
                .filter(|limit| (1..=100).contains(limit))
                .ok_or_else(|| {
                    ErrorReply::new(400, "Invalid 'limit': expected 1 to 100.")
                        .code("invalid_value")
                        .param("limit")
                })?,
        };
        let mut listed = self.listed(caller)?;
        listed.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        let looping = self
            .strike(Fault::ListLoop, &[&request.target()], &request.id)?
            .is_some();
        let start = match request.parameter("after") {
            Some(after) if !looping => self.place_after(caller, &after, &listed)?,
            _ => 0,
        };
        let has_more = looping || listed.len() > start + limit;
        let mut page = Vec::new();
        for (_, shared) in listed.iter().skip(start).take(limit) {
            let mut batch = lock(shared);
            self.advance(&mut batch)?;
            page.push((batch.id.clone(), self.view(&mut batch)?));
        }
        ok(&ListPage::new(page, has_more))
    }

    /// The batches that a project sees in a listing, each with its place in time.
    fn listed(&self, caller: &CallingProject) -> Result<Vec<ListedBatch>, ErrorReply> {
        let now = self.now();
        let mut listed = Vec::new();
        for shared in self.batches.all() {
            let mut batch = lock(&shared);
            if batch.project != caller.project || self.draw(&mut batch, Fault::BatchGone)?.is_some()
            {
                continue;
            }
            let lag = self
                .draw(&mut batch, Fault::ListLag)?
                .map_or(0, |value| value.as_i64().unwrap_or(1_000));
            if now.millis() >= batch.created_ms.saturating_add(lag) {
                let place = (batch.created_ms, batch.seq);
                drop(batch);
                listed.push((place, shared));
            }
        }
        Ok(listed)
    }

    fn place_after(
        &self,
        caller: &CallingProject,
        after: &str,
        listed: &[ListedBatch],
    ) -> Result<usize, ErrorReply> {
        let shared = self.find_batch(caller, after)?;
        let batch = lock(&shared);
        let place = (batch.created_ms, batch.seq);
        Ok(listed.iter().filter(|(other, _)| *other >= place).count())
    }

    /// A project's batch.
    pub(in crate::sandbox) fn find_batch(
        &self,
        caller: &CallingProject,
        id: &str,
    ) -> Result<SharedBatch, ErrorReply> {
        let unknown = || ErrorReply::new(404, format!("No batch found with id '{id}'."));
        let shared = self.batches.get(id).ok_or_else(unknown)?;
        let mut batch = lock(&shared);
        if batch.project != caller.project || self.draw(&mut batch, Fault::BatchGone)?.is_some() {
            return Err(unknown());
        }
        drop(batch);
        Ok(shared)
    }

    /// Draws a fault for a batch: once it struck, it stays with the batch.
    pub(in crate::sandbox) fn draw(
        &self,
        batch: &mut BatchRecord,
        fault: Fault,
    ) -> io::Result<Option<Value>> {
        if let Some(value) = batch.drawn(fault) {
            return Ok(Some(value.clone()));
        }
        if self.faults.is_empty() {
            return Ok(None);
        }
        let Some(value) = self.strike(fault, &names(batch), &batch.id)? else {
            return Ok(None);
        };
        batch.drawn.insert(fault.to_string(), value.clone());
        self.batches.save(batch)?;
        Ok(Some(value))
    }

    /// The same for a batch that is not kept yet.
    fn draw_first(&self, batch: &BatchRecord, fault: Fault) -> bool {
        self.strike(fault, &names(batch), &batch.id)
            .is_ok_and(|value| value.is_some())
    }

    /// Takes a fault and notes in the ledger that it struck.
    pub(in crate::sandbox) fn strike(
        &self,
        fault: Fault,
        names: &[&str],
        seed: &str,
    ) -> io::Result<Option<Value>> {
        let Some(value) = self.faults.take(fault, names, seed) else {
            return Ok(None);
        };
        let entry = LedgerEntry::Fault {
            fault: fault.to_string(),
            target: names.first().copied().unwrap_or("").to_owned(),
        };
        self.ledger.note(self.now(), entry)?;
        Ok(Some(value))
    }
}

/// What a fault's `match` is held against.
pub(in crate::sandbox) fn names(batch: &BatchRecord) -> Vec<&str> {
    let mut names = vec![batch.id.as_str(), batch.input_file_id.as_str()];
    names.extend(batch.input_name.as_deref());
    names.extend(
        batch
            .metadata
            .iter()
            .flat_map(|metadata| metadata.values())
            .map(String::as_str),
    );
    names
}
