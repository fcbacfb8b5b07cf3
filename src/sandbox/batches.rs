//! The Batches API: records, their form on the wire, and the calls.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::disk::{self, OpenError};
use super::faults::Fault;
use super::ledger::Entry;
use super::response::Usage;
use super::wire::{self, ErrorReply, List, ok};
use super::{Caller, Sandbox, create, lock};
use crate::domain::openai::BatchStatus;
use crate::http::{Request, Response};

/// An entry of `errors.data`, members in the order of the schema `BatchErrors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LineError {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) param: Option<String>,
    pub(super) line: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) total: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
}

/// A batch, as it is kept. Times are milliseconds since the epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BatchRecord {
    pub(super) id: String,
    pub(super) seq: u64,
    pub(super) project: String,
    #[serde(with = "wire::text")]
    pub(super) status: BatchStatus,
    pub(super) endpoint: String,
    pub(super) completion_window: String,
    pub(super) input_file_id: String,
    /// None where there was no such file.
    pub(super) input_name: Option<String>,
    pub(super) metadata: Option<BTreeMap<String, String>>,
    /// Lifetime of the result files, in seconds.
    pub(super) output_lifetime: u64,
    pub(super) model: Option<String>,
    pub(super) errors: Vec<LineError>,
    pub(super) output_file_id: Option<String>,
    pub(super) error_file_id: Option<String>,
    pub(super) created_ms: i64,
    pub(super) in_progress_ms: Option<i64>,
    pub(super) finalizing_ms: Option<i64>,
    pub(super) completed_ms: Option<i64>,
    pub(super) failed_ms: Option<i64>,
    pub(super) expired_ms: Option<i64>,
    pub(super) cancelling_ms: Option<i64>,
    pub(super) cancelled_ms: Option<i64>,
    pub(super) expires_at: i64,
    pub(super) counts: Counts,
    pub(super) usage: Usage,
    /// What it holds of its model's queue: estimated input tokens and output caps.
    pub(super) tokens: u64,
    /// Lines that will certainly fail.
    pub(super) doomed: u64,
    /// How many lines were run before it was stopped; none: all.
    pub(super) limit: Option<u64>,
    pub(super) executed: bool,
    /// Its window closed; `finalizing` ends in `expired`.
    pub(super) expiring: bool,
    /// Planted, not made by a client.
    #[serde(default)]
    pub(super) seeded: bool,
    /// Faults that struck it, with their values.
    pub(super) drawn: BTreeMap<String, Value>,
    /// What was shown last; nothing of it may go back.
    #[serde(skip)]
    pub(super) shown: Option<(BatchStatus, Counts)>,
}

impl BatchRecord {
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.drawn.contains_key(fault.as_str())
    }

    pub(super) fn drawn(&self, fault: Fault) -> Option<&Value> {
        self.drawn.get(fault.as_str())
    }

    /// Counts before anything was run.
    pub(super) fn counts_of_total(&self) -> Counts {
        Counts {
            total: self.counts.total,
            ..Counts::default()
        }
    }

    /// When it reached its final state.
    pub(super) fn ended_ms(&self) -> Option<i64> {
        self.completed_ms
            .or(self.failed_ms)
            .or(self.expired_ms)
            .or(self.cancelled_ms)
    }
}

/// One batch, shared.
pub(super) type Shared = Arc<Mutex<BatchRecord>>;

/// A batch with its place in a listing: when it was made, and its number.
type Listed = ((i64, u64), Shared);

/// All batches. A batch's own lock is taken after this one is released, never within it.
pub(super) struct Batches {
    folder: PathBuf,
    records: Mutex<BTreeMap<String, Shared>>,
}

impl Batches {
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
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
    pub(super) fn put(&self, record: BatchRecord) -> io::Result<Shared> {
        self.save(&record)?;
        let id = record.id.clone();
        let shared = Arc::new(Mutex::new(record));
        self.lock().insert(id, Arc::clone(&shared));
        Ok(shared)
    }

    /// Writes a changed record down.
    pub(super) fn save(&self, record: &BatchRecord) -> io::Result<()> {
        disk::write_json(&self.folder.join(format!("{}.json", record.id)), record)
    }

    /// Its own copy of the input.
    pub(super) fn input(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.input"))
    }

    /// What its execution gave, between the results and the record.
    pub(super) fn result(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.result"))
    }

    /// The highest number of any record.
    pub(super) fn newest_seq(&self) -> u64 {
        let newest = self.all().iter().map(|batch| lock(batch).seq).max();
        newest.unwrap_or(0)
    }

    pub(super) fn get(&self, id: &str) -> Option<Shared> {
        self.lock().get(id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Shared> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Shared>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandbox {
    /// `POST /batches`.
    pub(super) fn create_batch(
        &self,
        caller: &Caller,
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
    pub(super) fn get_batch(&self, caller: &Caller, id: &str) -> Result<Response, ErrorReply> {
        let shared = self.find_batch(caller, id)?;
        let mut batch = lock(&shared);
        self.advance(&mut batch)?;
        self.show(&mut batch)
    }

    /// `POST /batches/{id}/cancel`.
    pub(super) fn cancel_batch(&self, caller: &Caller, id: &str) -> Result<Response, ErrorReply> {
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
                let entry = Entry::Cancel { batch: id.into() };
                self.ledger.note(self.now(), entry)?;
                // With no latency it is cancelled before the answer is written.
                self.advance(&mut batch)?;
            }
        }
        self.show(&mut batch)
    }

    /// `GET /batches`.
    pub(super) fn list_batches(
        &self,
        caller: &Caller,
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
        ok(&List::new(page, has_more))
    }

    /// The batches that a project sees in a listing, each with its place in time.
    fn listed(&self, caller: &Caller) -> Result<Vec<Listed>, ErrorReply> {
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
        caller: &Caller,
        after: &str,
        listed: &[Listed],
    ) -> Result<usize, ErrorReply> {
        let shared = self.find_batch(caller, after)?;
        let batch = lock(&shared);
        let place = (batch.created_ms, batch.seq);
        Ok(listed.iter().filter(|(other, _)| *other >= place).count())
    }

    /// A project's batch.
    pub(super) fn find_batch(&self, caller: &Caller, id: &str) -> Result<Shared, ErrorReply> {
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
    pub(super) fn draw(&self, batch: &mut BatchRecord, fault: Fault) -> io::Result<Option<Value>> {
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
    pub(super) fn strike(
        &self,
        fault: Fault,
        names: &[&str],
        seed: &str,
    ) -> io::Result<Option<Value>> {
        let Some(value) = self.faults.take(fault, names, seed) else {
            return Ok(None);
        };
        let entry = Entry::Fault {
            fault: fault.to_string(),
            target: names.first().copied().unwrap_or("").to_owned(),
        };
        self.ledger.note(self.now(), entry)?;
        Ok(Some(value))
    }
}

/// What a fault's `match` is held against.
pub(super) fn names(batch: &BatchRecord) -> Vec<&str> {
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
