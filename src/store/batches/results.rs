//! The steps of a batch from its first poll to the removal of its files: what OpenAI reports of it, and how
//! far its results are ingested.

use rusqlite::params;

use super::{BatchRow, find_all};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::batch::{BatchState, ResultKind};
use crate::domain::openai::{Batch, Identity};
use crate::store::{Stored, Tx, View, events, moved};

/// More lines than any batch has: a larger count means nothing.
pub(in crate::store) const MOST_LINES: u64 = 1 << 32;

/// The most lines that OpenAI accepts in a batch.
const LARGEST_BATCH: u64 = 50_000;

/// Stores what OpenAI reports of a batch that still runs.
pub fn record_poll(tx: &Tx<'_>, id: i64, remote: &Batch, next_at: Timestamp) -> Stored<()> {
    let changed = tx
        .prepare_cached(
            "UPDATE openai_batches SET openai_status = ?, openai_total = ?, openai_completed = ?, openai_failed = ?,
                    next_at = ?, failures = 0, error = NULL,
                    model = CASE model WHEN '' THEN coalesce(?, '') ELSE model END
             WHERE id = ? AND state = 'submitted'",
        )?
        .execute(params![
            remote.status_text,
            remote.counts.total.min(MOST_LINES),
            remote.counts.completed.min(MOST_LINES),
            remote.counts.failed.min(MOST_LINES),
            next_at,
            // OpenAI names no model while it validates. A batch that was recovered then has none yet.
            remote.model,
            id
        ])?;
    moved(changed, || format!("batch row {id} is not submitted"))
}

/// Stores OpenAI's final status and file ids.
pub fn mark_ended(tx: &Tx<'_>, id: i64, remote: &Batch) -> Stored<()> {
    record_poll(tx, id, remote, tx.now)?;
    let errors = serde_json::to_string(&remote.errors)?;
    tx.execute(
        "UPDATE openai_batches SET state = 'ended', output_file_id = ?, error_file_id = ?, openai_errors = ?, ended_at = ?
         WHERE id = ? AND state = 'submitted'",
        params![remote.output_file_id, remote.error_file_id, errors, tx.now, id],
    )?;
    record_usage(tx, id, remote)?;
    let counts = remote.counts;
    let detail = Fields::new()
        .with("status", remote.status_text.as_str())
        .with("total", counts.total)
        .with("completed", counts.completed)
        .with("failed", counts.failed);
    events::record(tx, None, Some(id), "ended", detail)
}

/// Stores OpenAI's own usage of a batch, if OpenAI reports it and the batch can have it.
pub fn record_usage(tx: &Tx<'_>, id: i64, remote: &Batch) -> Stored<()> {
    let Some(stated) = remote.usage else {
        return Ok(());
    };
    let lines: u64 = tx.query_row(
        "SELECT lines + lines_without_job FROM openai_batches WHERE id = ?",
        [id],
        |row| row.get(0),
    )?;
    let lines = lines.max(remote.counts.total.min(LARGEST_BATCH));
    let limits = super::get(tx, id)?.usage_limits().times(lines);
    if !limits.allow(stated) {
        let detail = Fields::new().with_text(&format!("of the whole batch {}", limits.describe(stated)));
        return events::record(tx, None, Some(id), "usage_unknown", detail);
    }
    tx.execute(
        "UPDATE openai_batches SET openai_input_tokens = ?, openai_cached_tokens = ?, openai_output_tokens = ?,
                openai_reasoning_tokens = ? WHERE id = ?",
        params![stated.input, stated.cached, stated.output, stated.reasoning, id],
    )?;
    Ok(())
}

