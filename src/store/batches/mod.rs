//! `openai_batches`: the intent first, then OpenAI's batch.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Row, params};

use super::{Stored, View};
use crate::base::clock::Timestamp;
use crate::domain::batch::{BatchState, ResultKind, Scheme, Stage};
use crate::domain::due::Due;
use crate::domain::openai::{BatchError, Identity, RequestCounts};

mod comparison;
mod known;
mod moves;
mod results;

pub use comparison::*;
pub use known::*;
pub use moves::*;
pub use results::*;

/// One of a batch's two result files, as far as it was ingested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultFile {
    /// OpenAI's id of it, where there is such a file.
    pub id: Option<String>,
    /// Its size, once it lies in the spool.
    pub bytes: Option<u64>,
    /// How many bytes of it were ingested.
    pub ingested: u64,
}

impl ResultFile {
    /// There is none, or it lies in the spool.
    pub fn is_spooled(&self) -> bool {
        self.id.is_none() || self.bytes.is_some()
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
}

/// A submission.
#[derive(Clone, Debug)]
pub struct BatchRow {
    /// Our id of it.
    pub id: i64,
    /// Travels in the metadata and in the file's name.
    pub key: String,
    /// What it asks for.
    pub stage: Stage,
    /// How its custom ids are made.
    pub scheme: Scheme,
    /// Where it stands.
    pub state: BatchState,
    /// OpenAI's id of it, once that is certain.
    pub openai_batch_id: Option<String>,
    /// The job that all of it is, where it is one job's.
    pub job_id: Option<String>,
    /// The row whose key it shares, where OpenAI made two of one submission.
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
    /// OpenAI's state of it.
    pub openai_status: Option<String>,
    /// OpenAI's counts.
    pub counts: RequestCounts,
    /// Why OpenAI refused its input.
    pub errors: Vec<BatchError>,
    /// The answered lines.
    pub output: ResultFile,
    /// The failed ones.
    pub error_file: ResultFile,
    /// The request up to which lines have their verdict.
    pub settled_to: i64,
    /// Whether it is to be cancelled.
    pub cancel_wanted: bool,
    /// Failed calls since the last good one.
    pub failures: u32,
    /// When to look at it again.
    pub next_at: Timestamp,
    /// When OpenAI's final state was stored.
    pub ended_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, submission_key, stage, scheme, state, openai_batch_id, duplicate_of, base_url, \
    organization, project, model, parameters, lines, input_sha256, input_file_id, input_file_time, openai_time, \
    openai_status, openai_total, openai_completed, openai_failed, openai_errors, output_file_id, output_bytes, \
    output_ingested, error_file_id, error_bytes, error_ingested, settled_to, cancel_wanted, failures, next_at, ended_at, job_id, \
    input_file_since, input_bytes, openai_expires";

fn batch_row(row: &Row<'_>) -> Stored<BatchRow> {
    let errors: Option<String> = row.get(21)?;
    Ok(BatchRow {
        id: row.get(0)?,
        key: row.get(1)?,
        stage: row.get(2)?,
        scheme: row.get(3)?,
        state: row.get(4)?,
        openai_batch_id: row.get(5)?,
        duplicate_of: row.get(6)?,
        identity: Identity {
            base_url: row.get(7)?,
            organization: row.get(8)?,
            project: row.get(9)?,
        },
        model: row.get(10)?,
        parameters: row.get(11)?,
        lines: row.get(12)?,
        input_sha256: row.get(13)?,
        input_file_id: row.get(14)?,
        input_file_time: row.get(15)?,
        openai_time: row.get(16)?,
        openai_expires: row.get(36)?,
        openai_status: row.get(17)?,
        counts: RequestCounts {
            total: row.get(18)?,
            completed: row.get(19)?,
            failed: row.get(20)?,
        },
        errors: errors
            .map(|errors| serde_json::from_str(&errors))
            .transpose()?
            .unwrap_or_default(),
        output: ResultFile {
            id: row.get(22)?,
            bytes: row.get(23)?,
            ingested: row.get(24)?,
        },
        error_file: ResultFile {
            id: row.get(25)?,
            bytes: row.get(26)?,
            ingested: row.get(27)?,
        },
        settled_to: row.get(28)?,
        cancel_wanted: row.get(29)?,
        failures: row.get(30)?,
        next_at: row.get(31)?,
        ended_at: row.get(32)?,
        job_id: row.get(33)?,
        input_file_since: row.get(34)?,
        input_bytes: row.get(35)?,
    })
}

fn one(view: &View, condition: &str, value: impl rusqlite::ToSql) -> Stored<Option<BatchRow>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM openai_batches WHERE {condition}"
    ))?;
    query.query_and_then([value], batch_row)?.next().transpose()
}

/// Those of a condition.
pub(super) fn some(
    view: &View,
    condition: &str,
    values: impl rusqlite::Params,
) -> Stored<Vec<BatchRow>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM openai_batches WHERE {condition}"
    ))?;
    query.query_and_then(values, batch_row)?.collect()
}

/// The submission of that row.
pub fn get(view: &View, id: i64) -> Stored<BatchRow> {
    one(view, "id = ?", id)?
        .ok_or_else(|| super::StoreError::Conflict(format!("batch row {id} is gone")))
}

