//! What a create must say, and the batch that it makes.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Map, Value};

use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::sandbox::CallingProject;
use crate::sandbox::Sandbox;
use crate::sandbox::model::batches::operations::{BatchRecord, LineCounts, SharedBatch};
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::responses::input::{check_metadata, invalid};
use crate::sandbox::model::responses::object::UsageObject;
use crate::sandbox::model::settings::UnknownFile;

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

/// A valid create.
#[derive(Debug)]
pub(in crate::sandbox) struct BatchParameters {
    input_file_id: String,
    endpoint: String,
    metadata: Option<BTreeMap<String, String>>,
    output_lifetime: Option<u64>,
}

fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Result<&'a str, ErrorReply> {
    match body.get(name) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(invalid(
            "missing_required_parameter",
            name,
            format!("Missing required parameter: '{name}'."),
        )),
        Some(_) => Err(invalid(
            "invalid_type",
            name,
            format!("Invalid type for '{name}': expected a string."),
        )),
    }
}

/// Checks the body of a create.
pub(in crate::sandbox) fn check(body: &[u8]) -> Result<BatchParameters, ErrorReply> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| ErrorReply::new(400, "We could not parse the JSON body of your request."))?;
    let body = body
        .as_object()
        .ok_or_else(|| ErrorReply::new(400, "The body of the request must be a JSON object."))?;
    let input_file_id = text(body, "input_file_id")?.to_owned();
    let endpoint = text(body, "endpoint")?;
    let window = text(body, "completion_window")?;
    if let Some(unknown) = body.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
        return Err(invalid(
            "unknown_parameter",
            unknown,
            format!("Unknown parameter: '{unknown}'."),
        ));
    }
    if !ENDPOINTS.contains(&endpoint) {
        return Err(invalid(
            "invalid_value",
            "endpoint",
            format!("Invalid value: '{endpoint}'."),
        ));
    }
    if window != "24h" {
        return Err(invalid(
            "invalid_value",
            "completion_window",
            format!("Invalid value: '{window}'. Value must be '24h'."),
        ));
    }
    let metadata = body.get("metadata").unwrap_or(&Value::Null);
    check_metadata(metadata)?;
    let output_lifetime = match body.get("output_expires_after") {
        None | Some(Value::Null) => None,
        Some(after) => {
            let seconds = after.get("seconds").and_then(Value::as_u64);
            let anchored = after.get("anchor").is_some_and(|at| at == "created_at");
            match seconds.filter(|n| anchored && (3_600..=2_592_000).contains(n)) {
                Some(seconds) => Some(seconds),
                None => {
                    return Err(invalid(
                        "invalid_value",
                        "output_expires_after",
                        "Expected the anchor 'created_at' and 3600 to 2592000 seconds.",
                    ));
                }
            }
        }
    };
    Ok(BatchParameters {
        input_file_id,
        endpoint: endpoint.to_owned(),
        metadata: metadata.as_object().map(|pairs| {
            pairs
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned()))
                .collect()
        }),
        output_lifetime,
    })
}

impl Sandbox {
    /// 429 when a project created too many batches within an hour.
    pub(in crate::sandbox) fn check_create_rate(
        &self,
        caller: &CallingProject,
        now: Timestamp,
    ) -> Result<(), ErrorReply> {
        let since = now.millis() - 3_600_000;
        let recent = self.ledger.sums(|tally| {
            tally
                .creates
                .iter()
                .rev()
                .take_while(|(_, at)| *at > since)
                .filter(|(project, _)| *project == caller.project)
                .count()
        });
        if recent >= self.settings.creates_per_hour {
            return Err(ErrorReply::new(
                429,
                format!(
                    "Rate limit reached for batch creation: Limit {} per hour.",
                    self.settings.creates_per_hour
                ),
            )
            .kind("requests")
            .code("rate_limit_exceeded"));
        }
        Ok(())
    }

