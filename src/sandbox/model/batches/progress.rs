//! How a batch advances: from the clock alone, whenever somebody looks.
//!
//! Each move is dated to when it was due, not to when it was seen.

use std::io;

use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::sandbox::Sandbox;
use crate::sandbox::lock;
use crate::sandbox::model::batches::create;
use crate::sandbox::model::batches::operations::BatchRecord;
use crate::sandbox::model::disk;
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::settings::Latencies;

fn later(millis: i64, by: u64) -> i64 {
    millis.saturating_add(i64::try_from(by).unwrap_or(i64::MAX))
}

impl Sandbox {
    /// Makes every move that is due by now.
    pub(in crate::sandbox) fn advance(&self, batch: &mut BatchRecord) -> io::Result<()> {
        let now = self.now().millis();
        loop {
            let before = batch.status;
            match before {
                BatchStatus::Validating => self.leave_validating(batch, now)?,
                BatchStatus::InProgress => self.leave_in_progress(batch, now)?,
                BatchStatus::Finalizing => self.leave_finalizing(batch, now)?,
                BatchStatus::Cancelling => self.leave_cancelling(batch, now)?,
                _ => {}
            }
            if batch.status == before {
                return Ok(());
            }
            self.moved(batch)?;
        }
    }

    /// Starts the cancellation of a batch that is not final.
    pub(in crate::sandbox) fn start_cancel(&self, batch: &mut BatchRecord) -> io::Result<()> {
        let now = self.now();
        if batch.status == BatchStatus::InProgress {
            let ran = self.ran(batch, now.millis());
            batch.counts = self.counts_now(batch, now);
            batch.limit = Some(ran);
        }
        batch.cancelling_ms = Some(now.millis());
        batch.status = BatchStatus::Cancelling;
        self.moved(batch)
    }

    /// Ends stalls that have no end of their own.
    pub(in crate::sandbox) fn lift_stalls(&self) -> io::Result<()> {
        let now = self.now().millis();
        for shared in self.batches.all() {
            let mut batch = lock(&shared);
            let latencies = self.latencies(&batch);
            let due = match batch.status {
                BatchStatus::InProgress => batch
                    .in_progress_ms
                    .map(|at| later(at, latencies.in_progress)),
                BatchStatus::Finalizing => batch
                    .finalizing_ms
                    .map(|at| later(at, latencies.finalizing)),
                _ => None,
            };
            let mut changed = false;
            for fault in [Fault::StallInProgress, Fault::StallFinalizing] {
                if batch.drawn(fault) == Some(&Value::Null) {
                    let rest = now.saturating_sub(due.unwrap_or(now)).max(0);
                    batch.drawn.insert(fault.to_string(), rest.into());
                    changed = true;
                }
            }
            if changed {
                self.batches.save(&batch)?;
            }
        }
        Ok(())
    }

    /// What is counted while it runs: never more than what will be there at its end, and nothing
    /// while faults could change that.
    pub(in crate::sandbox) fn progress(&self, batch: &BatchRecord, now: Timestamp) -> u64 {
        if !self.faults.is_empty() || !batch.drawn.is_empty() {
            return 0;
        }
        self.ran(batch, now.millis()).saturating_sub(batch.doomed)
    }

    fn leave_validating(&self, batch: &mut BatchRecord, now: i64) -> io::Result<()> {
        self.draw(batch, Fault::FastBatch)?;
        let due = later(batch.created_ms, self.latencies(batch).validating);
        let closes = self.closes(batch)?;
        if due > closes {
            if now >= closes {
                batch.expired_ms = Some(closes);
                batch.status = BatchStatus::Expired;
            }
            return Ok(());
        }
        if now < due {
            return Ok(());
        }
        let verdict = self.validate(batch)?;
        if !verdict.errors.is_empty() {
            batch.errors = verdict.errors;
            batch.failed_ms = Some(due);
            batch.status = BatchStatus::Failed;
            return Ok(());
        }
        batch.model = verdict.model.map(|model| model.snapshot.clone());
        batch.counts.total = verdict.total;
        batch.tokens = verdict.tokens;
        batch.doomed = verdict.doomed;
        batch.in_progress_ms = Some(due);
        batch.status = BatchStatus::InProgress;
        Ok(())
    }

    fn leave_in_progress(&self, batch: &mut BatchRecord, now: i64) -> io::Result<()> {
        let start = batch.in_progress_ms.unwrap_or(batch.created_ms);
        let done = later(start, self.latencies(batch).in_progress);
        let due = match self.draw(batch, Fault::StallInProgress)? {
            None => Some(done),
            Some(value) => value.as_u64().map(|more| later(done, more)),
        };
        let closes = self.closes(batch)?;
        match due.filter(|due| *due <= closes) {
            Some(due) if now >= due => {
                self.draw_expiry(batch)?;
                self.finalize(batch, due)
            }
            None if now >= closes => {
                batch.limit = Some(self.ran(batch, closes));
                batch.expiring = true;
                self.finalize(batch, later(closes, 1_000))
            }
            _ => Ok(()),
        }
    }

