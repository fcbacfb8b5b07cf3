//! Lots whose images wait to be checked, and `image_checks`: the results of the probes.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};
use serde_json::json;

use super::lots::text_list;
use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;

/// A lot whose images wait to be checked.
#[derive(Clone, Debug)]
pub struct DueLot {
    /// Its vision request.
    pub request: i64,
    /// Its row.
    pub lot: i64,
    /// Its usable image URLs.
    pub images: Vec<String>,
    /// Those of them that are known to be missing.
    pub missing: Vec<String>,
    /// Since when its request waits.
    pub since: Timestamp,
    /// Whether its request waits because OpenAI could not use an image.
    pub openai_failed: bool,
}

/// A job with lots whose images wait to be checked.
#[derive(Clone, Debug)]
pub struct DueJob {
    /// Its row.
    pub row: i64,
    /// Its client's name.
    pub client: String,
    /// Whether its client waits for the answer.
    pub is_synchronous: bool,
}

/// Every job with lots whose images wait to be checked, by row.
pub fn due_jobs(view: &View) -> Stored<Vec<DueJob>> {
    // One look into the index for each job, instead of reading all of its lots.
    let mut next = view.prepare_cached(
        "SELECT seq, client, processing_mode = 'synchronous' AS is_synchronous, completed_at IS NULL AS is_open
         FROM batch_jobs WHERE seq = (SELECT min(job) FROM requests WHERE images_due = 1 AND job > ?)",
    )?;
    let (mut jobs, mut after) = (Vec::new(), 0);
    loop {
        let found = next.query_row([after], |row| {
            let job = DueJob {
                row: row.get("seq")?,
                client: row.get("client")?,
                is_synchronous: row.get("is_synchronous")?,
            };
            Ok((job, row.get("is_open")?))
        });
        let Some((job, is_open)) = found.optional()? else {
            return Ok(jobs);
        };
        after = job.row;
        if is_open {
            jobs.push(job);
        }
    }
}

/// The next `limit` lots of a job whose images wait to be checked, after the request `after`.
pub fn due(view: &View, job: i64, after: i64, limit: usize) -> Stored<Vec<DueLot>> {
    let mut query = view.prepare_cached(
        "SELECT r.id, r.lot, l.images, l.missing_images, r.since, r.image_failures > 0 AS openai_failed
         FROM requests r JOIN batch_lots l ON l.id = r.lot
         WHERE r.images_due = 1 AND r.state IN ('waiting', 'claimed') AND r.job = ? AND r.id > ?
         ORDER BY r.id",
    )?;
    let rows = query.query_and_then(params![job, after], |row| {
        let images = text_list(row.get("images")?)?;
        let mut missing = text_list(row.get("missing_images")?)?;
        missing.retain(|url| images.contains(url));
        Ok(DueLot {
            request: row.get("id")?,
            lot: row.get("lot")?,
            images,
            missing,
            since: row.get("since")?,
            openai_failed: row.get("openai_failed")?,
        })
    })?;
    view.readable(rows).take(limit).collect()
}

/// The result of a probe.
#[derive(Clone, Debug)]
pub struct ImageCheck {
    /// Why the image cannot be fetched; `None` if it can.
    pub problem: Option<String>,
}

/// The last check of an image, if it was made between `since` and `now`.
pub fn last_check(view: &View, url: &str, since: Timestamp, now: Timestamp) -> Stored<Option<ImageCheck>> {
    let mut query =
        view.prepare_cached("SELECT problem FROM image_checks WHERE url = ? AND checked_at BETWEEN ? AND ?")?;
    let check = query.query_row(params![url, since, now], |row| {
        Ok(ImageCheck {
            problem: row.get("problem")?,
        })
    });
    Ok(check.optional()?)
}

/// Stores the result of a probe.
pub fn record_check(tx: &Tx<'_>, url: &str, problem: Option<&str>) -> Stored<()> {
    tx.prepare_cached(
        "INSERT INTO image_checks (url, problem, checked_at) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET problem = excluded.problem, checked_at = excluded.checked_at",
    )?
    .execute(params![url, problem, tx.now])?;
    Ok(())
}

