//! The steps of the submission protocol, up to OpenAI's id. Each names the state that it starts from.

use rusqlite::{named_params, params};

use super::{BatchRow, count_lines, get, mark_ingested};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::batch::Stage;
use crate::domain::openai::{Batch, FileObject, Identity};
use crate::store::{Stored, Tx, View, events, moved};

/// This many of a batch's jobs are named in the log.
const NAMED: usize = 10;

/// What a new batch is planned with.
pub struct BatchPlan<'a> {
    /// Its key, unique for ever.
    pub key: &'a str,
    /// What it asks for.
    pub stage: Stage,
    /// The account it will be made under.
    pub identity: &'a Identity,
    /// Its model.
    pub model: &'a str,
    /// Its parameters, JSON.
    pub parameters: &'a str,
}

/// Inserts a new batch, for which requests are about to be claimed.
pub fn plan(tx: &Tx<'_>, plan: &BatchPlan<'_>) -> Stored<i64> {
    tx.execute(
        "INSERT INTO openai_batches (submission_key, stage, scheme, state, base_url, organization, project, model,
                                     parameters, next_at, created_at)
         VALUES (:key, :stage, 'own', 'planned', :base_url, :organization, :project, :model, :parameters, :now, :now)",
        named_params! {
            ":key": plan.key, ":stage": plan.stage, ":base_url": plan.identity.base_url,
            ":organization": plan.identity.organization, ":project": plan.identity.project, ":model": plan.model,
            ":parameters": plan.parameters, ":now": tx.now,
        },
    )?;
    Ok(tx.last_insert_rowid())
}

/// Drops a planned batch that has no line.
pub fn drop_empty(tx: &Tx<'_>, id: i64) -> Stored<()> {
    tx.execute(
        "DELETE FROM batch_links WHERE batch_id = ? AND NOT EXISTS
                (SELECT 1 FROM batch_lines WHERE batch_id = ?)",
        params![id, id],
    )?;
    let dropped = tx.execute(
        "DELETE FROM openai_batches WHERE id = ? AND state = 'planned'",
        [id],
    )?;
    moved(dropped, || format!("batch row {id} is not planned"))
}

/// Moves a batch that OpenAI does not know to the account that is configured now.
pub fn set_identity(tx: &Tx<'_>, id: i64, identity: &Identity) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET base_url = ?, organization = ?, project = ? WHERE id = ? AND state IN ('planned', 'sealed')",
        params![identity.base_url, identity.organization, identity.project, id],
    )?;
    moved(changed, || format!("batch row {id} is known to OpenAI"))
}

/// The input file of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its lines.
    pub lines: u32,
    /// Its bytes.
    pub bytes: u64,
    /// Its SHA-256, hex.
    pub sha256: String,
}

/// Whether requests leave a planned batch: a job of it is being cancelled, the batch is dropped, or a batch that was
/// found at OpenAI has not claimed its requests yet.
pub fn loses_lines(view: &View, id: i64) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM batch_links k JOIN batch_jobs j ON j.seq = k.job
                        WHERE k.batch_id = ?1 AND j.pending_change = 'cancel')
             OR EXISTS (SELECT 1 FROM openai_batches WHERE id = ?1 AND abandon_wanted = 1)
             OR EXISTS (SELECT 1 FROM unclaimed_lines)",
    )?;
    Ok(query.query_row([id], |row| row.get(0))?)
}