    /// The record of a new batch, kept nowhere yet.
    pub(in crate::sandbox) fn plan(
        &self,
        caller: &CallingProject,
        wanted: BatchParameters,
        now: Timestamp,
    ) -> Result<BatchRecord, ErrorReply> {
        let file = self.files.get(&caller.project, &wanted.input_file_id, now);
        if file.is_none() && self.settings.unknown_file == UnknownFile::Refuse {
            return Err(cannot_find_file(&wanted.input_file_id, &caller.project));
        }
        if file.as_ref().is_some_and(|file| file.purpose != "batch") {
            return Err(
                ErrorReply::new(400, "The input file does not have the purpose 'batch'.")
                    .param("input_file_id"),
            );
        }
        let record = new_record(
            &caller.project,
            &wanted.input_file_id,
            file.map(|file| file.filename),
            now,
        );
        let window = i64::try_from(self.settings.window_ms).unwrap_or(i64::MAX);
        Ok(self.renamed(
            BatchRecord {
                endpoint: wanted.endpoint,
                metadata: wanted.metadata,
                output_lifetime: wanted
                    .output_lifetime
                    .unwrap_or(self.settings.file_lifetime_seconds),
                expires_at: now.millis().saturating_add(window) / 1000,
                ..record
            },
            now,
        ))
    }

    /// The record under an id and a number that no other has.
    pub(in crate::sandbox) fn renamed(&self, record: BatchRecord, now: Timestamp) -> BatchRecord {
        let seq = self.next_seq();
        let id = ids::batch(
            &[&self.settings.seed, "batch", &seq.to_string()],
            now.seconds(),
        );
        BatchRecord { id, seq, ..record }
    }

    /// Keeps a new batch and notes it in the ledger.
    pub(in crate::sandbox) fn make(
        &self,
        caller: &CallingProject,
        record: BatchRecord,
        now: Timestamp,
        by_fault: bool,
    ) -> io::Result<SharedBatch> {
        if record.input_name.is_some() {
            self.link_content(&record.input_file_id, &self.batches.input(&record.id))?;
        }
        let entry = create_entry(&record, &caller.organization, by_fault);
        let twin = self.submitted_before(&record).filter(|_| !by_fault);
        let id = record.id.clone();
        let shared = self.batches.put(record)?;
        self.ledger.note(now, entry)?;
        if let Some(twin) = twin {
            let entry = LedgerEntry::Flag {
                flag: "duplicate_submission".into(),
                request: "POST /v1/batches".into(),
                detail: format!("{id} has the metadata token of {twin}"),
            };
            self.ledger.note(now, entry)?;
        }
        Ok(shared)
    }

    /// The batch that was made with the same token.
    fn submitted_before(&self, record: &BatchRecord) -> Option<String> {
        let token = record.metadata.as_ref()?.get("submission")?;
        let key = (record.project.clone(), token.clone());
        self.ledger
            .sums(|tally| tally.submissions.get(&key)?.last().cloned())
    }
}

/// A record with everything that a create does not say.
pub(in crate::sandbox) fn new_record(
    project: &str,
    input_file_id: &str,
    input_name: Option<String>,
    now: Timestamp,
) -> BatchRecord {
    BatchRecord {
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
        errors: Vec::new(),
        output_file_id: None,
        error_file_id: None,
        created_ms: now.millis(),
        in_progress_ms: None,
        finalizing_ms: None,
        completed_ms: None,
        failed_ms: None,
        expired_ms: None,
        cancelling_ms: None,
        cancelled_ms: None,
        expires_at: now.seconds() + 86_400,
        counts: LineCounts::default(),
        usage: UsageObject::default(),
        tokens: 0,
        doomed: 0,
        limit: None,
        executed: false,
        expiring: false,
        seeded: false,
        drawn: BTreeMap::new(),
        shown: None,
    }
}

/// The ledger's line of a create.
pub(in crate::sandbox) fn create_entry(
    record: &BatchRecord,
    organization: &str,
    by_fault: bool,
) -> LedgerEntry {
    LedgerEntry::Create {
        batch: record.id.clone(),
        input_file: record.input_file_id.clone(),
        project: record.project.clone(),
        organization: organization.to_owned(),
        submission: record
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.get("submission"))
            .cloned(),
        by_fault,
    }
}

pub(in crate::sandbox) fn cannot_find_file(id: &str, project: &str) -> ErrorReply {
    ErrorReply::new(
        400,
        format!("Cannot find file {id}, or project {project} does not have access to it."),
    )
    .param("file_id")
}