/// The submission of that key.
pub fn by_key(view: &View, key: &str) -> Stored<Option<BatchRow>> {
    one(view, "submission_key = ?", key)
}

/// The submission whose batch has that id at OpenAI.
pub fn by_openai_id(view: &View, id: &str) -> Stored<Option<BatchRow>> {
    one(view, "openai_batch_id = ?", id)
}

/// The newest, newest first.
pub fn newest(view: &View, limit: u32) -> Stored<Vec<BatchRow>> {
    some(view, "true ORDER BY id DESC LIMIT ?", [limit])
}

/// Those in one of `states`, the one that is due first at the head.
pub fn in_states(view: &View, states: &[BatchState], limit: u32) -> Stored<Vec<BatchRow>> {
    let mut rows = Vec::new();
    for state in states {
        // What the index of those under way holds, which SQLite cannot see from a parameter.
        let indexed = match state {
            BatchState::Ingested | BatchState::Failed => "true",
            _ => "state NOT IN ('ingested', 'failed')",
        };
        let mut query = view.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM openai_batches WHERE state = ? AND {indexed} ORDER BY next_at LIMIT ?"
        ))?;
        let found: Stored<Vec<_>> = query
            .query_and_then(params![state, limit], batch_row)?
            .collect();
        rows.extend(found?);
    }
    rows.sort_by_key(|row: &BatchRow| row.next_at);
    Ok(rows)
}

/// The keys of those that are not through, each with whether its input may still be sent: no other
/// file in the spool is of any use.
pub fn live_keys(view: &View) -> Stored<HashMap<String, bool>> {
    let mut query = view.prepare(
        "SELECT submission_key, state IN ('planned', 'sealed', 'uploaded', 'creating') FROM openai_batches
         WHERE state NOT IN ('ingested', 'failed')",
    )?;
    let keys = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// The submission in one of `states` that is due. One due later than in `longest` has its time from a clock that was set back since: it is
/// due, and comes first, so that those with times of the new clock do not keep it waiting.
pub fn next_due(
    view: &View,
    states: &[BatchState],
    now: Timestamp,
    longest: Duration,
) -> Stored<Due<BatchRow>> {
    // The last condition says what the index holds, which SQLite cannot see from a parameter.
    let of = |condition: &str| {
        view.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM openai_batches
             WHERE state = ? AND next_at {condition} ? AND state NOT IN ('ingested', 'failed') ORDER BY next_at LIMIT 1"
        ))
    };
    let (mut due, mut set_back) = (of("<=")?, of(">")?);
    let mut later = view.prepare_cached(
        "SELECT min(next_at) FROM openai_batches WHERE state = ? AND state NOT IN ('ingested', 'failed')",
    )?;
    let mut first: Option<BatchRow> = None;
    let mut next: Option<Timestamp> = None;
    for state in states {
        let read = |query: &mut rusqlite::CachedStatement<'_>, bound: Timestamp| {
            let mut found = query.query_and_then(params![state, bound], batch_row)?;
            found.next().transpose()
        };
        if let Some(row) = read(&mut set_back, now + longest)? {
            return Ok(Due::Now(row));
        }
        if let Some(row) = read(&mut due, now)? {
            if first
                .as_ref()
                .is_none_or(|first| row.next_at < first.next_at)
            {
                first = Some(row);
            }
        } else if first.is_none() {
            let at: Option<Timestamp> = later.query_row([state], |row| row.get(0))?;
            next = next.into_iter().chain(at).min();
        }
    }
    Ok(Due::new(first, next))
}

/// The batches in a state that are due by `until`.
pub fn due(view: &View, state: BatchState, until: Timestamp) -> Stored<Vec<BatchRow>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM openai_batches
         WHERE state = ? AND next_at <= ? AND state NOT IN ('ingested', 'failed')"
    ))?;
    query
        .query_and_then(params![state, until], batch_row)?
        .collect()
}

/// Whether a batch that OpenAI made in that second, as it says, has its row.
pub fn is_known_of(view: &View, second: i64) -> Stored<bool> {
    let mut query =
        view.prepare_cached("SELECT EXISTS (SELECT 1 FROM openai_batches WHERE openai_time = ?)")?;
    Ok(query.query_row([second], |row| row.get(0))?)
}

/// How many batches OpenAI has made since then (its clock, seconds), as far as the store knows.
pub fn made_since(view: &View, oldest: Option<i64>) -> Stored<usize> {
    let mut query =
        view.prepare_cached("SELECT count(*) FROM openai_batches WHERE openai_time >= ?")?;
    Ok(query.query_row([oldest], |row| row.get(0))?)
}

/// How many batches run at OpenAI, or may do so.
pub fn active(view: &View) -> Stored<u32> {
    let mut query = view.prepare_cached(
        "SELECT count(*) FROM openai_batches
         WHERE state IN ('planned', 'sealed', 'uploaded', 'creating', 'submitted') AND state NOT IN ('ingested', 'failed')",
    )?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// How many lines a submission has.
pub fn count_lines(view: &View, id: i64) -> Stored<u32> {
    let mut query = view.prepare_cached("SELECT count(*) FROM batch_lines WHERE batch_id = ?")?;
    Ok(query.query_row([id], |row| row.get(0))?)
}
