//! The records of batches, on disk and in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::lock::lock;
use crate::sandbox::model::storage::{StateFolderError, Storage};
use crate::sandbox::model::text_form;
use crate::sandbox::model::usage::UsageObject;

/// An entry of `errors.data`, members in the order of the schema `BatchErrors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineError {
    /// Such as `invalid_json_line`.
    pub code: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// The member that is wrong.
    pub param: Option<String>,
    /// The input's line, from 1.
    pub line: Option<u64>,
}

/// `request_counts` of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCounts {
    /// Lines of the input.
    pub total: u64,
    /// Lines that were answered with 2xx.
    pub completed: u64,
    /// Lines that were answered otherwise.
    pub failed: u64,
}

/// The record of a batch. Times are in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchRecord {
    pub id: String,
    /// Orders batches of the same millisecond.
    pub seq: u64,
    pub project: String,
    #[serde(with = "text_form")]
    pub status: BatchStatus,
    pub endpoint: String,
    pub completion_window: String,
    pub input_file_id: String,
    /// `None` if there was no such file.
    pub input_name: Option<String>,
    pub metadata: Option<BTreeMap<String, String>>,
    /// Seconds until the result files expire.
    pub output_lifetime: u64,
    pub model: Option<String>,
    /// `None` if OpenAI gives no reason.
    pub errors: Option<Vec<LineError>>,
    pub output_file_id: Option<String>,
    pub error_file_id: Option<String>,
    pub created_ms: i64,
    pub in_progress_ms: Option<i64>,
    pub finalizing_ms: Option<i64>,
    pub completed_ms: Option<i64>,
    pub failed_ms: Option<i64>,
    pub expired_ms: Option<i64>,
    pub cancelling_ms: Option<i64>,
    pub cancelled_ms: Option<i64>,
    /// In seconds.
    pub expires_at: i64,
    pub counts: LineCounts,
    pub usage: UsageObject,
    /// The tokens that the batch holds of its model's queue: estimated input and the limits of the output.
    pub tokens: u64,
    /// Lines that will certainly fail.
    pub failing_lines: u64,
    /// Lines that were executed before the batch was stopped; `None` if all were.
    pub executed_limit: Option<u64>,
    pub executed: bool,
    /// Whether the window closed, so that `expired` follows `finalizing`.
    pub expiring: bool,
    /// Whether the batch ran before the sandbox was started.
    #[serde(default)]
    pub past: bool,
    /// The faults that the batch triggered, with their values.
    pub faults: BTreeMap<String, Value>,
    /// The status and counts of the last answer. Later answers must not go back.
    #[serde(skip)]
    pub last_shown: Option<(BatchStatus, LineCounts)>,
}

impl BatchRecord {
    /// A record with the defaults of what a create need not say. It has no id.
    pub fn new(project: &str, input_file_id: &str, input_name: Option<String>, created: Timestamp) -> Self {
        Self {
            id: String::new(),
            seq: 0,
            project: project.to_owned(),
            status: BatchStatus::Validating,
            endpoint: "/v1/responses".into(),
            completion_window: "24h".into(),
            input_file_id: input_file_id.to_owned(),
            input_name,
            metadata: None,
            output_lifetime: 2_592_000,
            model: None,
            errors: None,
            output_file_id: None,
            error_file_id: None,
            created_ms: created.millis(),
            in_progress_ms: None,
            finalizing_ms: None,
            completed_ms: None,
            failed_ms: None,
            expired_ms: None,
            cancelling_ms: None,
            cancelled_ms: None,
            expires_at: created.seconds() + 86_400,
            counts: LineCounts::default(),
            usage: UsageObject::default(),
            tokens: 0,
            failing_lines: 0,
            executed_limit: None,
            executed: false,
            expiring: false,
            past: false,
            faults: BTreeMap::new(),
            last_shown: None,
        }
    }

    /// Whether the batch triggered a fault.
    pub fn has_fault(&self, fault: Fault) -> bool {
        self.faults.contains_key(fault.as_str())
    }

    /// The value of a fault that the batch triggered.
    pub fn fault_value(&self, fault: Fault) -> Option<&Value> {
        self.faults.get(fault.as_str())
    }

    /// The names that a fault's `match` is compared with.
    pub fn fault_names(&self) -> Vec<&str> {
        let mut names = vec![self.id.as_str(), self.input_file_id.as_str()];
        names.extend(self.input_name.as_deref());
        names.extend(
            self.metadata
                .iter()
                .flat_map(|metadata| metadata.values())
                .map(String::as_str),
        );
        names
    }

    /// The member `submission` of the metadata.
    pub fn submission(&self) -> Option<&String> {
        self.metadata.as_ref()?.get("submission")
    }

    /// The ledger's entry of the batch's creation.
    pub fn create_entry(&self, organization: &str, by_fault: bool) -> LedgerEntry {
        LedgerEntry::Create {
            batch: self.id.clone(),
            input_file: self.input_file_id.clone(),
            project: self.project.clone(),
            organization: organization.to_owned(),
            submission: self.submission().cloned(),
            by_fault,
        }
    }

    /// The counts before any line was executed.
    pub fn initial_counts(&self) -> LineCounts {
        LineCounts {
            total: self.counts.total,
            ..LineCounts::default()
        }
    }

    /// When the batch became final.
    pub fn ended_ms(&self) -> Option<i64> {
        self.completed_ms
            .or(self.failed_ms)
            .or(self.expired_ms)
            .or(self.cancelled_ms)
    }
}

/// The name of a batch's own copy of its input, which it needs even after the file was deleted.
pub fn input_name(id: &str) -> String {
    format!("batches/{id}.input")
}

/// The name of the execution's summary, which exists until the batch is final.
pub fn summary_name(id: &str) -> String {
    format!("batches/{id}.result")
}

/// A batch's record behind its own lock.
pub type SharedBatch = Arc<Mutex<BatchRecord>>;

/// The records of all batches, and where they are kept.
///
/// A thread takes a batch's own lock only after it released the lock of the whole.
pub struct BatchRecords {
    storage: Storage,
    records: Mutex<BTreeMap<String, SharedBatch>>,
}

impl BatchRecords {
    /// Reads the records of a state folder.
    pub fn open(storage: Storage) -> Result<Self, StateFolderError> {
        let records = storage
            .read_records::<BatchRecord>("batches")?
            .into_iter()
            .map(|record| (record.id.clone(), Arc::new(Mutex::new(record))))
            .collect();
        Ok(Self {
            storage,
            records: Mutex::new(records),
        })
    }

    /// Adds a new batch.
    pub fn insert(&self, record: BatchRecord) -> io::Result<SharedBatch> {
        self.save(&record)?;
        let id = record.id.clone();
        let shared = Arc::new(Mutex::new(record));
        lock(&self.records).insert(id, Arc::clone(&shared));
        Ok(shared)
    }

    /// Writes a changed record to its file.
    pub fn save(&self, record: &BatchRecord) -> io::Result<()> {
        self.storage
            .write_record(&format!("batches/{}.json", record.id), record)
    }

    /// The highest `seq` of any record.
    pub fn newest_seq(&self) -> u64 {
        let newest = self.all().iter().map(|batch| lock(batch).seq).max();
        newest.unwrap_or(0)
    }

    /// The batch of that id, of any project.
    pub fn get(&self, id: &str) -> Option<SharedBatch> {
        lock(&self.records).get(id).cloned()
    }

    /// All batches.
    pub fn all(&self) -> Vec<SharedBatch> {
        lock(&self.records).values().cloned().collect()
    }
}
