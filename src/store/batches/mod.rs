//! `openai_batches`: a row is the intent to make a batch, and then holds OpenAI's batch.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{Stored, View};
use crate::base::clock::Timestamp;
use crate::domain::batch::BatchState;
use crate::domain::due::Due;
use crate::domain::openai::Identity;
use crate::store::predicates::{ACTIVE_BATCH, LIVE_BATCH, UNSUBMITTED_BATCH};

mod abandoned;
mod comparison;
mod durations;
pub mod ignored;
mod listed;
mod moves;
mod results;
mod row;
mod verdicts;

pub use abandoned::*;
pub use comparison::*;
pub use durations::*;
pub use listed::*;
pub use moves::*;
pub use results::*;
pub use row::*;
pub use verdicts::*;

/// The row that meets a condition. It is found whatever its times are: a listing shows its batch.
fn find_one(view: &View, condition: &str, value: impl rusqlite::ToSql) -> Stored<Option<BatchRow>> {
    let mut query = view.prepare_cached(&format!("SELECT * FROM openai_batches WHERE {condition}"))?;
    let mut rows = query.query_and_then([value], |row| BatchRow::read_with(row, ReadTimes::IfReadable))?;
    rows.next().transpose()
}

/// The rows that meet a condition.
pub(super) fn find_all(view: &View, condition: &str, values: impl rusqlite::Params) -> Stored<Vec<BatchRow>> {
    let mut query = view.prepare_cached(&format!("SELECT * FROM openai_batches WHERE {condition}"))?;
    let rows = query.query_and_then(values, BatchRow::read)?;
    view.readable(rows).collect()
}

/// The batch of that row.
pub fn get(view: &View, id: i64) -> Stored<BatchRow> {
    find_one(view, "id = ?", id)?
        .ok_or_else(|| super::StoreError::Conflict(format!("batch row {id} is gone")))
}

/// The batch of that key.
pub fn by_key(view: &View, key: &str) -> Stored<Option<BatchRow>> {
    find_one(view, "submission_key = ?", key)
}

/// The batch that has that id at OpenAI.
pub fn by_openai_id(view: &View, id: &str) -> Stored<Option<BatchRow>> {
    find_one(view, "openai_batch_id = ?", id)
}

/// Whether a file at OpenAI is the input of another row.
pub fn is_input_of_another(view: &View, id: i64, file: &str) -> Stored<bool> {
    let mut query = view
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM openai_batches WHERE input_file_id = ? AND id <> ?)")?;
    Ok(query.query_row(params![file, id], |row| row.get(0))?)
}

/// The newest batches, newest first.
pub fn newest(view: &View, limit: u32) -> Stored<Vec<BatchRow>> {
    find_all(view, "true ORDER BY id DESC LIMIT ?", [limit])
}

/// The batches in one of `states`; the batch that is due first comes first.
pub fn in_states(view: &View, states: &[BatchState], limit: u32) -> Stored<Vec<BatchRow>> {
    let mut rows = Vec::new();
    for state in states {
        // The condition of the index of live batches. SQLite cannot see it from a parameter.
        let indexed = match state {
            BatchState::Ingested | BatchState::Failed => "true",
            _ => LIVE_BATCH,
        };
        let mut query = view.prepare_cached(&format!(
            "SELECT * FROM openai_batches WHERE state = ? AND {indexed} ORDER BY next_at LIMIT ?"
        ))?;
        let found = query.query_and_then(params![state, limit], BatchRow::read)?;
        rows.extend(view.readable(found).collect::<Stored<Vec<_>>>()?);
    }
    rows.sort_by_key(|row: &BatchRow| row.next_at);
    Ok(rows)
}

