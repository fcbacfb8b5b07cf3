//! A batch that was found at OpenAI has its row at once. Its lines claim their requests afterwards, in chunks: a
//! batch may have 50,000. Until all have, no batch is sealed and none is ingested. So nothing is sent again that
//! this batch may answer, and no answer of it comes before its line.

use rusqlite::{OptionalExtension, Row, params};

use super::batch_links::{LineRequest, add_line, claim_line};
use super::{Stored, Tx, View, batches};
use crate::domain::batch::{CustomId, Stage};

/// Lines of one transaction.
pub const LINES: u32 = 200;

/// A batch with lines that have not claimed their requests.
struct FoundBatch {
    id: i64,
    stage: Stage,
    /// The id that its jobs get; `None` if they name the first batch under its key.
    named: Option<String>,
}

/// A line that has not claimed its request.
struct UnclaimedLine {
    number: i64,
    /// `None` if only the custom id is known.
    request: Option<i64>,
    custom_id: Option<String>,
}

impl UnclaimedLine {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get("number")?,
            request: row.get("request_id")?,
            custom_id: row.get("custom_id")?,
        })
    }
}

/// Stores the lines of a batch by the custom ids in its files.
pub(super) fn add(tx: &Tx<'_>, batch: i64, custom_ids: &[String]) -> Stored<()> {
    let mut line =
        tx.prepare_cached("INSERT INTO unclaimed_lines (batch_id, number, custom_id) VALUES (?, ?, ?)")?;
    for (number, custom_id) in custom_ids.iter().enumerate() {
        line.execute(params![batch, number, custom_id])?;
    }
    Ok(())
}

/// Stores the lines of a batch, which are those of another one.
pub(super) fn copy(tx: &Tx<'_>, batch: i64, from: i64) -> Stored<()> {
    tx.execute(
        "INSERT INTO unclaimed_lines (batch_id, number, request_id, custom_id)
         SELECT ?, request_id, request_id, custom_id FROM batch_lines WHERE batch_id = ?",
        [batch, from],
    )?;
    Ok(())
}

/// Whether a batch has lines that have not claimed their requests.
pub fn has_any(view: &View) -> Stored<bool> {
    let mut query = view.prepare_cached("SELECT EXISTS (SELECT 1 FROM unclaimed_lines)")?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// Whether this batch has lines that have not claimed their requests.
pub(super) fn has_any_of(view: &View, batch: i64) -> Stored<bool> {
    let mut query =
        view.prepare_cached("SELECT EXISTS (SELECT 1 FROM unclaimed_lines WHERE batch_id = ?)")?;
    Ok(query.query_row([batch], |row| row.get(0))?)
}

/// Up to `limit` lines claim their requests. Returns whether there may be more.
pub fn claim(tx: &Tx<'_>, limit: u32) -> Stored<bool> {
    let Some(batch) = next_batch(tx)? else {
        return Ok(false);
    };
    let mut lines =
        tx.prepare_cached("SELECT * FROM unclaimed_lines WHERE batch_id = ? ORDER BY number LIMIT ?")?;
    let lines: Vec<UnclaimedLine> = lines
        .query_map(params![batch.id, limit], UnclaimedLine::read)?
        .collect::<Result<_, _>>()?;
    let (mut claimed, mut without_job) = (0, 0);
    for line in &lines {
        match claim_one(tx, &batch, line)? {
            Some(added) => claimed += added,
            None => without_job += 1,
        }
    }
    let last = lines.last().map(|line| line.number);
    tx.prepare_cached("DELETE FROM unclaimed_lines WHERE batch_id = ? AND number <= ?")?
        .execute(params![batch.id, last])?;
    tx.prepare_cached(
        "UPDATE openai_batches SET lines = lines + ?, lines_without_job = lines_without_job + ? WHERE id = ?",
    )?
    .execute(params![claimed, without_job, batch.id])?;
    Ok(true)
}

fn next_batch(view: &View) -> Stored<Option<FoundBatch>> {
    let mut query = view.prepare_cached(
        "SELECT b.id, b.stage, CASE WHEN f.openai_batch_id IS NULL THEN b.openai_batch_id END AS named
         FROM openai_batches b LEFT JOIN openai_batches f ON f.id = b.duplicate_of
         WHERE b.id = (SELECT batch_id FROM unclaimed_lines LIMIT 1)",
    )?;
    let found = query.query_row([], |row| {
        Ok(FoundBatch {
            id: row.get("id")?,
            stage: row.get("stage")?,
            named: row.get("named")?,
        })
    });
    Ok(found.optional()?)
}

/// Claims the request of one line. Returns the number of lines that the batch has gained; `None` if the lot of the
/// line is not here.
fn claim_one(tx: &Tx<'_>, batch: &FoundBatch, line: &UnclaimedLine) -> Stored<Option<usize>> {
    let custom_id = line.custom_id.as_deref();
    if let Some(request) = line.request {
        return claim_again(tx, batch, request, custom_id).map(Some);
    }
    let Some(id) = custom_id.and_then(|text| text.parse::<CustomId>().ok()) else {
        return Ok(None);
    };
    let mut lot = tx.prepare_cached(
        "SELECT l.id, j.seq FROM batch_lots l JOIN batch_jobs j ON j.id = l.batch_job_id
         WHERE l.batch_job_id = ? AND l.position = ?",
    )?;
    let found: Option<(i64, i64)> = lot
        .query_row(params![id.job, id.position], |row| {
            Ok((row.get("id")?, row.get("seq")?))
        })
        .optional()?;
    let Some((lot, job)) = found else {
        return Ok(None);
    };
    let request = LineRequest {
        lot,
        job,
        stage: batch.stage,
        language: id.language.as_deref().unwrap_or(""),
    };
    let added = claim_line(tx, batch.id, &request, None)?;
    name_batch(tx, batch, job)?;
    Ok(Some(added))
}

/// Claims a request that waits to be sent or is in a batch that is not sealed. This batch may answer it, so it is
/// not sent again before this batch is ingested. A job that was cleaned meanwhile has no request any more.
fn claim_again(tx: &Tx<'_>, batch: &FoundBatch, request: i64, custom_id: Option<&str>) -> Stored<usize> {
    let job: Option<i64> = tx
        .prepare_cached("SELECT job FROM requests WHERE id = ?")?
        .query_row([request], |row| row.get(0))
        .optional()?;
    let Some(job) = job else { return Ok(0) };
    tx.prepare_cached("UPDATE requests SET state = 'claimed' WHERE id = ? AND state = 'waiting'")?
        .execute([request])?;
    let added = add_line(tx, batch.id, request, job, custom_id)?;
    name_batch(tx, batch, job)?;
    Ok(added)
}

/// Stores the batch's id at OpenAI on a job of it.
fn name_batch(tx: &Tx<'_>, batch: &FoundBatch, job: i64) -> Stored<()> {
    match &batch.named {
        Some(id) => batches::link_job(tx, job, batch.stage, id),
        None => Ok(()),
    }
}
