//! `webhook_deliveries` and `delivery_attempts`.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{Stored, Tx, View, alerts, events, moved};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::alert::{AlertKind, AlertSubject};
use crate::domain::due::Due;

/// A delivery that is due.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its row.
    pub id: i64,
    /// The job that it tells of.
    pub job_id: String,
    /// Where to.
    pub url: String,
    /// Who is told: host and port.
    pub host: String,
    /// How often an operator has sent it again.
    pub again: u32,
    /// Attempts before this one.
    pub attempts: u32,
}

/// How many attempts may be under way at once.
#[derive(Clone, Copy, Debug)]
pub struct AtOnce {
    /// To one receiver.
    pub receiver: u32,
    /// To all receivers whose last attempt failed, together; to one of them, one.
    pub failing: u32,
}

/// Under way to a receiver, and to all failing ones; `?1` is the time.
const UNDER_WAY: &str = "SELECT count(*) FROM webhook_deliveries u WHERE u.host = h.host AND u.in_flight = 1 AND u.next_at > ?1";
const UNDER_WAY_FAILING: &str =
    "SELECT count(*) FROM webhook_deliveries u JOIN failing_receivers g ON g.host = u.host
     WHERE u.in_flight = 1 AND u.next_at > ?1";

/// The delivery that an attempt may be made of now. Receivers that fail come last. Each receiver is looked up once, however much is
/// due to it: a dead one with a long queue costs no more than another.
pub fn next_due(view: &View, now: Timestamp, at_once: AtOnce) -> Stored<Due<Delivery>> {
    let mut first =
        view.prepare_cached("SELECT min(next_at) FROM webhook_deliveries WHERE state = 'due'")?;
    let first: Option<Timestamp> = first.query_row([], |row| row.get(0))?;
    if first.is_none_or(|first| first > now) {
        return Ok(Due::new(None, first));
    }
    let mut due = view.prepare_cached(&format!(
        "WITH RECURSIVE h (host) AS (
             SELECT min(host) FROM webhook_deliveries WHERE state = 'due'
             UNION ALL
             SELECT (SELECT min(host) FROM webhook_deliveries WHERE state = 'due' AND host > h.host)
             FROM h WHERE h.host IS NOT NULL)
         SELECT d.id, d.batch_job_id, d.url, d.host, d.resend_number, d.attempts
         FROM h JOIN webhook_deliveries d ON d.id =
                  (SELECT id FROM webhook_deliveries WHERE state = 'due' AND host = h.host AND next_at <= ?1
                   ORDER BY next_at LIMIT 1)
              LEFT JOIN failing_receivers f ON f.host = h.host
         WHERE ({UNDER_WAY}) < CASE WHEN f.host IS NULL THEN ?2 ELSE 1 END
           AND (f.host IS NULL OR ({UNDER_WAY_FAILING}) < ?3)
         ORDER BY f.host IS NOT NULL, d.next_at LIMIT 1"
    ))?;
    let delivery = due.query_row(params![now, at_once.receiver, at_once.failing], |row| {
        Ok(Delivery {
            id: row.get(0)?,
            job_id: row.get(1)?,
            url: row.get(2)?,
            host: row.get(3)?,
            again: row.get(4)?,
            attempts: row.get(5)?,
        })
    });
    if let Some(delivery) = delivery.optional()? {
        return Ok(Due::Now(delivery));
    }
    // Those that are due wait for their receivers; an attempt's end rings.
    let mut later = view.prepare_cached(
        "SELECT min(next_at) FROM webhook_deliveries WHERE state = 'due' AND next_at > ?",
    )?;
    let later: Option<Timestamp> = later.query_row([now], |row| row.get(0))?;
    Ok(Due::new(None, later))
}

/// A due time further away than any wait says that the clock was set back: it is due at once.
pub fn correct_due_times(tx: &Tx<'_>, longest: Duration) -> Stored<()> {
    tx.execute(
        "UPDATE webhook_deliveries SET next_at = ?1 WHERE state = 'due' AND next_at > ?2",
        [tx.now, tx.now + longest],
    )?;
    Ok(())
}

/// Whether a due time is further away than any wait.
pub fn has_odd_due_times(view: &View, now: Timestamp, longest: Duration) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE state = 'due' AND next_at > ?)",
    )?;
    Ok(query.query_row([now + longest], |row| row.get(0))?)
}

/// Notes that an attempt is about to be made, unless others to its receiver came first. Until `lease`
/// nobody else makes one; if the process ends before the outcome is known, it is made again then,
/// under the same id.
pub fn begin(tx: &Tx<'_>, delivery: &Delivery, lease: Timestamp, at_once: AtOnce) -> Stored<bool> {
    let mut free = tx.prepare_cached(&format!(
        "SELECT ({UNDER_WAY}) < CASE WHEN f.host IS NULL THEN ?2 ELSE 1 END
            AND (f.host IS NULL OR ({UNDER_WAY_FAILING}) < ?3)
         FROM (SELECT ?4 AS host) h LEFT JOIN failing_receivers f ON f.host = h.host"
    ))?;
    let limits = params![tx.now, at_once.receiver, at_once.failing, delivery.host];
    if !free.query_row(limits, |row| row.get::<_, bool>(0))? {
        return Ok(false);
    }
    let taken = tx.execute(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, next_at = ?, in_flight = 1
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
        "UPDATE webhook_deliveries SET state = ?, next_at = ?, delivered_at = ?, response_status = ?, error_message = ?,
                in_flight = 0
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
        "UPDATE webhook_deliveries SET next_at = ?, in_flight = 0 WHERE state = 'due' AND in_flight = 1",
        [tx.now],
    )?)
}

