//! The lines of a batch are settled: one chunk of a batch whose files are read, or a whole batch that an
//! operator abandons.

use std::collections::HashMap;

use rusqlite::params;

use super::request::get_request;
use super::verdict::{Failure, RetryRules, judge};
use crate::domain::alert::AlertSubject;
use crate::domain::batch::Outcome;
use crate::domain::decide::batch_verdict::BatchVerdict;
use crate::domain::decide::failed_line::LineOrigin;
use crate::domain::job::RequestState;
use crate::store::predicates::{LIVE_JOB, OPEN_REQUEST};
use crate::store::{Stored, Tx, View, alerts, batches};

/// The lines of a batch that are in no result file.
#[derive(Clone, Debug)]
pub struct UnreadLines {
    /// Their outcome.
    pub outcome: Outcome,
    /// Why they have it; `None` if the reason of the batch says it.
    pub error: Option<String>,
    /// The errors of those that OpenAI blames for the refusal of the batch, by their number from 1.
    pub blamed: HashMap<u64, String>,
}

impl UnreadLines {
    /// Lines that all have one outcome.
    pub fn all(outcome: Outcome) -> Self {
        Self {
            outcome,
            error: None,
            blamed: HashMap::new(),
        }
    }

    /// The outcome of the line with that number, and its reason.
    fn outcome(&self, number: u64) -> (Outcome, Option<&str>) {
        match self.blamed.get(&number) {
            Some(error) => (Outcome::Wrong, Some(error)),
            None => (self.outcome, self.error.as_deref()),
        }
    }
}

/// Gives the lines of a batch beyond `after` their verdict, up to `limit` of them, in the order of its input.
/// The batch's `error` is the reason of lines without one. Returns the last request seen; `None` if all are settled.
pub fn settle_lines(
    tx: &Tx<'_>,
    batch: i64,
    after: i64,
    limit: u32,
    unread: &UnreadLines,
    rules: RetryRules,
) -> Stored<Option<i64>> {
    let (verdict, reason, is_own_line): (Option<BatchVerdict>, Option<String>, bool) = tx
        .prepare_cached(
            "SELECT verdict, error, scheme = 'own' AND input_sha256 IS NOT NULL AS is_sealed_here
             FROM openai_batches WHERE id = ?",
        )?
        .query_row([batch], |row| {
            Ok((row.get("verdict")?, row.get("error")?, row.get("is_sealed_here")?))
        })?;
    let origin = LineOrigin::Batch(verdict.unwrap_or(BatchVerdict::Sound));
    let mut number = match unread.blamed.is_empty() {
        true => 0,
        false => count_lines_to(tx, batch, after)?,
    };
    let mut query = tx.prepare_cached(
        "SELECT request_id, outcome, error, settled, input_tokens + output_tokens + usage_unknown > 0 AS may_be_billed
         FROM batch_lines WHERE batch_id = ? AND request_id > ?
         ORDER BY request_id LIMIT ?",
    )?;
    let mut rows = query.query(params![batch, after, limit])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let request = row.get("request_id")?;
        last = Some(request);
        number += 1;
        let settled: bool = row.get("settled")?;
        if !settled {
            let (outcome, error): (Option<Outcome>, Option<String>) =
                (row.get("outcome")?, row.get("error")?);
            let (outcome, error) = match outcome {
                Some(outcome) => (outcome, error.as_deref()),
                None => unread.outcome(number),
            };
            let failure = Failure {
                outcome,
                error,
                is_own_line,
                may_be_billed: row.get("may_be_billed")?,
                origin,
                row: batch,
            };
            settle_line(tx, request, failure, reason.as_deref(), rules)?;
        }
    }
    Ok(last)
}

/// The number of a batch's lines up to that request.
fn count_lines_to(view: &View, batch: i64, request: i64) -> Stored<u64> {
    let mut query =
        view.prepare_cached("SELECT count(*) FROM batch_lines WHERE batch_id = ? AND request_id <= ?")?;
    Ok(query.query_row([batch, request], |row| row.get(0))?)
}

fn settle_line<'a>(
    tx: &Tx<'_>,
    request: i64,
    mut failure: Failure<'a>,
    reason: Option<&'a str>,
    rules: RetryRules,
) -> Stored<()> {
    tx.prepare_cached(
        "UPDATE batch_lines SET settled = 1, outcome = ?, error = ? WHERE batch_id = ? AND request_id = ?",
    )?
    .execute(params![failure.outcome, failure.error, failure.row, request])?;
    let request = get_request(tx, request)?;
    if request.state != RequestState::Claimed || is_in_another_batch(tx, failure.row, request.id)? {
        return Ok(());
    }
    failure.error = failure.error.or(reason);
    judge(tx, &request, &failure, rules).map(drop)
}

/// Whether another batch may still answer a request: OpenAI may have two batches under one key.
fn is_in_another_batch(view: &View, batch: i64, request: i64) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM batch_lines WHERE request_id = ? AND batch_id <> ? AND settled = 0)",
    )?;
    Ok(query.query_row([request, batch], |row| row.get(0))?)
}

/// Abandons a batch that is left to another database, and settles all its lines in this transaction. The daemon
/// does not run meanwhile, so no client waits for it.
pub fn abandon(tx: &Tx<'_>, batch: i64, reason: &str, rules: RetryRules) -> Stored<()> {
    let (mut after, unread) = (0, UnreadLines::all(Outcome::NotRun));
    while let Some(last) = settle_lines(tx, batch, after, u32::MAX, &unread, rules)? {
        after = last;
    }
    alerts::close_all(tx, &AlertSubject::Batch(batch))?;
    batches::mark_abandoned(tx, batch, reason)
}

/// Whether no request of a batch is wanted any more: its jobs were cancelled, or another batch under an earlier
/// key answered them after all.
pub fn is_unwanted(view: &View, batch: i64) -> Stored<bool> {
    let mut query = view.prepare_cached(&format!(
        "SELECT NOT EXISTS (SELECT 1 FROM unclaimed_lines WHERE batch_id = ?1)
            AND (NOT EXISTS (SELECT 1 FROM batch_links k JOIN batch_jobs j ON j.seq = k.job AND j.{LIVE_JOB}
                             WHERE k.batch_id = ?1)
                 OR NOT EXISTS (SELECT 1 FROM batch_lines l JOIN requests r ON r.id = l.request_id
                                    JOIN batch_jobs j ON j.seq = r.job AND j.{LIVE_JOB}
                                WHERE l.batch_id = ?1 AND r.{OPEN_REQUEST}))"
    ))?;
    Ok(query.query_row([batch], |row| row.get(0))?)
}
