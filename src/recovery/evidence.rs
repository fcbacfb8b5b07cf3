//! The evidence in a batch's files: the custom ids of its lines, and the job that they fit.

use std::collections::HashSet;

use crate::domain::batch::Stage;
use crate::domain::job::is_english;
use crate::domain::legacy::custom_ids;
use crate::domain::result_line;
use crate::openai::jsonl::{self, LineSplitter};
use crate::openai::{Batch, BatchApi, CallError};
use crate::store::orphans::OrphanedJob;

/// The custom ids of a batch: from its input file, or from its result files if the input file is gone.
/// `None` if all of its files are gone.
pub(super) fn custom_ids_of(api: &dyn BatchApi, batch: &Batch) -> Result<Option<Vec<String>>, CallError> {
    match ids_of_input(api, batch)? {
        Some(ids) => Ok(Some(ids)),
        None => ids_of_results(api, batch),
    }
}

/// The custom ids in the input file of a batch; `None` if the file is gone.
pub(super) fn ids_of_input(api: &dyn BatchApi, batch: &Batch) -> Result<Option<Vec<String>>, CallError> {
    let id_of_request = |line: &[u8]| {
        let line = jsonl::request_lines(line).next()?;
        Some(line.ok()?.custom_id)
    };
    ids_in_file(api, &batch.input_file_id, id_of_request)
}

/// The custom ids in the result files of a batch; `None` if both are gone.
pub(super) fn ids_of_results(api: &dyn BatchApi, batch: &Batch) -> Result<Option<Vec<String>>, CallError> {
    let id_of_result = |line: &[u8]| Some(result_line::read_line(line).ok()?.custom_id);
    let mut ids = None;
    for file in [&batch.output_file_id, &batch.error_file_id]
        .into_iter()
        .flatten()
    {
        if let Some(found) = ids_in_file(api, file, id_of_result)? {
            ids.get_or_insert_with(Vec::new).extend(found);
        }
    }
    Ok(ids)
}

/// The custom ids in a file, in the order of its lines; `None` if the file is gone. A file that arrives in
/// part is an error: the lines that are missing would be sent again.
fn ids_in_file(
    api: &dyn BatchApi,
    file: &str,
    id_of: impl Fn(&[u8]) -> Option<String>,
) -> Result<Option<Vec<String>>, CallError> {
    let mut ids = Vec::new();
    let mut lines = LineSplitter::new(|line: &[u8]| ids.extend(id_of(line)));
    let fetched = api
        .file(file)
        .and_then(|metadata| Ok((metadata.bytes, api.download(file, &mut lines)?)));
    lines.finish();
    match fetched {
        Ok((expected, bytes)) if expected.is_none_or(|expected| expected == bytes) => Ok(Some(ids)),
        Ok((_, bytes)) => Err(CallError::Unknown {
            message: format!("of file {file} only {bytes} bytes arrived"),
        }),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number of custom ids that are lines of the job in that stage.
pub(super) fn count_fitting(ids: &[String], job: &OrphanedJob, stage: Stage) -> usize {
    let mut ids_of_job = HashSet::new();
    for lot in &job.lots {
        match stage {
            Stage::Vision => ids_of_job.extend(custom_ids(&job.id, lot, None)),
            Stage::Translation => {
                let languages = job.languages.iter().filter(|it| !is_english(it));
                ids_of_job.extend(languages.flat_map(|it| custom_ids(&job.id, lot, Some(it.as_str()))));
            }
        }
    }
    ids.iter().filter(|id| ids_of_job.contains(*id)).count()
}

/// The stage in which every custom id is a line of the job.
pub(super) fn stage_that_fits(ids: &[String], job: &OrphanedJob) -> Option<Stage> {
    Stage::ALL
        .iter()
        .copied()
        .find(|stage| !ids.is_empty() && count_fitting(ids, job, *stage) == ids.len())
}