/// An image that is left out of its lot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingImage {
    /// Its URL.
    pub url: String,
    /// Why it is missing.
    pub reason: String,
}

/// Adds images to the missing ones of a lot.
pub(super) fn add_missing(tx: &Tx<'_>, lot: i64, missing: &[MissingImage]) -> Stored<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let urls: Vec<&str> = missing.iter().map(|image| image.url.as_str()).collect();
    let reasons: BTreeMap<&str, &str> = missing
        .iter()
        .map(|image| (image.url.as_str(), image.reason.as_str()))
        .collect();
    tx.prepare_cached(
        "UPDATE batch_lots SET missing_reasons = json_patch(coalesce(missing_reasons, '{}'), ?),
             missing_images = (SELECT json_group_array(value) FROM
                (SELECT value FROM json_each(missing_images) UNION ALL SELECT value FROM json_each(?)))
         WHERE id = ?",
    )?
    .execute(params![json!(reasons).to_string(), json!(urls).to_string(), lot])?;
    Ok(())
}

/// Forgets the missing images of a lot, except the URLs that cannot be used.
pub(super) fn clear_missing(tx: &Tx<'_>, lot: i64) -> Stored<()> {
    tx.prepare_cached(
        "UPDATE batch_lots SET missing_reasons = NULL,
             missing_images = (SELECT nullif(json_group_array(value), '[]') FROM json_each(missing_images)
                 WHERE value NOT IN (SELECT value FROM json_each(images)))
         WHERE id = ?",
    )?
    .execute([lot])?;
    Ok(())
}

/// Stores that a lot's images are checked: its request may be sent, without the `missing` ones too.
pub fn mark_checked(tx: &Tx<'_>, lot: &DueLot, missing: &[MissingImage]) -> Stored<()> {
    add_missing(tx, lot.lot, missing)?;
    tx.prepare_cached("UPDATE requests SET images_due = 0, since = ? WHERE id = ? AND images_due = 1")?
        .execute(params![tx.now, lot.request])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, settle};

    #[test]
    fn a_released_lot_is_checked_with_all_its_images() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_seconds(1_700_000_000);
        let store = Store::open(&folder.path().join("a.db"), now).expect("a store");
        let missing = store.write(now, |tx| {
            for row in [
                "INSERT INTO batch_jobs (seq, id, client, origin, processing_mode, status, languages, total_lots,
                     created_at, updated_at)
                 VALUES (1, '6908f1d2-39b9-4721-bb8a-dba18120df5f', 'a', 'import', 'batch', 'pending', '[\"en\"]',
                     1, '2026-11-25T09:00:00.000Z', '2026-11-25T09:00:00.000Z')",
                "INSERT INTO batch_lots (id, batch_job_id, position, lot_id, additional_info, images,
                     missing_images, status)
                 VALUES (1, '6908f1d2-39b9-4721-bb8a-dba18120df5f', 0, '1', '',
                     '[\"https://a/1.jpg\",\"https://a/2.jpg\"]', '[\"ftp://a/3.jpg\"]', 'pending')",
                "INSERT INTO requests (id, lot, job, stage, language, state, since)
                 VALUES (1, 1, 1, 'vision', '', 'held', '2026-11-25T09:00:00.000Z')",
            ] {
                tx.execute(row, [])?;
            }
            let gone = MissingImage {
                url: "https://a/1.jpg".into(),
                reason: "it's \"gone\"".into(),
            };
            let missing = |tx: &Tx<'_>| -> Stored<(String, Option<String>)> {
                let row = tx.query_row(
                    "SELECT missing_images, missing_reasons FROM batch_lots",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                );
                Ok(row?)
            };
            add_missing(tx, 1, &[gone])?;
            let before = missing(tx)?;
            settle::release_lot(tx, 1, true)?;
            Ok([before, missing(tx)?])
        });
        let expected = [
            (
                r#"["ftp://a/3.jpg","https://a/1.jpg"]"#.to_owned(),
                Some(r#"{"https://a/1.jpg":"it's \"gone\""}"#.to_owned()),
            ),
            (r#"["ftp://a/3.jpg"]"#.to_owned(), None),
        ];
        assert_eq!(missing.expect("a write"), expected);
    }
}
