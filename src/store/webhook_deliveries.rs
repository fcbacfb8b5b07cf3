//! `webhook_deliveries`, `delivery_attempts` and `failing_receivers`.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{Stored, Tx, View, alerts, events, moved};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::alert::{AlertKind, AlertSubject};
use crate::domain::decide::webhook_answer::DeliveryDecision;
use crate::domain::due::Due;

/// A delivery that is due.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// Its row.
    pub id: i64,
    /// The job that it reports.
    pub job_id: String,
    /// The receiver's URL.
    pub url: String,
    /// The receiver: host and port of the URL.
    pub host: String,
    /// How often an operator had sent the webhook again when this delivery was made.
    pub resend_number: u32,
    /// Attempts before this one.
    pub attempts: u32,
}

/// How many attempts may be in flight at the same time.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryLimits {
    /// To one receiver; to one whose last attempt failed, 1.
    pub per_receiver: u32,
    /// To all receivers whose last attempt failed, together.
    pub failing_receivers: u32,
}

/// The number of attempts in flight to receiver `h.host` at time `?1`. An attempt whose lease is over is not
/// in flight: its process has ended.
const IN_FLIGHT: &str = "SELECT count(*) FROM webhook_deliveries u
     INDEXED BY webhook_deliveries_in_flight WHERE u.host = h.host AND u.in_flight = 1
     AND u.next_at > ?1";
/// The number of attempts in flight to all failing receivers at time `?1`.
const IN_FLIGHT_TO_FAILING: &str =
    "SELECT count(*) FROM webhook_deliveries u INDEXED BY webhook_deliveries_in_flight
         JOIN failing_receivers g ON g.host = u.host
     WHERE u.in_flight = 1 AND u.next_at > ?1";

/// The delivery that may be attempted now. The indexes are named, as SQLite would prefer those of the pages, which hold
/// every delivery. Failing receivers come last. The query looks up each receiver
/// once: a dead one with a long queue costs no more than another.
pub fn next_due(view: &View, now: Timestamp, limits: DeliveryLimits) -> Stored<Due<DueDelivery>> {
    let first = next_time(view, "")?;
    if first.is_none_or(|first| first > now) {
        return Ok(Due::new(None, first));
    }
    let mut due = view.prepare_cached(&format!(
        "WITH RECURSIVE h (host) AS (
             SELECT min(host) FROM webhook_deliveries INDEXED BY webhook_deliveries_hosts WHERE state = 'due'
             UNION ALL
             SELECT (SELECT min(host) FROM webhook_deliveries INDEXED BY webhook_deliveries_hosts
                     WHERE state = 'due' AND host > h.host)
             FROM h WHERE h.host IS NOT NULL)
         SELECT d.id, d.batch_job_id, d.url, d.host, d.resend_number, d.attempts
         FROM h JOIN webhook_deliveries d ON d.id =
                  (SELECT id FROM webhook_deliveries INDEXED BY webhook_deliveries_hosts
                   WHERE state = 'due' AND host = h.host AND next_at <= ?1
                   ORDER BY next_at LIMIT 1)
              LEFT JOIN failing_receivers f ON f.host = h.host
         WHERE ({IN_FLIGHT}) < CASE WHEN f.host IS NULL THEN ?2 ELSE 1 END
           AND (f.host IS NULL OR ({IN_FLIGHT_TO_FAILING}) < ?3)
         ORDER BY f.host IS NOT NULL, d.next_at LIMIT 1"
    ))?;
    let parameters = params![now, limits.per_receiver, limits.failing_receivers];
    let delivery = due.query_row(parameters, |row| {
        Ok(DueDelivery {
            id: row.get("id")?,
            job_id: row.get("batch_job_id")?,
            url: row.get("url")?,
            host: row.get("host")?,
            resend_number: row.get("resend_number")?,
            attempts: row.get("attempts")?,
        })
    });
    if let Some(delivery) = delivery.optional()? {
        return Ok(Due::Now(delivery));
    }
    // The deliveries that are due wait for other attempts to their receivers; the end of one wakes this
    // worker.
    Ok(Due::new(None, next_time(view, &now.to_string())?))
}

