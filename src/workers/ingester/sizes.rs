//! Result files whose size is not the one that the server states. Their complete lines are ingested from the part
//! in the spool. Both files of the batch then show whether the size or the download is wrong.

use std::io::ErrorKind;

use super::Ingester;
use super::fetch::other_size;
use crate::base::clock::Moment;
use crate::base::fields::Fields;
use crate::domain::batch::ResultKind;
use crate::domain::decide::failed_call::CallKind;
use crate::domain::decide::file_size::{SizeDecision, SizeEvidence};
use crate::openai::jsonl::sha256_file;
use crate::store::batches::{self, BatchRow};
use crate::store::events;
use crate::workers::pauses;
use crate::workers::worker::{TickOutcome, WorkerError};

/// A result file whose download has another size than the server states. A restart forgets it.
#[derive(Debug, Default)]
pub(super) struct DoubtfulFile {
    /// Bytes that the server states.
    pub(super) stated: u64,
    /// Bytes that arrived.
    pub(super) arrived: u64,
    /// Whether the part in the spool is its newest download.
    pub(super) is_here: bool,
    evidence: SizeEvidence,
}

impl Ingester {
    /// Whether a part of a file is in the spool that waits to be judged.
    pub(super) fn is_doubtful(&self, row: &BatchRow, kind: ResultKind) -> bool {
        self.doubts
            .get(&(row.id, kind))
            .is_some_and(|doubt| doubt.is_here)
    }

    /// Forgets the downloads of a batch that is over.
    pub(super) fn forget_doubts(&mut self, row: &BatchRow) {
        self.doubts.retain(|(batch, _), _| *batch != row.id);
    }

    /// Decides on the doubtful files of a batch whose complete lines are ingested. They are accepted, or downloaded
    /// again.
    pub(super) fn judge_sizes(
        &mut self,
        row: &BatchRow,
        kinds: &[ResultKind],
        now: Moment,
    ) -> Result<TickOutcome, WorkerError> {
        let read = self.read_files(row)?;
        let interval = self.config.openai.size_check_interval;
        let mut refused = None;
        for kind in kinds {
            let Some(doubt) = self.doubts.get_mut(&(row.id, *kind)) else {
                continue;
            };
            doubt.is_here = false;
            let ends_in_whole_line = row.file(*kind).ingested == doubt.arrived;
            doubt.evidence.record(now.steady, ends_in_whole_line, interval);
            if doubt.evidence.decide(&read, row.input_sha256.is_some()) == SizeDecision::DownloadAgain {
                let id = row.file(*kind).id.as_deref().unwrap_or_default();
                refused = Some((*kind, other_size(id, doubt.stated, doubt.arrived)));
            }
        }
        match refused {
            Some((kind, error)) => self.fail_fetch(row, kind, now, &error)?,
            None => {
                for kind in kinds {
                    self.accept_size(row, *kind, now)?;
                }
            }
        }
        Ok(TickOutcome::again())
    }

    /// Takes a part for the whole file. Its ingested lines stay ingested.
    fn accept_size(&mut self, row: &BatchRow, kind: ResultKind, now: Moment) -> Result<(), WorkerError> {
        let doubt = self.doubts.remove(&(row.id, kind)).unwrap_or_default();
        let path = match self.spool.accept_part(&row.key, kind.into()) {
            // It is downloaded again.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            path => path?,
        };
        let (bytes, sha256) = sha256_file(&path)?;
        let detail = Fields::new()
            .with("file", kind.as_str())
            .with("stated", doubt.stated)
            .with("bytes", bytes);
        self.store.write(now.wall, |tx| {
            pauses::record_success(tx, CallKind::Download, row.id)?;
            events::record(tx, None, Some(row.id), "other_size_accepted", detail)?;
            batches::mark_spooled(tx, row.id, kind, bytes, &sha256)
        })?;
        Ok(())
    }
}
