//! A row of `openai_batches`, as the workers see it.

use rusqlite::Row;
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::domain::batch::{BatchState, ResultKind, Scheme, Stage};
use crate::domain::decide::batch_verdict::BatchVerdict;
use crate::domain::decide::stated_usage::UsageLimits;
use crate::domain::openai::{BatchError, Identity, RequestCounts};
use crate::domain::request_body::RAISED;
use crate::store::Stored;

/// A submission, and its batch at OpenAI once there is one.
#[derive(Clone, Debug)]
pub struct BatchRow {
    /// Our id of it.
    pub id: i64,
    /// The key that is sent in the metadata and in the input file's name.
    pub key: String,
    /// What it asks for.
    pub stage: Stage,
    /// How its custom ids are made.
    pub scheme: Scheme,
    /// How far it is.
    pub state: BatchState,
    /// OpenAI's id of it, once that is certain.
    pub openai_batch_id: Option<String>,
    /// The job that all its lines belong to; `None` if they belong to several.
    pub job_id: Option<String>,
    /// The row whose key it shares, if OpenAI made two batches of one submission.
    pub duplicate_of: Option<i64>,
    /// The account it was made under.
    pub identity: Identity,
    /// Its model.
    pub model: String,
    /// Its frozen parameters, JSON.
    pub parameters: String,
    /// Lines of its input.
    pub lines: u32,
    /// Bytes of its input, once sealed.
    pub input_bytes: Option<u64>,
    /// SHA-256 of its input, once sealed.
    pub input_sha256: Option<String>,
    /// OpenAI's id of its input file.
    pub input_file_id: Option<String>,
    /// OpenAI's time of its input file, seconds.
    pub input_file_time: Option<i64>,
    /// Our time of the input file's upload.
    pub input_file_since: Option<Timestamp>,
    /// OpenAI's time of it, seconds.
    pub openai_time: Option<i64>,
    /// When its window closes, OpenAI's time in seconds.
    pub openai_expires: Option<i64>,
    /// OpenAI's status of it.
    pub openai_status: Option<String>,
    /// OpenAI's counts.
    pub counts: RequestCounts,
    /// Why OpenAI refused its input.
    pub errors: Vec<BatchError>,
    /// The file of the answered lines.
    pub output: ResultFile,
    /// The file of the failed lines.
    pub error_file: ResultFile,
    /// What its lines say together, once both files are read.
    pub verdict: Option<BatchVerdict>,
    /// The lines up to this request have their verdict.
    pub settled_to: i64,
    /// Whether it is to be cancelled.
    pub cancel_wanted: bool,
    /// Whether an operator wants it abandoned, which the daemon has yet to do.
    pub abandon_wanted: bool,
    /// When it was abandoned. It is watched since: late answers are ingested.
    pub abandoned_at: Option<Timestamp>,
    /// Failed calls since the last good one.
    pub failures: u32,
    /// When a worker looks at it again.
    pub next_at: Timestamp,
    /// When OpenAI's final status was stored.
    pub ended_at: Option<Timestamp>,
}

/// How the times of a row are read.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReadTimes {
    /// The row is unreadable if one of them is.
    Strictly,
    /// Those that cannot be read count as missing.
    IfReadable,
}

/// One of a batch's two result files, as far as it was ingested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultFile {
    /// OpenAI's id of it; `None` if there is no such file.
    pub id: Option<String>,
    /// Its size, once it is in the spool.
    pub bytes: Option<u64>,
    /// How many bytes of it were ingested.
    pub ingested: u64,
}

impl ResultFile {
    /// Whether it is in the spool, or there is no such file.
    pub fn is_spooled(&self) -> bool {
        self.id.is_none() || self.bytes.is_some()
    }

    /// Whether it is in the spool, and some of its lines are not ingested.
    pub fn is_unread(&self) -> bool {
        self.bytes.is_some_and(|bytes| self.ingested < bytes)
    }
}

impl BatchRow {
    /// One of its result files.
    pub fn file(&self, kind: ResultKind) -> &ResultFile {
        match kind {
            ResultKind::Output => &self.output,
            ResultKind::Error => &self.error_file,
        }
    }

    /// The most tokens that one of its lines can have. The cap of an answer may have been raised. A batch that was
    /// linked by a recovery has no parameters.
    pub fn usage_limits(&self) -> UsageLimits {
        let parameters: Value = serde_json::from_str(&self.parameters).unwrap_or_default();
        let cap = parameters["max_output_tokens"].as_u64();
        UsageLimits::of_request(&self.model, cap.map(|cap| cap.saturating_mul(RAISED.into())))
    }

    /// Reads a row that has all columns of the table.
    pub(super) fn read(row: &Row<'_>) -> Stored<Self> {
        Self::read_with(row, ReadTimes::Strictly)
    }

    /// Reads such a row.
    pub(super) fn read_with(row: &Row<'_>, times: ReadTimes) -> Stored<Self> {
        let time = |column: &str| match (row.get(column), times) {
            (Err(rusqlite::Error::FromSqlConversionFailure(..)), ReadTimes::IfReadable) => Ok(None),
            (time, _) => time,
        };
        let errors: Option<String> = row.get("openai_errors")?;
        let errors = errors.map(|errors| serde_json::from_str(&errors));
        Ok(Self {
            id: row.get("id")?,
            key: row.get("submission_key")?,
            stage: row.get("stage")?,
            scheme: row.get("scheme")?,
            state: row.get("state")?,
            openai_batch_id: row.get("openai_batch_id")?,
            job_id: row.get("job_id")?,
            duplicate_of: row.get("duplicate_of")?,
            identity: Identity {
                base_url: row.get("base_url")?,
                organization: row.get("organization")?,
                project: row.get("project")?,
            },
            model: row.get("model")?,
            parameters: row.get("parameters")?,
            lines: row.get("lines")?,
            input_bytes: row.get("input_bytes")?,
            input_sha256: row.get("input_sha256")?,
            input_file_id: row.get("input_file_id")?,
            input_file_time: row.get("input_file_time")?,
            input_file_since: time("input_file_since")?,
            openai_time: row.get("openai_time")?,
            openai_expires: row.get("openai_expires")?,
            openai_status: row.get("openai_status")?,
            counts: RequestCounts {
                total: row.get("openai_total")?,
                completed: row.get("openai_completed")?,
                failed: row.get("openai_failed")?,
            },
            errors: errors.transpose()?.unwrap_or_default(),
            output: ResultFile {
                id: row.get("output_file_id")?,
                bytes: row.get("output_bytes")?,
                ingested: row.get("output_ingested")?,
            },
            error_file: ResultFile {
                id: row.get("error_file_id")?,
                bytes: row.get("error_bytes")?,
                ingested: row.get("error_ingested")?,
            },
            verdict: row.get("verdict")?,
            settled_to: row.get("settled_to")?,
            cancel_wanted: row.get("cancel_wanted")?,
            abandon_wanted: row.get("abandon_wanted")?,
            abandoned_at: row.get("abandoned_at")?,
            failures: row.get("failures")?,
            next_at: time("next_at")?.unwrap_or(Timestamp::from_millis(0)),
            ended_at: time("ended_at")?,
        })
    }
}
