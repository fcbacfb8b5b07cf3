//! `batch_lots` and `lot_translations`, read as results.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension, Row, params};

use super::jobs::{self, JobRow};
use super::settle::CANCELLED;
use super::{Stored, View};
use crate::base::clock::Timestamp;
use crate::domain::decide::ended_lot::LotTexts;
use crate::domain::job::{LotStatus, UNUSABLE_URL};

/// A lot with its results.
#[derive(Clone, Debug)]
pub struct LotRow {
    /// Its position in the job, from 0.
    pub position: u32,
    /// The client's id.
    pub lot_id: String,
    /// The client's own name of it.
    pub reference: Option<String>,
    /// Its status.
    pub status: LotStatus,
    /// The English description.
    pub vision_result: Option<String>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// Its image URLs, except those that cannot be used.
    pub images: Vec<String>,
    /// Image URLs that cannot be used, and images that cannot be fetched.
    pub missing_images: Vec<String>,
    /// Why each missing image that is in `images` is missing, by its URL.
    missing_reasons: BTreeMap<String, String>,
    /// When it was finished.
    pub processed_at: Option<Timestamp>,
    /// The text in each language, or why there is none.
    pub translations: HashMap<String, Result<String, String>>,
}

impl LotRow {
    /// The number of its images that are not known to be missing.
    pub fn images_left(&self) -> usize {
        let images = self.images.iter();
        images
            .filter(|image| !self.missing_images.contains(image))
            .count()
    }

    /// Why each of its missing images is missing, by its URL.
    pub fn missing_reasons(&self) -> BTreeMap<&str, &str> {
        let reason = |url: &String| match self.missing_reasons.get(url) {
            Some(reason) => reason.as_str(),
            None if self.images.contains(url) => "it cannot be fetched",
            None => UNUSABLE_URL,
        };
        let missing = self.missing_images.iter();
        missing.map(|url| (url.as_str(), reason(url))).collect()
    }

    /// Shows a pending lot of a cancelled job as it will be once its turn has come.
    fn cancel(&mut self, languages: &[String]) {
        let has_text = |language: &String| self.translations.get(language).is_some_and(Result::is_ok);
        let texts = LotTexts {
            languages,
            is_described: self.vision_result.is_some(),
            is_translated: languages.iter().any(has_text),
        };
        self.status = texts.cancelled();
        self.error_message.get_or_insert_with(|| CANCELLED.to_owned());
    }

    /// The number of images from which its text was made. The description of an imported lot may be lost.
    pub fn images_processed(&self) -> usize {
        if self.vision_result.is_some() || self.status == LotStatus::Completed {
            self.images_left()
        } else {
            0
        }
    }
}

/// Which lots of a job are read.
#[derive(Clone, Copy, Debug)]
pub enum LotFilter<'a> {
    /// Every lot.
    All,
    /// Those that have ended.
    Finished,
    /// The lots that the webhook at this URL reports.
    Webhook(&'a str),
}

/// How many lots of a job have ended since a time.
pub fn ended_since(view: &View, job_id: &str, since: Timestamp) -> Stored<u32> {
    let mut query =
        view.prepare_cached("SELECT count(*) FROM batch_lots WHERE batch_job_id = ? AND processed_at >= ?")?;
    Ok(query.query_row(params![job_id, since], |row| row.get(0))?)
}

/// The number of a client's jobs that have a lot of this id, and a page of them with the lot, newest first. Jobs whose
/// lots retention removes are left out.
pub fn of_client(
    view: &View,
    client: &str,
    lot_id: &str,
    limit: u32,
    offset: u64,
) -> Stored<(u64, Vec<(JobRow, LotRow)>)> {
    // The index and the order of the join are given: if many lots have the same id, SQLite would read the whole table.
    const FROM: &str =
        "FROM batch_lots l INDEXED BY batch_lots_lot_id CROSS JOIN batch_jobs j ON j.id = l.batch_job_id
         WHERE l.lot_id = ? AND j.client = ? AND j.cleaning_since IS NULL";
    let mut count = view.prepare_cached(&format!("SELECT count(*) {FROM}"))?;
    let total = count.query_row([lot_id, client], |row| row.get(0))?;
    let mut places = view.prepare_cached(&format!(
        "SELECT l.batch_job_id, l.position {FROM} ORDER BY j.created_at DESC, l.id DESC LIMIT ? OFFSET ?"
    ))?;
    let places = places.query_map(params![lot_id, client, limit, offset], |row| {
        Ok((row.get::<_, String>("batch_job_id")?, row.get("position")?))
    })?;
    let mut found = Vec::new();
    for place in places {
        let (job, position) = place?;
        let lot = page(view, &job, LotFilter::All, position, 1)?.pop();
        found.extend(jobs::by_id(view, &job)?.zip(lot));
    }
    Ok((total, found))
}

