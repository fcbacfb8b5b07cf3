//! The creation of a batch.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde_json::{Map, Value};

use super::view::BatchView;
use crate::base::clock::Timestamp;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::{Fault, FaultTarget};
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::lock::lock;
use crate::sandbox::model::metadata::check_metadata;
use crate::sandbox::model::records::{BatchRecord, SharedBatch, content_name, input_name};
use crate::sandbox::model::settings::UnknownFile;
use crate::sandbox::model::simulated_openai::{CallingProject, SimulatedOpenAi};

const ENDPOINTS: [&str; 8] = [
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
];

const MEMBERS: [&str; 5] = [
    "input_file_id",
    "endpoint",
    "completion_window",
    "metadata",
    "output_expires_after",
];

const HOUR_MS: i64 = 3_600_000;

/// A create whose connection broke before it took effect.
pub struct LateCreate {
    due: Timestamp,
    project: String,
    organization: String,
    body: Vec<u8>,
}

/// The parameters of a valid create.
struct BatchParameters {
    input_file_id: String,
    endpoint: String,
    metadata: Option<BTreeMap<String, String>>,
    /// In seconds.
    output_lifetime: Option<u64>,
}

impl BatchParameters {
    fn parse(body: &[u8]) -> Result<Self, ErrorReply> {
        let body: Value = serde_json::from_slice(body).map_err(|_| ErrorReply::unparsable_body())?;
        let body = body.as_object().ok_or_else(ErrorReply::body_is_no_object)?;
        let input_file_id = required_text(body, "input_file_id")?;
        let endpoint = required_text(body, "endpoint")?;
        let window = required_text(body, "completion_window")?;
        if let Some(unknown) = body.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
            return Err(ErrorReply::unknown_parameter(unknown));
        }
        if !ENDPOINTS.contains(&endpoint) {
            return Err(ErrorReply::invalid(
                "invalid_value",
                "endpoint",
                format!("Invalid value: '{endpoint}'."),
            ));
        }
        if window != "24h" {
            return Err(ErrorReply::invalid(
                "invalid_value",
                "completion_window",
                format!("Invalid value: '{window}'. Value must be '24h'."),
            ));
        }
        let metadata = body.get("metadata").unwrap_or(&Value::Null);
        check_metadata(metadata)?;
        Ok(Self {
            input_file_id: input_file_id.to_owned(),
            endpoint: endpoint.to_owned(),
            metadata: metadata.as_object().map(|pairs| {
                pairs
                    .iter()
                    .map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned()))
                    .collect()
            }),
            output_lifetime: output_lifetime(body)?,
        })
    }
}

fn required_text<'a>(body: &'a Map<String, Value>, name: &str) -> Result<&'a str, ErrorReply> {
    match body.get(name) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(ErrorReply::missing(name)),
        Some(_) => Err(ErrorReply::invalid_type(name, "a string")),
    }
}

fn output_lifetime(body: &Map<String, Value>) -> Result<Option<u64>, ErrorReply> {
    const NAME: &str = "output_expires_after";
    let Some(after) = body.get(NAME).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let seconds = after.get("seconds").and_then(Value::as_u64);
    let is_anchored = after.get("anchor").is_some_and(|at| at == "created_at");
    match seconds.filter(|n| is_anchored && (3_600..=2_592_000).contains(n)) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(ErrorReply::invalid(
            "invalid_value",
            NAME,
            "Expected the anchor 'created_at' and 3600 to 2592000 seconds.",
        )),
    }
}

impl SimulatedOpenAi {
    /// `POST /batches`.
    ///
    /// # Errors
    /// The refusal.
    pub fn create_batch(&self, caller: &CallingProject, body: &[u8]) -> Result<BatchView, ErrorReply> {
        self.create_batch_at(caller, body, self.now())
    }

    /// Notes a create that takes effect after a time, with no caller left to answer.
    pub fn create_later(&self, caller: &CallingProject, body: &[u8], delay: Duration) {
        let late = LateCreate {
            due: self.now() + delay,
            project: caller.project.clone(),
            organization: caller.organization.clone(),
            body: body.to_vec(),
        };
        lock(&self.late_creates).push(late);
    }

    /// Makes the late creates that are due. A create that is refused leaves nothing.
    pub(in crate::sandbox::model) fn make_late_creates(&self) -> io::Result<()> {
        let now = self.now();
        let due: Vec<LateCreate> = lock(&self.late_creates)
            .extract_if(.., |late| late.due <= now)
            .collect();
        for late in due {
            let caller = CallingProject {
                project: late.project,
                organization: late.organization,
            };
            if let Err(refusal) = self.create_batch_at(&caller, &late.body, late.due) {
                let detail = refusal.message;
                self.record_flag("late_create_refused", "POST /v1/batches", &detail)?;
            }
        }
        Ok(())
    }

