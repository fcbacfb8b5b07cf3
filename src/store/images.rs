//! Lots whose images are to be checked before they are sent to OpenAI, and what was found a moment
//! ago.

use rusqlite::{OptionalExtension, params};
use serde_json::json;

use super::lots::list;
use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;

/// A lot whose images are due.
#[derive(Clone, Debug)]
pub struct DueLot {
    /// Its vision request.
    pub request: i64,
    /// Its row.
    pub lot: i64,
    /// Every image URL of it.
    pub images: Vec<String>,
    /// Since when its request waits.
    pub since: Timestamp,
    /// Whether OpenAI could not fetch one of them then: what was found before does not count.
    pub again: bool,
}

/// The first `each` lots whose images are due of each job after `after`, of as many jobs as hold
/// about `limit` lots; and the last of those jobs, where there may be more.
pub fn due(view: &View, after: i64, limit: usize, each: u32) -> Stored<(Vec<DueLot>, Option<i64>)> {
    let mut next_job = view.prepare_cached(
        "SELECT min(job) FROM requests WHERE images_due = 1 AND state IN ('waiting', 'claimed') AND job > ?",
    )?;
    let mut query = view.prepare_cached(
        "SELECT r.id, r.lot, l.images, r.since, r.image_failures > 0
         FROM requests r JOIN batch_lots l ON l.id = r.lot
         WHERE r.images_due = 1 AND r.state IN ('waiting', 'claimed') AND r.job = ? ORDER BY r.id LIMIT ?",
    )?;
    let mut due = Vec::new();
    let mut after = after;
    while due.len() < limit {
        let job: Option<i64> = next_job.query_row([after], |row| row.get(0))?;
        let Some(job) = job else {
            return Ok((due, None));
        };
        let rows = query.query_and_then(params![job, each], |row| {
            Ok::<_, super::StoreError>(DueLot {
                request: row.get(0)?,
                lot: row.get(1)?,
                images: list(row.get(2)?)?,
                since: row.get(3)?,
                again: row.get(4)?,
            })
        })?;
        for row in rows {
            due.push(row?);
        }
        after = job;
    }
    Ok((due, Some(after)))
}

/// What was found of an image from `since` until `now`: why it cannot be fetched, or none where it
/// can. None: nothing is known.
pub fn known(
    view: &View,
    url: &str,
    since: Timestamp,
    now: Timestamp,
) -> Stored<Option<Option<String>>> {
    let mut query = view.prepare_cached(
        "SELECT problem FROM image_checks WHERE url = ? AND checked_at BETWEEN ? AND ?",
    )?;
    Ok(query
        .query_row(params![url, since, now], |row| row.get(0))
        .optional()?)
}

/// Keeps what was found of an image.
pub fn record_check(tx: &Tx<'_>, url: &str, problem: Option<&str>) -> Stored<()> {
    tx.prepare_cached(
        "INSERT INTO image_checks (url, problem, checked_at) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET problem = excluded.problem, checked_at = excluded.checked_at",
    )?
    .execute(params![url, problem, tx.now])?;
    Ok(())
}

/// Forgets up to `limit` images that were looked at before `since`, or in a future that a clock that
/// was set back has left behind.
pub fn forget(tx: &Tx<'_>, since: Timestamp, limit: usize) -> Stored<()> {
    tx.prepare_cached(
        "DELETE FROM image_checks WHERE url IN
             (SELECT url FROM image_checks WHERE checked_at < ? OR checked_at > ? LIMIT ?)",
    )?
    .execute(params![since, tx.now, limit])?;
    Ok(())
}

/// Those of a lot's missing images that its submission named and that cannot be used: nothing that is
/// found later changes them.
pub(super) const UNUSABLE: &str = "SELECT value FROM json_each(missing_images) WHERE value NOT IN (SELECT value FROM json_each(images))";

/// A lot's images are checked: those `missing` are not sent, the request may be.
pub fn mark_checked(tx: &Tx<'_>, lot: &DueLot, missing: &[String]) -> Stored<()> {
    tx.prepare_cached(&format!(
        "UPDATE batch_lots SET missing_images = (SELECT nullif(json_group_array(value), '[]') FROM
             ({UNUSABLE} UNION ALL SELECT value FROM json_each(?))) WHERE id = ?"
    ))?
    .execute(params![json!(missing).to_string(), lot.lot])?;
    tx.prepare_cached(
        "UPDATE requests SET images_due = 0, since = ? WHERE id = ? AND images_due = 1",
    )?
    .execute(params![tx.now, lot.request])?;
    Ok(())
}
