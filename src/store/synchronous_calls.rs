//! `synchronous_calls`: requests of synchronous jobs, asked of OpenAI one by one.
//!
//! Such a request is claimed by an open call, as others are by a line of a batch. The row is stored before
//! the call is made. A request that is not answered in time waits for a batch.

use std::time::Duration;

use rusqlite::params;

use super::planned_calls::plan;
use super::settle::{self, AnswerOrigin, Judged, RequestRow, RetryRules};
use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::domain::batch::Outcome;
use crate::domain::decide::failed_line::LineOrigin;
use crate::domain::due::Due;
use crate::domain::job::RequestState;
use crate::domain::usage::{AttemptUsage, TokenUsage};

/// A planned call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynchronousCall {
    /// Its row.
    pub id: i64,
    /// Its request.
    pub request: i64,
    /// Calls of the same request before it.
    pub earlier: u32,
}

/// What a call brought.
#[derive(Clone, Debug)]
pub struct SynchronousResult<'a> {
    /// Its outcome.
    pub outcome: Outcome,
    /// The text, if it was answered.
    pub text: &'a str,
    /// OpenAI's error, if it was not answered.
    pub error: &'a str,
    /// Whether OpenAI may bill it.
    pub may_be_billed: bool,
    /// The model.
    pub model: &'a str,
    /// OpenAI's id of the response.
    pub response_id: Option<&'a str>,
    /// Its tokens.
    pub usage: AttemptUsage,
}

/// The first planned call. It waits while its lot's images are checked. A call planned for later than in
/// `longest` was planned before the clock was set back; it is due.
pub fn next_due(view: &View, now: Timestamp, longest: Duration) -> Stored<Due<SynchronousCall>> {
    let mut query = view.prepare_cached(
        "SELECT d.id, d.request_id, d.next_at,
                (SELECT count(*) FROM synchronous_calls e WHERE e.request_id = d.request_id
                    AND e.ended_at IS NOT NULL)
                    AS earlier
         FROM synchronous_calls d JOIN requests r ON r.id = d.request_id AND r.state = 'claimed'
             AND r.images_due = 0
         WHERE d.ended_at IS NULL AND d.started_at IS NULL ORDER BY d.next_at",
    )?;
    let calls = query.query_and_then([], |row| {
        let call = SynchronousCall {
            id: row.get("id")?,
            request: row.get("request_id")?,
            earlier: row.get("earlier")?,
        };
        Ok((call, row.get::<_, Timestamp>("next_at")?))
    })?;
    Ok(match view.readable(calls).next().transpose()? {
        Some((call, at)) if at.due_in(now, longest).is_zero() => Due::Now(call),
        Some((_, at)) => Due::At(at),
        None => Due::Never,
    })
}

/// Sets a planned call aside until `at`, because its request cannot be read.
pub fn set_aside(tx: &Tx<'_>, call: &SynchronousCall, at: Timestamp) -> Stored<()> {
    tx.execute(
        "UPDATE synchronous_calls SET next_at = ? WHERE id = ? AND started_at IS NULL",
        params![at, call.id],
    )?;
    Ok(())
}

/// Stores that a call begins. False if another worker makes it, or its request is not claimed any more.
pub fn begin(tx: &Tx<'_>, call: &SynchronousCall) -> Stored<bool> {
    let begun = tx
        .prepare_cached(
            "UPDATE synchronous_calls SET started_at = ?1 WHERE id = ?2 AND started_at IS NULL
             AND EXISTS (SELECT 1 FROM requests WHERE id = ?3 AND state = 'claimed')",
        )?
        .execute(params![tx.now, call.id, call.request])?;
    tx.prepare_cached(
        "UPDATE batch_jobs SET status = 'processing', updated_at = ?
         WHERE status = 'pending' AND seq = (SELECT job FROM requests WHERE id = ?)",
    )?
    .execute(params![tx.now, call.request])?;
    Ok(begun == 1)
}

/// Stores the result of a call. If its request waits again, the next call is made at `next_call`, or a batch
/// sends it.
pub fn end(
    tx: &Tx<'_>,
    call: &SynchronousCall,
    result: &SynchronousResult<'_>,
    rules: RetryRules,
    next_call: Option<Timestamp>,
) -> Stored<()> {
    let is_answered = result.outcome == Outcome::Answered;
    let TokenUsage {
        input,
        cached,
        output,
        reasoning,
    } = result.usage.tokens();
    tx.prepare_cached(
        "UPDATE synchronous_calls SET ended_at = ?, outcome = ?, error = ?, model = ?, response_id = ?,
             input_tokens = ?,
                cached_tokens = ?, output_tokens = ?, reasoning_tokens = ?, usage_unknown = ?
         WHERE id = ? AND ended_at IS NULL",
    )?
    .execute(params![
        tx.now,
        result.outcome,
        (!is_answered).then_some(result.error),
        result.model,
        result.response_id,
        input,
        cached,
        output,
        reasoning,
        result.usage.is_unknown(),
        call.id
    ])?;
    let request = settle::get_request(tx, call.request)?;
    if is_answered {
        return settle::succeed(tx, &request, result.text, AnswerOrigin::Call);
    }
    if request.state != RequestState::Claimed {
        return Ok(());
    }
    let failure = settle::Failure {
        outcome: result.outcome,
        error: Some(result.error),
        is_own_line: true,
        may_be_billed: result.may_be_billed,
        origin: LineOrigin::Call,
        row: call.id,
    };
    let judged = settle::judge(tx, &request, &failure, rules)?;
    match next_call {
        // The next call is another one: there is nothing to wait for.
        Some(_) if judged == Judged::WithoutImage => claim_again(tx, &request, rules.max_attempts, tx.now),
        Some(at) => claim_again(tx, &request, rules.max_attempts, at),
        None => Ok(()),
    }
}

