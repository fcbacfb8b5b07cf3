//! `batch_lots` and `lot_translations`, read as results.

use std::collections::HashMap;

use rusqlite::{Row, params};

use super::{Stored, View};
use crate::base::clock::Timestamp;
use crate::domain::job::LotStatus;

/// A lot with whatever came of it.
#[derive(Clone, Debug)]
pub struct LotRow {
    /// In the job, from 0.
    pub position: u32,
    /// The client's id of it.
    pub lot_id: String,
    /// Where it stands.
    pub status: LotStatus,
    /// The English description.
    pub vision_result: Option<String>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// Image URLs of it that can be used.
    pub images: Vec<String>,
    /// URLs that it goes without: those that cannot be used, and those of its images that cannot be
    /// fetched.
    pub missing_images: Vec<String>,
    /// When it was finished.
    pub processed_at: Option<Timestamp>,
    /// Per language: the text, or why there is none.
    pub translations: HashMap<String, Result<String, String>>,
}

impl LotRow {
    /// How many of its images can be fetched, as far as is known.
    pub fn images_left(&self) -> usize {
        let images = self.images.iter();
        images
            .filter(|image| !self.missing_images.contains(image))
            .count()
    }

    /// How many of its images a text was made from. (Of an imported lot, the description may be lost.)
    pub fn images_processed(&self) -> usize {
        if self.vision_result.is_some() || self.status == LotStatus::Completed {
            self.images_left()
        } else {
            0
        }
    }
}

/// Which of a job's lots are wanted.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// Every lot.
    All,
    /// Those that the webhook at this URL tells of.
    Webhook(&'a str),
}

/// Up to `limit` lots of a job from `position` on, in their order.
pub fn page(
    view: &View,
    job_id: &str,
    of: Of<'_>,
    position: u32,
    limit: u32,
) -> Stored<Vec<LotRow>> {
    let url = match of {
        Of::All => None,
        Of::Webhook(url) => Some(url),
    };
    let mut lots = view.prepare_cached(
        "SELECT l.id, l.position, l.lot_id, l.status, l.vision_result, l.error_message, l.images, l.missing_images,
                l.processed_at
         FROM batch_lots l JOIN batch_jobs j ON j.id = l.batch_job_id
         WHERE l.batch_job_id = ?1 AND l.position >= ?2 AND (?3 IS NULL OR coalesce(l.webhook_url, j.webhook_url) = ?3)
         ORDER BY l.position LIMIT ?4",
    )?;
    let mut translations =
        view.prepare_cached("SELECT language, text, error FROM lot_translations WHERE lot = ?")?;
    let mut page = Vec::new();
    let mut rows = lots.query(params![job_id, position, url, limit])?;
    while let Some(row) = rows.next()? {
        let texts = translations.query_map([row.get::<_, i64>(0)?], |row| {
            let text: Option<String> = row.get(1)?;
            let outcome = match text {
                Some(text) => Ok(text),
                None => Err(row.get(2)?),
            };
            Ok((row.get(0)?, outcome))
        })?;
        page.push(lot_row(row, texts.collect::<Result<_, _>>()?)?);
    }
    Ok(page)
}

fn lot_row(row: &Row<'_>, translations: HashMap<String, Result<String, String>>) -> Stored<LotRow> {
    Ok(LotRow {
        position: row.get(1)?,
        lot_id: row.get(2)?,
        status: row.get(3)?,
        vision_result: row.get(4)?,
        error_message: row.get(5)?,
        images: list(row.get(6)?)?,
        missing_images: list(row.get(7)?)?,
        processed_at: row.get(8)?,
        translations,
    })
}

/// A JSON list of texts; none is an empty one.
pub(super) fn list(column: Option<String>) -> Stored<Vec<String>> {
    Ok(column
        .map(|text| serde_json::from_str(&text))
        .transpose()?
        .unwrap_or_default())
}

/// [`LotRow::images_processed`] of all lots of a job.
pub fn images_processed(view: &View, job_id: &str) -> Stored<u64> {
    let mut query = view.prepare_cached(
        "SELECT coalesce(sum(iif(missing_images IS NULL, json_array_length(images),
                (SELECT count(*) FROM json_each(images) WHERE value NOT IN (SELECT value FROM json_each(missing_images))))), 0)
         FROM batch_lots WHERE batch_job_id = ? AND (vision_result IS NOT NULL OR status = 'completed')",
    )?;
    Ok(query.query_row([job_id], |row| row.get(0))?)
}
