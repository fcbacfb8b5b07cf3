//! What the earlier service left: its dump, its batches' metadata and custom ids.

mod dump;

pub use dump::{Dump, LegacyJob, LegacyLot, read_dump};

use crate::domain::batch::Stage;

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
