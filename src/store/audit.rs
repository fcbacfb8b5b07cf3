//! `operator_actions`: every change that a person makes. Its row is written in the transaction of the change, and
//! triggers refuse to change or delete it.

use log::Level;
use rusqlite::{OptionalExtension, Row, params};

use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::money::Money;
use crate::domain::operator_action::{ActionKind, Actor};

/// A change that a person makes.
#[derive(Clone, Debug)]
pub struct OperatorAction<'a> {
    /// The person.
    pub actor: &'a Actor,
    /// The kind of the change.
    pub kind: ActionKind,
    /// The job, delivery, batch, alert or scope.
    pub subject: &'a str,
    /// The state that the person saw, and the effect in numbers.
    pub detail: Fields,
    /// The most that it costs.
    pub cost: Option<Money>,
    /// Makes a repeat of the same form recognizable.
    pub nonce: Option<&'a str>,
}

/// Stores a change that a person makes, and logs it once the transaction is committed.
pub fn record(tx: &Tx<'_>, action: OperatorAction<'_>) -> Stored<i64> {
    let OperatorAction {
        actor, kind, subject, ..
    } = action;
    tx.execute(
        "INSERT INTO operator_actions (at, actor, origin, action, subject, detail, cost, nonce)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            tx.now,
            actor.name,
            actor.origin,
            kind,
            subject,
            action.detail.to_string(),
            action.cost.map(|cost| cost.0),
            action.nonce
        ],
    )?;
    let id = tx.last_insert_rowid();
    let fields = Fields::new()
        .with("event", "operator_action")
        .with("action", kind.as_str())
        .with("subject", subject)
        .with("actor", actor.name.as_str())
        .with("origin", actor.origin.as_str());
    tx.log_after_commit(Level::Info, fields.followed_by(action.detail));
    Ok(id)
}

/// Stores the outcome of a change that was carried out later, as a second row.
pub fn record_outcome(tx: &Tx<'_>, action: i64, outcome: Fields) -> Stored<()> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO operator_actions (at, actor, origin, action, subject, detail, outcome_of)
         SELECT ?, 'batchkeeper', 'the daemon', action, subject, ?, id FROM operator_actions WHERE id = ?
         RETURNING action, subject",
    )?;
    let row = insert.query_row(params![tx.now, outcome.to_string(), action], |row| {
        Ok((
            row.get::<_, ActionKind>("action")?,
            row.get::<_, String>("subject")?,
        ))
    });
    let (kind, subject) = row?;
    let fields = Fields::new()
        .with("event", "operator_action_outcome")
        .with("action", kind.as_str())
        .with("subject", subject);
    tx.log_after_commit(Level::Info, fields.followed_by(outcome));
    Ok(())
}

/// Stores the same outcome for all changes of a job that have none yet.
pub fn record_job_outcome(tx: &Tx<'_>, job: &str, outcome: &Fields) -> Stored<()> {
    let mut query = tx.prepare_cached(
        "SELECT id, action FROM operator_actions a WHERE subject = ? AND outcome_of IS NULL
           AND NOT EXISTS (SELECT 1 FROM operator_actions o WHERE o.outcome_of = a.id)",
    )?;
    let pending: Vec<(i64, ActionKind)> = query
        .query_map([job], |row| Ok((row.get("id")?, row.get("action")?)))?
        .collect::<Result<_, _>>()?;
    let of_job = pending
        .iter()
        .filter(|(_, kind)| ActionKind::OF_JOBS.contains(kind));
    of_job
        .map(|(id, _)| *id)
        .try_for_each(|id| record_outcome(tx, id, outcome.clone()))
}

/// Whether a change with that nonce was made.
pub fn is_repeat(view: &View, nonce: &str) -> Stored<bool> {
    let mut query = view.prepare_cached("SELECT 1 FROM operator_actions WHERE nonce = ?")?;
    Ok(query.query_row([nonce], |_| Ok(())).optional()?.is_some())
}

/// A row of the audit.
#[derive(Clone, Debug)]
pub struct ActionRow {
    /// When it was made.
    pub at: Timestamp,
    /// The person.
    pub actor: String,
    /// Where from.
    pub origin: String,
    /// The kind of the change.
    pub action: String,
    /// The job, delivery, batch, alert or scope.
    pub subject: String,
    /// The state that was seen, and the effect.
    pub detail: String,
    /// The most that it costs.
    pub cost: Option<Money>,
}

impl ActionRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            at: row.get("at")?,
            actor: row.get("actor")?,
            origin: row.get("origin")?,
            action: match row.get::<_, Option<i64>>("outcome_of")? {
                Some(_) => format!("outcome of {}", row.get::<_, String>("action")?),
                None => row.get("action")?,
            },
            subject: row.get("subject")?,
            detail: row.get("detail")?,
            cost: row.get::<_, Option<i64>>("cost")?.map(Money),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn a_row_stays_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_seconds(1_795_400_000);
        let store = Store::open(&folder.path().join("a.db"), now).expect("a store");
        let actor = Actor {
            name: "anna".into(),
            origin: "command line".into(),
        };
        let action = || OperatorAction {
            actor: &actor,
            kind: ActionKind::Pause,
            subject: "intake",
            detail: Fields::new(),
            cost: None,
            nonce: Some("n"),
        };
        store.write(now, |tx| record(tx, action())).expect("a row");
        assert!(store.read(|view| is_repeat(view, "n")).expect("a lookup"));
        for change in [
            "UPDATE operator_actions SET actor = 'x'",
            "DELETE FROM operator_actions",
            "INSERT OR REPLACE INTO operator_actions SELECT * FROM operator_actions",
        ] {
            let refused = store.write(now, |tx| Ok(tx.execute(change, [])?));
            assert!(
                refused.is_err_and(|error| error.to_string().contains("append-only")),
                "{change}"
            );
        }
        // The same form a second time.
        assert!(store.write(now, |tx| record(tx, action())).is_err());
    }
}
