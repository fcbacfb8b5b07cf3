//! `jobs retry`: reopens a final job and sends its failed lots, or its failed translations, again. They are
//! billed again. The job is open at once; its lots are reopened in chunks (see [`job_changes`]).

use std::collections::HashSet;
use std::ops::RangeInclusive;

use rusqlite::params;

use super::job_changes::{self, ChangingJob, ChangingLot};
use super::jobs::JobRow;
use super::predicates::LIVE_BATCH;
use super::settle::{self, AnswerOrigin};
use super::{StoreError, Stored, Tx, View, events, images, moved};
use crate::base::fields::Fields;
use crate::domain::batch::Stage;
use crate::domain::job::{JobChange, JobStatus, RequestState};
use crate::domain::operator_action::ActionKind;

/// What a retry sends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryScope {
    /// The lots that have no text at all.
    FailedLots,
    /// The translations that failed of lots with a description, also where the lot has other texts.
    FailedTranslations,
}

impl RetryScope {
    fn change(self) -> JobChange {
        match self {
            Self::FailedLots => JobChange::RetryLots,
            Self::FailedTranslations => JobChange::RetryTranslations,
        }
    }

    /// The operator's action.
    pub fn action(self) -> ActionKind {
        match self {
            Self::FailedLots => ActionKind::RetryFailedLots,
            Self::FailedTranslations => ActionKind::RetryFailedTranslations,
        }
    }
}

/// The requests that a retry sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetrySize {
    /// Lots with a request that is sent.
    pub lots: u32,
    /// Number of descriptions.
    pub vision: u32,
    /// Number of translations, without those that follow new descriptions.
    pub translations: u32,
}

impl RetrySize {
    /// The numbers, for an event.
    pub fn fields(&self) -> Fields {
        Fields::new()
            .with("lots", self.lots)
            .with("vision", self.vision)
            .with("translations", self.translations)
    }
}

/// A failed request. A lot without a usable image has none.
struct FailedRequest {
    id: i64,
    lot: i64,
    /// Whether its lot has failed too.
    is_lot_failed: bool,
    stage: Stage,
    /// Whether its text came after it had failed.
    has_text: bool,
    /// Whether its lot has a description.
    is_described: bool,
}

impl FailedRequest {
    /// Whether it must wait until its lot has a description.
    fn is_postponed(&self) -> bool {
        self.stage == Stage::Translation && !self.is_described && !self.has_text
    }

    fn is_sent(&self) -> bool {
        !self.has_text && !self.is_postponed()
    }
}