/// Stores that a result file is whole in the spool.
pub fn mark_spooled(tx: &Tx<'_>, id: i64, kind: ResultKind, bytes: u64, sha256: &str) -> Stored<()> {
    let name = kind.as_str();
    let changed = tx.execute(
        &format!(
            "UPDATE openai_batches SET {name}_bytes = ?, {name}_sha256 = ?, failures = 0, error = NULL, next_at = ?
             WHERE id = ? AND state = 'ended'"
        ),
        params![bytes, sha256, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} has not ended"))?;
    events::record(
        tx,
        None,
        Some(id),
        "spooled",
        Fields::new()
            .with("file", name)
            .with("bytes", bytes)
            .with("sha256", sha256),
    )
}

/// Has a result file fetched again and read from its beginning.
pub fn mark_unspooled(tx: &Tx<'_>, id: i64, kind: ResultKind) -> Stored<()> {
    let name = kind.as_str();
    let sql = format!(
        "UPDATE openai_batches SET {name}_bytes = NULL, {name}_sha256 = NULL, {name}_ingested = 0, unknown_lines = 0
         WHERE id = ? AND state = 'ended'"
    );
    moved(tx.execute(&sql, [id])?, || {
        format!("batch row {id} has not ended")
    })
}

/// Stores that the first `bytes` of a result file are ingested. `unknown` more of its lines belong to no line
/// of the batch.
pub fn record_ingested(tx: &Tx<'_>, id: i64, kind: ResultKind, bytes: u64, unknown: u32) -> Stored<()> {
    let name = kind.as_str();
    tx.prepare_cached(&format!(
        "UPDATE openai_batches SET {name}_ingested = ?, unknown_lines = unknown_lines + ? WHERE id = ? AND state = 'ended'"
    ))?
    .execute(params![bytes, unknown, id])?;
    Ok(())
}

/// Stores why the lines of a batch that are in no file have no answer.
pub fn set_reason(tx: &Tx<'_>, id: i64, reason: &str) -> Stored<()> {
    tx.execute(
        "UPDATE openai_batches SET error = ? WHERE id = ? AND state = 'ended'",
        params![reason, id],
    )?;
    Ok(())
}

/// Stores that the lines up to `request` have their verdict.
pub fn record_settled_to(tx: &Tx<'_>, id: i64, request: i64) -> Stored<()> {
    tx.prepare_cached("UPDATE openai_batches SET settled_to = ? WHERE id = ?")?
        .execute(params![request, id])?;
    Ok(())
}

/// Stores that every line is settled. `refused` is the reason if OpenAI did not run the batch.
pub fn mark_ingested(tx: &Tx<'_>, id: i64, refused: Option<&str>) -> Stored<()> {
    let state = if refused.is_some() {
        BatchState::Failed
    } else {
        BatchState::Ingested
    };
    let changed = tx.execute(
        "UPDATE openai_batches SET state = ?, error = ?, ingested_at = ? WHERE id = ? AND state = 'ended'",
        params![state, refused, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} has not ended"))?;
    let (answered, lines, input, output): (u64, u64, u64, u64) = tx.query_row(
        "SELECT coalesce(sum(outcome = 'answered'), 0), count(*), coalesce(sum(input_tokens), 0),
                coalesce(sum(output_tokens), 0)
         FROM batch_lines WHERE batch_id = ?",
        [id],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    let detail = Fields::new()
        .with("lines", lines)
        .with("answered", answered)
        .with("input_tokens", input)
        .with("output_tokens", output)
        .with_some("error", refused);
    events::record(tx, None, Some(id), state.as_str(), detail)
}

/// How many of a model's newest batches OpenAI refused one after another. Batches that were abandoned, and those
/// whose input file was submitted again, do not count.
pub fn refusals_in_a_row(view: &View, model: &str) -> Stored<u32> {
    let mut query = view.prepare_cached(
        "SELECT count(*) FROM openai_batches b
         WHERE model = ?1 AND state = 'failed' AND openai_status = 'failed' AND id > coalesce(
                (SELECT max(id) FROM openai_batches WHERE model = ?1 AND state = 'ingested'), 0)
           AND NOT EXISTS (SELECT 1 FROM openai_batches n WHERE n.input_file_id = b.input_file_id AND n.id > b.id)",
    )?;
    Ok(query.query_row([model], |row| row.get(0))?)
}

/// The newest batches of a model, after `since`, that OpenAI refused and that have no job in common with this one,
/// if OpenAI has accepted no batch of the model after them or after this one.
pub fn unrelated_refusals(view: &View, row: &BatchRow, since: Timestamp) -> Stored<Vec<BatchRow>> {
    let identity = &row.identity;
    find_all(
        view,
        "model = ?1 AND openai_status = 'failed' AND id <> ?2 AND ended_at > ?3
           AND (base_url, organization, project) = (?4, ?5, ?6)
           AND min(id, ?2) > coalesce((SELECT id FROM openai_batches
                 WHERE model = ?1 AND openai_status IN ('in_progress', 'finalizing', 'completed', 'expired')
                 ORDER BY id DESC LIMIT 1), 0)
           AND NOT EXISTS (SELECT 1 FROM batch_links k JOIN batch_links own ON own.job = k.job
                           WHERE k.batch_id = openai_batches.id AND own.batch_id = ?2)
         ORDER BY id DESC LIMIT 20",
        params![
            row.model,
            row.id,
            since,
            identity.base_url,
            identity.organization,
            identity.project
        ],
    )
}

/// A batch of our own that was settled before `before` and whose files OpenAI still has. OpenAI made it before
/// then, too: our clock may have been behind when it was settled.
pub fn unclean(view: &View, before: Timestamp, identity: &Identity) -> Stored<Option<BatchRow>> {
    let mut query = view.prepare_cached(
        "SELECT * FROM openai_batches
         WHERE ingested_at IS NOT NULL AND cleaned_at IS NULL AND ingested_at < ?1 AND scheme = 'own'
           AND ingested_at GLOB '????-??-??T*Z' AND coalesce(openai_time, 0) < unixepoch(?1)
           AND (base_url, organization, project) = (?2, ?3, ?4)
         ORDER BY ingested_at",
    )?;
    let of = params![before, identity.base_url, identity.organization, identity.project];
    let rows = query.query_and_then(of, BatchRow::read)?;
    view.readable(rows).next().transpose()
}

/// Stores that a batch's files at OpenAI are removed.
pub fn mark_cleaned(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET cleaned_at = ? WHERE id = ? AND cleaned_at IS NULL",
        params![tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is clean already"))?;
    events::record(tx, None, Some(id), "cleaned", Fields::new())
}

/// Whether another batch whose files OpenAI still has was made from the same input.
pub fn shares_input(view: &View, row: &BatchRow) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM openai_batches WHERE input_file_id = ? AND id <> ? AND cleaned_at IS NULL)",
    )?;
    Ok(query.query_row(params![row.input_file_id, row.id], |row| row.get(0))?)
}