/// The first due time after `after`.
fn next_time(view: &View, after: &str) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached(
        "SELECT next_at FROM webhook_deliveries INDEXED BY webhook_deliveries_due
         WHERE state = 'due' AND next_at > ? ORDER BY next_at",
    )?;
    let times = query.query_and_then([after], |row| Ok(row.get(0)?))?;
    view.readable(times).next().transpose()
}

/// Makes deliveries due whose due time is further away than the longest wait: the clock was set back.
pub fn correct_due_times(tx: &Tx<'_>, longest: Duration) -> Stored<()> {
    tx.execute(
        "UPDATE webhook_deliveries SET next_at = ?1 WHERE state = 'due' AND next_at > ?2",
        [tx.now, tx.now + longest],
    )?;
    Ok(())
}

/// Sets a delivery aside until `at`, because its job cannot be read.
pub fn set_aside(tx: &Tx<'_>, id: i64, at: Timestamp) -> Stored<()> {
    tx.execute(
        "UPDATE webhook_deliveries SET next_at = ? WHERE id = ? AND state = 'due'",
        params![at, id],
    )?;
    Ok(())
}

/// Whether a due time is further away than the longest wait.
pub fn has_odd_due_times(view: &View, now: Timestamp, longest: Duration) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM webhook_deliveries INDEXED BY webhook_deliveries_due
                        WHERE state = 'due' AND next_at > ?)",
    )?;
    Ok(query.query_row([now + longest], |row| row.get(0))?)
}

/// Stores that an attempt begins; false if another attempt came first. No other attempt is made until
/// `lease`. If the process ends before the outcome is stored, the attempt is made again then, under the same
/// id.
pub fn begin(tx: &Tx<'_>, delivery: &DueDelivery, lease: Timestamp, limits: DeliveryLimits) -> Stored<bool> {
    let mut has_room = tx.prepare_cached(&format!(
        "SELECT ({IN_FLIGHT}) < CASE WHEN f.host IS NULL THEN ?2 ELSE 1 END
            AND (f.host IS NULL OR ({IN_FLIGHT_TO_FAILING}) < ?3)
         FROM (SELECT ?4 AS host) h LEFT JOIN failing_receivers f ON f.host = h.host"
    ))?;
    let parameters = params![
        tx.now,
        limits.per_receiver,
        limits.failing_receivers,
        delivery.host
    ];
    if !has_room.query_row(parameters, |row| row.get::<_, bool>(0))? {
        return Ok(false);
    }
    let begun = tx.execute(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, next_at = ?, in_flight = 1
         WHERE id = ? AND state = 'due' AND attempts = ?",
        params![lease, delivery.id, delivery.attempts],
    )?;
    if begun == 1 {
        tx.execute(
            "INSERT INTO delivery_attempts (delivery_id, attempt, started_at) VALUES (?, ?, ?)",
            params![delivery.id, delivery.attempts + 1, tx.now],
        )?;
    }
    Ok(begun == 1)
}

