//! What a person should know (`alerts`), what happened (`events`), what is stopped (`pauses`).

use std::cell::RefCell;

use log::Level;
use rusqlite::{OptionalExtension, params};

use super::notices::{self, What};
use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;

/// What a transaction has to say to the log: it is said once it is true.
pub(super) type Said = RefCell<Vec<(Level, String)>>;

/// Says in the log what a transaction, which is committed by now, had to say.
pub(super) fn log_said(said: Said) {
    for (level, line) in said.into_inner() {
        log::log!(level, "{line}");
    }
}

fn say(tx: &Tx<'_>, level: Level, line: String) {
    tx.said.borrow_mut().push((level, line));
}

/// Opens an alert; one that is open already stays as it is. Gives whether it is new.
pub fn open(tx: &Tx<'_>, kind: &str, subject: &str, message: &str) -> Stored<bool> {
    debug_assert!(
        message.contains("batchkeeper ") || message.contains("systemctl"),
        "{kind} does not say what mends it: {message}"
    );
    let added = tx.execute(
        "INSERT INTO alerts (kind, subject, message, opened_at) VALUES (?, ?, ?, ?)
         ON CONFLICT (kind, subject) WHERE closed_at IS NULL DO NOTHING",
        params![kind, subject, message, tx.now],
    )?;
    if added == 1 {
        let line =
            format!("event=alert_opened kind={kind} subject={subject:?} message={message:?}");
        say(tx, Level::Warn, line);
        notices::add(tx, tx.tx.last_insert_rowid(), What::Opened)?;
    }
    Ok(added == 1)
}

/// Closes an alert whose cause is gone.
pub fn close(tx: &Tx<'_>, kind: &str, subject: &str) -> Stored<()> {
    let mut update = tx.prepare_cached(
        "UPDATE alerts SET closed_at = ? WHERE kind = ? AND subject = ? AND closed_at IS NULL RETURNING id",
    )?;
    let closed: Option<i64> = update
        .query_row(params![tx.now, kind, subject], |row| row.get(0))
        .optional()?;
    if let Some(alert) = closed {
        let line = format!("event=alert_closed kind={kind} subject={subject:?}");
        say(tx, Level::Info, line);
        notices::add(tx, alert, What::Closed)?;
    }
    Ok(())
}

