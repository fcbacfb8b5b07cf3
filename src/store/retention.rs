//! Final jobs whose time is over: their lots, texts, requests and lines go, by chunks; the job's header,
//! its submission and what its lines came to stay.

use rusqlite::{OptionalExtension, params};

use super::{Stored, Tx, View, events};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;

/// A job that is to be cleaned.
#[derive(Clone, Debug)]
pub struct Old {
    /// Its row.
    pub seq: i64,
    /// Its UUID.
    pub id: String,
}

/// Everything of `j` is in and told: no batch may still answer it, no webhook is to be sent, and of none
/// that did not arrive a person has yet to decide.
const IS_OVER: &str = "j.completed_at IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM batch_links k JOIN openai_batches b ON b.id = k.batch_id
                    WHERE k.job = j.seq AND b.state NOT IN ('ingested', 'failed'))
    AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d
                    WHERE d.batch_job_id = j.id AND d.state IN ('scheduled', 'due'))
    AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d JOIN alerts a ON a.kind = 'webhook_failed'
                           AND a.subject = 'delivery:' || d.id AND a.closed_at IS NULL
                    WHERE d.batch_job_id = j.id AND d.state = 'failed')
    AND NOT EXISTS (SELECT 1 FROM synchronous_calls c JOIN requests r ON r.id = c.request_id
                    WHERE r.job = j.seq AND c.ended_at IS NULL)";

/// The next job to be cleaned: one that is being cleaned, else the one that ended first before
/// `before`, and was here by then.
pub fn next(view: &View, before: Timestamp) -> Stored<Option<Old>> {
    for (which, of) in [
        (
            "j.cleaning_since IS NOT NULL AND j.cleaned_at IS NULL ORDER BY j.seq",
            None,
        ),
        (
            "j.cleaning_since IS NULL AND j.completed_at < ?1
             AND (j.origin <> 'import' OR NOT EXISTS (SELECT 1 FROM events e WHERE e.job_id = j.id AND e.kind = 'imported'
                                                             AND e.at >= ?1))
             ORDER BY j.completed_at",
            Some(before),
        ),
    ] {
        let mut query = view.prepare_cached(&format!(
            "SELECT j.seq, j.id FROM batch_jobs j WHERE {IS_OVER} AND {which} LIMIT 1"
        ))?;
        let old = query.query_row(rusqlite::params_from_iter(of), |row| {
            Ok(Old {
                seq: row.get(0)?,
                id: row.get(1)?,
            })
        });
        if let Some(old) = old.optional()? {
            return Ok(Some(old));
        }
    }
    Ok(None)
}

/// The lots of a chunk: of job `?1` up to position `?2`.
const CHUNK: &str = "SELECT id FROM batch_lots WHERE batch_job_id = ?1 AND position <= ?2";

/// Removes up to `lots` of a job's lots and all that belongs to them; a job that is not over any more is
/// left alone.
pub fn clean(tx: &Tx<'_>, old: &Old, lots: u32) -> Stored<()> {
    let begun = tx
        .prepare_cached(&format!(
            "UPDATE batch_jobs AS j SET cleaning_since = coalesce(cleaning_since, ?) WHERE seq = ? AND {IS_OVER}"
        ))?
        .execute(params![tx.now, old.seq])?;
    if begun == 0 {
        return Ok(());
    }
    let positions: Vec<i64> = tx
        .prepare_cached(
            "SELECT position FROM batch_lots WHERE batch_job_id = ? ORDER BY position LIMIT ?",
        )?
        .query_map(params![old.id, lots], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let Some(last) = positions.last() else {
        tx.execute(
            "UPDATE batch_jobs SET cleaned_at = ? WHERE seq = ?",
            params![tx.now, old.seq],
        )?;
        return events::record(tx, Some(&old.id), None, "cleaned", Fields::new());
    };
    let sums = "count(*), coalesce(sum(w.outcome = 'answered'), 0), sum(w.input_tokens), sum(w.cached_tokens),
                sum(w.output_tokens), sum(w.reasoning_tokens)";
    let added = "ON CONFLICT (job, coalesce(batch_id, 0)) DO UPDATE SET lines = lines + excluded.lines,
                answered = answered + excluded.answered, input_tokens = input_tokens + excluded.input_tokens,
                cached_tokens = cached_tokens + excluded.cached_tokens,
                output_tokens = output_tokens + excluded.output_tokens,
                reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens";
    for sql in [
        format!(
            "INSERT INTO cleaned_work SELECT r.job, w.batch_id, NULL, {sums}
             FROM requests r JOIN batch_lines w ON w.request_id = r.id WHERE r.lot IN ({CHUNK})
             GROUP BY r.job, w.batch_id {added}"
        ),
        format!(
            "INSERT INTO cleaned_work SELECT r.job, NULL, min(w.started_at), {sums}
             FROM requests r JOIN synchronous_calls w ON w.request_id = r.id
             WHERE w.started_at IS NOT NULL AND r.lot IN ({CHUNK}) GROUP BY r.job {added}"
        ),
        format!(
            "DELETE FROM batch_lines WHERE request_id IN (SELECT id FROM requests WHERE lot IN ({CHUNK}))"
        ),
        format!(
            "DELETE FROM synchronous_calls WHERE request_id IN (SELECT id FROM requests WHERE lot IN ({CHUNK}))"
        ),
        format!("DELETE FROM requests WHERE lot IN ({CHUNK})"),
        format!("DELETE FROM lot_translations WHERE lot IN ({CHUNK})"),
        "DELETE FROM batch_lots WHERE batch_job_id = ?1 AND position <= ?2".to_owned(),
    ] {
        tx.prepare_cached(&sql)?.execute(params![old.id, last])?;
    }
    Ok(())
}