/// The failed requests of those lots of a job that a retry sends.
fn failed_requests(
    view: &View,
    job: &str,
    lots: RangeInclusive<i64>,
    scope: RetryScope,
) -> Stored<Vec<FailedRequest>> {
    let condition = match scope {
        // Without the sign SQLite would read all failed lots of the job for each chunk.
        RetryScope::FailedLots => "+l.status = 'failed'",
        // A line without a verdict may still answer it.
        RetryScope::FailedTranslations => {
            "r.stage = 'translation' AND is_described AND NOT is_translated
             AND NOT EXISTS (SELECT 1 FROM batch_lines b WHERE b.request_id = r.id AND b.settled = 0)"
        }
    };
    let mut query = view.prepare_cached(&format!(
        "SELECT r.id, r.lot, r.stage, l.status = 'failed' AS is_lot_failed,
                l.vision_result IS NOT NULL AS is_described,
                EXISTS (SELECT 1 FROM lot_translations t
                        WHERE t.lot = r.lot AND t.language = r.language
                            AND t.text IS NOT NULL) AS is_translated
         FROM batch_lots l JOIN requests r ON r.lot = l.id
         WHERE l.batch_job_id = ? AND l.position BETWEEN ? AND ? AND r.state = 'failed' AND {condition}
         ORDER BY r.id"
    ))?;
    let rows = query.query_map(params![job, lots.start(), lots.end()], |row| {
        let (stage, is_described) = (row.get("stage")?, row.get("is_described")?);
        Ok(FailedRequest {
            id: row.get("id")?,
            lot: row.get("lot")?,
            is_lot_failed: row.get("is_lot_failed")?,
            stage,
            is_described,
            has_text: match stage {
                Stage::Vision => is_described,
                Stage::Translation => row.get("is_translated")?,
            },
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn count<'a>(requests: impl Iterator<Item = &'a FailedRequest>, stage: Stage) -> u32 {
    let of_stage = requests.filter(|request| request.stage == stage).count();
    u32::try_from(of_stage).unwrap_or(u32::MAX)
}

fn size_of(failed: &[FailedRequest]) -> RetrySize {
    let lots: HashSet<i64> = failed.iter().map(|request| request.lot).collect();
    let sent = || failed.iter().filter(|request| request.is_sent());
    RetrySize {
        lots: u32::try_from(lots.len()).unwrap_or(u32::MAX),
        vision: count(sent(), Stage::Vision),
        translations: count(sent(), Stage::Translation),
    }
}

/// The requests that a retry of a job would send.
pub fn retry_size(view: &View, job: &JobRow, scope: RetryScope) -> Stored<RetrySize> {
    Ok(size_of(&failed_requests(view, &job.id, 0..=i64::MAX, scope)?))
}

/// Reopens a final job for its failed lots or translations, and up to `lots` of its lots with it; the finisher reopens
/// the others. `size` is what was read before. The webhooks of the job report the new end under new ids; they
/// replace deliveries that are still due.
///
/// # Errors
/// [`StoreError::Conflict`] if the job is not final, is being cleaned, or a batch of it is not ingested yet.
pub fn retry(
    tx: &Tx<'_>,
    job: &JobRow,
    scope: RetryScope,
    size: &RetrySize,
    lots: u32,
    check_images: bool,
) -> Stored<()> {
    check_retry(tx, job)?;
    if size.lots == 0 {
        return Ok(());
    }
    let status = match size.vision {
        0 => JobStatus::Translating,
        _ => JobStatus::Pending,
    };
    let changed = tx.execute(
        "UPDATE batch_jobs SET status = ?1, completed_at = NULL, error_message = NULL, updated_at = ?2, retried_at = ?2
         WHERE seq = ?3 AND status = ?4 AND cleaning_since IS NULL",
        params![status, tx.now, job.seq, job.status],
    )?;
    moved(changed, || {
        format!("job {} is not {} any more", job.id, job.status)
    })?;
    schedule_webhooks(tx, job)?;
    events::record(tx, Some(&job.id), None, "retried", size.fields())?;
    job_changes::begin(tx, job.seq, scope.change(), lots, check_images)
}

/// Reopens the failed requests of some lots of a job.
pub(super) fn reopen_lots(
    tx: &Tx<'_>,
    job: &ChangingJob,
    scope: RetryScope,
    lots: &[ChangingLot],
    check_images: bool,
) -> Stored<()> {
    let (Some(first), Some(last)) = (lots.first(), lots.last()) else {
        return Ok(());
    };
    let failed = failed_requests(tx, &job.id, first.position..=last.position, scope)?;
    reopen_requests(tx, &failed, check_images)?;
    count_reopened(tx, job.seq, &failed)?;
    // A text that came after the failure is paid for: it is an answer now.
    for late in failed.iter().filter(|request| request.has_text) {
        settle::settle_answered(tx, &settle::get_request(tx, late.id)?, AnswerOrigin::Batch)?;
    }
    Ok(())
}

/// Refuses a retry of a job that has no failed lots to send again, or not yet.
fn check_retry(tx: &Tx<'_>, job: &JobRow) -> Stored<()> {
    let JobRow { id, status, .. } = job;
    let refuse = |message| Err(StoreError::Conflict(message));
    if !matches!(status, JobStatus::Completed | JobStatus::Failed) {
        return refuse(format!("job {id} is {status}: it has nothing to send again"));
    }
    if job.cleaning_since.is_some() {
        return refuse(format!(
            "job {id} was cleaned: its time (retention.results) is over, or an operator deleted it. Its lots are gone; \
             its client must send them again"
        ));
    }
    let has_live_batch: bool = tx.query_row(
        &format!(
            "SELECT EXISTS (SELECT 1 FROM batch_links k JOIN openai_batches b ON b.id = k.batch_id
                            WHERE k.job = ? AND b.{LIVE_BATCH})"
        ),
        [job.seq],
        |row| row.get(0),
    )?;
    match has_live_batch {
        true => refuse(format!("a batch of job {id} is not ingested yet: wait for it")),
        false => Ok(()),
    }
}

/// Counts the requests of a job that are open again, and takes back that their lots were finished.
fn count_reopened(tx: &Tx<'_>, job: i64, failed: &[FailedRequest]) -> Stored<()> {
    let lots: HashSet<i64> = failed.iter().map(|request| request.lot).collect();
    let failed_lots = failed.iter().filter(|request| request.is_lot_failed);
    let failed_lots: HashSet<i64> = failed_lots.map(|request| request.lot).collect();
    let opened = || failed.iter().filter(|request| !request.is_postponed());
    tx.execute(
        "UPDATE batch_jobs SET processed_lots = processed_lots - ?, failed_lots = failed_lots - ?,
                open_vision = open_vision + ?, open_translations = open_translations + ?
         WHERE seq = ?",
        params![
            lots.len(),
            failed_lots.len(),
            count(opened(), Stage::Vision),
            count(opened(), Stage::Translation),
            job
        ],
    )?;
    Ok(())
}

/// Schedules the webhooks of a reopened job again, and ends its deliveries that are due.
fn schedule_webhooks(tx: &Tx<'_>, job: &JobRow) -> Stored<()> {
    tx.execute(
        "UPDATE webhook_deliveries SET state = 'failed', next_at = NULL, in_flight = 0,
                error_message = 'the job was sent on before it was reached'
         WHERE batch_job_id = ? AND state = 'due'",
        [&job.id],
    )?;
    tx.execute(
        "INSERT INTO webhook_deliveries (batch_job_id, url, host, state, resend_number, created_at)
         SELECT batch_job_id, url, host, 'scheduled', max(resend_number) + 1, ? FROM webhook_deliveries
         WHERE batch_job_id = ? GROUP BY url",
        params![tx.now, job.id],
    )?;
    Ok(())
}

/// Reopens failed requests and their lots.
fn reopen_requests(tx: &Tx<'_>, failed: &[FailedRequest], check_images: bool) -> Stored<()> {
    let mut lot_row = tx.prepare_cached(
        "UPDATE batch_lots SET status = 'pending', error_message = NULL, processed_at = NULL
         WHERE id = ? AND status IN ('failed', 'completed')",
    )?;
    // The reason of a failed translation goes; a text that came late stays.
    let mut reason = tx.prepare_cached(
        "DELETE FROM lot_translations WHERE text IS NULL
            AND (lot, language) = (SELECT lot, language FROM requests WHERE id = ?)",
    )?;
    let mut request_row = tx.prepare_cached(
        "UPDATE requests SET state = ?, attempts = 0, cap_raised = 0, image_failures = 0, transient_failures = 0,
             transient_wait_ms = 0, refusals = 0, since = ?, images_due = ?
         WHERE id = ? AND state = 'failed'",
    )?;
    for request in failed {
        let reopened = lot_row.execute([request.lot])?;
        if reopened == 1 && request.is_lot_failed && !request.is_described {
            images::clear_missing(tx, request.lot)?;
        }
        reason.execute([request.id])?;
        let state = match request.is_postponed() {
            true => RequestState::Cancelled,
            false => RequestState::Waiting,
        };
        let images_due = check_images && request.stage == Stage::Vision && request.is_sent();
        request_row.execute(params![state, tx.now, images_due, request.id])?;
    }
    Ok(())
}
