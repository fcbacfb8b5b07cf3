//! The ingester: both result files of an ended batch, into the spool and from there to their lots.
//!
//! First both files lie whole in the spool, then output lines are taken in, then error lines, then
//! what is missing gets its verdict: nothing is sent again or failed before both were read.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Moment, Timestamp};
use crate::base::fields::Fields;
use crate::config::Config;
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::batch::BatchState;
use crate::domain::due::Due;
use crate::domain::openai::BatchStatus;
use crate::openai::jsonl::{LineReader, sha256_file};
use crate::openai::{BatchApi, CallError};
use crate::store::batches::{self, BatchRow, ResultKind};
use crate::store::{Store, StoreError, Tx, View, alerts, events, queue, settle};
use crate::workers::pauses;
use crate::workers::spool::{Spool, SpoolKind};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, WaitTimes, Worker, WorkerError, backoff};

mod lines;
mod refusal;

use lines::{read_chunk, take_line};
use refusal::{blamed, is_passing, is_queue_full, queue_limit, refusal};

/// Verdicts in one transaction.
const VERDICTS: u32 = 200;
/// When so many batches of a model fail alike in a row, it pauses.
const ALIKE: u32 = 3;

/// See the module.
pub struct Ingester {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    spool: Spool,
    /// Since when the missing lines of each batch are waited for.
    missing: WaitTimes,
}

