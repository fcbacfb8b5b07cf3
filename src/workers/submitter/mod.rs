//! The submitter: waiting requests become batches at OpenAI, by the submission protocol.
//!
//! Each tick does one move of one batch: `planned → sealed → uploaded → creating → submitted`. A
//! move that tells OpenAI something is preceded by a committed row that says so; an answer that was
//! lost is looked for (`ask`) before anything is done twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::batch::{BatchState, Stage};
use crate::domain::due::Due;
use crate::openai::{BatchApi, CallError, FileObject, NewBatch};
use crate::store::batches::{self, BatchRow, META_DATABASE, META_SUBMISSION};
use crate::store::{Store, Stored, View, alerts, settle};
use crate::workers::pauses;
use crate::workers::spool::{Spool, SpoolKind};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, WaitTimes, Worker, WorkerError, backoff};

mod ask;
mod input;
mod pack;

/// How many of the newest input files at OpenAI are looked through for one of ours.
const RECENT_FILES: u32 = 100;
/// A file that was just uploaded may not be seen by a create for so long.
const FILE_LAG: Duration = Duration::from_mins(1);

/// See the module.
pub struct Submitter {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    spool: Spool,
    /// When OpenAI's batches are next compared with the store, on the steady clock.
    compare_at: Duration,
    /// Since when each doubtful create is looked for.
    asking: WaitTimes,
    /// The stage whose turn it is not.
    last_stage: Stage,
    /// And of each stage the requests, by their cap.
    last_caps: BTreeMap<Stage, Option<u32>>,
}