    /// Faults that close the window before its time.
    fn draw_expiry(&self, batch: &mut BatchRecord) -> io::Result<()> {
        for fault in [Fault::ExpirePartial, Fault::ExpireServerError] {
            if let Some(value) = self.draw(batch, fault)? {
                let fraction = value.as_f64().unwrap_or(0.5);
                let total = batch.counts.total;
                let ran = (0..total).take_while(|n| (*n as f64) < fraction * (total as f64));
                batch.limit = u64::try_from(ran.count()).ok();
                batch.expiring = true;
            }
        }
        if self.draw(batch, Fault::ExpireWithOutput)?.is_some() {
            batch.expiring = true;
        }
        Ok(())
    }

    fn finalize(&self, batch: &mut BatchRecord, at: i64) -> io::Result<()> {
        self.execute(batch, at)?;
        batch.finalizing_ms = Some(at);
        batch.status = BatchStatus::Finalizing;
        Ok(())
    }

    fn leave_finalizing(&self, batch: &mut BatchRecord, now: i64) -> io::Result<()> {
        let latencies = self.latencies(batch);
        let lasts = if batch.expiring {
            latencies.expire
        } else {
            latencies.finalizing
        };
        let start = batch.finalizing_ms.unwrap_or(batch.created_ms);
        let due = match self.draw(batch, Fault::StallFinalizing)? {
            None => later(start, lasts),
            Some(value) => match value.as_u64() {
                Some(more) => later(later(start, lasts), more),
                None => return Ok(()),
            },
        };
        if now < due {
            return Ok(());
        }
        if batch.expiring {
            batch.expired_ms = Some(due);
            batch.status = BatchStatus::Expired;
        } else {
            batch.completed_ms = Some(due);
            batch.status = BatchStatus::Completed;
        }
        Ok(())
    }

    fn leave_cancelling(&self, batch: &mut BatchRecord, now: i64) -> io::Result<()> {
        let lasts = match self.draw(batch, Fault::SlowCancel)? {
            Some(value) => value.as_u64().unwrap_or(606_000),
            None => self.latencies(batch).cancel,
        };
        let due = later(batch.cancelling_ms.unwrap_or(batch.created_ms), lasts);
        if now < due {
            return Ok(());
        }
        if batch.in_progress_ms.is_some() {
            self.execute(batch, due)?;
        }
        batch.cancelled_ms = Some(due);
        batch.status = BatchStatus::Cancelled;
        Ok(())
    }

    /// Writes a move down; a batch that ended lets go of its place in the queue and its input.
    fn moved(&self, batch: &mut BatchRecord) -> io::Result<()> {
        self.batches.save(batch)?;
        if batch.status.is_final() {
            lock(&self.queue).remove(&batch.id);
            disk::remove(&self.batches.input(&batch.id))?;
            disk::remove(&self.batches.result(&batch.id))?;
        }
        let entry = LedgerEntry::Status {
            batch: batch.id.clone(),
            status: batch.status.to_string(),
        };
        self.ledger.note(self.now(), entry)
    }

    /// How many lines had run at a time.
    fn ran(&self, batch: &BatchRecord, at: i64) -> u64 {
        if batch.has(Fault::StallInProgress) {
            return 0;
        }
        let lasts = self.latencies(batch).in_progress;
        let start = batch.in_progress_ms.unwrap_or(at);
        let elapsed = u64::try_from(at.saturating_sub(start)).unwrap_or(0);
        batch
            .counts
            .total
            .saturating_mul(elapsed.min(lasts))
            .checked_div(lasts)
            .unwrap_or(batch.counts.total)
    }

    fn latencies(&self, batch: &BatchRecord) -> Latencies {
        let latencies = self.settings.pace.of(&batch.id);
        if batch.has(Fault::FastBatch) {
            return Latencies {
                validating: 0,
                in_progress: 0,
                finalizing: 0,
                ..latencies
            };
        }
        latencies
    }

    /// When its window closes.
    fn closes(&self, batch: &mut BatchRecord) -> io::Result<i64> {
        let more = match self.draw(batch, Fault::LateExpiry)? {
            Some(value) => value.as_u64().unwrap_or(86_400_000),
            None => 0,
        };
        Ok(later(
            later(batch.created_ms, self.settings.window_ms),
            more,
        ))
    }

    /// What a kill between two writes left undone: batches that the ledger does not know.
    pub(in crate::sandbox) fn reconcile(&self) -> io::Result<()> {
        for shared in self.batches.all() {
            let batch = lock(&shared);
            if !self.ledger.sums(|tally| tally.created.contains(&batch.id)) {
                let at = Timestamp::from_millis(batch.created_ms);
                self.ledger
                    .note(at, create::create_entry(&batch, "", false))?;
            }
            if batch.in_progress_ms.is_some()
                && !batch.status.is_final()
                && let Some(model) = &batch.model
                && let Some(model) = self.settings.model(model)
            {
                let place = format!("{} {}", batch.project, model.name);
                lock(&self.queue).insert(batch.id.clone(), (place, batch.tokens));
            }
        }
        Ok(())
    }
}