/// The keys of live batches, each with whether its input may still be sent.
pub fn live_keys(view: &View) -> Stored<HashMap<String, bool>> {
    let mut query = view.prepare(&format!(
        "SELECT submission_key, {UNSUBMITTED_BATCH} FROM openai_batches
         WHERE {LIVE_BATCH}"
    ))?;
    let keys = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// The batch in one of `states` that is due. A batch that is due later than in `longest` has its time from a
/// clock that was set back since. It is due now and comes first, so that batches with times of the new clock do
/// not keep it waiting.
pub fn next_due(
    view: &View,
    states: &[BatchState],
    now: Timestamp,
    longest: Duration,
) -> Stored<Due<BatchRow>> {
    // The last condition is that of the index. SQLite cannot see it from a parameter.
    let of = |condition: &str| {
        view.prepare_cached(&format!(
            "SELECT * FROM openai_batches
             WHERE state = ? AND next_at {condition} ? AND {LIVE_BATCH} ORDER BY next_at"
        ))
    };
    let (mut due, mut set_back) = (of("<=")?, of(">")?);
    let mut later = view.prepare_cached(&format!(
        "SELECT next_at FROM openai_batches WHERE state = ? AND next_at > ? AND {LIVE_BATCH} ORDER BY next_at"
    ))?;
    let mut first: Option<BatchRow> = None;
    let mut next: Option<Timestamp> = None;
    for state in states {
        let read = |query: &mut rusqlite::CachedStatement<'_>, bound: Timestamp| {
            let found = query.query_and_then(params![state, bound], BatchRow::read)?;
            view.readable(found).next().transpose()
        };
        if let Some(row) = read(&mut set_back, now + longest)? {
            return Ok(Due::Now(row));
        }
        if let Some(row) = read(&mut due, now)? {
            if first.as_ref().is_none_or(|first| row.next_at < first.next_at) {
                first = Some(row);
            }
        } else if first.is_none() {
            let times = later.query_and_then(params![state, now], |row| Ok(row.get(0)?))?;
            let at: Option<Timestamp> = view.readable(times).next().transpose()?;
            next = next.into_iter().chain(at).min();
        }
    }
    Ok(Due::new(first, next))
}

/// The batches in a state that are due by `until`.
pub fn due(view: &View, state: BatchState, until: Timestamp) -> Stored<Vec<BatchRow>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT * FROM openai_batches
         WHERE state = ? AND next_at <= ? AND {LIVE_BATCH}"
    ))?;
    let rows = query.query_and_then(params![state, until], BatchRow::read)?;
    view.readable(rows).collect()
}

/// Whether a batch that OpenAI made in that second of its clock has a row. The second 0 stands for any.
pub fn is_known_of(view: &View, second: i64) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT ?1 > 0 AND (EXISTS (SELECT 1 FROM openai_batches WHERE openai_time = ?1)
                             OR EXISTS (SELECT 1 FROM ignored_batches WHERE openai_time = ?1))",
    )?;
    Ok(query.query_row([second], |row| row.get(0))?)
}

/// The OpenAI id of the newest batch that has one under that account.
pub fn newest_openai_id(view: &View, identity: &Identity) -> Stored<Option<String>> {
    let mut query = view.prepare_cached(
        "SELECT openai_batch_id FROM openai_batches
         WHERE openai_batch_id IS NOT NULL AND (base_url, organization, project) = (?, ?, ?)
         ORDER BY id DESC LIMIT 1",
    )?;
    let values = params![identity.base_url, identity.organization, identity.project];
    Ok(query.query_row(values, |row| row.get(0)).optional()?)
}

/// How many known batches OpenAI has made since `oldest` (OpenAI's clock, seconds).
pub fn made_since(view: &View, oldest: Option<i64>) -> Stored<usize> {
    let mut query = view.prepare_cached("SELECT count(*) FROM openai_batches WHERE openai_time >= ?")?;
    Ok(query.query_row([oldest], |row| row.get(0))?)
}

/// How many batches run at OpenAI, or may do so soon.
pub fn count_active(view: &View) -> Stored<u32> {
    let mut query = view.prepare_cached(&format!(
        "SELECT count(*) FROM openai_batches
         WHERE {ACTIVE_BATCH} AND {LIVE_BATCH}"
    ))?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// How many lines a batch has.
pub fn count_lines(view: &View, id: i64) -> Stored<u32> {
    let mut query = view.prepare_cached("SELECT count(*) FROM batch_lines WHERE batch_id = ?")?;
    Ok(query.query_row([id], |row| row.get(0))?)
}
