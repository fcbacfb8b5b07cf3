//! What the earlier service left: its jobs and lots, its batches' metadata and custom ids.

use std::collections::BTreeMap;

use crate::base::clock::Timestamp;
use crate::domain::batch::Stage;
use crate::domain::job::JobStatus;

/// A job of the earlier service.
#[derive(Clone, Debug)]
pub struct LegacyJob {
    /// Its UUID, lower case.
    pub id: String,
    /// As it stood.
    pub status: JobStatus,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Batches that it names, in whichever column; nobody has confirmed them.
    pub batches: Vec<String>,
    /// Languages wanted.
    pub languages: Vec<String>,
    /// Its webhook.
    pub webhook_url: Option<String>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// What it says of its number of lots.
    pub total_lots: u32,
    /// Its lots, in the dump's order.
    pub lots: Vec<LegacyLot>,
}

/// A lot of the earlier service.
#[derive(Clone, Debug)]
pub struct LegacyLot {
    /// Not unique in the job, there.
    pub lot_id: String,
    /// The seller's text.
    pub additional_info: String,
    /// Image URLs.
    pub images: Vec<String>,
    /// Those of them that could not be fetched.
    pub missing_images: Vec<String>,
    /// The description, where it is one.
    pub vision_result: Option<String>,
    /// Something else stands in its place.
    pub is_misdescribed: bool,
    /// Texts by language.
    pub translations: BTreeMap<String, String>,
    /// Why it failed.
    pub error_message: Option<String>,
}

/// The custom ids under which the earlier service asked for a lot's description, or its text in a
/// language. (Lot ids may hold colons: ids are made and compared, never taken apart.)
pub fn custom_ids(job_id: &str, lot_id: &str, language: Option<&str>) -> [String; 2] {
    match language {
        None => [
            format!("vision:{lot_id}"),
            format!("vision:{job_id}:{lot_id}"),
        ],
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