impl Submitter {
    /// A submitter that has not looked at anything yet.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        let spool = Spool::new(config.spool());
        Self {
            store,
            api,
            config,
            spool,
            compare_at: Duration::ZERO,
            asking: WaitTimes::default(),
            last_stage: Stage::Vision,
            last_caps: BTreeMap::new(),
        }
    }

    /// One move of one batch that is on its way.
    fn advance(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if row.identity != *self.api.identity() {
            return self.other_identity(row, now);
        }
        match row.state {
            BatchState::Planned => self.seal(row, now),
            BatchState::Sealed => self.upload(row, now),
            BatchState::Uploaded => self.create(row, now),
            BatchState::Creating => self.ask(row, now),
            BatchState::Submitted
            | BatchState::Ended
            | BatchState::Ingested
            | BatchState::Failed => Ok(TickOutcome::idle(self.config.steps.idle)),
        }
    }

    /// A batch made under another account: its row says what is certain there, nothing can be
    /// learned of it here, and nothing is created again.
    fn other_identity(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.store.write(now.wall, |tx| {
            if matches!(row.state, BatchState::Planned | BatchState::Sealed) {
                return batches::set_identity(tx, row.id, self.api.identity());
            }
            pauses::other_identity(tx, row)?;
            batches::set_next_check(tx, row.id, now.wall + self.longest_wait())
        })?;
        Ok(TickOutcome::again())
    }

    fn seal(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
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

    fn upload(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if self.abandon_if_unwanted(row, now)? {
            return Ok(TickOutcome::again());
        }
        let path = self.spool.path(&row.key, SpoolKind::Input);
        if !input::is_there(&path, row)? {
            let written = input::write(&self.store, &self.spool, row)?;
            if Some(&written.sha256) != row.input_sha256.as_ref() {
                let message = format!(
                    "the input of batch {} is not what was sealed any more (SHA-256 {}); look at its rows, then let it \
                     go with: batchkeeper batches give-up {}",
                    row.id, written.sha256, row.id
                );
                return self.postpone(row, now, Some(AlertKind::InputChanged), &message, None);
            }
        }
        let file = match self.uploaded_before(row) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => self.api.upload(&input::file_name(&row.key), &path),
            Err(error) => Err(error),
        };
        match file {
            Ok(file) => self.store.write(now.wall, |tx| {
                pauses::clear_pause(tx, &PauseScope::OpenAi)?;
                batches::mark_uploaded(tx, row.id, &file)
            })?,
            Err(error) => return self.failed(row, now, &error, Some(AlertKind::UploadFailed)),
        }
        Ok(TickOutcome::again())
    }

    /// The input of an upload whose answer was lost: found by its name, which holds the key, and its
    /// size. Parts of it are removed, and one that a create did not find.
    fn uploaded_before(&self, row: &BatchRow) -> Result<Option<FileObject>, CallError> {
        let name = input::file_name(&row.key);
        let listed = self.api.input_files(None, RECENT_FILES)?.data;
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

    fn create(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if self.abandon_if_unwanted(row, now)? {
            return Ok(TickOutcome::again());
        }
        if !self.may_create()? {
            return self.wait(row, now);
        }
        self.store
            .write(now.wall, |tx| batches::mark_creating(tx, row.id))?;
        self.send_create(row, now)
    }

    /// Whether OpenAI has no batch that the store never heard of. While it has, no request is bound to
    /// a batch either: one of those may hold it, and whoever takes that batch up must find it free.
    /// And whether results of more would fit on the disk.
    fn may_create(&self) -> Stored<bool> {
        let paused = self
            .store
            .read(|view| alerts::paused(view, &PauseScope::Creates))?;
        Ok(paused.is_none() && pauses::missing_room(&self.store, &self.config)?.is_none())
    }

    /// Nothing can be done for this batch now; others may go on.
    fn wait(&self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.store.write(now.wall, |tx| {
            batches::set_next_check(tx, row.id, now.wall + self.config.steps.idle)
        })?;
        Ok(TickOutcome::again())
    }

    /// Sends the create whose intent is committed.
    fn send_create(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.asking.end(row.id);
        let metadata = [
            (META_DATABASE, self.store.database_id()),
            (META_SUBMISSION, &row.key),
            ("stage", row.stage.as_str()),
        ];
        let mut new = NewBatch {
            input_file_id: row.input_file_id.clone().unwrap_or_default(),
            metadata: metadata
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        if let Some(job) = &row.job_id {
            new.metadata.insert("job".into(), job.clone());
        }
        match self.api.create_batch(&new) {
            Ok(remote) => {
                self.store.write(now.wall, |tx| {
                    pauses::clear_sending_pauses(tx)?;
                    alerts::close_all(tx, &AlertSubject::Batch(row.id))?;
                    batches::mark_submitted(tx, row.id, &remote)
                })?;
                self.spool.remove(&row.key, SpoolKind::Input)?;
                Ok(TickOutcome::again())
            }
            Err(error) if error.had_no_effect() => self.not_created(row, now, &error),
            Err(error) => self.postpone(
                row,
                now,
                None,
                &error.to_string(),
                Some(self.config.openai.retry_interval),
            ),
        }
    }

    /// The create was refused: nothing was made.
    fn not_created(
        &self,
        row: &BatchRow,
        now: Moment,
        error: &CallError,
    ) -> Result<TickOutcome, WorkerError> {
        let no_file = matches!(error, CallError::Refused(refusal)
            if matches!(refusal.status, 400 | 404) && matches!(refusal.param.as_str(), "file_id" | "input_file_id"));
        let fresh = row
            .input_file_since
            .is_some_and(|since| !(since + FILE_LAG).due_in(now.wall, FILE_LAG).is_zero());
        self.store.write(now.wall, |tx| {
            batches::mark_not_created(tx, row.id)?;
            if no_file && !fresh {
                batches::forget_input_file(tx, row.id)
            } else {
                Ok(())
            }
        })?;
        self.failed(
            row,
            now,
            error,
            (!no_file).then_some(AlertKind::CreateRefused),
        )
    }

    /// A call for a batch failed without effect: later again; `kind`: the alert that a refusal of
    /// it raises.
    fn failed(
        &self,
        row: &BatchRow,
        now: Moment,
        error: &CallError,
        kind: Option<AlertKind>,
    ) -> Result<TickOutcome, WorkerError> {
        if error.is_account_trouble() {
            self.store.write(now.wall, |tx| {
                batches::set_next_check(tx, row.id, now.wall + self.longest_wait())?;
                pauses::pause_sending(tx, error, self.longest_wait())
            })?;
            return Ok(TickOutcome::again());
        }
        let refused =
            matches!(error, CallError::Refused(refusal) if (400..429).contains(&refusal.status));
        let what = match error {
            CallError::Refused(_) => "OpenAI refuses",
            CallError::NotSent { .. } | CallError::Unknown { .. } => "no answer from OpenAI for",
        };
        let message = format!("{what} batch {} ({}): {error}", row.id, row.stage);
        let wait = backoff(
            self.config.openai.retry_interval,
            row.failures,
            error.retry_after(),
        );
        self.postpone(row, now, kind.filter(|_| refused), &message, Some(wait))
    }

    fn postpone(
        &self,
        row: &BatchRow,
        now: Moment,
        kind: Option<AlertKind>,
        message: &str,
        wait: Option<Duration>,
    ) -> Result<TickOutcome, WorkerError> {
        self.store.write(now.wall, |tx| {
            if batches::is_given_up(tx, row.id)? {
                return Ok(());
            }
            if let Some(kind) = kind {
                let told = format!("{message}. Look at it: batchkeeper batches show {}", row.id);
                alerts::open(tx, kind, &AlertSubject::Batch(row.id), &told)?;
            }
            batches::postpone(
                tx,
                row.id,
                now.wall + wait.unwrap_or(self.longest_wait()),
                message,
            )
        })?;
        Ok(TickOutcome::again())
    }

    /// Gives a batch up that nobody wants any answer of, before it is created.
    fn abandon_if_unwanted(&self, row: &BatchRow, now: Moment) -> Result<bool, WorkerError> {
        let unwanted = self.store.write(now.wall, |tx| {
            let unwanted = settle::is_unwanted(tx, row.id)?;
            if unwanted {
                settle::abandon(
                    tx,
                    row.id,
                    "not wanted any more before it was created",
                    self.rules(),
                )?;
            }
            Ok(unwanted)
        })?;
        if unwanted {
            self.spool.remove(&row.key, SpoolKind::Input)?;
        }
        Ok(unwanted)
    }

    fn rules(&self) -> settle::Rules {
        settle::Rules {
            max_attempts: self.config.batch.max_attempts,
            check_images: self.config.images.check,
            batch_cap: None,
        }
    }

    fn longest_wait(&self) -> Duration {
        backoff(self.config.openai.retry_interval, u32::MAX, None)
    }
}

impl Worker for Submitter {
    fn name(&self) -> &'static str {
        "submitter"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::BatchSubmitted)
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[
            Topic::BatchJobStored,
            Topic::ImagesChecked,
            Topic::ResultsIngested,
            Topic::SynchronousCallEnded,
            Topic::BatchPolled,
            Topic::Audited,
        ]
    }

    fn longest_tick(&self) -> Duration {
        // An upload of a whole file is bounded by the least rate of a transfer.
        Duration::from_hours(2)
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if let Some(wait) = pauses::sending_paused(&self.store, &self.config, now)? {
            return Ok(TickOutcome::idle(wait.min(self.config.steps.idle)));
        }
        if !self.store.read(batches::is_compared)? {
            let wait = self.compare_at.saturating_sub(now.steady);
            return if wait.is_zero() {
                self.compare(now)
            } else {
                Ok(TickOutcome::idle(wait))
            };
        }
        let stopped = |view: &View| alerts::paused(view, &PauseScope::Submissions);
        if self.store.read(stopped)?.is_some() {
            return Ok(TickOutcome::idle(self.config.steps.idle));
        }
        let may_create = self.may_create()?;
        let mut on_their_way = vec![
            BatchState::Sealed,
            BatchState::Uploaded,
            BatchState::Creating,
        ];
        if may_create {
            on_their_way.push(BatchState::Planned);
        }
        let longest = pauses::longest_wait(&self.config);
        let first = self
            .store
            .read(|view| batches::next_due(view, &on_their_way, now.wall, longest))?;
        let mut idle = self.config.steps.idle;
        match first {
            Due::Now(row) => return self.advance(&row, now),
            Due::At(at) => idle = idle.min(at.since(now.wall)),
            Due::Never => {}
        }
        if !may_create {
            return Ok(TickOutcome::idle(idle));
        }
        match self.choose(now)? {
            pack::Choice::Now(batch) => self.pack(&batch, now),
            pack::Choice::Later(wait) => Ok(TickOutcome::idle(idle.min(wait))),
        }
    }
}
