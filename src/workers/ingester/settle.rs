//! Both result files of a batch are read: every line that brought no text gets its verdict.

use std::time::Duration;

use super::Ingester;
use crate::base::clock::{Moment, Timestamp};
use crate::domain::alert::{AlertKind, AlertSubject};
use crate::domain::batch::{Outcome, ResultKind};
use crate::domain::decide::backoff::backoff;
use crate::domain::decide::input_lag;
use crate::domain::decide::missing_lines::{MissingLinesDecision, MissingLinesLimits, ReadFiles};
use crate::domain::decide::refused_batch::{
    RefusalCause, RefusalEvidence, RefusedBatch, RefusedBatchDecision,
};
use crate::domain::openai::BatchStatus;
use crate::store::batches::{self, BatchRow};
use crate::store::settle::{self, UnreadLines};
use crate::store::{StoreError, Stored, Tx, View, alerts, queue};
use crate::workers::pauses;
use crate::workers::spool::SpoolKind;
use crate::workers::worker::{TickOutcome, WorkerError};

/// Verdicts in one transaction.
const VERDICTS: u32 = 200;

/// Refusals that are older than this say nothing of the model.
const RELATED_REFUSALS: Duration = Duration::from_hours(24);

impl Ingester {
    /// Settles the next lines of a batch, or ends it once all are settled.
    pub(super) fn settle(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        let refused = refused_batch(row);
        if row.settled_to == 0 {
            if let Some(wait) = self.wait_for_missing_lines(row, now)? {
                self.fetch_again(row, wait, now)?;
                return Ok(TickOutcome::again());
            }
            if let Some(refused) = &refused
                && self.submit_file_again(row, refused, now)?
            {
                return Ok(TickOutcome::again());
            }
            // The model pauses first: a request that waits again may be sent again at once.
            match &refused {
                Some(refused) => self.store.write(now.wall, |tx| {
                    batches::set_reason(tx, row.id, &refused.reason())?;
                    self.pause_refused_model(tx, row, refused)
                })?,
                None => self.judge_batch(row, now)?,
            }
        }
        let mut rules = self.config.retry_rules();
        if let Some(refused) = &refused {
            let decide = |view: &View| decide_refused(view, row, refused, now.wall);
            rules.not_run = self.store.read(decide)?.lines;
        }
        let unread = unread_lines(row, refused.as_ref());
        let is_settled = self.store.write(now.wall, |tx| {
            let last = settle::settle_lines(tx, row.id, row.settled_to, VERDICTS, &unread, rules)?;
            if let Some(last) = last {
                batches::record_settled_to(tx, row.id, last)?;
                return Ok(false);
            }
            let reason = refused.map(|refused| refused.reason());
            batches::mark_ingested(tx, row.id, reason.as_deref())?;
            alerts::close_all(tx, &AlertSubject::Batch(row.id))?;
            Ok(true)
        })?;
        if is_settled {
            self.missing.end(row.id);
            self.forget_doubts(row);
            // The submitter never removed the input of a batch that the auditor found.
            for kind in [SpoolKind::Output, SpoolKind::Error, SpoolKind::Input] {
                self.spool.remove(&row.key, kind)?;
            }
        }
        Ok(TickOutcome::again())
    }

    /// Submits the input file of a refused batch once more if OpenAI does not see it yet. Returns whether it is so.
    fn submit_file_again(&self, row: &BatchRow, refused: &RefusedBatch<'_>, now: Moment) -> Stored<bool> {
        self.store.write(now.wall, |tx| {
            let Some(wait) = decide_refused(tx, row, refused, now.wall)?.submits_file_in else {
                return Ok(false);
            };
            let key = uuid::Uuid::new_v4().simple().to_string();
            batches::submit_file_again(tx, row.id, &key, now.wall + wait, &refused.reason())?;
            alerts::close_all(tx, &AlertSubject::Batch(row.id))?;
            Ok(true)
        })
    }

    /// What the result files of a batch have shown.
    pub(super) fn read_files(&self, row: &BatchRow) -> Stored<ReadFiles> {
        let (unread, answered) = self.store.read(|view| settle::unread_lines(view, row.id))?;
        Ok(ReadFiles {
            unread,
            answered,
            ..unread_files(row)
        })
    }

    /// How long until the files are fetched again, because lines are missing in them; `None` if they are not.
    fn wait_for_missing_lines(
        &mut self,
        row: &BatchRow,
        now: Moment,
    ) -> Result<Option<Duration>, StoreError> {
        let read = self.read_files(row)?;
        if !read.may_grow() {
            return Ok(None);
        }
        let limits = MissingLinesLimits {
            timeout: self.config.openai.results_timeout,
            shortest: self.config.openai.poll_interval,
            longest: pauses::longest_wait(&self.config),
        };
        match read.decide(self.missing.waited(row.id, now), limits) {
            MissingLinesDecision::Settle => Ok(None),
            MissingLinesDecision::FetchAgain { wait } => Ok(Some(wait)),
        }
    }

