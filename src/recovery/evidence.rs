//! What a batch's files say of the lines that it was made with.

use std::collections::HashSet;

use super::recover::Recovery;
use crate::domain::batch::Stage;
use crate::domain::job::is_english;
use crate::domain::legacy::custom_ids;
use crate::domain::result_line;
use crate::openai::jsonl::{self, EachLine};
use crate::openai::{Batch, CallError};
use crate::store::legacy::Orphan;

impl Recovery {
    /// The custom ids of a batch: from its input, or where that is gone from its results; none: all
    /// of its files are gone.
    pub(super) fn custom_ids(&self, remote: &Batch) -> Result<Option<Vec<String>>, CallError> {
        let sent = |line: &[u8]| {
            let line = jsonl::custom_ids(line).next()?;
            Some(line.ok()?.custom_id)
        };
        if let Some(ids) = self.ids_in(&remote.input_file_id, sent)? {
            return Ok(Some(ids));
        }
        let answered = |line: &[u8]| Some(result_line::read_line(line).ok()?.custom_id);
        let mut ids = None;
        for file in [&remote.output_file_id, &remote.error_file_id]
            .into_iter()
            .flatten()
        {
            if let Some(found) = self.ids_in(file, answered)? {
                ids.get_or_insert_with(Vec::new).extend(found);
            }
        }
        Ok(ids)
    }

    /// The custom ids that a file has, in its lines' order; none: it is gone. A part of a file is an
    /// error: what is not in it would be sent again.
    fn ids_in(
        &self,
        file: &str,
        id: impl Fn(&[u8]) -> Option<String>,
    ) -> Result<Option<Vec<String>>, CallError> {
        let mut ids = Vec::new();
        let mut lines = EachLine::new(|line: &[u8]| ids.extend(id(line)));
        let fetched = self
            .api
            .file(file)
            .and_then(|remote| Ok((remote.bytes, self.api.download(file, &mut lines)?)));
        lines.finish();
        match fetched {
            Ok((expected, bytes)) if expected.is_none_or(|expected| expected == bytes) => {
                Ok(Some(ids))
            }
            Ok((_, bytes)) => Err(CallError::Unknown {
                message: format!("of file {file} only {bytes} bytes arrived"),
            }),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How many of the custom ids are lines of the job in that stage.
pub(super) fn fitting(ids: &[String], orphan: &Orphan, stage: Stage) -> usize {
    let mut of_job = HashSet::new();
    for lot in &orphan.lots {
        match stage {
            Stage::Vision => of_job.extend(custom_ids(&orphan.id, lot, None)),
            Stage::Translation => {
                for language in orphan
                    .languages
                    .iter()
                    .filter(|language| !is_english(language))
                {
                    of_job.extend(custom_ids(&orphan.id, lot, Some(language)));
                }
            }
        }
    }
    ids.iter().filter(|id| of_job.contains(*id)).count()
}

/// The stage in which every custom id is a line of the job.
pub(super) fn fits(ids: &[String], orphan: &Orphan) -> Option<Stage> {
    Stage::ALL
        .iter()
        .copied()
        .find(|stage| !ids.is_empty() && fitting(ids, orphan, *stage) == ids.len())
}
