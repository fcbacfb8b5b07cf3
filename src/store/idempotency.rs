//! `idempotency_keys`, `acceptances` and `daily_lots`: the first answer to a request, which its repeats get
//! again, and the number of lots that a client has sent on a day.

use rusqlite::{OptionalExtension, params};

use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::base::text_enum::text_enum;

text_enum! {
    /// The kind of an idempotency key.
    KeyKind {
        /// The client's `Idempotency-Key`.
        Key = "key",
        /// The v1 signature of a POST.
        Signature = "signature",
    }
}

/// A key that belongs to one request and its repeats.
#[derive(Clone, Copy, Debug)]
pub struct IdempotencyKey<'a> {
    /// Its kind.
    pub kind: KeyKind,
    /// The client's key, or the signature in hex.
    pub text: &'a str,
}

/// The first request with a key.
#[derive(Clone, Debug)]
pub struct FirstUse {
    /// The row of its job; `None` if it has none.
    pub job: Option<i64>,
    /// The SHA-256 of its body, in hex.
    pub body_sha256: String,
    /// Its answer, as JSON.
    pub answer: String,
}

/// The first request with a client's key; `None` if there was none.
pub fn first_use(view: &View, client: &str, key: IdempotencyKey<'_>) -> Stored<Option<FirstUse>> {
    let mut query = view.prepare_cached(
        "SELECT o.job, o.body_sha256, coalesce(o.answer, a.answer) AS answer
         FROM idempotency_keys o LEFT JOIN acceptances a ON a.job = o.job
         WHERE o.client = ? AND o.kind = ? AND o.key = ?",
    )?;
    let found = query.query_row(params![client, key.kind.as_str(), key.text], |row| {
        Ok(FirstUse {
            job: row.get("job")?,
            body_sha256: row.get("body_sha256")?,
            answer: row.get("answer")?,
        })
    });
    Ok(found.optional()?)
}

/// The row and the answer of the newest job of a client that has the same content, was accepted at `since` or
/// later, and neither failed nor was cancelled.
pub fn accepted_with_content(
    view: &View,
    client: &str,
    content_sha256: &str,
    since: Timestamp,
) -> Stored<Option<(i64, String)>> {
    let mut query = view.prepare_cached(
        "SELECT a.job, a.answer FROM acceptances a JOIN batch_jobs j ON j.seq = a.job
         WHERE a.client = ? AND a.content_sha256 = ? AND a.accepted_at >= ?
             AND j.status NOT IN ('failed', 'cancelled')
         ORDER BY a.accepted_at DESC LIMIT 1",
    )?;
    let found = query.query_row(params![client, content_sha256, since], |row| {
        Ok((row.get("job")?, row.get("answer")?))
    });
    Ok(found.optional()?)
}

/// The answer to an accepted job, as JSON.
pub fn acceptance(view: &View, job: i64) -> Stored<Option<String>> {
    let mut query = view.prepare_cached("SELECT answer FROM acceptances WHERE job = ?")?;
    Ok(query.query_row([job], |row| row.get("answer")).optional()?)
}

/// Stores the answer to an accepted job.
pub fn record_acceptance(
    tx: &Tx<'_>,
    job: i64,
    client: &str,
    content_sha256: &str,
    answer: &str,
) -> Stored<()> {
    tx.execute(
        "INSERT INTO acceptances (job, client, content_sha256, answer, accepted_at) VALUES (?, ?, ?, ?, ?)",
        params![job, client, content_sha256, answer, tx.now],
    )?;
    Ok(())
}

/// Stores the first use of a key. `answer` is `None` if the answer is that to the accepted job. A client's
/// key is kept as long as the job; retention deletes old signatures.
pub fn record_use(
    tx: &Tx<'_>,
    client: &str,
    key: IdempotencyKey<'_>,
    body_sha256: &str,
    job: Option<i64>,
    answer: Option<&str>,
) -> Stored<()> {
    tx.execute(
        "INSERT INTO idempotency_keys (client, kind, key, body_sha256, job, answer, used_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![
            client,
            key.kind.as_str(),
            key.text,
            body_sha256,
            job,
            answer,
            tx.now
        ],
    )?;
    Ok(())
}

/// The number of lots accepted from a client on the day (UTC) of `now`.
pub fn daily_lots(view: &View, client: &str, now: Timestamp) -> Stored<u64> {
    let mut query = view.prepare_cached("SELECT lots FROM daily_lots WHERE client = ? AND day = ?")?;
    let lots = query.query_row(params![client, now.to_day_text()], |row| row.get("lots"));
    Ok(lots.optional()?.unwrap_or(0))
}

/// Adds to the number of lots accepted from a client today (UTC).
pub fn add_daily_lots(tx: &Tx<'_>, client: &str, lots: usize) -> Stored<()> {
    tx.execute(
        "INSERT INTO daily_lots (client, day, lots) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET lots = lots + excluded.lots",
        params![client, tx.now.to_day_text(), lots],
    )?;
    Ok(())
}
