//! `alerts`: problems that the operator should know of. `pauses`: scopes of work that are stopped.

use log::Level;
use rusqlite::{OptionalExtension, Row, params};

use super::{Stored, Tx, View, notices};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::alert::{AlertCause, AlertChange, AlertKind, AlertSubject, PauseScope};
use crate::domain::batch::BatchState;

/// Opens an alert; an alert that is open already stays as it is. Returns whether it is new.
pub fn open(tx: &Tx<'_>, kind: AlertKind, subject: &AlertSubject, message: &str) -> Stored<bool> {
    debug_assert!(
        message.contains("batchkeeper ") || message.contains("systemctl"),
        "{kind} does not name the command that fixes it: {message}"
    );
    let added = tx.execute(
        "INSERT INTO alerts (kind, subject, message, opened_at) VALUES (?, ?, ?, ?)
         ON CONFLICT (kind, subject) WHERE closed_at IS NULL DO NOTHING",
        params![kind, subject, message, tx.now],
    )?;
    if added == 1 {
        let subject = subject.to_string();
        let fields = Fields::new()
            .with("event", "alert_opened")
            .with("kind", kind.to_string())
            .with("subject", subject)
            .with("message", message);
        tx.log_after_commit(Level::Warn, fields);
        notices::add(tx, tx.last_insert_rowid(), kind, AlertChange::Opened)?;
    }
    Ok(added == 1)
}

/// Closes an alert whose cause is gone.
pub fn close(tx: &Tx<'_>, kind: AlertKind, subject: &AlertSubject) -> Stored<()> {
    let mut update = tx.prepare_cached(
        "UPDATE alerts SET closed_at = ? WHERE kind = ? AND subject = ? AND closed_at IS NULL RETURNING id",
    )?;
    let closed: Option<i64> = update
        .query_row(params![tx.now, kind, subject], |row| row.get("id"))
        .optional()?;
    if let Some(alert) = closed {
        let subject = subject.to_string();
        let fields = Fields::new()
            .with("event", "alert_closed")
            .with("kind", kind.to_string())
            .with("subject", subject);
        tx.log_after_commit(Level::Info, fields);
        notices::add(tx, alert, kind, AlertChange::Closed)?;
    }
    Ok(())
}

/// Opens an alert of a kind for each cause, and closes the other alerts of that kind.
pub fn set_open(tx: &Tx<'_>, kind: AlertKind, causes: &[AlertCause]) -> Stored<()> {
    for cause in causes {
        open(tx, kind, &cause.subject, &cause.message)?;
    }
    let subjects = open_subjects(tx, kind)?;
    let mut gone = subjects
        .iter()
        .filter(|subject| !causes.iter().any(|cause| cause.subject == **subject));
    gone.try_for_each(|subject| close(tx, kind, subject))
}

/// The subjects of the open alerts of a kind.
pub fn open_subjects(view: &View, kind: AlertKind) -> Stored<Vec<AlertSubject>> {
    let mut query = view.prepare_cached("SELECT subject FROM alerts WHERE kind = ? AND closed_at IS NULL")?;
    let subjects = query.query_map([kind], |row| row.get("subject"))?;
    Ok(subjects.collect::<Result<_, _>>()?)
}

/// Closes every alert of a subject, whose causes are gone.
pub fn close_all(tx: &Tx<'_>, subject: &AlertSubject) -> Stored<()> {
    let mut query = tx.prepare_cached("SELECT kind FROM alerts WHERE subject = ? AND closed_at IS NULL")?;
    let kinds: Vec<AlertKind> = query
        .query_map([subject], |row| row.get("kind"))?
        .collect::<Result<_, _>>()?;
    kinds.iter().try_for_each(|kind| close(tx, *kind, subject))
}

/// Closes the alerts of batches whose state shows that the cause is gone.
///
/// A batch that ended for good, or whose row is gone, has no open alert. A batch that OpenAI has was
/// not refused.
pub fn close_outlived(tx: &Tx<'_>) -> Stored<()> {
    let mut query = tx.prepare_cached("SELECT kind, subject FROM alerts WHERE closed_at IS NULL")?;
    let open: Vec<(AlertKind, AlertSubject)> = query
        .query_map([], |row| Ok((row.get("kind")?, row.get("subject")?)))?
        .collect::<Result<_, _>>()?;
    let mut state_of = tx.prepare_cached("SELECT state FROM openai_batches WHERE id = ?")?;
    for (kind, subject) in open {
        let AlertSubject::Batch(id) = subject else {
            continue;
        };
        let state: Option<BatchState> = state_of.query_row([id], |row| row.get("state")).optional()?;
        if is_outlived(kind, state) {
            close(tx, kind, &subject)?;
        }
    }
    Ok(())
}