/// Fixes the lines of a planned batch: no request leaves it any more. False if a request left it while the
/// input was written; the input is then written again.
pub fn seal(tx: &Tx<'_>, id: i64, input: &Input) -> Stored<bool> {
    if count_lines(tx, id)? != input.lines || loses_lines(tx, id)? {
        return Ok(false);
    }
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'sealed', lines = ?, input_bytes = ?, input_sha256 = ?, next_at = ?,
                job_id = (SELECT min(j.id) FROM batch_links k JOIN batch_jobs j ON j.seq = k.job
                          WHERE k.batch_id = openai_batches.id HAVING count(*) = 1)
         WHERE id = ? AND state = 'planned'",
        params![input.lines, input.bytes, input.sha256, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is not planned"))?;
    events::record(tx, None, Some(id), "sealed", sealed_detail(tx, id, input)?)?;
    Ok(true)
}

/// The key of a sealed batch, what it holds, and for which jobs: the first ones, and how many more.
fn sealed_detail(view: &View, id: i64, input: &Input) -> Stored<Fields> {
    let (all, named): (usize, String) = view.query_row(
        "SELECT (SELECT count(*) FROM batch_links WHERE batch_id = ?1),
                coalesce(group_concat(j.id), '') FROM (SELECT job FROM batch_links WHERE batch_id = ?1 ORDER BY job LIMIT ?2) k
         JOIN batch_jobs j ON j.seq = k.job",
        params![id, NAMED],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let more = Some(all.saturating_sub(NAMED)).filter(|more| *more > 0);
    let row = get(view, id)?;
    Ok(Fields::new()
        .with("key", row.key)
        .with("stage", row.stage.to_string())
        .with("model", row.model)
        .with("lines", input.lines)
        .with("bytes", input.bytes)
        .with("jobs", named)
        .with_some("more_jobs", more))
}

/// Stores that OpenAI has the input.
pub fn mark_uploaded(tx: &Tx<'_>, id: i64, file: &FileObject) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'uploaded', input_file_id = ?, input_file_time = ?, input_file_since = ?, next_at = ?,
                failures = 0, error = NULL
         WHERE id = ? AND state = 'sealed'",
        params![file.id, file.created_at, tx.now, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is not sealed"))?;
    events::record(
        tx,
        None,
        Some(id),
        "uploaded",
        Fields::new().with("file", file.id.as_str()),
    )
}

/// Stores the intent to send a create.
pub fn mark_creating(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'creating', next_at = ? WHERE id = ? AND state IN ('uploaded', 'creating')",
        params![tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is not uploaded"))?;
    tx.execute("UPDATE instance SET creates = creates + 1", [])?;
    events::record(tx, None, Some(id), "creating", Fields::new())
}

/// Stores that a create certainly had no effect. The batch may be created again, from the same input.
pub fn mark_not_created(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'uploaded' WHERE id = ? AND state = 'creating'",
        [id],
    )?;
    moved(changed, || format!("batch row {id} is not creating"))
}

/// Takes back OpenAI's id, which is another batch's. The answer of the create counts as lost.
pub fn mark_wrongly_submitted(tx: &Tx<'_>, row: &BatchRow) -> Stored<()> {
    let column = id_column(row.stage);
    tx.execute(
        &format!(
            "UPDATE batch_jobs SET {column} = NULL, updated_at = ?
             WHERE {column} = ? AND seq IN (SELECT job FROM batch_links WHERE batch_id = ?)"
        ),
        params![tx.now, row.openai_batch_id, row.id],
    )?;
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'creating', openai_batch_id = NULL, openai_time = NULL, openai_expires = NULL,
                openai_status = NULL, submitted_at = NULL
         WHERE id = ? AND state = 'submitted'",
        [row.id],
    )?;
    moved(changed, || format!("batch row {} is not submitted", row.id))?;
    let detail = Fields::new().with("openai_batch", row.openai_batch_id.as_deref().unwrap_or_default());
    events::record(tx, None, Some(row.id), "another_batch", detail)
}

/// Has the input uploaded again as another file, because a create does not find the first one.
pub fn forget_input_file(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'sealed', next_at = ?
         WHERE id = ? AND state = 'uploaded'",
        params![tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is not uploaded"))?;
    events::record(tx, None, Some(id), "input_lost", Fields::new())
}

/// Submits the input file of a refused batch once more: a new row, under a key of its own, takes over the lines and
/// the reservations. The refused batch is over. Returns the new row.
pub fn submit_file_again(tx: &Tx<'_>, id: i64, key: &str, next_at: Timestamp, reason: &str) -> Stored<i64> {
    // Other batches do not wait for one with a failure.
    let added = tx.execute(
        "INSERT INTO openai_batches (submission_key, stage, scheme, state, job_id, base_url, organization, project,
                model, parameters, lines, input_bytes, input_sha256, input_file_id, input_file_time, input_file_since,
                queue_tokens, queue_caps, failures, error, next_at, created_at)
         SELECT ?, stage, scheme, 'uploaded', job_id, base_url, organization, project, model, parameters, lines,
                input_bytes, input_sha256, input_file_id, input_file_time, input_file_since, queue_tokens, queue_caps,
                1, ?, ?, ?
         FROM openai_batches WHERE id = ? AND state = 'ended'",
        params![key, reason, next_at, tx.now, id],
    )?;
    moved(added, || format!("batch row {id} has not ended"))?;
    let new = tx.last_insert_rowid();
    for copy in [
        "INSERT INTO batch_lines (batch_id, request_id, custom_id)
         SELECT ?, request_id, custom_id FROM batch_lines WHERE batch_id = ?",
        "INSERT INTO batch_links (batch_id, job) SELECT ?, job FROM batch_links WHERE batch_id = ?",
        "INSERT INTO reservations (batch_id, client, day, cost)
         SELECT ?, client, day, cost FROM reservations WHERE batch_id = ?",
    ] {
        tx.execute(copy, [new, id])?;
    }
    tx.execute(
        "UPDATE batch_lines SET outcome = 'not_run', settled = 1 WHERE batch_id = ?",
        [id],
    )?;
    mark_ingested(tx, id, Some(reason))?;
    let detail = Fields::new().with("key", key).with("refused", id);
    events::record(tx, None, Some(new), "file_submitted_again", detail)?;
    Ok(new)
}

/// Stores OpenAI's id, which is certain now, with the batch and on its jobs.
pub fn mark_submitted(tx: &Tx<'_>, id: i64, remote: &Batch) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'submitted', openai_batch_id = ?, openai_time = ?, openai_expires = ?,
                openai_status = ?, submitted_at = ?, next_at = ?, failures = 0, error = NULL
         WHERE id = ? AND state IN ('sealed', 'uploaded', 'creating')",
        params![remote.id, remote.created_at, remote.expires_at, remote.status_text, tx.now, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is not on its way"))?;
    link_jobs(tx, id)?;
    events::record(
        tx,
        None,
        Some(id),
        "submitted",
        Fields::new().with("openai_batch", remote.id.as_str()),
    )
}

/// Stores a batch's OpenAI id on the jobs that it works for.
pub fn link_jobs(tx: &Tx<'_>, id: i64) -> Stored<()> {
    for stage in Stage::ALL {
        let column = id_column(*stage);
        tx.execute(
            &format!(
                "UPDATE batch_jobs SET {column} = b.openai_batch_id, updated_at = ?,
                        status = CASE WHEN status = 'pending' THEN 'processing' ELSE status END
                 FROM openai_batches b, batch_links k
                 WHERE b.id = ? AND b.stage = ? AND k.batch_id = b.id AND batch_jobs.seq = k.job"
            ),
            params![tx.now, id, stage],
        )?;
    }
    Ok(())
}

/// Stores the OpenAI id of a batch of that stage on one job that it works for.
pub(in crate::store) fn link_job(tx: &Tx<'_>, job: i64, stage: Stage, openai_id: &str) -> Stored<()> {
    let column = id_column(stage);
    tx.execute(
        &format!(
            "UPDATE batch_jobs SET {column} = ?1, updated_at = ?2,
                    status = CASE WHEN status = 'pending' THEN 'processing' ELSE status END
             WHERE seq = ?3 AND {column} IS NOT ?1"
        ),
        params![openai_id, tx.now, job],
    )?;
    Ok(())
}

/// The column of a job that names its newest batch of a stage.
fn id_column(stage: Stage) -> &'static str {
    match stage {
        Stage::Vision => "openai_batch_id",
        Stage::Translation => "openai_translation_batch_id",
    }
}

/// Puts a batch off until `until`, because a call for it failed.
pub fn postpone(tx: &Tx<'_>, id: i64, until: Timestamp, error: &str) -> Stored<()> {
    tx.prepare_cached(
        "UPDATE openai_batches SET next_at = ?, failures = failures + 1, error = ? WHERE id = ?",
    )?
    .execute(params![until, error, id])?;
    log::warn!(event = "postponed", batch = id, until:%, error:%; "");
    Ok(())
}

/// Puts a batch off until `at`, although nothing failed.
pub fn set_next_check(tx: &Tx<'_>, id: i64, at: Timestamp) -> Stored<()> {
    tx.prepare_cached("UPDATE openai_batches SET next_at = ? WHERE id = ?")?
        .execute(params![at, id])?;
    Ok(())
}

/// Marks a batch as failed because it is abandoned, with the reason.
pub fn mark_abandoned(tx: &Tx<'_>, id: i64, reason: &str) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'failed', error = ?, ingested_at = ?, abandon_wanted = 0
         WHERE id = ? AND state IN ('sealed', 'uploaded', 'creating', 'submitted', 'ended')",
        params![reason, tx.now, id],
    )?;
    moved(changed, || {
        format!("batch {id} is over, or not made yet; look at it: batchkeeper batches show {id}")
    })?;
    events::record(tx, None, Some(id), "abandoned", Fields::new().with_text(reason))
}

/// Marks a batch as failed that a recovery took up and of which OpenAI has no file any more.
pub fn mark_lost(tx: &Tx<'_>, id: i64, reason: &str) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'failed', error = ?1, ingested_at = ?2, cleaned_at = ?2
         WHERE id = ?3 AND state = 'submitted' AND lines = 0",
        params![reason, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} has lines"))?;
    events::record(tx, None, Some(id), "lost", Fields::new().with_text(reason))
}
