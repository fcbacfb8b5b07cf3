//! `operator_tasks`: what persons have asked for on the pages and a worker carries out. The row goes when the outcome
//! is recorded.

use rusqlite::{OptionalExtension, params};

use super::audit;
use super::{Stored, Tx, View};
use crate::base::fields::Fields;
use crate::domain::operator_action::ActionKind;

/// A task that is not finished.
#[derive(Clone, Debug)]
pub struct OperatorTask {
    /// The row of the audit that asks for it.
    pub action: i64,
    /// Its kind.
    pub kind: ActionKind,
    /// What it is about.
    pub subject: String,
    /// Of several rows: those up to this one are done.
    pub position: i64,
    /// Of several rows: how many are done.
    pub done: u64,
}

/// Adds the task that an action asks for.
pub fn add(tx: &Tx<'_>, action: i64, kind: ActionKind, subject: &str) -> Stored<()> {
    tx.execute(
        "INSERT INTO operator_tasks (action, kind, subject) VALUES (?, ?, ?)",
        params![action, kind, subject],
    )?;
    Ok(())
}

/// The oldest task.
pub fn next(view: &View) -> Stored<Option<OperatorTask>> {
    let mut query = view.prepare_cached("SELECT * FROM operator_tasks ORDER BY action LIMIT 1")?;
    let task = query.query_row([], |row| {
        Ok(OperatorTask {
            action: row.get("action")?,
            kind: row.get("kind")?,
            subject: row.get("subject")?,
            position: row.get("position")?,
            done: row.get("done")?,
        })
    });
    Ok(task.optional()?)
}

/// Whether such a task is not finished.
pub fn is_pending(view: &View, kind: ActionKind, subject: &str) -> Stored<bool> {
    let mut query =
        view.prepare_cached("SELECT EXISTS (SELECT 1 FROM operator_tasks WHERE kind = ? AND subject = ?)")?;
    Ok(query.query_row(params![kind, subject], |row| row.get(0))?)
}

/// Stores how far a task of several rows is.
pub fn advance(tx: &Tx<'_>, task: &OperatorTask, position: i64, done: u64) -> Stored<()> {
    tx.execute(
        "UPDATE operator_tasks SET position = ?, done = ? WHERE action = ?",
        params![position, done, task.action],
    )?;
    Ok(())
}

/// Ends a task with its outcome.
pub fn end(tx: &Tx<'_>, task: &OperatorTask, outcome: Fields) -> Stored<()> {
    tx.execute("DELETE FROM operator_tasks WHERE action = ?", [task.action])?;
    audit::record_outcome(tx, task.action, outcome)
}
