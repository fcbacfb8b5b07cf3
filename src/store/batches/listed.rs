//! A batch that OpenAI lists is looked up in the database, and linked to its row if the evidence is there.

use rusqlite::{named_params, params};

use super::{BatchRow, by_key, by_openai_id, drop_empty, find_one, ignored, mark_submitted};
use crate::base::fields::Fields;
use crate::domain::alert::{AlertKind, AlertSubject};
use crate::domain::batch::BatchState;
use crate::domain::openai::{Batch, BatchStatus};
use crate::store::{Stored, Tx, View, alerts, events, moved, requests, unclaimed_lines};

/// What the database knows of a batch that OpenAI lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedBatch {
    /// A row has its id already, or an operator has it ignored.
    Known,
    /// A row waited for it, and has its id now.
    Linked(i64),
    /// It is the second batch under one key. It has a row of its own now, is cancelled, and is ingested.
    Duplicate(i64),
    /// Another database made it.
    Foreign,
    /// This database made it, under a key that no row has or whose row does not hold its lines. OpenAI has
    /// moved on since the database was saved.
    Unknown,
}

/// The name of the database's id in a batch's metadata.
pub const META_DATABASE: &str = "batchkeeper";

/// The name of the submission's key in a batch's metadata.
pub const META_SUBMISSION: &str = "submission";

/// Looks one batch of a listing up, and links it if the evidence says that it is ours. The evidence is our
/// key in its metadata, or our input file.
pub fn link_listed(tx: &Tx<'_>, database_id: &str, remote: &Batch) -> Stored<ListedBatch> {
    if by_openai_id(tx, &remote.id)?.is_some() || ignored::is_ignored(tx, &remote.id)? {
        return Ok(ListedBatch::Known);
    }
    let made_by = remote.metadata.get(META_DATABASE);
    if made_by.is_some_and(|id| id != database_id) {
        // It may even have an input file of ours: this database may be a copy of the one that made it.
        return Ok(ListedBatch::Foreign);
    }
    let ours = made_by.is_some();
    let key = remote.metadata.get(META_SUBMISSION).filter(|_| ours);
    let row = match key {
        Some(key) => by_key(tx, key)?,
        // A refused batch leaves its file to the next submission, to which this batch may belong.
        None => find_one(
            tx,
            "input_file_id = ? AND duplicate_of IS NULL AND openai_status IS NOT 'failed'",
            &remote.input_file_id,
        )?,
    };
    match row {
        None if ours => Ok(ListedBatch::Unknown),
        None => Ok(ListedBatch::Foreign),
        Some(row) => match row.state {
            BatchState::Creating => {
                mark_submitted(tx, row.id, remote)?;
                Ok(ListedBatch::Linked(row.id))
            }
            // In a restored backup the row may be older than the create. The lines are fixed once sealed.
            BatchState::Sealed | BatchState::Uploaded => {
                mark_created_unseen(tx, row.id, remote)?;
                mark_submitted(tx, row.id, remote)?;
                Ok(ListedBatch::Linked(row.id))
            }
            // No row says which lines it was made with.
            BatchState::Planned => {
                mark_unplanned(tx, row.id)?;
                Ok(ListedBatch::Unknown)
            }
            BatchState::Submitted | BatchState::Ended | BatchState::Ingested | BatchState::Failed => {
                insert_duplicate(tx, &row, remote).map(ListedBatch::Duplicate)
            }
        },
    }
}

/// Marks a planned submission to be dropped. Another row may have its key from now on.
pub(in crate::store) fn mark_unplanned(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET abandon_wanted = 1, submission_key = submission_key || '#unplanned'
         WHERE id = ? AND state = 'planned'",
        [id],
    )?;
    moved(changed, || format!("batch row {id} is not planned"))
}

/// Drops a planned submission, up to `limit` lines of it at a time. Its requests wait again. Returns whether it is
/// dropped.
pub fn unplan(tx: &Tx<'_>, id: i64, limit: u32) -> Stored<bool> {
    let mut requests = tx.prepare_cached("SELECT request_id FROM batch_lines WHERE batch_id = ? LIMIT ?")?;
    let requests: Vec<i64> = requests
        .query_map(params![id, limit], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if requests.is_empty() {
        return drop_empty(tx, id).map(|()| true);
    }
    let mut release =
        tx.prepare_cached("UPDATE requests SET state = 'waiting' WHERE id = ? AND state = 'claimed'")?;
    for request in requests {
        release.execute([request])?;
        requests::leave_planned(tx, request)?;
    }
    Ok(false)
}

/// Marks a batch as created whose create this database has not seen.
fn mark_created_unseen(tx: &Tx<'_>, id: i64, remote: &Batch) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'creating', input_file_id = ?
         WHERE id = ? AND state IN ('sealed', 'uploaded')",
        params![remote.input_file_id, id],
    )?;
    moved(changed, || format!("batch row {id} is not sealed or uploaded"))
}

/// Whether a second batch under the key of a batch is known.
pub fn has_duplicate(view: &View, id: i64) -> Stored<bool> {
    let mut query =
        view.prepare_cached("SELECT EXISTS (SELECT 1 FROM openai_batches WHERE duplicate_of = ?)")?;
    Ok(query.query_row([id], |row| row.get(0))?)
}

/// Inserts a row for a second batch under one key. Its lines are those of the first; see [`unclaimed_lines`].
fn insert_duplicate(tx: &Tx<'_>, first: &BatchRow, remote: &Batch) -> Stored<i64> {
    let running = !remote.status.is_some_and(BatchStatus::is_final);
    tx.execute(
        "INSERT INTO openai_batches (submission_key, stage, scheme, state, openai_batch_id, job_id, duplicate_of,
                base_url, organization, project, model, parameters, input_bytes, input_sha256, input_file_id,
                input_file_time, openai_time, openai_expires, openai_status, cancel_wanted, next_at, created_at,
                submitted_at, queue_tokens, queue_caps)
         SELECT submission_key || '#' || :remote, stage, scheme, 'submitted', :remote, job_id, id, base_url,
                organization, project, model, parameters, input_bytes, input_sha256, input_file_id,
                input_file_time, :time, :expires, :status, :cancel, :now, :now, :now, queue_tokens, queue_caps
         FROM openai_batches WHERE id = :first",
        named_params! {
            ":remote": remote.id, ":time": remote.created_at, ":expires": remote.expires_at,
            ":status": remote.status_text, ":cancel": running, ":now": tx.now, ":first": first.id,
        },
    )?;
    let id = tx.last_insert_rowid();
    unclaimed_lines::copy(tx, id, first.id)?;
    let detail = Fields::new()
        .with("openai_batch", remote.id.as_str())
        .with_text(&format!("second under key {}", first.key));
    events::record(tx, None, Some(id), "duplicate", detail)?;
    let message = format!(
        "OpenAI has a second batch, {}, under the key of {}; it is cancelled if it still runs, and what it answered \
         is ingested. Look at both with: batchkeeper batches show {id}",
        remote.id, first.key
    );
    alerts::open(tx, AlertKind::DuplicateBatch, &AlertSubject::Batch(id), &message)?;
    Ok(id)
}