impl Ingester {
    /// An ingester.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        let spool = Spool::new(config.spool());
        Self {
            store,
            api,
            config,
            spool,
            missing: WaitTimes::default(),
        }
    }

    fn advance(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        for kind in [ResultKind::Output, ResultKind::Error] {
            if !row.file(kind).is_spooled() {
                return self.spool_file(row, kind, now);
            }
        }
        for kind in [ResultKind::Output, ResultKind::Error] {
            let file = row.file(kind);
            if file.bytes.is_some_and(|bytes| file.taken < bytes) {
                return self.take_in(row, kind, now);
            }
        }
        self.settle(row, now)
    }

    /// Fetches one result file whole: its size is held against what OpenAI says of it.
    fn spool_file(
        &self,
        row: &BatchRow,
        kind: ResultKind,
        now: Moment,
    ) -> Result<TickOutcome, WorkerError> {
        if row.identity != *self.api.identity() {
            self.store.write(now.wall, |tx| {
                pauses::other_identity(tx, row)?;
                batches::set_next_check(tx, row.id, now.wall + Duration::from_mins(5))
            })?;
            return Ok(TickOutcome::again());
        }
        let id = row.file(kind).id.clone().unwrap_or_default();
        let mut file = Spooling {
            into: self.spool.create(&row.key, kind.into())?,
            failed: None,
        };
        let fetched = self
            .api
            .file(&id)
            .and_then(|remote| Ok((remote, self.api.download(&id, &mut file)?)));
        if let Some(error) = file.failed {
            return Err(error.into());
        }
        let error = match fetched {
            Ok((remote, bytes)) if remote.bytes.is_none_or(|expected| expected == bytes) => {
                let path = file.into.finish()?;
                let (bytes, sha256) = sha256_file(&path)?;
                self.store.write(now.wall, |tx| {
                    pauses::clear_pause(tx, &PauseScope::OpenAi)?;
                    batches::mark_spooled(tx, row.id, kind, bytes, &sha256)
                })?;
                return Ok(TickOutcome::again());
            }
            Ok((remote, bytes)) => CallError::Unknown {
                message: format!(
                    "file {id} has {} bytes, {bytes} arrived",
                    remote.bytes.unwrap_or(0)
                ),
            },
            Err(error) => error,
        };
        let wait = backoff(
            self.config.openai.retry_interval,
            row.failures,
            error.retry_after(),
        );
        self.store.write(now.wall, |tx| {
            if error.is_account_trouble() {
                // Others come first when the pause is over: it may be this one alone that is refused.
                let probe = backoff(self.config.openai.retry_interval, u32::MAX, None);
                batches::set_next_check(tx, row.id, now.wall + probe)?;
                return pauses::pause_openai(tx, &error, probe);
            }
            if batches::is_given_up(tx, row.id)? {
                return Ok(());
            }
            let patience = match error.is_not_found() {
                true => pauses::NOT_YET,
                false => 5,
            };
            if row.failures >= patience {
                let message = format!(
                    "the {kind} file {id} of batch {} cannot be fetched: {error}. It is tried on; if it is lost for \
                     good, `batchkeeper batches give-up {}` sends the unanswered requests again",
                    row.id, row.id
                );
                alerts::open(tx, AlertKind::ResultsUnavailable, &AlertSubject::Batch(row.id), &message)?;
            }
            batches::postpone(tx, row.id, now.wall + wait, &error.to_string())
        })?;
        Ok(TickOutcome::again())
    }

    /// Takes the next lines of a spooled file in.
    fn take_in(
        &self,
        row: &BatchRow,
        kind: ResultKind,
        now: Moment,
    ) -> Result<TickOutcome, WorkerError> {
        let file = row.file(kind);
        let path = self.spool.path(&row.key, kind.into());
        let mut reader = match LineReader::open(&path, file.taken) {
            Ok(reader) if fs::metadata(&path)?.len() == file.bytes.unwrap_or(0) => reader,
            _ => {
                log::warn!(
                    event = "spooled_again", batch = row.id;
                    "the spooled {kind} file is gone or another; it is fetched again"
                );
                self.store
                    .write(now.wall, |tx| batches::mark_unspooled(tx, row.id, kind))?;
                return Ok(TickOutcome::again());
            }
        };
        let chunk = read_chunk(&mut reader)?;
        self.store.write(now.wall, |tx| {
            let (mut unknown, mut broken) = (0, Vec::new());
            for line in &chunk.lines {
                if !take_line(tx, row, line, &mut broken)? {
                    unknown += 1;
                }
            }
            if let Some(first) = broken.first() {
                let detail = Fields::new()
                    .with("file", kind.as_str())
                    .with("lines", broken.len())
                    .with("first", first.as_str());
                events::record(tx, None, Some(row.id), "broken_lines", detail)?;
            }
            let taken = if chunk.is_last {
                file.bytes.unwrap_or(chunk.end)
            } else {
                chunk.end
            };
            batches::record_ingested(tx, row.id, kind, taken, unknown)
        })?;
        Ok(TickOutcome::again())
    }

    /// Both files are read: verdicts on the lines that have no text.
    fn settle(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        let refused = (row.openai_status.as_deref() == Some(BatchStatus::Failed.as_str()))
            .then(|| refusal(row));
        if row.settled_to == 0 {
            if let Some(wait) = self.patience(row, now)? {
                self.store.write(now.wall, |tx| {
                    batches::set_next_check(tx, row.id, now.wall + wait)
                })?;
                return Ok(TickOutcome::again());
            }
            if let Some(reason) = &refused {
                // The pause comes first: a request that waits again may be sent again at once.
                self.store.write(now.wall, |tx| {
                    settle::mark_not_run(tx, row.id, &blamed(row))?;
                    self.pause_model(tx, row, reason)
                })?;
            }
        }
        let blamed = blamed(row);
        let halve = refused.is_some() && blamed.is_empty() && !is_passing(row)
            || is_queue_full(row)
                && !self
                    .store
                    .read(|view| is_our_own_queue(view, row, now.wall))?;
        let rules = settle::Rules {
            max_attempts: self.config.batch.max_attempts,
            check_images: self.config.images.check,
            batch_cap: halve.then(|| (row.lines / 2).max(1)),
        };
        let done = self.store.write(now.wall, |tx| {
            if let Some(last) = settle::settle_lines(tx, row.id, row.settled_to, VERDICTS, rules)? {
                batches::record_settled_to(tx, row.id, last)?;
                return Ok(false);
            }
            batches::mark_ingested(tx, row.id, refused.as_deref())?;
            alerts::close_all(tx, &AlertSubject::Batch(row.id))?;
            if refused.is_none() {
                self.judge_model(tx, row)?;
            }
            Ok(true)
        })?;
        if done {
            self.missing.end(row.id);
            // Its input too: where the auditor found the batch, nobody has removed that.
            for kind in [SpoolKind::Output, SpoolKind::Error, SpoolKind::Input] {
                self.spool.remove(&row.key, kind)?;
            }
        }
        Ok(TickOutcome::again())
    }

    /// How long what is missing is still waited for: a line is missing only when what was found
    /// explains OpenAI's counts, or the patience is over.
    fn patience(&mut self, row: &BatchRow, now: Moment) -> Result<Option<Duration>, StoreError> {
        let (unread, answered) = self.store.read(|view| settle::unread_lines(view, row.id))?;
        let found = u64::from(row.lines).saturating_sub(unread);
        let status = row.openai_status.as_deref();
        // Of a batch that was cut short, lines that never ran are found too, and counted nowhere.
        let explained = if status == Some(BatchStatus::Completed.as_str()) {
            found >= row.counts.completed + row.counts.failed
        } else {
            answered >= row.counts.completed
        };
        let no_file = row.output.id.is_none() && row.error_file.id.is_none();
        if unread == 0 || no_file || explained {
            return Ok(None);
        }
        let waited = self.missing.waited(row.id, now);
        let patience = self.config.openai.results_timeout;
        if waited >= patience {
            return Ok(None);
        }
        self.store.write(now.wall, |tx| {
            for kind in [ResultKind::Output, ResultKind::Error] {
                if row.file(kind).id.is_some() {
                    // The same file again: a repeated line changes nothing, a late one is found.
                    batches::mark_unspooled(tx, row.id, kind)?;
                }
            }
            Ok(())
        })?;
        // Each time twice as late: the files may be large, and mostly they are whole.
        let wait = self.config.openai.poll_interval.max(waited);
        Ok(Some(
            wait.min(patience - waited)
                .min(pauses::longest_wait(&self.config)),
        ))
    }
}

