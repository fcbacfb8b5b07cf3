//! `webhook_deliveries` and `delivery_attempts`.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{Stored, Tx, View, moved};
use crate::clock::Timestamp;

/// A delivery that is due.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its row.
    pub id: i64,
    /// The job that it tells of.
    pub job_id: String,
    /// Where to.
    pub url: String,
    /// How often an operator has sent it again.
    pub again: u32,
    /// Attempts before this one.
    pub attempts: u32,
}

/// The delivery that is due, or else when the next one is; none where there is none. One due later
/// than in `longest` has its time from a clock that was set back since: it is due, and comes first.
pub fn next_due(
    view: &View,
    now: Timestamp,
    longest: Duration,
) -> Stored<Option<Result<Delivery, Timestamp>>> {
    let mut due = view.prepare_cached(
        "SELECT id, batch_job_id, url, again, attempts FROM webhook_deliveries
         WHERE state = 'due' AND (next_at <= ?1 OR next_at > ?2) ORDER BY next_at <= ?1, next_at LIMIT 1",
    )?;
    let delivery = due.query_row([now, now + longest], |row| {
        Ok(Delivery {
            id: row.get(0)?,
            job_id: row.get(1)?,
            url: row.get(2)?,
            again: row.get(3)?,
            attempts: row.get(4)?,
        })
    });
    if let Some(delivery) = delivery.optional()? {
        return Ok(Some(Ok(delivery)));
    }
    let mut later =
        view.prepare_cached("SELECT min(next_at) FROM webhook_deliveries WHERE state = 'due'")?;
    let at: Option<Timestamp> = later.query_row([], |row| row.get(0))?;
    Ok(at.map(Err))
}

/// Notes that an attempt is about to be made. Until `lease` nobody else makes one; if the process
/// ends before the outcome is known, it is made again then, under the same id.
pub fn begin(tx: &Tx<'_>, delivery: &Delivery, lease: Timestamp) -> Stored<bool> {
    let taken = tx.execute(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, next_at = ?
         WHERE id = ? AND state = 'due' AND attempts = ?",
        params![lease, delivery.id, delivery.attempts],
    )?;
    if taken == 1 {
        tx.execute(
            "INSERT INTO delivery_attempts (delivery_id, attempt, started_at) VALUES (?, ?, ?)",
            params![delivery.id, delivery.attempts + 1, tx.now],
        )?;
    }
    Ok(taken == 1)
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Taken by the receiver.
    Delivered,
    /// Tried again at that time.
    Retry(Timestamp),
    /// Given up.
    GiveUp,
}

impl std::fmt::Display for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Delivered => f.write_str("delivered"),
            Self::Retry(at) => write!(f, "retry_at_{at}"),
            Self::GiveUp => f.write_str("given_up"),
        }
    }
}

/// Notes an attempt's outcome.
pub fn end(
    tx: &Tx<'_>,
    delivery: &Delivery,
    status: Option<u16>,
    error: Option<&str>,
    then: Then,
) -> Stored<()> {
    let (state, next_at, delivered_at) = match then {
        Then::Delivered => ("delivered", None, Some(tx.now)),
        Then::Retry(at) => ("due", Some(at), None),
        Then::GiveUp => ("failed", None, None),
    };
    let attempt = delivery.attempts + 1;
    let changed = tx.execute(
        "UPDATE webhook_deliveries SET state = ?, next_at = ?, delivered_at = ?, response_status = ?, error_message = ?
         WHERE id = ? AND state = 'due' AND attempts = ?",
        params![state, next_at, delivered_at, status, error, delivery.id, attempt],
    )?;
    moved(changed, || {
        format!("delivery {} is not at attempt {attempt}", delivery.id)
    })?;
    tx.execute(
        "UPDATE delivery_attempts SET ended_at = ?, response_status = ?, error_message = ?
         WHERE delivery_id = ? AND attempt = ?",
        params![tx.now, status, error, delivery.id, attempt],
    )?;
    Ok(())
}

/// After a start: attempts whose outcome nobody saw are due at once.
pub fn release_unfinished(tx: &Tx<'_>) -> Stored<usize> {
    Ok(tx.execute(
        "UPDATE webhook_deliveries SET next_at = ?
         WHERE state = 'due' AND EXISTS (SELECT 1 FROM delivery_attempts a
               WHERE a.delivery_id = webhook_deliveries.id AND a.attempt = attempts AND a.ended_at IS NULL)",
        [tx.now],
    )?)
}
