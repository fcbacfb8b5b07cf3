//! A result file of a batch is fetched whole into the spool.

use std::io::{self, Write};
use std::time::Duration;

use super::Ingester;
use crate::base::clock::Moment;
use crate::domain::alert::PauseScope;
use crate::domain::batch::ResultKind;
use crate::domain::decide::failed_call::{CallPurpose, FailedCall};
use crate::openai::CallError;
use crate::openai::jsonl::sha256_file;
use crate::store::batches::{self, BatchRow};
use crate::workers::spool::PartFile;
use crate::workers::worker::{TickOutcome, WorkerError};
use crate::workers::{call_failure, pauses};

/// A batch of another account is looked at again after this time.
const OTHER_IDENTITY: Duration = Duration::from_mins(5);

impl Ingester {
    /// Fetches one result file.
    pub(super) fn fetch(
        &self,
        row: &BatchRow,
        kind: ResultKind,
        now: Moment,
    ) -> Result<TickOutcome, WorkerError> {
        if row.identity != *self.api.identity() {
            self.store.write(now.wall, |tx| {
                pauses::report_other_identity(tx, row)?;
                batches::set_next_check(tx, row.id, now.wall + OTHER_IDENTITY)
            })?;
            return Ok(TickOutcome::again());
        }
        let id = row.file(kind).id.as_deref().unwrap_or_default();
        match self.download(row, kind, id)? {
            Ok(file) => {
                let (bytes, sha256) = sha256_file(&file.finish()?)?;
                self.store.write(now.wall, |tx| {
                    pauses::clear_pause(tx, &PauseScope::OpenAi)?;
                    batches::mark_spooled(tx, row.id, kind, bytes, &sha256)
                })?;
            }
            Err(error) => {
                let call = FailedCall {
                    purpose: CallPurpose::Download { file: kind },
                    error: &error,
                    failures: row.failures,
                    retry_interval: self.config.openai.retry_interval,
                };
                self.store
                    .write(now.wall, |tx| call_failure::apply_to_batch(tx, row, &call))?;
            }
        }
        Ok(TickOutcome::again())
    }

    /// Downloads a file and compares its size with OpenAI's: a cut download may look like a whole one.
    fn download(
        &self,
        row: &BatchRow,
        kind: ResultKind,
        id: &str,
    ) -> Result<Result<PartFile, CallError>, WorkerError> {
        let mut target = DownloadTarget {
            file: self.spool.create(&row.key, kind.into())?,
            disk_error: None,
        };
        let fetched = self
            .api
            .file(id)
            .and_then(|remote| Ok((remote.bytes, self.api.download(id, &mut target)?)));
        if let Some(error) = target.disk_error {
            return Err(error.into());
        }
        Ok(match fetched {
            Ok((Some(expected), arrived)) if expected != arrived => Err(CallError::Unknown {
                message: format!("file {id} has {expected} bytes, {arrived} arrived"),
            }),
            Ok(_) => Ok(target.file),
            Err(error) => Err(error),
        })
    }
}

/// Where a download is written. It keeps the disk's error, as a failing disk is no failing download.
struct DownloadTarget {
    file: PartFile,
    disk_error: Option<io::Error>,
}

impl Write for DownloadTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| {
            let reported = io::Error::new(error.kind(), "the spool cannot be written");
            self.disk_error = Some(error);
            reported
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
