//! Adds a batch that ran before the sandbox was started: the batch of an earlier service.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::validation::read_input;
use super::view::BatchView;
use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::lock::lock;
use crate::sandbox::model::records::{BatchRecord, FileRecord, LineError, content_name, input_name};
use crate::sandbox::model::simulated_openai::SimulatedOpenAi;

/// A batch that ran before the sandbox was started.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastBatch {
    /// A new id by default.
    pub id: Option<String>,
    /// In seconds; by default the time in the id, or now.
    pub created_at: Option<i64>,
    /// The metadata.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The input.
    pub lines: Vec<PastLine>,
    /// `completed` by default. A batch that is `validating` runs from now on.
    pub status: Option<String>,
    /// Whether the input file is gone.
    #[serde(default)]
    pub drop_input_file: bool,
    /// The model of lines whose body names none; `o4-mini` by default.
    pub model: Option<String>,
    /// The first key's project by default.
    pub project: Option<String>,
    /// How many such batches are added; 1 by default. With an `id`, there can be only one.
    #[serde(default = "one")]
    pub count: u32,
}

fn one() -> u32 {
    1
}

/// A line of a past batch's input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastLine {
    /// The line's id.
    pub custom_id: String,
    /// The request.
    #[serde(default)]
    pub body: Map<String, Value>,
}

impl SimulatedOpenAi {
    /// Adds batches as if they had run before the sandbox was started; gives the last of them.
    ///
    /// # Errors
    /// If its id is in use, its status is not final, or a line is invalid.
    pub fn add_past_batches(&self, past: &PastBatch) -> Result<BatchView, ErrorReply> {
        for _ in 1..past.count {
            self.add_past_batch(past)?;
        }
        self.add_past_batch(past)
    }

    fn add_past_batch(&self, past: &PastBatch) -> Result<BatchView, ErrorReply> {
        let status: BatchStatus = past
            .status
            .as_deref()
            .unwrap_or("completed")
            .parse()
            .map_err(|error| refused(format!("{error}")))?;
        if matches!(
            status,
            BatchStatus::InProgress | BatchStatus::Finalizing | BatchStatus::Cancelling
        ) {
            return Err(refused("Only validating and final states can be planted."));
        }
        let mut record = self.past_record(past);
        if self.batches.get(&record.id).is_some() {
            return Err(refused(format!("There is a batch {} already.", record.id)));
        }
        self.write_past_input(past, &record)?;
        if status != BatchStatus::Validating {
            self.end_past_batch(&mut record, status)?;
        }
        let shared = self.batches.insert(record.clone())?;
        if status != BatchStatus::Validating {
            self.storage.remove(&input_name(&record.id))?;
        }
        let entry = LedgerEntry::Seed {
            batch: record.id.clone(),
            lines: u64::try_from(past.lines.len()).unwrap_or(0),
        };
        self.ledger.append(self.now(), entry)?;
        if past.drop_input_file {
            self.files.delete(&record.input_file_id)?;
        }
        self.view_batch(&mut lock(&shared))
    }

    fn past_record(&self, past: &PastBatch) -> BatchRecord {
        let second_in_id = past
            .id
            .as_deref()
            .and_then(|id| i64::from_str_radix(id.strip_prefix("batch_")?.get(..8)?, 16).ok());
        let created = past
            .created_at
            .or(second_in_id)
            .map_or_else(|| self.now(), Timestamp::from_seconds);
        let project = past
            .project
            .clone()
            .or_else(|| Some(self.settings.api_keys.first()?.project.clone()))
            .unwrap_or_default();
        let record = BatchRecord::new(&project, "", None, created);
        let mut record = self.assign_new_id(record, created);
        if let Some(id) = &past.id {
            record.id.clone_from(id);
        }
        record.input_file_id = ids::file(&["seed", &record.id]);
        record.input_name = Some(format!("{}_input.jsonl", record.id));
        record.metadata.clone_from(&past.metadata);
        record.past = past.status.as_deref() != Some("validating");
        record
    }

    fn write_past_input(&self, past: &PastBatch, record: &BatchRecord) -> Result<(), ErrorReply> {
        let mut bytes = Vec::new();
        for line in &past.lines {
            let mut body = line.body.clone();
            body.entry("model")
                .or_insert_with(|| past.model.as_deref().unwrap_or("o4-mini").into());
            body.entry("input").or_insert_with(|| "".into());
            let line =
                json!({"custom_id": line.custom_id, "method": "POST", "url": "/v1/responses", "body": body});
            writeln!(bytes, "{line}")?;
        }
        let file_id = &record.input_file_id;
        self.storage.write(&content_name(file_id), &bytes)?;
        self.files.save(FileRecord {
            id: file_id.clone(),
            seq: record.seq,
            project: record.project.clone(),
            purpose: "batch".into(),
            filename: record.input_name.clone().unwrap_or_default(),
            bytes: u64::try_from(bytes.len()).unwrap_or(0),
            created_ms: record.created_ms - 1_000,
            expires_at: None,
            deleted: false,
        })?;
        Ok(self
            .storage
            .link(&content_name(file_id), &input_name(&record.id))?)
    }

    /// Executes a past batch and gives it its final status: it started after one second, was executed after
    /// 120 and ended after 121.
    fn end_past_batch(&self, record: &mut BatchRecord, status: BatchStatus) -> Result<(), ErrorReply> {
        let after = |seconds: i64| record.created_ms + seconds * 1_000;
        let (started, executed, ended) = (after(1), after(120), after(121));
        if status == BatchStatus::Failed {
            record.failed_ms = Some(started);
            record.status = status;
            record.errors = Some(vec![LineError {
                code: Some("invalid_request".into()),
                message: Some("Planted as failed.".into()),
                param: None,
                line: None,
            }]);
            return Ok(());
        }
        self.validate_past_input(record)?;
        record.in_progress_ms = Some(started);
        record.status = match status {
            BatchStatus::Cancelled => BatchStatus::Cancelling,
            _ => BatchStatus::InProgress,
        };
        if status != BatchStatus::Completed {
            record.executed_limit = Some(record.counts.total / 2);
        }
        self.execute_batch(record, executed)?;
        match status {
            BatchStatus::Cancelled => {
                record.cancelling_ms = Some(executed);
                record.cancelled_ms = Some(ended);
            }
            BatchStatus::Expired => {
                record.finalizing_ms = Some(executed);
                record.expired_ms = Some(ended);
            }
            _ => {
                record.finalizing_ms = Some(executed);
                record.completed_ms = Some(ended);
            }
        }
        record.status = status;
        Ok(())
    }

    fn validate_past_input(&self, record: &mut BatchRecord) -> Result<(), ErrorReply> {
        let input = self.storage.open(&input_name(&record.id))?;
        let report = read_input(record, input, &self.settings)?;
        if let Some(error) = report.errors.first() {
            return Err(refused(format!("line {:?}: {:?}", error.line, error.message)));
        }
        record.model = report.model.map(|model| model.snapshot.clone());
        record.counts.total = report.total;
        Ok(())
    }
}

fn refused(message: impl Into<String>) -> ErrorReply {
    ErrorReply::new(400, message)
}
