//! `alert_notices`: the notifications of alerts, those that are due and those that ended. The transaction
//! that opens or closes an alert adds the notice.

use std::time::Duration;

use rusqlite::params;

use super::alerts::AlertRow;
use super::{Stored, Tx, View, moved};
use crate::base::clock::Timestamp;
use crate::domain::alert::AlertChange;
use crate::domain::decide::webhook_answer::DeliveryDecision;
use crate::domain::due::Due;

/// A notice that is due.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Its row.
    pub id: i64,
    /// What happened to the alert.
    pub change: AlertChange,
    /// Attempts before this one.
    pub attempts: u32,
    /// The alert's row.
    pub alert_id: i64,
    /// The alert as it is now.
    pub alert: AlertRow,
}

/// The first notice that is due.
///
/// The notice that an alert was closed comes after the one that it was opened. If a notice is due later than
/// `longest` from now, the clock was set back since: the notice is due.
pub fn next_due(view: &View, now: Timestamp, longest: Duration) -> Stored<Due<Notice>> {
    let mut due = view.prepare_cached(
        "SELECT n.id AS notice, n.alert, n.change, n.attempts, a.*
         FROM alert_notices n JOIN alerts a ON a.id = n.alert
         WHERE n.state = 'due' AND (n.next_at <= ?1 OR n.next_at > ?2)
           AND (n.change = 'opened' OR NOT EXISTS (SELECT 1 FROM alert_notices o
                WHERE o.alert = n.alert AND o.change = 'opened' AND o.state = 'due'))
         ORDER BY +n.id",
    )?;
    let notices = due.query_and_then(params![now, now + longest], |row| {
        Ok(Notice {
            id: row.get("notice")?,
            change: row.get("change")?,
            attempts: row.get("attempts")?,
            alert_id: row.get("alert")?,
            alert: AlertRow::read(row)?,
        })
    })?;
    if let Some(notice) = view.readable(notices).next() {
        return Ok(Due::Now(notice?));
    }
    let mut later = view.prepare_cached(
        "SELECT next_at FROM alert_notices WHERE state = 'due' AND next_at > ? ORDER BY next_at",
    )?;
    let times = later.query_and_then([now], |row| Ok(row.get("next_at")?))?;
    Ok(Due::new(None, view.readable(times).next().transpose()?))
}

/// Stores that an attempt begins; returns whether the notice was still due. There is no other attempt before
/// `lease`. If the process ends before the outcome is stored, the attempt is made again then, under the same
/// id.
pub fn begin(tx: &Tx<'_>, notice: &Notice, lease: Timestamp) -> Stored<bool> {
    let begun = tx.execute(
        "UPDATE alert_notices SET attempts = attempts + 1, next_at = ? WHERE id = ? AND state = 'due' AND attempts = ?",
        params![lease, notice.id, notice.attempts],
    )?;
    Ok(begun == 1)
}

/// Stores how an attempt ended.
pub fn end(
    tx: &Tx<'_>,
    notice: &Notice,
    status: Option<u16>,
    error: &str,
    decision: DeliveryDecision,
) -> Stored<()> {
    let (state, next_at, notified_at) = match decision {
        DeliveryDecision::Delivered => ("notified", None, Some(tx.now)),
        DeliveryDecision::RetryAt(at) => ("due", Some(at), None),
        DeliveryDecision::Abandoned => ("failed", None, None),
    };
    let changed = tx.execute(
        "UPDATE alert_notices SET state = ?, next_at = ?, notified_at = ?, response_status = ?, error_message = nullif(?, '')
         WHERE id = ? AND state = 'due' AND attempts = ?",
        params![state, next_at, notified_at, status, error, notice.id, notice.attempts + 1],
    )?;
    moved(changed, || format!("notice {} is not at that attempt", notice.id))
}

/// Whether a notice is due.
pub fn has_due(view: &View) -> Stored<bool> {
    let mut query = view.prepare_cached("SELECT EXISTS (SELECT 1 FROM alert_notices WHERE state = 'due')")?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// Ends all notices that are due: no receiver is configured.
pub fn discard_due(tx: &Tx<'_>) -> Stored<()> {
    tx.execute(
        "UPDATE alert_notices SET state = 'unwanted', next_at = NULL WHERE state = 'due'",
        [],
    )?;
    Ok(())
}

/// Makes a notice due for each open alert that has none: a receiver is configured now.
pub fn add_for_open_alerts(tx: &Tx<'_>) -> Stored<()> {
    tx.execute(
        "INSERT INTO alert_notices (alert, change, state, next_at, created_at)
         SELECT id, 'opened', 'due', ?1, ?1 FROM alerts WHERE closed_at IS NULL
         ON CONFLICT DO UPDATE SET state = 'due', next_at = excluded.next_at WHERE state = 'unwanted'",
        [tx.now],
    )?;
    Ok(())
}