/// Stores how an attempt ended, and what follows.
pub fn end(
    tx: &Tx<'_>,
    delivery: &DueDelivery,
    status: Option<u16>,
    error: Option<&str>,
    decision: DeliveryDecision,
) -> Stored<()> {
    let (state, next_at, delivered_at) = match decision {
        DeliveryDecision::Delivered => ("delivered", None, Some(tx.now)),
        DeliveryDecision::RetryAt(at) => ("due", Some(at), None),
        DeliveryDecision::Abandoned => ("failed", None, None),
    };
    let attempt = delivery.attempts + 1;
    let changed = tx.execute(
        "UPDATE webhook_deliveries
             SET state = ?, next_at = ?, delivered_at = ?, response_status = ?, error_message = ?,
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

/// Makes the attempts due that a process did not end; gives their number. Called at the start.
pub fn release_unfinished(tx: &Tx<'_>) -> Stored<usize> {
    Ok(tx.execute(
        "UPDATE webhook_deliveries SET next_at = ?, in_flight = 0 WHERE state = 'due' AND in_flight = 1",
        [tx.now],
    )?)
}

/// Removes a receiver that works from the failing ones, and closes its alert.
pub fn mark_receiver_healthy(tx: &Tx<'_>, host: &str) -> Stored<()> {
    tx.execute("DELETE FROM failing_receivers WHERE host = ?", [host])?;
    alerts::close(
        tx,
        AlertKind::WebhookReceiver,
        &AlertSubject::Named(host.to_owned()),
    )
}

/// Counts a failed attempt to a receiver. Opens an alert once the receiver has failed for `alert_after`.
pub fn mark_receiver_failing(tx: &Tx<'_>, host: &str, alert_after: Duration, reason: &str) -> Stored<()> {
    tx.execute(
        "INSERT INTO failing_receivers (host, failures, since) VALUES (?, 1, ?)
         ON CONFLICT DO UPDATE SET failures = failures + 1",
        params![host, tx.now],
    )?;
    let (failures, since): (u32, _) = tx.query_row(
        "SELECT failures, since FROM failing_receivers WHERE host = ?",
        [host],
        |row| Ok((row.get("failures")?, row.get("since"))),
    )?;
    let since = tx.readable_value(since)?.unwrap_or(tx.now);
    if tx.now.since(since) >= alert_after {
        let message = format!(
            "no webhook has reached {host} since {since} ({failures} attempts); the last one: {reason}. Its client \
             should look into it. Nothing is lost: each webhook is retried and can be sent again: batchkeeper webhooks"
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

/// Closes the alerts of abandoned deliveries that a later delivery replaces: same job, same URL.
pub fn close_abandoned_alerts(tx: &Tx<'_>, delivery: &DueDelivery) -> Stored<()> {
    let mut same =
        tx.prepare_cached("SELECT id FROM webhook_deliveries WHERE batch_job_id = ? AND url = ?")?;
    let ids: Vec<i64> = same
        .query_map(params![delivery.job_id, delivery.url], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    ids.iter()
        .try_for_each(|id| alerts::close(tx, AlertKind::WebhookFailed, &AlertSubject::Delivery(*id)))
}

/// Abandons a webhook that did not arrive, for an operator: it is not tried again, its alert closes, and retention may
/// clean its job.
///
/// # Errors
/// [`super::StoreError::Conflict`] if it did arrive, is being sent, or an operator has abandoned it before.
pub fn abandon(tx: &Tx<'_>, id: i64) -> Stored<()> {
    let subject = AlertSubject::Delivery(id);
    let ended: Option<String> = tx
        .query_row(
            "UPDATE webhook_deliveries SET state = 'failed', next_at = NULL,
                error_message = coalesce(error_message, 'abandoned by the operator')
             WHERE id = ? AND state = 'due' AND in_flight = 0 RETURNING batch_job_id",
            [id],
            |row| row.get("batch_job_id"),
        )
        .optional()?;
    if ended.is_some() {
        return record_abandoned(tx, id, ended.as_deref());
    }
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
        format!("there is nothing to decide about delivery {id}; look at it: batchkeeper webhooks show {id}")
    })?;
    alerts::close(tx, AlertKind::WebhookFailed, &subject)?;
    record_abandoned(tx, id, job.as_deref())
}

fn record_abandoned(tx: &Tx<'_>, id: i64, job: Option<&str>) -> Stored<()> {
    let detail = Fields::new().with("delivery", id);
    events::record(tx, job, None, "webhook_abandoned", detail)
}

/// Makes a delivery that waits after a failure due now, for an operator. Returns whether it waited.
pub fn try_now(tx: &Tx<'_>, id: i64) -> Stored<bool> {
    let changed = tx.execute(
        "UPDATE webhook_deliveries SET next_at = ?1 WHERE id = ?2 AND state = 'due' AND in_flight = 0 AND next_at > ?1",
        params![tx.now, id],
    )?;
    Ok(changed == 1)
}

/// Sends a delivery that has ended again, for an operator: as a new delivery with an id of its own. Gives its
/// row.
///
/// # Errors
/// [`super::StoreError::Conflict`] if there is no such delivery, or it has not ended.
pub fn resend(tx: &Tx<'_>, id: i64) -> Stored<i64> {
    let made = tx.execute(
        "INSERT INTO webhook_deliveries (batch_job_id, url, host, state, resend_number, next_at, created_at)
         SELECT d.batch_job_id, d.url, d.host, 'due',
                (SELECT max(resend_number) + 1 FROM webhook_deliveries m
                    WHERE m.batch_job_id = d.batch_job_id AND m.url = d.url),
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
            "delivery {id} is not there, is not due before its job has ended, is still being tried, or its \
             job's lots are gone (their time is over, or an operator deleted them); look at it: batchkeeper webhooks show {id}"
        )
    })?;
    Ok(tx.last_insert_rowid())
}
