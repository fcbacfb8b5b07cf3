//! The earlier service's jobs and lots, and the names under which it asked OpenAI for them.

use std::collections::BTreeMap;

use crate::base::clock::Timestamp;
use crate::domain::batch::Stage;
use crate::domain::job::{JobStatus, LotStatus, is_english};

/// A job of the earlier service.
#[derive(Clone, Debug)]
pub struct LegacyJob {
    /// Its UUID, lower case.
    pub id: String,
    /// Its status in the dump.
    pub status: JobStatus,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Batches that its row names, in whichever column; OpenAI has not confirmed them.
    pub batches: Vec<String>,
    /// Languages wanted.
    pub languages: Vec<String>,
    /// Its webhook.
    pub webhook_url: Option<String>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// The number of lots that its row counts.
    pub total_lots: u32,
    /// Its lots, in the dump's order.
    pub lots: Vec<LegacyLot>,
}

/// A lot of the earlier service.
#[derive(Clone, Debug)]
pub struct LegacyLot {
    /// The client's id. Two lots of a job may have the same.
    pub lot_id: String,
    /// The seller's text.
    pub additional_info: String,
    /// Image URLs.
    pub images: Vec<String>,
    /// Image URLs that could not be fetched.
    pub missing_images: Vec<String>,
    /// The description; `None` if there is none, or something else stands in its place.
    pub vision_result: Option<String>,
    /// Whether something else than a description stands in its place.
    pub is_misdescribed: bool,
    /// Texts by language.
    pub translations: BTreeMap<String, String>,
    /// Why it failed.
    pub error_message: Option<String>,
}

impl LegacyLot {
    /// The status of the lot when its job is imported, and its error if it has one.
    ///
    /// | job | lot | status |
    /// |---|---|---|
    /// | open | a text is missing | pending |
    /// | open or final | a text in a wanted language | completed |
    /// | cancelled | no text | cancelled |
    /// | completed or failed | no text | failed |
    pub fn status_in(&self, job: &LegacyJob) -> (LotStatus, Option<&str>) {
        let is_described = self.vision_result.is_some();
        let is_translated = |language: &String| self.translations.contains_key(language);
        let has_text = (is_described && job.languages.iter().any(|it| is_english(it)))
            || job.languages.iter().any(is_translated);
        let mut others = job.languages.iter().filter(|it| !is_english(it));
        let is_complete = is_described && others.all(is_translated);
        if !job.status.is_final() && !is_complete {
            (LotStatus::Pending, None)
        } else if has_text {
            (LotStatus::Completed, None)
        } else if job.status == JobStatus::Cancelled {
            (LotStatus::Cancelled, None)
        } else {
            let error = self.error_message.as_deref();
            (
                LotStatus::Failed,
                Some(error.unwrap_or("imported without a text")),
            )
        }
    }
}

/// The custom ids under which the earlier service asked for a lot's description, or for its text in a
/// language. Lot ids may hold colons: such ids are made and compared, and never taken apart.
pub fn custom_ids(job_id: &str, lot_id: &str, language: Option<&str>) -> [String; 2] {
    match language {
        None => [format!("vision:{lot_id}"), format!("vision:{job_id}:{lot_id}")],
        Some(language) => [
            format!("tr:{lot_id}:{language}"),
            format!("translate:{job_id}:{lot_id}:{language}"),
        ],
    }
}

/// The stage and the job that a batch's description names.
pub fn described(description: &str) -> Option<(Stage, String)> {
    let forms = [
        ("Vision processing for job ", Stage::Vision),
        ("Translation processing for job ", Stage::Translation),
        ("Translation for job ", Stage::Translation),
    ];
    let (job, stage) = forms
        .iter()
        .find_map(|(form, stage)| Some((description.strip_prefix(form)?, *stage)))?;
    let job = uuid::Uuid::parse_str(job.trim()).ok()?;
    Some((stage, job.hyphenated().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lot_is_pending_until_it_has_all_texts_or_its_job_is_final() {
        use JobStatus::{Cancelled, Completed, Failed, Processing};
        let rows = [
            // job, languages, described, translations, status of the lot
            (Processing, &["en", "de"][..], true, &[][..], LotStatus::Pending),
            (Processing, &["en", "de"], true, &["de"], LotStatus::Completed),
            (Processing, &["de"], false, &["de"], LotStatus::Pending),
            (Completed, &["en", "de"], true, &[], LotStatus::Completed),
            (Failed, &["de"], false, &["de"], LotStatus::Completed),
            (Failed, &["de"], true, &[], LotStatus::Failed),
            (Cancelled, &["en"], false, &[], LotStatus::Cancelled),
        ];
        for (status, languages, is_described, translations, expected) in rows {
            let text = || "a text".to_owned();
            let lot = LegacyLot {
                lot_id: "A".into(),
                additional_info: String::new(),
                images: Vec::new(),
                missing_images: Vec::new(),
                vision_result: is_described.then(text),
                is_misdescribed: false,
                translations: translations.iter().map(|it| ((*it).to_owned(), text())).collect(),
                error_message: None,
            };
            let job = LegacyJob {
                id: String::new(),
                status,
                created_at: Timestamp::from_seconds(0),
                updated_at: Timestamp::from_seconds(0),
                batches: Vec::new(),
                languages: languages.iter().map(|it| (*it).to_owned()).collect(),
                webhook_url: None,
                error_message: None,
                total_lots: 1,
                lots: Vec::new(),
            };
            let (found, error) = lot.status_in(&job);
            assert_eq!(found, expected, "{status} {languages:?} {translations:?}");
            assert_eq!(error.is_some(), expected == LotStatus::Failed);
        }
    }

    #[test]
    fn descriptions_name_stage_and_job() {
        let job = "6908f1d2-39b9-4721-bb8a-dba18120df5f";
        for (form, stage) in [
            ("Vision processing", Stage::Vision),
            ("Translation", Stage::Translation),
        ] {
            assert_eq!(
                described(&format!("{form} for job {job}")),
                Some((stage, job.to_owned()))
            );
        }
        assert_eq!(described("Vision processing for job of ours"), None);
    }
}
