//! `acceptances`, `idempotency_keys` and `daily_lots`: what was answered to a submission, so that its repeat is
//! answered alike, and how much is taken from a client in a day.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::base::text_enum::text_enum;

/// How long the signature of a POST is remembered: far longer than it can be fresh, so that a clock
/// that is set back by less than this revives none.
const SIGNATURES: Duration = Duration::from_hours(24);

text_enum! {
    /// What makes a request count once.
    Kind {
        /// The client's `Idempotency-Key`.
        Key = "key",
        /// The v1 signature of a POST.
        Signature = "signature",
    }
}

/// What a request counts once by.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// Which of the two.
    pub kind: Kind,
    /// The key, or the signature's hex.
    pub text: &'a str,
}

/// What was answered to the first request with a token.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The job that it was about.
    pub job: i64,
    /// The SHA-256 of its body, hex.
    pub body_sha256: String,
    /// JSON.
    pub answer: String,
}

/// What was answered under a client's token; none: nothing yet.
pub fn answered(view: &View, client: &str, token: Token<'_>) -> Stored<Option<Answered>> {
    let mut query = view.prepare_cached(
        "SELECT o.job, o.body_sha256, coalesce(o.answer, a.answer) FROM idempotency_keys o LEFT JOIN acceptances a ON a.job = o.job
         WHERE o.client = ? AND o.kind = ? AND o.key = ?",
    )?;
    let found = query.query_row(params![client, token.kind.as_str(), token.text], |row| {
        Ok(Answered {
            job: row.get(0)?,
            body_sha256: row.get(1)?,
            answer: row.get(2)?,
        })
    });
    Ok(found.optional()?)
}

/// The job of a client, accepted since `since`, whose content is the same and that neither failed
/// nor was cancelled; with what was answered to it.
pub fn equal(
    view: &View,
    client: &str,
    content_sha256: &str,
    since: Timestamp,
) -> Stored<Option<(i64, String)>> {
    let mut query = view.prepare_cached(
        "SELECT a.job, a.answer FROM acceptances a JOIN batch_jobs j ON j.seq = a.job
         WHERE a.client = ? AND a.content_sha256 = ? AND a.accepted_at >= ? AND j.status NOT IN ('failed', 'cancelled')
         ORDER BY a.accepted_at DESC LIMIT 1",
    )?;
    let found = query.query_row(params![client, content_sha256, since], |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    Ok(found.optional()?)
}

/// A job is accepted: what is answered to it.
pub fn accept(
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

/// A token is used up; `answer`: what was answered, where that is not the job's acceptance. A key is
/// remembered as long as the job, a signature a day.
pub fn remember(
    tx: &Tx<'_>,
    client: &str,
    token: Token<'_>,
    body_sha256: &str,
    job: i64,
    answer: Option<&str>,
) -> Stored<()> {
    tx.execute(
        "INSERT INTO idempotency_keys (client, kind, key, body_sha256, job, answer, used_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![client, token.kind.as_str(), token.text, body_sha256, job, answer, tx.now],
    )?;
    if token.kind == Kind::Signature {
        tx.execute(
            "DELETE FROM idempotency_keys WHERE kind = 'signature' AND used_at < ?",
            [tx.now.before(SIGNATURES)],
        )?;
    }
    Ok(())
}

/// How many lots were taken from a client on the day (UTC) of `now`.
pub fn lots_taken(view: &View, client: &str, now: Timestamp) -> Stored<u64> {
    let mut query =
        view.prepare_cached("SELECT lots FROM daily_lots WHERE client = ? AND day = ?")?;
    let taken = query.query_row(params![client, now.to_day_text()], |row| row.get(0));
    Ok(taken.optional()?.unwrap_or(0))
}

/// So many more lots are taken from a client today.
pub fn take_lots(tx: &Tx<'_>, client: &str, lots: usize) -> Stored<()> {
    tx.execute(
        "INSERT INTO daily_lots (client, day, lots) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET lots = lots + excluded.lots",
        params![client, tx.now.to_day_text(), lots],
    )?;
    Ok(())
}
