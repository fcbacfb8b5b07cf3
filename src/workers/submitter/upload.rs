//! A batch's input file is written, sealed and uploaded.

use std::time::Duration;

use super::{Submitter, input};
use crate::base::clock::Moment;
use crate::domain::alert::AlertKind;
use crate::domain::decide::failed_call::{CallKind, CallPurpose};
use crate::openai::{CallError, FileObject};
use crate::store::batches::{self, BatchRow};
use crate::workers::pauses;
use crate::workers::spool::SpoolKind;
use crate::workers::worker::{TickOutcome, WorkerError};

/// This many of the newest input files at OpenAI are searched for one of ours. Some compatible servers refuse the
/// first number.
const RECENT_FILES: [u32; 2] = [100, 20];

/// How long a planned batch waits for a job that is being cancelled to leave it.
const CANCELLATION: Duration = Duration::from_secs(1);

impl Submitter {
    /// Writes the input of a planned batch and fixes its lines. A batch without a line is dropped.
    pub(super) fn seal(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if self.store.read(|view| batches::loses_lines(view, row.id))? {
            self.store.write(now.wall, |tx| {
                batches::set_next_check(tx, row.id, now.wall + CANCELLATION)
            })?;
            return Ok(TickOutcome::again());
        }
        let input = input::write(&self.store, &self.spool, row)?;
        self.store.write(now.wall, |tx| {
            if input.lines == 0 {
                batches::drop_empty(tx, row.id)
            } else {
                batches::seal(tx, row.id, &input).map(drop)
            }
        })?;
        if input.lines == 0 {
            self.spool.remove(&row.key, SpoolKind::Input)?;
        }
        Ok(TickOutcome::again())
    }

    /// Uploads the input of a sealed batch, unless OpenAI has it already.
    pub(super) fn upload(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if self.abandon_if_unwanted(row, now)? {
            return Ok(TickOutcome::again());
        }
        let path = self.spool.path(&row.key, SpoolKind::Input);
        if !input::is_there(&path, row)? {
            let written = input::write(&self.store, &self.spool, row)?;
            if Some(&written.sha256) != row.input_sha256.as_ref() {
                let message = format!(
                    "the input of batch {} is not what was sealed any more (SHA-256 {}); look at its rows, then let it \
                     go with: batchkeeper batches abandon {}",
                    row.id, written.sha256, row.id
                );
                self.store.write(now.wall, |tx| {
                    self.report_stuck(tx, row, AlertKind::InputChanged, &message)
                })?;
                return Ok(TickOutcome::again());
            }
        }
        let file = match self.find_uploaded(row) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => self.api.upload(&input::file_name(&row.key), &path),
            Err(error) => Err(error),
        };
        let file = match file {
            Ok(file)
                if self
                    .store
                    .read(|view| batches::is_input_of_another(view, row.id, &file.id))? =>
            {
                Err(CallError::Unknown {
                    message: format!(
                        "the upload was answered with {}, the input of another batch",
                        file.id
                    ),
                })
            }
            file => file,
        };
        match file {
            Ok(file) => self.store.write(now.wall, |tx| {
                pauses::record_success(tx, CallKind::Upload, row.id)?;
                batches::mark_uploaded(tx, row.id, &file)
            })?,
            Err(error) => return self.fail_call(row, now, CallPurpose::Upload, &error),
        }
        Ok(TickOutcome::again())
    }

    /// Finds the input of an upload whose answer was lost, by its size and by its name, which holds the key.
    /// A file that is cut, or that a create did not find, is removed.
    fn find_uploaded(&self, row: &BatchRow) -> Result<Option<FileObject>, CallError> {
        let name = input::file_name(&row.key);
        let listed = self.recent_files()?;
        let refused = row.input_file_id.as_ref();
        let (whole, useless): (Vec<_>, Vec<_>) = listed
            .into_iter()
            .filter(|file| file.filename == name)
            .partition(|file| file.bytes == row.input_bytes && Some(&file.id) != refused);
        for file in useless {
            match self.api.delete_file(&file.id) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(whole.into_iter().next())
    }

    /// The newest input files at OpenAI. None if the server lists no files: then an input whose answer was lost is
    /// uploaded again, and the first file stays there unused.
    fn recent_files(&self) -> Result<Vec<FileObject>, CallError> {
        for limit in RECENT_FILES {
            match self.api.input_files(None, limit) {
                Ok(page) => return Ok(page.data),
                Err(error) if error.is_of_parameters() => {}
                Err(error) if error.is_not_offered() => break,
                Err(error) => return Err(error),
            }
        }
        log::info!(event = "files_not_listed"; "the server lists no files");
        Ok(Vec::new())
    }
}