fn is_outlived(kind: AlertKind, batch: Option<BatchState>) -> bool {
    match batch {
        None | Some(BatchState::Ingested | BatchState::Failed) => true,
        Some(BatchState::Submitted | BatchState::Ended) => matches!(
            kind,
            AlertKind::UploadFailed
                | AlertKind::CreateRefused
                | AlertKind::CreateUnclear
                | AlertKind::InputChanged
                | AlertKind::OtherProject
        ),
        Some(BatchState::Planned | BatchState::Sealed | BatchState::Uploaded | BatchState::Creating) => false,
    }
}

/// Whether an alert of a kind is open.
pub fn is_any_open(view: &View, kind: AlertKind) -> Stored<bool> {
    let mut query =
        view.prepare_cached("SELECT EXISTS (SELECT 1 FROM alerts WHERE kind = ? AND closed_at IS NULL)")?;
    Ok(query.query_row([kind], |row| row.get(0))?)
}

/// The message of the alert that says why nothing can be sent to OpenAI; `None` if something can. A refused upload or
/// create says so until a batch is submitted.
pub fn why_nothing_is_sent(view: &View) -> Stored<Option<String>> {
    let mut query = view.prepare_cached(
        "SELECT message FROM alerts a WHERE closed_at IS NULL
           AND (kind IN ('openai_account', 'restored_database') OR kind = 'listing_fails' AND subject = 'batches'
                OR kind IN ('upload_failed', 'create_refused')
                   AND NOT EXISTS (SELECT 1 FROM openai_batches b WHERE b.submitted_at > a.opened_at))
         ORDER BY id LIMIT 1",
    )?;
    Ok(query.query_row([], |row| row.get(0)).optional()?)
}

/// The scopes that open alerts are about.
pub fn open_scopes(view: &View) -> Stored<Vec<PauseScope>> {
    let mut query = view.prepare_cached("SELECT DISTINCT subject FROM alerts WHERE closed_at IS NULL")?;
    let subjects: Vec<AlertSubject> = query
        .query_map([], |row| row.get("subject"))?
        .collect::<Result<_, _>>()?;
    let scopes = subjects.into_iter().filter_map(|subject| match subject {
        AlertSubject::Scope(scope) => Some(scope),
        _ => None,
    });
    Ok(scopes.collect())
}

/// The number of open alerts of each kind.
pub fn count_open(view: &View) -> Stored<Vec<(AlertKind, u64)>> {
    let mut query = view.prepare_cached(
        "SELECT kind, count(*) AS number FROM alerts WHERE closed_at IS NULL GROUP BY kind",
    )?;
    let rows = query.query_and_then([], |row| Ok((row.get("kind")?, row.get("number")?)))?;
    view.readable(rows).collect()
}

/// An alert, open or closed.
#[derive(Clone, Debug)]
pub struct AlertRow {
    /// Its row.
    pub id: i64,
    /// The kind of the problem.
    pub kind: AlertKind,
    /// The affected thing.
    pub subject: AlertSubject,
    /// The problem, and the command that fixes it.
    pub message: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was closed; `None` while it is open.
    pub closed_at: Option<Timestamp>,
    /// When an operator said that it is being looked after.
    pub acknowledged_at: Option<Timestamp>,
}

impl AlertRow {
    /// Reads a row that has the columns of `alerts`.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            kind: row.get("kind")?,
            subject: row.get("subject")?,
            message: row.get("message")?,
            opened_at: row.get("opened_at")?,
            closed_at: row.get("closed_at")?,
            acknowledged_at: row.get("acknowledged_at")?,
        })
    }
}

/// The newest alerts, newest first; with `open_only` those that are open.
pub fn list(view: &View, open_only: bool, limit: u32) -> Stored<Vec<AlertRow>> {
    let mut query = view.prepare_cached(
        "SELECT * FROM alerts WHERE closed_at IS NULL OR NOT ?
         ORDER BY id DESC LIMIT ?",
    )?;
    let rows = query.query_and_then(params![open_only, limit], |row| Ok(AlertRow::read(row)?))?;
    view.readable(rows).collect()
}

/// A pause of one scope.
#[derive(Clone, Debug)]
pub struct Pause {
    /// Why.
    pub reason: String,
    /// When it ends; `None` if it lasts until something resumes the scope.
    pub until: Option<Timestamp>,
    /// When it began; `None` if that cannot be read.
    pub since: Option<Timestamp>,
    /// OpenAI's creation time, in seconds, of the oldest batch that caused it.
    pub openai_time: Option<i64>,
    /// The batch that ends it; `None` if any batch that runs does.
    pub probe: Option<PauseProbe>,
}

/// A small batch that tests whether the cause of a pause is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseProbe {
    /// The most lines that it may have.
    pub lines: u32,
    /// It is a batch after this row.
    pub after_batch: i64,
}

