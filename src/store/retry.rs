//! An operator sends failed lots of a final job again: they are paid anew.

use std::collections::HashSet;

use rusqlite::params;

use super::images::UNUSABLE;
use super::jobs::JobRow;
use super::settle::{self, AnswerOrigin};
use super::{StoreError, Stored, Tx, View, events};
use crate::base::fields::Fields;
use crate::domain::batch::Stage;
use crate::domain::job::{JobStatus, RequestState};

/// What sending a job's failed lots again would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Lots that have something to send.
    pub lots: u32,
    /// Descriptions to ask for.
    pub vision: u32,
    /// Translations to ask for beside those that new descriptions bring about.
    pub translations: u32,
}

/// A request of a failed lot that failed itself; a lot that had no usable image has none.
struct Failed {
    id: i64,
    lot: i64,
    stage: Stage,
    /// Its text came when it had failed already.
    has_text: bool,
    /// Whether its lot has an English description.
    described: bool,
}

impl Failed {
    /// There is nothing to translate before its lot is described.
    fn is_put_off(&self) -> bool {
        self.stage == Stage::Translation && !self.described && !self.has_text
    }

    fn is_sent(&self) -> bool {
        !self.has_text && !self.is_put_off()
    }
}

fn failed(view: &View, job: &JobRow) -> Stored<Vec<Failed>> {
    let mut query = view.prepare_cached(
        "SELECT r.id, l.id, r.stage, l.vision_result IS NOT NULL,
                EXISTS (SELECT 1 FROM lot_translations t
                        WHERE t.lot = r.lot AND t.language = r.language AND t.text IS NOT NULL)
         FROM batch_lots l JOIN requests r ON r.lot = l.id
         WHERE l.batch_job_id = ? AND l.status = 'failed' AND r.state = 'failed' ORDER BY r.id",
    )?;
    let rows = query.query_map([&job.id], |row| {
        let (stage, described, translated) = (row.get(2)?, row.get(3)?, row.get(4)?);
        Ok(Failed {
            id: row.get(0)?,
            lot: row.get(1)?,
            stage,
            described,
            has_text: match stage {
                Stage::Vision => described,
                Stage::Translation => translated,
            },
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn count<'a>(requests: impl Iterator<Item = &'a Failed>, stage: Stage) -> u32 {
    let of_stage = requests.filter(|request| request.stage == stage).count();
    u32::try_from(of_stage).unwrap_or(u32::MAX)
}

fn cost_of(failed: &[Failed]) -> Cost {
    let lots: HashSet<i64> = failed.iter().map(|request| request.lot).collect();
    let sent = || failed.iter().filter(|request| request.is_sent());
    Cost {
        lots: u32::try_from(lots.len()).unwrap_or(u32::MAX),
        vision: count(sent(), Stage::Vision),
        translations: count(sent(), Stage::Translation),
    }
}

/// What sending a job's failed lots again takes, in requests.
pub fn cost(view: &View, job: &JobRow) -> Stored<Cost> {
    Ok(cost_of(&failed(view, job)?))
}

/// Opens a final job again for its failed lots. Its webhooks tell of the new end under ids of their
/// own; one that had not reached its receiver yet is left to them.
///
/// # Errors
/// [`StoreError::Conflict`] where the job did not end, or a batch of it is not taken in yet.
pub fn retry_failed_lots(tx: &Tx<'_>, job: &JobRow, check_images: bool) -> Stored<Cost> {
    if !matches!(job.status, JobStatus::Completed | JobStatus::Failed) {
        let message = format!(
            "job {} is {}: it has no failed lots to send again",
            job.id, job.status
        );
        return Err(StoreError::Conflict(message));
    }
    if job.cleaning_since.is_some() {
        let message = format!(
            "job {} was cleaned after its time (retention.results): its lots are gone, its client must send them again",
            job.id
        );
        return Err(StoreError::Conflict(message));
    }
    let running: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM batch_links k JOIN openai_batches b ON b.id = k.batch_id
                        WHERE k.job = ? AND b.state NOT IN ('ingested', 'failed'))",
        [job.seq],
        |row| row.get(0),
    )?;
    if running {
        let message = format!("a batch of job {} is not taken in yet: wait for it", job.id);
        return Err(StoreError::Conflict(message));
    }
    let failed = failed(tx, job)?;
    let cost = cost_of(&failed);
    if cost.lots == 0 {
        return Ok(cost);
    }
    tx.execute(
        "DELETE FROM lot_translations WHERE text IS NULL AND lot IN
                (SELECT id FROM batch_lots WHERE batch_job_id = ? AND status = 'failed')",
        [&job.id],
    )?;
    open_again(tx, &failed, check_images)?;
    let opened = || failed.iter().filter(|request| !request.is_put_off());
    let vision = count(opened(), Stage::Vision);
    let status = match vision {
        0 => JobStatus::Translating,
        _ => JobStatus::Pending,
    };
    tx.execute(
        "UPDATE batch_jobs SET status = ?, completed_at = NULL, error_message = NULL, updated_at = ?,
                processed_lots = processed_lots - ?3, failed_lots = failed_lots - ?3, open_vision = ?4,
                open_translations = ?5
         WHERE seq = ?6",
        params![status, tx.now, cost.lots, vision, count(opened(), Stage::Translation), job.seq],
    )?;
    // Paid already: a late text is an answer now.
    for late in failed.iter().filter(|request| request.has_text) {
        settle::settle_answered(tx, &settle::get_request(tx, late.id)?, AnswerOrigin::Batch)?;
    }
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
    let detail = Fields::new()
        .with("lots", cost.lots)
        .with("vision", cost.vision)
        .with("translations", cost.translations);
    events::record(tx, Some(&job.id), None, "retried", detail)?;
    Ok(cost)
}

/// Failed requests are open again, and so are their lots.
fn open_again(tx: &Tx<'_>, failed: &[Failed], check_images: bool) -> Stored<()> {
    let mut lot = tx.prepare_cached(&format!(
        "UPDATE batch_lots SET status = 'pending', error_message = NULL, processed_at = NULL,
                missing_images = (SELECT nullif(json_group_array(value), '[]') FROM ({UNUSABLE}))
         WHERE id = ? AND status = 'failed'",
    ))?;
    let mut open = tx.prepare_cached(
        "UPDATE requests SET state = ?, attempts = 0, cap_raised = 0, image_failures = 0, since = ?, images_due = ?
         WHERE id = ? AND state = 'failed'",
    )?;
    for request in failed {
        lot.execute([request.lot])?;
        let state = match request.is_put_off() {
            true => RequestState::Cancelled,
            false => RequestState::Waiting,
        };
        let images_due = check_images && request.stage == Stage::Vision && request.is_sent();
        open.execute(params![state, tx.now, images_due, request.id])?;
    }
    Ok(())
}