impl Ingester {
    /// What a refused batch says of its model: where that passes, it pauses.
    fn pause_model(&self, tx: &Tx<'_>, row: &BatchRow, reason: &str) -> Result<(), StoreError> {
        if !is_passing(row) || row.model.is_empty() {
            return Ok(());
        }
        if let Some(limit) = queue_limit(row) {
            queue::learn(tx, &row.model, limit)?;
        }
        if is_our_own_queue(tx, row, tx.now)? {
            // The next batch is made when there is room for it, and no larger.
            return Ok(());
        }
        let scope = PauseScope::Model(row.model.clone());
        let before = batches::refusals_in_a_row(tx, &row.model)?;
        let wait = backoff(self.config.batch.queue_backoff, before, None);
        let message = format!(
            "OpenAI takes no batch of {} now: {reason}; tried again after {wait:?}. What it refused: batchkeeper batches \
             show {}",
            row.model, row.id
        );
        alerts::pause(tx, &scope, &message, Some(tx.now + wait))?;
        alerts::open(
            tx,
            AlertKind::ModelRefused,
            &AlertSubject::Scope(scope),
            &message,
        )
        .map(drop)
    }

    /// What a batch that ran says of its model: whether it pauses, or goes on.
    fn judge_model(&self, tx: &Tx<'_>, row: &BatchRow) -> Result<(), StoreError> {
        let was_cancelled = row.openai_status.as_deref() == Some(BatchStatus::Cancelled.as_str());
        if row.model.is_empty() || was_cancelled {
            // Nothing: somebody cancelled it, or it was taken up by a recovery and OpenAI does not
            // say of kind model it is. (A pause under no name would stop nothing.)
            return Ok(());
        }
        let scope = PauseScope::Model(row.model.clone());
        match batches::fails_alike(tx, &row.model, ALIKE)? {
            None => pauses::clear_pause(tx, &scope),
            Some(error) => {
                let message = format!(
                    "every line of the last {ALIKE} batches of {} failed with {error:?}. The last one: batchkeeper \
                     batches show {}",
                    row.model, row.id
                );
                let wait = backoff(self.config.batch.queue_backoff, u32::MAX, None);
                alerts::pause(tx, &scope, &message, Some(tx.now + wait))?;
                alerts::open(
                    tx,
                    AlertKind::ModelFails,
                    &AlertSubject::Scope(scope),
                    &message,
                )
                .map(drop)
            }
        }
    }
}

/// Whether a batch was refused because ours together take more than the limit that OpenAI names.
fn is_our_own_queue(view: &View, row: &BatchRow, now: Timestamp) -> Result<bool, StoreError> {
    match queue_limit(row) {
        Some(limit) if is_queue_full(row) => queue::explains(view, row, limit, now),
        _ => Ok(false),
    }
}

impl Worker for Ingester {
    fn name(&self) -> &'static str {
        "ingester"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::ResultsIngested)
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[Topic::BatchPolled, Topic::Audited]
    }

    fn longest_tick(&self) -> Duration {
        // A download of whole files is bounded by the least rate of a transfer.
        Duration::from_hours(12)
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if let Some(wait) = pauses::openai_paused(&self.store, &self.config, now)? {
            return Ok(TickOutcome::idle(wait.min(self.config.steps.idle)));
        }
        let longest = pauses::longest_wait(&self.config);
        let first = self
            .store
            .read(|view| batches::next_due(view, &[BatchState::Ended], now.wall, longest))?;
        match first {
            Due::Now(row) => self.advance(&row, now),
            Due::At(at) => Ok(TickOutcome::idle(
                at.since(now.wall).min(self.config.steps.idle),
            )),
            Due::Never => Ok(TickOutcome::idle(self.config.steps.idle)),
        }
    }
}

/// Tells a failing disk from a failing download.
struct Spooling<W> {
    into: W,
    failed: Option<std::io::Error>,
}

impl<W: Write> Write for Spooling<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.into.write(bytes).map_err(|error| {
            let told = std::io::Error::new(error.kind(), "the spool cannot be written");
            self.failed = Some(error);
            told
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.into.flush()
    }
}