/// Pauses a scope; a scope that is paused already gets the new reason and end.
pub fn pause(tx: &Tx<'_>, scope: &PauseScope, reason: &str, until: Option<Timestamp>) -> Stored<()> {
    tx.execute(
        "INSERT INTO pauses (scope, reason, since, until) VALUES (?, ?, ?, ?)
         ON CONFLICT (scope) DO UPDATE SET reason = excluded.reason, until = excluded.until",
        params![scope, reason, tx.now, until],
    )?;
    Ok(())
}

/// Pauses a scope until something resumes it, because of a batch that OpenAI made at `openai_time`.
pub fn pause_since(tx: &Tx<'_>, scope: &PauseScope, reason: &str, openai_time: i64) -> Stored<()> {
    pause(tx, scope, reason, None)?;
    tx.execute(
        "UPDATE pauses SET openai_time = min(coalesce(openai_time, ?1), ?1) WHERE scope = ?2",
        params![openai_time, scope],
    )?;
    Ok(())
}

/// Pauses a scope until a probe of at most `lines` lines, which is sent from `until` on, shows that the cause is
/// gone.
pub fn pause_for_probe(
    tx: &Tx<'_>,
    scope: &PauseScope,
    reason: &str,
    until: Timestamp,
    lines: u32,
) -> Stored<()> {
    pause(tx, scope, reason, Some(until))?;
    tx.execute(
        "UPDATE pauses SET probe_lines = ?, after_batch = (SELECT coalesce(max(id), 0) FROM openai_batches)
         WHERE scope = ?",
        params![lines, scope],
    )?;
    Ok(())
}

/// Makes the probes of paused stages due: the configuration may have been changed. Called at the start.
pub fn probe_stages(tx: &Tx<'_>) -> Stored<()> {
    tx.execute(
        "UPDATE pauses SET until = ? WHERE scope LIKE 'stage:%' AND probe_lines IS NOT NULL",
        [tx.now],
    )?;
    Ok(())
}

/// Ends the pause of a scope; returns whether there was one.
pub fn resume(tx: &Tx<'_>, scope: &PauseScope) -> Stored<bool> {
    Ok(tx.execute("DELETE FROM pauses WHERE scope = ?", [scope])? == 1)
}

/// Pauses a scope for an operator, and opens the alert about it.
pub fn pause_by_operator(tx: &Tx<'_>, scope: &PauseScope) -> Stored<()> {
    let message = format!("{scope} paused by the operator; go on with: batchkeeper resume {scope}");
    pause(tx, scope, &message, None)?;
    open(
        tx,
        AlertKind::Paused,
        &AlertSubject::Scope(scope.clone()),
        &message,
    )
    .map(drop)
}

/// Ends a pause for an operator, and closes the alert about it. Returns whether there was a pause.
pub fn resume_by_operator(tx: &Tx<'_>, scope: &PauseScope) -> Stored<bool> {
    close(tx, AlertKind::Paused, &AlertSubject::Scope(scope.clone()))?;
    resume(tx, scope)
}

/// Notes that a person looks after an open alert. Returns whether it was open and not noted yet.
pub fn acknowledge(tx: &Tx<'_>, id: i64) -> Stored<bool> {
    let changed = tx.execute(
        "UPDATE alerts SET acknowledged_at = ? WHERE id = ? AND closed_at IS NULL AND acknowledged_at IS NULL",
        params![tx.now, id],
    )?;
    Ok(changed == 1)
}

/// An alert by its row.
pub fn by_id(view: &View, id: i64) -> Stored<Option<AlertRow>> {
    let mut query = view.prepare_cached("SELECT * FROM alerts WHERE id = ?")?;
    Ok(query.query_row([id], AlertRow::read).optional()?)
}

/// Ends the pause of a scope and closes its alerts: a call under that scope succeeded.
pub fn clear_pause(tx: &Tx<'_>, scope: &PauseScope) -> Stored<()> {
    resume(tx, scope)?;
    close_all(tx, &AlertSubject::Scope(scope.clone()))
}

/// The pause of a scope; `None` if the scope is not paused.
pub fn paused(view: &View, scope: &PauseScope) -> Stored<Option<Pause>> {
    let mut query = view.prepare_cached(
        "SELECT reason, until, since, openai_time, probe_lines, coalesce(after_batch, 0) AS after_batch
         FROM pauses WHERE scope = ?",
    )?;
    let pause = query.query_row([scope], |row| {
        let probe: (Option<u32>, i64) = (row.get("probe_lines")?, row.get("after_batch")?);
        Ok((
            row.get("reason")?,
            row.get("until"),
            row.get("since"),
            row.get("openai_time")?,
            probe,
        ))
    });
    let Some((reason, until, since, openai_time, (lines, after_batch))) = pause.optional()? else {
        return Ok(None);
    };
    // Without an end, the pause of a scope that waits for a probe is over.
    let until = view.readable_value(until)?;
    Ok(Some(Pause {
        reason,
        until,
        since: view.readable_value(since)?,
        openai_time,
        probe: lines.map(|lines| PauseProbe { lines, after_batch }),
    }))
}