    /// Has the same files fetched again after `wait`. A repeated line changes nothing, a late one is found.
    fn fetch_again(&self, row: &BatchRow, wait: Duration, now: Moment) -> Result<(), WorkerError> {
        self.store.write(now.wall, |tx| {
            for kind in [ResultKind::Output, ResultKind::Error] {
                if row.file(kind).id.is_some() {
                    batches::mark_unspooled(tx, row.id, kind)?;
                }
            }
            batches::set_next_check(tx, row.id, now.wall + wait)
        })?;
        Ok(())
    }

    /// Pauses the model of a refused batch if others would be refused too, and stores the limit that OpenAI named.
    fn pause_refused_model(&self, tx: &Tx<'_>, row: &BatchRow, refused: &RefusedBatch<'_>) -> Stored<()> {
        if let Some(limit) = refused.queue_limit().filter(|_| !row.model.is_empty()) {
            queue::learn(tx, &row.model, limit)?;
            if refused.cause() == RefusalCause::QueueFull {
                let decision = queue::decide_refusal(tx, row, limit, tx.now)?;
                queue::set_cap_percent(tx, &row.model, decision.cap_percent)?;
            }
        }
        if row.model.is_empty() || !decide_refused(tx, row, refused, tx.now)?.pauses_model {
            return Ok(());
        }
        let earlier = batches::refusals_in_a_row(tx, &row.model)?;
        let wait = backoff(self.config.batch.queue_backoff, earlier, None);
        let message = format!(
            "OpenAI takes no batch of {} now: {}; tried again after {wait:?}. What it refused: batchkeeper batches show {}",
            row.model,
            refused.reason(),
            row.id
        );
        pauses::pause_model(tx, &row.model, AlertKind::ModelRefused, &message, wait, None)
    }
}

/// The result files of a batch before their lines are counted.
fn unread_files(row: &BatchRow) -> ReadFiles {
    ReadFiles {
        is_completed: row.openai_status.as_deref() == Some(BatchStatus::Completed.as_str()),
        has_file: row.output.id.is_some() || row.error_file.id.is_some(),
        lines: row.lines.into(),
        unread: row.lines.into(),
        answered: 0,
        counts: row.counts,
    }
}

/// The outcome of the lines of a batch that are in neither file, if it was not refused.
pub(super) fn unread_outcome(row: &BatchRow) -> Outcome {
    unread_files(row).unread_outcome()
}

/// The lines of a batch that are in neither file.
fn unread_lines(row: &BatchRow, refused: Option<&RefusedBatch<'_>>) -> UnreadLines {
    if let Some(refused) = refused {
        // If OpenAI blames a line twice, its first reason counts.
        let blamed = refused.blamed_lines().into_iter().rev().collect();
        return UnreadLines {
            blamed,
            ..UnreadLines::all(Outcome::NotRun)
        };
    }
    let outcome = unread_outcome(row);
    let status = row.openai_status.as_deref().unwrap_or_default();
    let error = format!("the batch is {status}, and OpenAI names no result file");
    UnreadLines {
        error: (outcome == Outcome::Passing).then_some(error),
        ..UnreadLines::all(outcome)
    }
}

/// The batch as a refused one; `None` if OpenAI did not refuse it. A failed batch with a line in its files has run.
fn refused_batch(row: &BatchRow) -> Option<RefusedBatch<'_>> {
    let is_failed = row.openai_status.as_deref() == Some(BatchStatus::Failed.as_str());
    let has_run = row.output.ingested + row.error_file.ingested > 0;
    (is_failed && !has_run).then_some(RefusedBatch {
        errors: &row.errors,
        lines: row.lines,
        is_sealed_here: row.input_sha256.is_some(),
    })
}

fn decide_refused(
    view: &View,
    row: &BatchRow,
    refused: &RefusedBatch<'_>,
    now: Timestamp,
) -> Stored<RefusedBatchDecision> {
    let mut evidence = RefusalEvidence::default();
    match (refused.cause(), refused.queue_limit()) {
        (RefusalCause::QueueFull, Some(limit)) => {
            evidence.is_our_own_queue = queue::decide_refusal(view, row, limit, now)?.is_our_own;
        }
        (RefusalCause::InputMissing, _) => {
            let is_left = row.cancel_wanted || row.abandoned_at.is_some() || row.duplicate_of.is_some();
            let since = row.input_file_since.filter(|_| !is_left);
            evidence.wait_for_file = input_lag::wait_for_file(since, now);
        }
        (RefusalCause::Unexplained, _) => {
            let unrelated = batches::unrelated_refusals(view, row, now.before(RELATED_REFUSALS))?;
            evidence.is_model_wide = unrelated
                .iter()
                .filter_map(refused_batch)
                .any(|other| other.cause() == RefusalCause::Unexplained);
        }
        _ => {}
    }
    Ok(refused.decide(evidence))
}