/// The position of a job's finished lot after `number` others; `None` if there are fewer.
pub fn position_of_finished(view: &View, job_id: &str, number: u32) -> Stored<Option<u32>> {
    let mut query = view.prepare_cached(
        "SELECT position FROM batch_lots WHERE batch_job_id = ? AND status <> 'pending'
         ORDER BY position LIMIT 1 OFFSET ?",
    )?;
    let position = query.query_row(params![job_id, number], |row| row.get("position"));
    Ok(position.optional()?)
}

/// Up to `limit` lots of a job from `position` on, in their order.
pub fn page(
    view: &View,
    job_id: &str,
    filter: LotFilter<'_>,
    position: u32,
    limit: u32,
) -> Stored<Vec<LotRow>> {
    let url = match filter {
        LotFilter::All | LotFilter::Finished => None,
        LotFilter::Webhook(url) => Some(url),
    };
    let with_pending = !matches!(filter, LotFilter::Finished);
    let mut lots = view.prepare_cached(
        "SELECT l.id, l.position, l.lot_id, l.reference, l.status, l.vision_result, l.error_message, l.images,
             l.missing_images, l.missing_reasons, l.processed_at, j.languages, j.pending_change IS 'cancel' AS is_cancelled
         FROM batch_lots l JOIN batch_jobs j ON j.id = l.batch_job_id
         WHERE l.batch_job_id = ?1 AND l.position >= ?2
             AND (?3 IS NULL OR coalesce(l.webhook_url, j.webhook_url) = ?3)
             AND (?5 OR l.status <> 'pending')
         ORDER BY l.position LIMIT ?4",
    )?;
    let mut translations =
        view.prepare_cached("SELECT language, text, error FROM lot_translations WHERE lot = ?")?;
    let mut page = Vec::new();
    let mut rows = lots.query(params![job_id, position, url, limit, with_pending])?;
    while let Some(row) = rows.next()? {
        let texts = translations.query_map([row.get::<_, i64>("id")?], |row| {
            let text: Option<String> = row.get("text")?;
            let outcome = match text {
                Some(text) => Ok(text),
                None => Err(row.get("error")?),
            };
            Ok((row.get("language")?, outcome))
        })?;
        let mut lot = lot_row(row, texts.collect::<Result<_, _>>()?)?;
        if lot.status == LotStatus::Pending && row.get("is_cancelled")? {
            lot.cancel(&serde_json::from_str::<Vec<String>>(
                &row.get::<_, String>("languages")?,
            )?);
        }
        page.push(lot);
    }
    Ok(page)
}

fn lot_row(row: &Row<'_>, translations: HashMap<String, Result<String, String>>) -> Stored<LotRow> {
    Ok(LotRow {
        position: row.get("position")?,
        lot_id: row.get("lot_id")?,
        reference: row.get("reference")?,
        status: row.get("status")?,
        vision_result: row.get("vision_result")?,
        error_message: row.get("error_message")?,
        images: text_list(row.get("images")?)?,
        missing_images: text_list(row.get("missing_images")?)?,
        missing_reasons: reasons(row.get("missing_reasons")?)?,
        processed_at: row.get("processed_at")?,
        translations,
    })
}

fn reasons(column: Option<String>) -> Stored<BTreeMap<String, String>> {
    let reasons = column.map(|text| serde_json::from_str(&text)).transpose()?;
    Ok(reasons.unwrap_or_default())
}

/// A column with a JSON list of texts; NULL is an empty list.
pub(super) fn text_list(column: Option<String>) -> Stored<Vec<String>> {
    Ok(column
        .map(|text| serde_json::from_str(&text))
        .transpose()?
        .unwrap_or_default())
}

/// The sum of [`LotRow::images_processed`] over all lots of a job.
pub fn images_processed(view: &View, job_id: &str) -> Stored<u64> {
    let mut query = view.prepare_cached(
        "SELECT coalesce(sum(iif(missing_images IS NULL, json_array_length(images),
                (SELECT count(*) FROM json_each(images)
                 WHERE value NOT IN (SELECT value FROM json_each(missing_images))))), 0)
         FROM batch_lots WHERE batch_job_id = ? AND (vision_result IS NOT NULL OR status = 'completed')",
    )?;
    Ok(query.query_row([job_id], |row| row.get(0))?)
}