/// A receiver answered as it should: nothing fails there any more.
pub fn mark_receiver_healthy(tx: &Tx<'_>, host: &str) -> Stored<()> {
    tx.execute("DELETE FROM failing_receivers WHERE host = ?", [host])?;
    alerts::close(
        tx,
        AlertKind::WebhookReceiver,
        &AlertSubject::Named(host.to_owned()),
    )
}

/// An attempt failed; a person is told of a receiver that has failed for `patience`.
pub fn mark_receiver_failing(tx: &Tx<'_>, host: &str, patience: Duration) -> Stored<()> {
    tx.execute(
        "INSERT INTO failing_receivers (host, failures, since) VALUES (?, 1, ?)
         ON CONFLICT DO UPDATE SET failures = failures + 1",
        params![host, tx.now],
    )?;
    let (failures, since): (u32, Timestamp) = tx.query_row(
        "SELECT failures, since FROM failing_receivers WHERE host = ?",
        [host],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if tx.now.since(since) >= patience {
        let message = format!(
            "no webhook has reached {host} since {since} ({failures} attempts): its client should look; nothing is \
             lost, each is tried on and can be sent again: batchkeeper webhooks"
        );
        alerts::open(
            tx,
            AlertKind::WebhookReceiver,
            &AlertSubject::Named(host.to_owned()),
            &message,
        )?;
    }
    Ok(())
}

/// Closes the alerts of what was given up and has reached its receiver since.
pub fn close_failed_alerts(tx: &Tx<'_>, delivery: &Delivery) -> Stored<()> {
    let mut same =
        tx.prepare_cached("SELECT id FROM webhook_deliveries WHERE batch_job_id = ? AND url = ?")?;
    let ids: Vec<i64> = same
        .query_map(params![delivery.job_id, delivery.url], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    ids.iter().try_for_each(|id| {
        alerts::close(tx, AlertKind::WebhookFailed, &AlertSubject::Delivery(*id))
    })
}

/// An operator lets go of a webhook that did not arrive: its alert closes, its job may be cleaned.
///
/// # Errors
/// [`super::StoreError::Conflict`] where it did arrive, is still being tried, or was let go before.
pub fn let_go(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let subject = AlertSubject::Delivery(id);
    let job: Option<String> = tx
        .query_row(
            "SELECT d.batch_job_id FROM webhook_deliveries d JOIN alerts a ON a.kind = ?
                    AND a.subject = ? AND a.closed_at IS NULL
             WHERE d.id = ? AND d.state = 'failed'",
            params![AlertKind::WebhookFailed, subject, id],
            |row| row.get(0),
        )
        .optional()?;
    moved(usize::from(job.is_some()), || {
        format!(
            "nothing is to be decided of delivery {id}; look at it: batchkeeper webhooks show {id}"
        )
    })?;
    alerts::close(tx, AlertKind::WebhookFailed, &subject)?;
    events::record(
        tx,
        job.as_deref(),
        None,
        "webhook_let_go",
        Fields::new().with("delivery", id),
    )
}

/// An operator sends a delivery that has ended again, as a new one with an id of its own; gives its
/// row.
///
/// # Errors
/// [`super::StoreError::Conflict`] where there is no such delivery, or it has not ended.
pub fn resend(tx: &Tx<'_>, id: i64) -> Stored<i64> {
    let made = tx.execute(
        "INSERT INTO webhook_deliveries (batch_job_id, url, host, state, resend_number, next_at, created_at)
         SELECT d.batch_job_id, d.url, d.host, 'due',
                (SELECT max(resend_number) + 1 FROM webhook_deliveries m WHERE m.batch_job_id = d.batch_job_id AND m.url = d.url),
                ?1, ?1
         FROM webhook_deliveries d JOIN batch_jobs j ON j.id = d.batch_job_id
         WHERE d.id = ?2 AND d.state IN ('delivered', 'failed') AND j.completed_at IS NOT NULL
           AND j.cleaning_since IS NULL
           AND NOT EXISTS (SELECT 1 FROM webhook_deliveries o
                           WHERE o.batch_job_id = d.batch_job_id AND o.url = d.url AND o.state = 'due')",
        params![tx.now, id],
    )?;
    moved(made, || {
        format!(
            "delivery {id} is not there, is not due before its job has ended, is still being tried, or its job's lots are gone \
             after their time; look at it: batchkeeper webhooks show {id}"
        )
    })?;
    Ok(tx.last_insert_rowid())
}
