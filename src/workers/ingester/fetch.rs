//! A result file of a batch is fetched whole into the spool.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::Ingester;
use crate::base::clock::Moment;
use crate::domain::batch::ResultKind;
use crate::domain::decide::backoff::longest_backoff;
use crate::domain::decide::failed_call::{CallKind, CallPurpose, FailedCall};
use crate::openai::CallError;
use crate::openai::jsonl::sha256_file;
use crate::store::batches::{self, BatchRow};
use crate::workers::spool::{PartFile, Spool};
use crate::workers::worker::{TickOutcome, WorkerError};
use crate::workers::{abandonment, call_failure, pauses};

/// A batch of another account is looked at again after this time.
const OTHER_IDENTITY: Duration = Duration::from_mins(5);

impl Ingester {
    /// Fetches one result file.
    pub(super) fn fetch(
        &mut self,
        row: &BatchRow,
        kind: ResultKind,
        now: Moment,
    ) -> Result<TickOutcome, WorkerError> {
        if row.identity != *self.api.identity() {
            self.store.write(now.wall, |tx| match row.abandoned_at {
                Some(_) => abandonment::watch(tx, row, None, OTHER_IDENTITY),
                None => {
                    pauses::report_other_identity(tx, row)?;
                    batches::set_next_check(tx, row.id, now.wall + OTHER_IDENTITY)
                }
            })?;
            return Ok(TickOutcome::again());
        }
        let id = row.file(kind).id.as_deref().unwrap_or_default();
        match self.download(row, kind, id)? {
            Download::Whole(path) => {
                let (bytes, sha256) = sha256_file(&path)?;
                self.doubts.remove(&(row.id, kind));
                self.store.write(now.wall, |tx| {
                    pauses::record_success(tx, CallKind::Download, row.id)?;
                    // It may be another one than a part that was ingested.
                    batches::mark_unspooled(tx, row.id, kind)?;
                    batches::mark_spooled(tx, row.id, kind, bytes, &sha256)
                })?;
            }
            Download::OtherSize { stated, arrived } => {
                let doubt = self.doubts.entry((row.id, kind)).or_default();
                (doubt.stated, doubt.arrived, doubt.is_here) = (stated, arrived, true);
                self.store
                    .write(now.wall, |tx| batches::mark_unspooled(tx, row.id, kind))?;
            }
            Download::Failed(error) => self.fail_fetch(row, kind, now, &error)?,
        }
        Ok(TickOutcome::again())
    }

    /// Stores that a file could not be fetched, and what follows.
    pub(super) fn fail_fetch(
        &self,
        row: &BatchRow,
        kind: ResultKind,
        now: Moment,
        error: &CallError,
    ) -> Result<(), WorkerError> {
        let call = FailedCall {
            purpose: CallPurpose::Download { file: kind },
            error,
            failures: row.failures,
            retry_interval: self.config.openai.retry_interval,
        };
        let wait = longest_backoff(self.config.openai.retry_interval);
        self.store.write(now.wall, |tx| match row.abandoned_at {
            Some(_) => abandonment::watch(tx, row, Some(error), wait),
            None => call_failure::apply_to_batch(tx, row, &call),
        })?;
        Ok(())
    }

    /// Downloads a file and compares its size with OpenAI's: a cut download may look like a whole one.
    fn download(&self, row: &BatchRow, kind: ResultKind, id: &str) -> Result<Download, WorkerError> {
        let mut target = DownloadTarget {
            spool: &self.spool,
            key: &row.key,
            kind,
            file: None,
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
            Ok((Some(stated), arrived)) if stated != arrived => match target.file {
                Some(file) => {
                    file.leave()?;
                    Download::OtherSize { stated, arrived }
                }
                None => Download::Failed(other_size(id, stated, arrived)),
            },
            Ok(_) => Download::Whole(match target.file {
                Some(file) => file.finish()?,
                None => self.spool.create(&row.key, kind.into())?.finish()?,
            }),
            Err(error) => Download::Failed(error),
        })
    }
}

/// What became of a download.
enum Download {
    /// The file is in the spool.
    Whole(PathBuf),
    /// It is in the spool as a part, as it has another size than the server states.
    OtherSize { stated: u64, arrived: u64 },
    /// It could not be fetched.
    Failed(CallError),
}

/// The error of a file whose size is not the stated one.
pub(super) fn other_size(id: &str, stated: u64, arrived: u64) -> CallError {
    CallError::Unknown {
        message: format!(
            "file {id} has {stated} bytes, {arrived} arrived, whose complete lines are ingested"
        ),
    }
}

/// Where a download is written. It keeps the disk's error, as a failing disk is no failing download. A file of
/// the spool begins with the first byte, so that a refused download leaves what an earlier one brought.
struct DownloadTarget<'a> {
    spool: &'a Spool,
    key: &'a str,
    kind: ResultKind,
    file: Option<PartFile>,
    disk_error: Option<io::Error>,
}

impl DownloadTarget<'_> {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.spool.create(self.key, self.kind.into())?),
        };
        file.write(bytes)
    }
}

impl Write for DownloadTarget<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes).map_err(|error| {
            let reported = io::Error::new(error.kind(), "the spool cannot be written");
            self.disk_error = Some(error);
            reported
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}
