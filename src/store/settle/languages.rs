//! The languages that a job asks for, and what a lot has of them.

use rusqlite::params;

use crate::domain::decide::ended_lot::LotTexts;
use crate::store::{Stored, View};

/// The languages that a job asks for.
pub(in crate::store) struct JobLanguages(pub(in crate::store) Vec<String>);

impl JobLanguages {
    pub(in crate::store) fn get(view: &View, job: i64) -> Stored<Self> {
        let languages: String = view
            .prepare_cached("SELECT languages FROM batch_jobs WHERE seq = ?")?
            .query_row([job], |row| row.get(0))?;
        Ok(Self(serde_json::from_str(&languages)?))
    }

    /// What a lot of the job has.
    pub(in crate::store) fn texts_of(&self, view: &View, lot: i64) -> Stored<LotTexts<'_>> {
        let is_described = view
            .prepare_cached("SELECT vision_result IS NOT NULL FROM batch_lots WHERE id = ?")?
            .query_row([lot], |row| row.get(0))?;
        let mut translated =
            view.prepare_cached("SELECT language FROM lot_translations WHERE lot = ? AND text IS NOT NULL")?;
        let translated: Vec<String> = translated
            .query_map([lot], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        Ok(LotTexts {
            languages: &self.0,
            is_described,
            is_translated: translated.iter().any(|language| self.0.contains(language)),
        })
    }
}

/// Whether a language of a lot has neither a text nor a reason of its own.
pub(super) fn lacks_outcome(view: &View, lot: i64, languages: &[String]) -> Stored<bool> {
    let mut known =
        view.prepare_cached("SELECT EXISTS (SELECT 1 FROM lot_translations WHERE lot = ? AND language = ?)")?;
    for language in languages {
        let is_known: bool = known.query_row(params![lot, language], |row| row.get(0))?;
        if !is_known {
            return Ok(true);
        }
    }
    Ok(false)
}
