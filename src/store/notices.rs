//! `alert_receivers` and `alert_notices`: the receivers of alerts, and the notifications, those that are due and those
//! that ended. The transaction that opens or closes an alert adds a notice for each receiver.

use std::time::Duration;

use rusqlite::params;

use super::alerts::AlertRow;
use super::{Stored, Tx, View, moved};
use crate::base::clock::Timestamp;
use crate::domain::alert::{AlertChange, AlertKind};
use crate::domain::alert_words::Severity;
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

/// Stores the receivers of the configuration, each with the least severity that it is notified of.
///
/// The notices that are due to other receivers end. Each receiver gets a notice of each open alert that it has none
/// of: it may be new.
pub fn set_receivers(tx: &Tx<'_>, receivers: &[(&str, Severity)]) -> Stored<()> {
    tx.execute("DELETE FROM alert_receivers", [])?;
    for (name, severity) in receivers {
        tx.execute(
            "INSERT INTO alert_receivers (name, least_severity) VALUES (?, ?)",
            params![name, severity],
        )?;
    }
    tx.execute(
        "UPDATE alert_notices SET state = 'unwanted', next_at = NULL
         WHERE state = 'due' AND receiver NOT IN (SELECT name FROM alert_receivers)",
        [],
    )?;
    let mut query = tx.prepare_cached("SELECT id, kind FROM alerts WHERE closed_at IS NULL")?;
    let open: Vec<(i64, AlertKind)> = query
        .query_map([], |row| Ok((row.get("id")?, row.get("kind")?)))?
        .collect::<Result<_, _>>()?;
    open.iter()
        .try_for_each(|(alert, kind)| add(tx, *alert, *kind, AlertChange::Opened))
}

/// Adds the notices of a change, one for each receiver that is notified of this kind and has none.
pub(super) fn add(tx: &Tx<'_>, alert: i64, kind: AlertKind, change: AlertChange) -> Stored<()> {
    let severity = kind.severity();
    let mut query = tx.prepare_cached("SELECT name, least_severity FROM alert_receivers")?;
    let receivers: Vec<(String, Severity)> = query
        .query_map([], |row| Ok((row.get("name")?, row.get("least_severity")?)))?
        .collect::<Result<_, _>>()?;
    for (receiver, _) in receivers.iter().filter(|(_, least)| severity >= *least) {
        tx.execute(
            "INSERT INTO alert_notices (alert, change, receiver, state, next_at, created_at)
             VALUES (?1, ?2, ?3, 'due', ?4, ?4)
             ON CONFLICT DO UPDATE SET state = 'due', next_at = excluded.next_at WHERE state = 'unwanted'",
            params![alert, change, receiver, tx.now],
        )?;
    }
    Ok(())
}

/// The first notices that are due to a receiver, at most `most`.
///
/// The notice that an alert was closed comes after the one that it was opened. If a notice is due later than
/// `longest` from now, the clock was set back since: the notice is due.
pub fn next_due(
    view: &View,
    receiver: &str,
    now: Timestamp,
    longest: Duration,
    most: usize,
) -> Stored<Due<Vec<Notice>>> {
    let mut due = view.prepare_cached(
        "SELECT n.id AS notice, n.alert, n.change, n.attempts, a.*
         FROM alert_notices n JOIN alerts a ON a.id = n.alert
         WHERE n.state = 'due' AND n.receiver = ?1 AND (n.next_at <= ?2 OR n.next_at > ?3)
           AND (n.change = 'opened' OR NOT EXISTS (SELECT 1 FROM alert_notices o
                WHERE o.alert = n.alert AND o.receiver = ?1 AND o.change = 'opened' AND o.state = 'due'
                  AND o.next_at > ?2 AND o.next_at <= ?3))
         ORDER BY +n.id",
    )?;
    let notices = due.query_and_then(params![receiver, now, now + longest], |row| {
        Ok(Notice {
            id: row.get("notice")?,
            change: row.get("change")?,
            attempts: row.get("attempts")?,
            alert_id: row.get("alert")?,
            alert: AlertRow::read(row)?,
        })
    })?;
    let notices: Vec<Notice> = view.readable(notices).take(most).collect::<Result<_, _>>()?;
    if !notices.is_empty() {
        return Ok(Due::Now(notices));
    }
    let mut later = view.prepare_cached(
        "SELECT next_at FROM alert_notices WHERE state = 'due' AND receiver = ? AND next_at > ? ORDER BY next_at",
    )?;
    let times = later.query_and_then(params![receiver, now], |row| Ok(row.get("next_at")?))?;
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
