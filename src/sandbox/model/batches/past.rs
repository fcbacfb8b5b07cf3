//! Plants a batch that ran before the sandbox was started: what an earlier service left behind.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::http::Response;
use crate::sandbox::Sandbox;
use crate::sandbox::lock;
use crate::sandbox::model::batches::create::new_record;
use crate::sandbox::model::batches::operations::{BatchRecord, LineError};
use crate::sandbox::model::disk;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::files::operations::FileRecord;
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PastBatch {
    id: Option<String>,
    /// In seconds; by default what the id says, or now.
    created_at: Option<i64>,
    metadata: Option<BTreeMap<String, String>>,
    lines: Vec<PastLine>,
    /// `completed` by default; `validating` runs by itself from now on.
    status: Option<String>,
    #[serde(default)]
    drop_input_file: bool,
    /// For lines whose body names none; `o4-mini` by default.
    model: Option<String>,
    /// The first key's by default.
    project: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PastLine {
    custom_id: String,
    #[serde(default)]
    body: Map<String, Value>,
}

impl Sandbox {
    /// `POST /sandbox/batches/seed`: the batch as `GET /v1/batches/{id}` gives it.
    pub(in crate::sandbox) fn seed(&self, body: &[u8]) -> Result<Response, ErrorReply> {
        let refuse = |why: &dyn std::fmt::Display| ErrorReply::new(400, why.to_string());
        let seed: PastBatch = serde_json::from_slice(body).map_err(|error| refuse(&error))?;
        let status: BatchStatus = seed
            .status
            .as_deref()
            .unwrap_or("completed")
            .parse()
            .map_err(|error| refuse(&error))?;
        if matches!(
            status,
            BatchStatus::InProgress | BatchStatus::Finalizing | BatchStatus::Cancelling
        ) {
            return Err(refuse(&"Only validating and final states can be planted."));
        }
        let mut record = self.seed_record(&seed);
        if self.batches.get(&record.id).is_some() {
            return Err(refuse(&format!("There is a batch {} already.", record.id)));
        }
        self.seed_input(&seed, &record)?;
        if status == BatchStatus::Validating {
            self.batches.put(record.clone())?;
        } else {
            self.end(&mut record, status)?;
            self.batches.put(record.clone())?;
            disk::remove(&self.batches.input(&record.id))?;
        }
        let entry = LedgerEntry::Seed {
            batch: record.id.clone(),
            lines: u64::try_from(seed.lines.len()).unwrap_or(0),
        };
        self.ledger.note(self.now(), entry)?;
        if seed.drop_input_file {
            self.forget_file(&record.input_file_id)?;
        }
        match self.batches.get(&record.id) {
            Some(shared) => self.show(&mut lock(&shared)),
            None => self.show(&mut record),
        }
    }

    fn seed_record(&self, seed: &PastBatch) -> BatchRecord {
        let in_id = seed
            .id
            .as_deref()
            .and_then(|id| i64::from_str_radix(id.strip_prefix("batch_")?.get(..8)?, 16).ok());
        let created = seed
            .created_at
            .or(in_id)
            .map_or_else(|| self.now(), Timestamp::from_seconds);
        let project = seed
            .project
            .clone()
            .or_else(|| Some(self.settings.api_keys.first()?.project.clone()))
            .unwrap_or_default();
        let record = new_record(&project, "", None, created);
        let mut record = self.renamed(record, created);
        if let Some(id) = &seed.id {
            record.id.clone_from(id);
        }
        record.input_file_id = ids::file(&["seed", &record.id]);
        record.input_name = Some(format!("{}_input.jsonl", record.id));
        record.metadata.clone_from(&seed.metadata);
        record.seeded = seed.status.as_deref() != Some("validating");
        record
    }

    fn seed_input(&self, seed: &PastBatch, record: &BatchRecord) -> Result<(), ErrorReply> {
        let mut bytes = Vec::new();
        for line in &seed.lines {
            let mut body = line.body.clone();
            body.entry("model")
                .or_insert_with(|| seed.model.as_deref().unwrap_or("o4-mini").into());
            body.entry("input").or_insert_with(|| "".into());
            let line = json!({"custom_id": line.custom_id, "method": "POST", "url": "/v1/responses", "body": body});
            writeln!(bytes, "{line}")?;
        }
        disk::write(&self.files.content(&record.input_file_id), &bytes)?;
        self.files.put(FileRecord {
            id: record.input_file_id.clone(),
            seq: record.seq,
            project: record.project.clone(),
            purpose: "batch".into(),
            filename: record.input_name.clone().unwrap_or_default(),
            bytes: u64::try_from(bytes.len()).unwrap_or(0),
            created_ms: record.created_ms - 1_000,
            expires_at: None,
            deleted: false,
        })?;
        Ok(self.link_content(&record.input_file_id, &self.batches.input(&record.id))?)
    }

    /// Runs it as if that had been long ago.
    fn end(&self, record: &mut BatchRecord, status: BatchStatus) -> Result<(), ErrorReply> {
        let at = |seconds: i64| Some(record.created_ms + seconds * 1_000);
        let (started, ended, done) = (at(1), at(120), at(121));
        if status == BatchStatus::Failed {
            record.failed_ms = started;
            record.status = status;
            record.errors = vec![LineError {
                code: "invalid_request".into(),
                message: "Planted as failed.".into(),
                param: None,
                line: None,
            }];
            return Ok(());
        }
        let verdict = self.check_seed(record)?;
        record.model = verdict.0;
        record.counts.total = verdict.1;
        record.in_progress_ms = started;
        record.status = match status {
            BatchStatus::Cancelled => BatchStatus::Cancelling,
            _ => BatchStatus::InProgress,
        };
        if status != BatchStatus::Completed {
            record.limit = Some(record.counts.total / 2);
        }
        self.execute(record, ended.unwrap_or(0))?;
        match status {
            BatchStatus::Cancelled => {
                record.cancelling_ms = ended;
                record.cancelled_ms = done;
            }
            BatchStatus::Expired => {
                record.finalizing_ms = ended;
                record.expired_ms = done;
            }
            _ => {
                record.finalizing_ms = ended;
                record.completed_ms = done;
            }
        }
        record.status = status;
        Ok(())
    }

    fn check_seed(&self, record: &BatchRecord) -> Result<(Option<String>, u64), ErrorReply> {
        let verdict = crate::sandbox::model::batches::validation::read_input(
            record,
            &self.batches.input(&record.id),
            &self.settings,
        )?;
        match verdict.errors.first() {
            Some(error) => Err(ErrorReply::new(
                400,
                format!("line {:?}: {}", error.line, error.message),
            )),
            None => Ok((
                verdict.model.map(|model| model.snapshot.clone()),
                verdict.total,
            )),
        }
    }
}
