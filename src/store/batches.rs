//! `openai_batches`: the intent first, then OpenAI's batch. Every move names the state that it
//! starts from.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{OptionalExtension, Row, named_params, params};

use super::{Stored, Tx, View, alerts, moved};
use crate::batch::{BatchState, RemoteStatus, Scheme, Stage, text_enum};
use crate::clock::Timestamp;
use crate::remote::{BatchError, Identity, RemoteBatch, RemoteFile, RequestCounts};

/// One of a batch's two result files, as far as it has been taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultFile {
    /// OpenAI's id of it, where there is such a file.
    pub id: Option<String>,
    /// Its size, once it lies in the spool.
    pub bytes: Option<u64>,
    /// How many bytes of it have been taken in.
    pub taken: u64,
}

impl ResultFile {
    /// There is none, or it lies in the spool.
    pub fn is_spooled(&self) -> bool {
        self.id.is_none() || self.bytes.is_some()
    }
}

text_enum! {
    /// Which of the two; the text is the prefix of its columns and the ending of its spool file.
    Which {
        /// Lines answered with 2xx.
        Output = "output",
        /// Lines that failed or never ran.
        Error = "error",
    }
}

impl BatchRow {
    /// One of its result files.
    pub fn file(&self, which: Which) -> &ResultFile {
        match which {
            Which::Output => &self.output,
            Which::Error => &self.error_file,
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
    output_taken, error_file_id, error_bytes, error_taken, settled_to, cancel_wanted, failures, next_at, ended_at, job_id, \
    input_file_since, input_bytes";

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
            taken: row.get(24)?,
        },
        error_file: ResultFile {
            id: row.get(25)?,
            bytes: row.get(26)?,
            taken: row.get(27)?,
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

/// Those in one of `states`, the one that is due first at the head.
pub fn in_states(view: &View, states: &[BatchState], limit: u32) -> Stored<Vec<BatchRow>> {
    let mut rows = Vec::new();
    for state in states {
        let mut query = view.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM openai_batches WHERE state = ? ORDER BY next_at LIMIT ?"
        ))?;
        let found: Stored<Vec<_>> = query
            .query_and_then(params![state, limit], batch_row)?
            .collect();
        rows.extend(found?);
    }
    rows.sort_by_key(|row: &BatchRow| row.next_at);
    Ok(rows)
}

/// A key as the names of its files in the spool begin: up to their first dot.
pub fn file_stem(key: &str) -> String {
    key.replace('#', "-")
}

/// The keys of those that are not through: what is in the spool under another is of no use.
pub fn live_keys(view: &View) -> Stored<HashSet<String>> {
    let mut query = view.prepare(
        "SELECT submission_key FROM openai_batches WHERE state NOT IN ('ingested', 'failed')",
    )?;
    let keys = query.query_map([], |row| row.get(0))?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// The submission in one of `states` that is due, or else when the next one is; none where there is
/// none. One due later than in `longest` has its time from a clock that was set back since: it is
/// due, and comes first, so that those with times of the new clock do not keep it waiting.
pub fn next_due(
    view: &View,
    states: &[BatchState],
    now: Timestamp,
    longest: Duration,
) -> Stored<Option<Result<BatchRow, Timestamp>>> {
    // The last condition says what the index holds, which SQLite cannot see from a parameter.
    let mut due = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM openai_batches
         WHERE state = ?1 AND (next_at <= ?2 OR next_at > ?3) AND state NOT IN ('ingested', 'failed')
         ORDER BY next_at <= ?2, next_at LIMIT 1"
    ))?;
    let mut later = view.prepare_cached(
        "SELECT min(next_at) FROM openai_batches WHERE state = ? AND state NOT IN ('ingested', 'failed')",
    )?;
    let mut first: Option<BatchRow> = None;
    let mut next: Option<Timestamp> = None;
    for state in states {
        let found = due.query_and_then(params![state, now, now + longest], batch_row)?;
        if let Some(row) = { found }.next().transpose()? {
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
    Ok(first.map(Ok).or(next.map(Err)))
}

/// How many batches run at OpenAI, or may do so.
pub fn active(view: &View) -> Stored<u32> {
    let mut query = view.prepare_cached(
        "SELECT count(*) FROM openai_batches
         WHERE state IN ('planned', 'sealed', 'uploaded', 'creating', 'submitted') AND state NOT IN ('ingested', 'failed')",
    )?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// The newest of OpenAI's times in the store, seconds.
pub fn newest_openai_time(view: &View) -> Stored<Option<i64>> {
    let mut query =
        view.prepare_cached("SELECT max(max(coalesce(openai_time, 0), coalesce(input_file_time, 0))) FROM openai_batches")?;
    let newest: Option<i64> = query.query_row([], |row| row.get(0))?;
    Ok(newest.filter(|time| *time > 0))
}

/// When this database was made.
pub fn database_made_at(view: &View) -> Stored<Timestamp> {
    Ok(view.query_row("SELECT created_at FROM appliance", [], |row| row.get(0))?)
}

/// What a submission is planned with.
pub struct Plan<'a> {
    /// Unique for ever.
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

/// A new submission, whose requests are about to be claimed.
pub fn plan(tx: &Tx<'_>, plan: &Plan<'_>) -> Stored<i64> {
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
    Ok(tx.tx.last_insert_rowid())
}

/// Takes back a planned submission that has no line.
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

/// What OpenAI has heard nothing of is made under the account that is configured now.
pub fn set_identity(tx: &Tx<'_>, id: i64, identity: &Identity) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET base_url = ?, organization = ?, project = ? WHERE id = ? AND state IN ('planned', 'sealed')",
        params![identity.base_url, identity.organization, identity.project, id],
    )?;
    moved(changed, || format!("batch row {id} is known to OpenAI"))
}

/// How many lines a submission has.
pub fn count_lines(view: &View, id: i64) -> Stored<u32> {
    let mut query = view.prepare_cached("SELECT count(*) FROM batch_lines WHERE batch_id = ?")?;
    Ok(query.query_row([id], |row| row.get(0))?)
}

/// The written input of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its lines.
    pub lines: u32,
    /// Its bytes.
    pub bytes: u64,
    /// Its SHA-256, hex.
    pub sha256: String,
}

/// Fixes the lines of a planned submission: no request leaves it any more. False when some left
/// while the input was written; then it is to be written again.
pub fn seal(tx: &Tx<'_>, id: i64, input: &Input) -> Stored<bool> {
    if count_lines(tx, id)? != input.lines {
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
    alerts::event(
        tx,
        None,
        Some(id),
        "sealed",
        &format!("lines={} bytes={}", input.lines, input.bytes),
    )?;
    Ok(true)
}

/// OpenAI has the input.
pub fn uploaded(tx: &Tx<'_>, id: i64, file: &RemoteFile) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'uploaded', input_file_id = ?, input_file_time = ?, input_file_since = ?, next_at = ?,
                failures = 0, error = NULL
         WHERE id = ? AND state = 'sealed'",
        params![file.id, file.created_at, tx.now, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is not sealed"))?;
    alerts::event(tx, None, Some(id), "uploaded", &format!("file={}", file.id))
}

/// A create is about to be sent: the intent.
pub fn creating(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'creating', next_at = ? WHERE id = ? AND state IN ('uploaded', 'creating')",
        params![tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is not uploaded"))?;
    alerts::event(tx, None, Some(id), "creating", "")
}

/// The create certainly had no effect: the batch may be created (from the same input) again.
pub fn not_created(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'uploaded' WHERE id = ? AND state = 'creating'",
        [id],
    )?;
    moved(changed, || format!("batch row {id} is not creating"))
}

/// OpenAI does not have the input any more: it is to be uploaded again.
pub fn input_lost(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'sealed', input_file_id = NULL, input_file_time = NULL, next_at = ?
         WHERE id = ? AND state = 'uploaded'",
        params![tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is not uploaded"))?;
    alerts::event(tx, None, Some(id), "input_lost", "")
}

/// OpenAI's id is certain: stored with the batch and on its jobs.
pub fn submitted(tx: &Tx<'_>, id: i64, remote: &RemoteBatch) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'submitted', openai_batch_id = ?, openai_time = ?, openai_expires = ?,
                openai_status = ?, submitted_at = ?, next_at = ?, failures = 0, error = NULL
         WHERE id = ? AND state IN ('sealed', 'uploaded', 'creating')",
        params![remote.id, remote.created_at, remote.expires_at, remote.status_text, tx.now, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is not on its way"))?;
    link_jobs(tx, id)?;
    alerts::event(
        tx,
        None,
        Some(id),
        "submitted",
        &format!("openai_batch={}", remote.id),
    )
}

/// Puts a batch's OpenAI id on the jobs that it works for.
pub fn link_jobs(tx: &Tx<'_>, id: i64) -> Stored<()> {
    for (stage, column) in [
        (Stage::Vision, "openai_batch_id"),
        (Stage::Translation, "openai_translation_batch_id"),
    ] {
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

/// What a listed batch is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its row has its id already.
    Yes,
    /// A row waited for it; now it has its id.
    Linked(i64),
    /// A second batch under one key; a row of its own now, to be cancelled and taken in.
    Duplicate(i64),
    /// Not made by this database.
    Foreign,
    /// Made by this database under a key that no row has, or whose row does not know its lines: the
    /// store is older than the world.
    Unheard,
}

/// The metadata's name of the database.
pub const META_DATABASE: &str = "batchkeeper";
/// The metadata's name of the submission's key.
pub const META_SUBMISSION: &str = "submission";

/// Looks at one batch of a listing, and links it where the evidence (our key in its metadata, or
/// our input file) says that it is ours.
pub fn recognise(tx: &Tx<'_>, database_id: &str, remote: &RemoteBatch) -> Stored<Known> {
    if by_openai_id(tx, &remote.id)?.is_some() {
        return Ok(Known::Yes);
    }
    let ours = remote
        .metadata
        .get(META_DATABASE)
        .is_some_and(|id| id == database_id);
    let key = remote.metadata.get(META_SUBMISSION).filter(|_| ours);
    let row = match key {
        Some(key) => by_key(tx, key)?,
        None => one(
            tx,
            "input_file_id = ? AND duplicate_of IS NULL",
            &remote.input_file_id,
        )?,
    };
    match row {
        None if ours => Ok(Known::Unheard),
        None => Ok(Known::Foreign),
        Some(row) => match row.state {
            BatchState::Creating => {
                submitted(tx, row.id, remote)?;
                Ok(Known::Linked(row.id))
            }
            // Rows from before its create, in a restored backup. Once sealed, its lines are these.
            BatchState::Sealed | BatchState::Uploaded => {
                created_unseen(tx, row.id, remote)?;
                submitted(tx, row.id, remote)?;
                Ok(Known::Linked(row.id))
            }
            // Which lines it was made with, no row says.
            BatchState::Planned => {
                unplan(tx, row.id)?;
                Ok(Known::Unheard)
            }
            BatchState::Submitted
            | BatchState::Ended
            | BatchState::Ingested
            | BatchState::Failed => duplicate(tx, &row, remote).map(Known::Duplicate),
        },
    }
}

/// Takes back a planned submission; its requests wait again.
pub fn unplan(tx: &Tx<'_>, id: i64) -> Stored<()> {
    tx.execute(
        "UPDATE requests SET state = 'waiting'
         WHERE state = 'claimed' AND id IN (SELECT request_id FROM batch_lines WHERE batch_id = ?)",
        [id],
    )?;
    tx.execute("DELETE FROM batch_lines WHERE batch_id = ?", [id])?;
    drop_empty(tx, id)
}

/// OpenAI has a batch whose create this database has not seen.
fn created_unseen(tx: &Tx<'_>, id: i64, remote: &RemoteBatch) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'creating', input_file_id = ?
         WHERE id = ? AND state IN ('sealed', 'uploaded')",
        params![remote.input_file_id, id],
    )?;
    moved(changed, || {
        format!("batch row {id} is not sealed or uploaded")
    })
}

/// A row of its own for a second batch under one key.
fn duplicate(tx: &Tx<'_>, first: &BatchRow, remote: &RemoteBatch) -> Stored<i64> {
    let running = !remote.status.is_some_and(RemoteStatus::is_final);
    tx.execute(
        "INSERT INTO openai_batches (submission_key, stage, scheme, state, openai_batch_id, job_id, duplicate_of,
                base_url, organization, project, model, parameters, lines, input_bytes, input_sha256, input_file_id,
                input_file_time, openai_time, openai_expires, openai_status, cancel_wanted, next_at, created_at,
                submitted_at)
         SELECT submission_key || '#' || :remote, stage, scheme, 'submitted', :remote, job_id, id, base_url,
                organization, project, model, parameters, lines, input_bytes, input_sha256, input_file_id,
                input_file_time, :time, :expires, :status, :cancel, :now, :now, :now
         FROM openai_batches WHERE id = :first",
        named_params! {
            ":remote": remote.id, ":time": remote.created_at, ":expires": remote.expires_at,
            ":status": remote.status_text, ":cancel": running, ":now": tx.now, ":first": first.id,
        },
    )?;
    let id = tx.tx.last_insert_rowid();
    tx.execute(
        "INSERT INTO batch_lines (batch_id, request_id, custom_id)
         SELECT ?, request_id, custom_id FROM batch_lines WHERE batch_id = ?",
        [id, first.id],
    )?;
    tx.execute(
        "INSERT INTO batch_links (batch_id, job) SELECT ?, job FROM batch_links WHERE batch_id = ?",
        [id, first.id],
    )?;
    let detail = format!("openai_batch={} second under key {}", remote.id, first.key);
    alerts::event(tx, None, Some(id), "duplicate", &detail)?;
    let message = format!(
        "OpenAI has a second batch, {}, under the key of {}; it is cancelled if it still runs, and what it answered \
         is taken in. Look at both with: batchkeeper batches show {id}",
        remote.id, first.key
    );
    alerts::open(tx, "duplicate_batch", &format!("batch:{id}"), &message)?;
    Ok(id)
}

/// A call for this batch failed: look again later.
pub fn postpone(tx: &Tx<'_>, id: i64, until: Timestamp, error: &str) -> Stored<()> {
    tx.prepare_cached(
        "UPDATE openai_batches SET next_at = ?, failures = failures + 1, error = ? WHERE id = ?",
    )?
    .execute(params![until, error, id])?;
    log::warn!("batch={id} postponed until={until} error={error:?}");
    Ok(())
}

/// Nothing failed, but it is to be looked at later.
pub fn look_again(tx: &Tx<'_>, id: i64, at: Timestamp) -> Stored<()> {
    tx.prepare_cached("UPDATE openai_batches SET next_at = ? WHERE id = ?")?
        .execute(params![at, id])?;
    Ok(())
}

/// What a poll saw, with the batch still running.
pub fn polled(tx: &Tx<'_>, id: i64, remote: &RemoteBatch, next_at: Timestamp) -> Stored<()> {
    let changed = tx
        .prepare_cached(
            "UPDATE openai_batches SET openai_status = ?, openai_total = ?, openai_completed = ?, openai_failed = ?,
                    next_at = ?, failures = 0, error = NULL
             WHERE id = ? AND state = 'submitted'",
        )?
        .execute(params![
            remote.status_text,
            remote.counts.total,
            remote.counts.completed,
            remote.counts.failed,
            next_at,
            id
        ])?;
    moved(changed, || format!("batch row {id} is not submitted"))
}

/// OpenAI's final state and file ids.
pub fn ended(tx: &Tx<'_>, id: i64, remote: &RemoteBatch) -> Stored<()> {
    polled(tx, id, remote, tx.now)?;
    let errors = serde_json::to_string(&remote.errors)?;
    tx.execute(
        "UPDATE openai_batches SET state = 'ended', output_file_id = ?, error_file_id = ?, openai_errors = ?, ended_at = ?
         WHERE id = ? AND state = 'submitted'",
        params![remote.output_file_id, remote.error_file_id, errors, tx.now, id],
    )?;
    let counts = remote.counts;
    let detail = format!(
        "status={} total={} completed={} failed={}",
        remote.status_text, counts.total, counts.completed, counts.failed
    );
    alerts::event(tx, None, Some(id), "ended", &detail)
}

/// A result file lies whole in the spool.
pub fn spooled(tx: &Tx<'_>, id: i64, which: Which, bytes: u64, sha256: &str) -> Stored<()> {
    let name = which.as_str();
    let changed = tx.execute(
        &format!(
            "UPDATE openai_batches SET {name}_bytes = ?, {name}_sha256 = ?, failures = 0, error = NULL, next_at = ?
             WHERE id = ? AND state = 'ended'"
        ),
        params![bytes, sha256, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} has not ended"))?;
    alerts::event(
        tx,
        None,
        Some(id),
        "spooled",
        &format!("file={name} bytes={bytes} sha256={sha256}"),
    )
}

/// The spooled file is gone or another: it is to be fetched and read again from its beginning.
pub fn unspooled(tx: &Tx<'_>, id: i64, which: Which) -> Stored<()> {
    let name = which.as_str();
    let sql = format!(
        "UPDATE openai_batches SET {name}_bytes = NULL, {name}_sha256 = NULL, {name}_taken = 0, unknown_lines = 0
         WHERE id = ? AND state = 'ended'"
    );
    moved(tx.execute(&sql, [id])?, || {
        format!("batch row {id} has not ended")
    })
}

/// So many bytes of a result file have been taken in, so many of its lines belong to none of ours.
pub fn taken(tx: &Tx<'_>, id: i64, which: Which, bytes: u64, unknown: u32) -> Stored<()> {
    let name = which.as_str();
    tx.prepare_cached(&format!(
        "UPDATE openai_batches SET {name}_taken = ?, unknown_lines = unknown_lines + ? WHERE id = ? AND state = 'ended'"
    ))?
    .execute(params![bytes, unknown, id])?;
    Ok(())
}

/// Lines up to this request have their verdict.
pub fn settled_to(tx: &Tx<'_>, id: i64, request: i64) -> Stored<()> {
    tx.prepare_cached("UPDATE openai_batches SET settled_to = ? WHERE id = ? AND state = 'ended'")?
        .execute(params![request, id])?;
    Ok(())
}

/// Every line is settled; `refused`: OpenAI's reason not to run it at all.
pub fn ingested(tx: &Tx<'_>, id: i64, refused: Option<&str>) -> Stored<()> {
    let state = if refused.is_some() {
        BatchState::Failed
    } else {
        BatchState::Ingested
    };
    let changed = tx.execute(
        "UPDATE openai_batches SET state = ?, error = ?, ingested_at = ?,
                uniform_error = (SELECT CASE WHEN count(DISTINCT coalesce(error, outcome)) = 1
                                              AND min(outcome IN ('wrong', 'passing', 'unreadable', 'missing'))
                                             THEN min(coalesce(error, outcome)) END
                                 FROM batch_lines WHERE batch_id = openai_batches.id)
         WHERE id = ? AND state = 'ended'",
        params![state, refused, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} has not ended"))?;
    alerts::event(tx, None, Some(id), state.as_str(), refused.unwrap_or(""))
}

/// A submission that came to nothing before OpenAI had it: failed with its reason.
pub fn abandoned(tx: &Tx<'_>, id: i64, reason: &str) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET state = 'failed', error = ?, ingested_at = ?
         WHERE id = ? AND state IN ('sealed', 'uploaded', 'creating', 'submitted', 'ended')",
        params![reason, tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} cannot be given up now"))?;
    alerts::event(tx, None, Some(id), "abandoned", reason)
}

/// Whether a submission was let go of while a call for it was under way: what the call says does not
/// matter any more.
pub fn is_given_up(view: &View, id: i64) -> Stored<bool> {
    Ok(get(view, id)?.state == BatchState::Failed)
}

/// Whether the last `runs` batches of a model that were taken in all failed alike, and not for the
/// sake of a lot or two: at least so many requests were new to OpenAI since it last did well. (A
/// lot that always fails makes batches of itself alone.)
pub fn fails_alike(view: &View, model: &str, runs: u32) -> Stored<Option<String>> {
    let mut query = view.prepare_cached(
        "SELECT min(uniform_error) FROM (SELECT uniform_error FROM openai_batches
                WHERE model = ? AND state = 'ingested' AND lines > 0 ORDER BY ingested_at DESC, id DESC LIMIT ?)
         HAVING count(uniform_error) = ? AND count(DISTINCT uniform_error) = 1",
    )?;
    let error: Option<String> = query
        .query_row(params![model, runs, runs], |row| row.get(0))
        .optional()?;
    let Some(error) = error else { return Ok(None) };
    let mut query = view.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM openai_batches b JOIN batch_lines l ON l.batch_id = b.id
                WHERE b.model = ?1 AND b.state = 'ingested' AND b.uniform_error = ?2
                  AND b.id > coalesce((SELECT max(id) FROM openai_batches WHERE model = ?1 AND state = 'ingested'
                                       AND lines > 0 AND uniform_error IS NOT ?2), 0)
                  AND NOT EXISTS (SELECT 1 FROM batch_lines e WHERE e.request_id = l.request_id AND e.batch_id < b.id)
                LIMIT ?3)",
    )?;
    let new: u32 = query.query_row(params![model, error, runs], |row| row.get(0))?;
    Ok((new >= runs).then_some(error))
}

/// How many of a model's newest batches OpenAI refused one after another.
pub fn refusals_in_a_row(view: &View, model: &str) -> Stored<u32> {
    let mut query = view.prepare_cached(
        "SELECT count(*) FROM openai_batches WHERE model = ?1 AND state = 'failed' AND id > coalesce(
                (SELECT max(id) FROM openai_batches WHERE model = ?1 AND state = 'ingested'), 0)",
    )?;
    Ok(query.query_row([model], |row| row.get(0))?)
}

/// A batch of our own that was settled before `before` and whose files are still at OpenAI.
pub fn unclean(view: &View, before: Timestamp, identity: &Identity) -> Stored<Option<BatchRow>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM openai_batches
         WHERE ingested_at IS NOT NULL AND cleaned_at IS NULL AND ingested_at < ? AND scheme = 'own'
           AND (base_url, organization, project) = (?, ?, ?)
         ORDER BY ingested_at LIMIT 1"
    ))?;
    let of = params![
        before,
        identity.base_url,
        identity.organization,
        identity.project
    ];
    query.query_and_then(of, batch_row)?.next().transpose()
}

/// A batch's files at OpenAI are gone.
pub fn cleaned(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET cleaned_at = ? WHERE id = ? AND cleaned_at IS NULL",
        params![tx.now, id],
    )?;
    moved(changed, || format!("batch row {id} is clean already"))?;
    alerts::event(tx, None, Some(id), "cleaned", "")
}

/// Whether another batch whose files are still at OpenAI was made from the same input.
pub fn shares_input(view: &View, row: &BatchRow) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM openai_batches WHERE input_file_id = ? AND id <> ? AND cleaned_at IS NULL)",
    )?;
    Ok(query.query_row(params![row.input_file_id, row.id], |row| row.get(0))?)
}