/// Claims a request that waits again for another call, unless the calls that failed leave the last of its
/// attempts: a batch has a day for that.
fn claim_again(tx: &Tx<'_>, request: &RequestRow, max_attempts: u32, at: Timestamp) -> Stored<()> {
    let claimed = tx
        .prepare_cached(
            "UPDATE requests SET state = 'claimed'
             WHERE id = ?1 AND state = 'waiting' AND max(attempts,
                 (SELECT count(*) FROM synchronous_calls WHERE request_id = ?1
                     AND outcome NOT IN ('not_run', 'image_unreachable'))) + 1
                 < max(?2, 2)",
        )?
        .execute(params![request.id, max_attempts])?;
    if claimed == 1 {
        plan(tx, request.id, at)?;
    }
    Ok(())
}

/// Leaves the requests of unfinished calls to the batches: whether a begun call was made is not known. Gives
/// their number. Called at the start.
pub fn release_unfinished(tx: &Tx<'_>) -> Stored<usize> {
    let begun: Vec<i64> = {
        let mut query = tx.prepare(
            "SELECT request_id FROM synchronous_calls WHERE ended_at IS NULL AND started_at IS NOT NULL",
        )?;
        let rows = query.query_map([], |row| row.get(0))?;
        rows.collect::<Result<_, _>>()?
    };
    tx.execute(
        "UPDATE synchronous_calls SET ended_at = ?, outcome = 'missing', error = 'the process ended first'
         WHERE ended_at IS NULL AND started_at IS NOT NULL",
        [tx.now],
    )?;
    for request in &begun {
        tx.execute(
            "UPDATE requests SET state = 'waiting', attempts = attempts + 1, since = ? WHERE id = ?
                 AND state = 'claimed'",
            params![tx.now, request],
        )?;
    }
    Ok(begun.len() + release_calls(tx, None)?)
}

/// Leaves the requests of jobs that were accepted before that time to the batches, and drops the calls of
/// settled requests. Gives their number.
pub fn release_late(tx: &Tx<'_>, accepted_before: Timestamp) -> Stored<usize> {
    release_calls(tx, Some(accepted_before))
}

fn release_calls(tx: &Tx<'_>, accepted_before: Option<Timestamp>) -> Stored<usize> {
    let mut set_waiting = tx.prepare_cached(
        "UPDATE requests SET state = 'waiting', since = ? WHERE id = ? AND state = 'claimed'",
    )?;
    let mut drop_call = tx.prepare_cached("DELETE FROM synchronous_calls WHERE id = ?")?;
    let late = late_calls(tx, accepted_before)?;
    for (call, request) in &late {
        drop_call.execute([call])?;
        set_waiting.execute(params![tx.now, request])?;
    }
    Ok(late.len())
}

/// The planned calls, with their requests, that are too late or whose request is not claimed any more.
fn late_calls(view: &View, accepted_before: Option<Timestamp>) -> Stored<Vec<(i64, i64)>> {
    let mut query = view.prepare_cached(
        "SELECT d.id, d.request_id FROM synchronous_calls d JOIN requests r ON r.id = d.request_id
                JOIN batch_jobs j ON j.seq = r.job
         WHERE d.ended_at IS NULL AND d.started_at IS NULL
           AND (?1 IS NULL OR j.created_at < ?1 OR r.state <> 'claimed')",
    )?;
    let rows = query.query_map([accepted_before], |row| {
        Ok((row.get("id")?, row.get("request_id")?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether [`release_late`] would find a call.
pub fn any_late(view: &View, accepted_before: Timestamp) -> Stored<bool> {
    Ok(!late_calls(view, Some(accepted_before))?.is_empty())
}

/// When the job of a request was accepted.
pub fn accepted_at(view: &View, request: i64) -> Stored<Timestamp> {
    let mut query = view.prepare_cached(
        "SELECT j.created_at FROM requests r JOIN batch_jobs j ON j.seq = r.job WHERE r.id = ?",
    )?;
    Ok(query.query_row([request], |row| row.get(0))?)
}

/// Whether the open requests of a job are left to the batches: no call claims one of them.
pub fn is_released(view: &View, job: i64) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT open_vision + open_translations > 0
                AND NOT EXISTS (SELECT 1 FROM requests r JOIN synchronous_calls d ON d.request_id = r.id
                    AND d.ended_at IS NULL
                                WHERE r.job = seq AND r.state = 'claimed')
         FROM batch_jobs WHERE seq = ?",
    )?;
    Ok(query.query_row([job], |row| row.get(0))?)
}