    fn create_batch_at(
        &self,
        caller: &CallingProject,
        body: &[u8],
        now: Timestamp,
    ) -> Result<BatchView, ErrorReply> {
        let parameters = BatchParameters::parse(body)?;
        self.check_create_rate(caller, now)?;
        let mut record = self.new_batch_record(caller, parameters, now)?;
        // The record is not stored yet, so these faults are not kept with it.
        let trigger = |fault, record: &BatchRecord| {
            let names = record.fault_names();
            let target = FaultTarget {
                names: &names,
                seed: &record.id,
            };
            self.trigger_fault(fault, target)
        };
        if let Some(value) = trigger(Fault::FileLagFail, &record)?
            && self.is_young_file(&record.input_file_id, value.as_i64())
        {
            record.input_name = None;
        }
        let duplicate = trigger(Fault::CreateTwice, &record)?.map(|_| record.clone());
        let answered_id = match trigger(Fault::CreateKnownId, &record)? {
            Some(_) => self.oldest_batch(&caller.project),
            None => None,
        };
        let shared = self.add_batch(caller, record, now, false)?;
        if let Some(duplicate) = duplicate {
            let duplicate = self.assign_new_id(duplicate, now);
            self.add_batch(caller, duplicate, now, true)?;
        }
        let mut view = self.view_batch(&mut lock(&shared))?;
        view.id = answered_id.unwrap_or(view.id);
        Ok(view)
    }

    /// The id of a project's oldest batch.
    fn oldest_batch(&self, project: &str) -> Option<String> {
        let all = self.batches.all();
        let of_project = all.iter().filter_map(|shared| {
            let batch = lock(shared);
            (batch.project == project).then(|| ((batch.created_ms, batch.seq), batch.id.clone()))
        });
        of_project.min().map(|(_, id)| id)
    }

    /// Refuses with 429 if a project created too many batches within an hour.
    fn check_create_rate(&self, caller: &CallingProject, now: Timestamp) -> Result<(), ErrorReply> {
        let since = now.millis() - HOUR_MS;
        let recent = self.ledger.totals(|totals| {
            totals
                .creates
                .iter()
                .rev()
                .take_while(|(_, at)| *at > since)
                .filter(|(project, _)| *project == caller.project)
                .count()
        });
        let limit = self.settings.creates_per_hour;
        if recent >= limit {
            return Err(ErrorReply::new(
                429,
                format!("Rate limit reached for batch creation: Limit {limit} per hour."),
            )
            .kind("requests")
            .code("rate_limit_exceeded"));
        }
        Ok(())
    }

    /// The record of a new batch; it is not stored.
    fn new_batch_record(
        &self,
        caller: &CallingProject,
        parameters: BatchParameters,
        now: Timestamp,
    ) -> Result<BatchRecord, ErrorReply> {
        let file_id = &parameters.input_file_id;
        let file = self.files.find(&caller.project, file_id, now);
        if file.is_none() && self.settings.unknown_file == UnknownFile::Refuse {
            return Err(cannot_find_file(file_id, &caller.project));
        }
        if file.as_ref().is_some_and(|file| file.purpose != "batch") {
            return Err(
                ErrorReply::new(400, "The input file does not have the purpose 'batch'.")
                    .param("input_file_id"),
            );
        }
        let filename = file.map(|file| file.filename);
        let window = i64::try_from(self.settings.window_ms).unwrap_or(i64::MAX);
        let record = BatchRecord {
            expires_at: now.millis().saturating_add(window) / 1000,
            output_lifetime: parameters
                .output_lifetime
                .unwrap_or(self.settings.file_lifetime_seconds),
            ..BatchRecord::new(&caller.project, file_id, filename, now)
        };
        let record = BatchRecord {
            endpoint: parameters.endpoint,
            metadata: parameters.metadata,
            ..record
        };
        Ok(self.assign_new_id(record, now))
    }

    /// The record with an id and a `seq` that no other batch has.
    pub(super) fn assign_new_id(&self, record: BatchRecord, now: Timestamp) -> BatchRecord {
        let seq = self.next_seq();
        let id = ids::batch(&[&self.settings.seed, "batch", &seq.to_string()], now.seconds());
        BatchRecord { id, seq, ..record }
    }

    /// Stores a new batch, and flags it if the client created one with the same `submission` before.
    fn add_batch(
        &self,
        caller: &CallingProject,
        record: BatchRecord,
        now: Timestamp,
        by_fault: bool,
    ) -> io::Result<SharedBatch> {
        if record.input_name.is_some() {
            self.storage
                .link(&content_name(&record.input_file_id), &input_name(&record.id))?;
        }
        let entry = record.create_entry(&caller.organization, by_fault);
        let earlier = self.same_submission(&record).filter(|_| !by_fault);
        let id = record.id.clone();
        let shared = self.batches.insert(record)?;
        self.ledger.append(now, entry)?;
        if let Some(earlier) = earlier {
            let entry = LedgerEntry::Flag {
                flag: "duplicate_submission".into(),
                request: "POST /v1/batches".into(),
                detail: format!("{id} has the metadata token of {earlier}"),
            };
            self.ledger.append(now, entry)?;
        }
        Ok(shared)
    }

    /// The id of the newest batch that was created with the same `submission`.
    fn same_submission(&self, record: &BatchRecord) -> Option<String> {
        let key = (record.project.clone(), record.submission()?.clone());
        self.ledger
            .totals(|totals| totals.submissions.get(&key)?.last().cloned())
    }
}

/// The refusal of a create whose input file is not found.
pub fn cannot_find_file(id: &str, project: &str) -> ErrorReply {
    ErrorReply::new(
        400,
        format!("Cannot find file {id}, or project {project} does not have access to it."),
    )
    .param("file_id")
}