/// Makes the open alerts of a kind these and no others: each a subject and its message.
pub fn only(tx: &Tx<'_>, kind: &str, now: &[(String, String)]) -> Stored<()> {
    for (subject, message) in now {
        open(tx, kind, subject, message)?;
    }
    let mut query =
        tx.prepare_cached("SELECT subject FROM alerts WHERE kind = ? AND closed_at IS NULL")?;
    let subjects: Vec<String> = query
        .query_map([kind], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut gone = subjects
        .iter()
        .filter(|subject| !now.iter().any(|(known, _)| known == *subject));
    gone.try_for_each(|subject| close(tx, kind, subject))
}

/// Closes every alert of a subject, whose causes are gone.
pub fn close_all(tx: &Tx<'_>, subject: &str) -> Stored<()> {
    let mut query =
        tx.prepare_cached("SELECT kind FROM alerts WHERE subject = ? AND closed_at IS NULL")?;
    let kinds: Vec<String> = query
        .query_map([subject], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    kinds.iter().try_for_each(|kind| close(tx, kind, subject))
}

/// Closes the alerts of batches whose state says that their cause is gone: what OpenAI refused of one
/// that it has by now, and anything of one that is over.
pub fn close_outlived(tx: &Tx<'_>) -> Stored<()> {
    let mut query = tx.prepare_cached(
        "SELECT a.kind, a.subject FROM alerts a LEFT JOIN openai_batches b ON b.id = CAST(substr(a.subject, 7) AS INTEGER)
         WHERE a.closed_at IS NULL AND a.subject GLOB 'batch:[0-9]*'
           AND (b.id IS NULL OR b.state IN ('ingested', 'failed')
                OR b.state IN ('submitted', 'ended') AND a.kind IN ('upload_failed', 'create_refused', 'input_changed', 'other_project'))",
    )?;
    let outlived: Vec<(String, String)> = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    outlived
        .iter()
        .try_for_each(|(kind, subject)| close(tx, kind, subject))
}

/// The subjects of open alerts that begin so.
pub fn open_subjects(view: &View, prefix: &str) -> Stored<Vec<String>> {
    let mut query = view.prepare_cached(
        "SELECT DISTINCT subject FROM alerts WHERE closed_at IS NULL AND substr(subject, 1, length(?1)) = ?1",
    )?;
    let subjects = query.query_map([prefix], |row| row.get(0))?;
    Ok(subjects.collect::<Result<_, _>>()?)
}

/// Open alerts by their kind.
pub fn count_open(view: &View) -> Stored<Vec<(String, u64)>> {
    let mut query = view.prepare_cached(
        "SELECT kind, count(*) FROM alerts WHERE closed_at IS NULL GROUP BY kind",
    )?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// An alert, open or closed.
#[derive(Clone, Debug)]
pub struct AlertRow {
    /// What kind of trouble.
    pub kind: String,
    /// Of what: a batch, a model, …
    pub subject: String,
    /// What is wrong and what mends it.
    pub message: String,
    /// Since when.
    pub opened_at: Timestamp,
    /// Until when.
    pub closed_at: Option<Timestamp>,
}

/// Alerts, newest first; the open ones alone where `open_only`.
pub fn list(view: &View, open_only: bool, limit: u32) -> Stored<Vec<AlertRow>> {
    let mut query = view.prepare_cached(
        "SELECT kind, subject, message, opened_at, closed_at FROM alerts WHERE closed_at IS NULL OR NOT ?
         ORDER BY id DESC LIMIT ?",
    )?;
    let rows = query.query_map(params![open_only, limit], |row| {
        Ok(AlertRow {
            kind: row.get(0)?,
            subject: row.get(1)?,
            message: row.get(2)?,
            opened_at: row.get(3)?,
            closed_at: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Notes what happened to a job or a batch.
pub fn event(
    tx: &Tx<'_>,
    job: Option<&str>,
    batch: Option<i64>,
    kind: &str,
    detail: &str,
) -> Stored<()> {
    tx.prepare_cached(
        "INSERT INTO events (at, job_id, batch_id, kind, detail) VALUES (?, ?, ?, ?, ?)",
    )?
    .execute(params![tx.now, job, batch, kind, detail])?;
    let line = format!(
        "event={kind}{}{}{}",
        field(" job=", job),
        field(" batch=", batch),
        field(" ", Some(detail).filter(|detail| !detail.is_empty()))
    );
    say(tx, Level::Info, line);
    Ok(())
}

fn field<T: std::fmt::Display>(name: &str, value: Option<T>) -> String {
    value
        .map(|value| format!("{name}{value}"))
        .unwrap_or_default()
}

/// The scope of an operator's stop of new jobs.
pub const INTAKE: &str = "intake";
/// The same of everything that is sent to OpenAI for the first time.
pub const SUBMISSIONS: &str = "submissions";
/// The same of webhooks.
pub const WEBHOOKS: &str = "webhooks";

/// What is stopped.
#[derive(Clone, Debug)]
pub struct Pause {
    /// Why.
    pub reason: String,
    /// Until when; none: until somebody lets it go on.
    pub until: Option<Timestamp>,
    /// OpenAI's time, in seconds, of the oldest thing that it is about.
    pub openai_time: Option<i64>,
}

/// Stops a scope, or says anew why and until when it is stopped.
pub fn pause(tx: &Tx<'_>, scope: &str, reason: &str, until: Option<Timestamp>) -> Stored<()> {
    tx.execute(
        "INSERT INTO pauses (scope, reason, since, until) VALUES (?, ?, ?, ?)
         ON CONFLICT (scope) DO UPDATE SET reason = excluded.reason, until = excluded.until",
        params![scope, reason, tx.now, until],
    )?;
    Ok(())
}

/// Stops a scope for something at OpenAI, of that time or a later one, until somebody mends it.
pub fn pause_since(tx: &Tx<'_>, scope: &str, reason: &str, openai_time: i64) -> Stored<()> {
    pause(tx, scope, reason, None)?;
    tx.execute(
        "UPDATE pauses SET openai_time = min(coalesce(openai_time, ?1), ?1) WHERE scope = ?2",
        params![openai_time, scope],
    )?;
    Ok(())
}

/// Lets a scope go on; gives whether it was stopped.
pub fn resume(tx: &Tx<'_>, scope: &str) -> Stored<bool> {
    Ok(tx.execute("DELETE FROM pauses WHERE scope = ?", [scope])? == 1)
}

/// Whether a scope is stopped.
pub fn paused(view: &View, scope: &str) -> Stored<Option<Pause>> {
    let mut query =
        view.prepare_cached("SELECT reason, until, openai_time FROM pauses WHERE scope = ?")?;
    Ok(query
        .query_row([scope], |row| {
            Ok(Pause {
                reason: row.get(0)?,
                until: row.get(1)?,
                openai_time: row.get(2)?,
            })
        })
        .optional()?)
}
