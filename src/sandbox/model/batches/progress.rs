//! How a batch advances. Its states follow from the clock alone, and are computed when a call reads it.
//!
//! A change of status is dated to the time when it was due, not to the time when a call found it due.

use std::io;

use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::lock::lock;
use crate::sandbox::model::records::{BatchRecord, LineError, input_name, summary_name};
use crate::sandbox::model::settings::Latencies;
use crate::sandbox::model::simulated_openai::SimulatedOpenAi;

fn later(millis: i64, by: u64) -> i64 {
    millis.saturating_add(i64::try_from(by).unwrap_or(i64::MAX))
}

/// The number of lines that a fault's value stands for: a whole number counts lines, any other number is the
/// fraction of all (0.5).
fn lines_of(value: &Value, total: u64) -> u64 {
    if let Some(number) = value.as_u64() {
        return number;
    }
    let fraction = value.as_f64().unwrap_or(0.5);
    let executed = (0..total).take_while(|n| (*n as f64) < fraction * (total as f64));
    u64::try_from(executed.count()).unwrap_or(total)
}

fn fail_validation(batch: &mut BatchRecord, at: i64, errors: Option<Vec<LineError>>) {
    batch.errors = errors;
    batch.failed_ms = Some(at);
    batch.status = BatchStatus::Failed;
}

impl SimulatedOpenAi {
    /// Makes every change of status that is due by now.
    pub(in crate::sandbox::model) fn advance(&self, batch: &mut BatchRecord) -> io::Result<()> {
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
            self.record_status(batch)?;
        }
    }

    /// Starts the cancellation of a batch that is not final.
    pub(super) fn start_cancel(&self, batch: &mut BatchRecord) -> io::Result<()> {
        let now = self.now();
        if batch.status == BatchStatus::InProgress {
            let executed = self.executed_lines(batch, now.millis());
            batch.counts = self.counts_at(batch, now);
            batch.executed_limit = Some(executed);
        }
        batch.cancelling_ms = Some(now.millis());
        batch.status = BatchStatus::Cancelling;
        self.record_status(batch)
    }

    /// Ends the stalls that have no end of their own.
    pub(in crate::sandbox::model) fn end_stalls(&self) -> io::Result<()> {
        let now = self.now().millis();
        for shared in self.batches.all() {
            let mut batch = lock(&shared);
            let latencies = self.latencies(&batch);
            let due = match batch.status {
                BatchStatus::InProgress => batch.in_progress_ms.map(|at| later(at, latencies.in_progress)),
                BatchStatus::Finalizing => batch.finalizing_ms.map(|at| later(at, latencies.finalizing)),
                _ => None,
            };
            let mut changed = false;
            for fault in [Fault::StallInProgress, Fault::StallFinalizing] {
                if batch.fault_value(fault) == Some(&Value::Null) {
                    let stalled = now.saturating_sub(due.unwrap_or(now)).max(0);
                    batch.faults.insert(fault.to_string(), stalled.into());
                    changed = true;
                }
            }
            if changed {
                self.batches.save(&batch)?;
            }
        }
        Ok(())
    }

    /// The completed lines of a running batch: never more than at its end, and 0 while faults could still
    /// change that.
    pub(super) fn completed_lines(&self, batch: &BatchRecord, now: Timestamp) -> u64 {
        if !self.fault_rules.is_empty() || !batch.faults.is_empty() {
            return 0;
        }
        self.executed_lines(batch, now.millis())
            .saturating_sub(batch.failing_lines)
    }

    fn leave_validating(&self, batch: &mut BatchRecord, now: i64) -> io::Result<()> {
        for fault in [Fault::FastBatch, Fault::RunTime] {
            self.trigger_batch_fault(batch, fault)?;
        }
        let due = later(batch.created_ms, self.latencies(batch).validating);
        let window_end = self.compute_window_end(batch)?;
        if due > window_end {
            if now >= window_end {
                batch.expired_ms = Some(window_end);
                batch.status = BatchStatus::Expired;
            }
            return Ok(());
        }
        if now < due {
            return Ok(());
        }
        if let Some(value) = self.trigger_batch_fault(batch, Fault::FailedValidation)? {
            fail_validation(batch, due, serde_json::from_value(value)?);
            return Ok(());
        }
        let report = self.validate_input(batch)?;
        if !report.errors.is_empty() {
            fail_validation(batch, due, Some(report.errors));
            return Ok(());
        }
        batch.model = report.model.map(|model| model.snapshot.clone());
        batch.counts.total = report.total;
        batch.tokens = report.tokens();
        batch.failing_lines = report.failing_lines;
        batch.in_progress_ms = Some(due);
        batch.status = BatchStatus::InProgress;
        Ok(())
    }

    fn leave_in_progress(&self, batch: &mut BatchRecord, now: i64) -> io::Result<()> {
        let start = batch.in_progress_ms.unwrap_or(batch.created_ms);
        let done = later(start, self.latencies(batch).in_progress);
        let due = match self.trigger_batch_fault(batch, Fault::StallInProgress)? {
            None => Some(done),
            Some(value) => value.as_u64().map(|more| later(done, more)),
        };
        let window_end = self.compute_window_end(batch)?;
        match due.filter(|due| *due <= window_end) {
            Some(due) if now >= due => {
                if let Some(value) = self.trigger_batch_fault(batch, Fault::CancelledElsewhere)? {
                    batch.executed_limit = Some(lines_of(&value, batch.counts.total));
                    batch.cancelling_ms = Some(due);
                    batch.status = BatchStatus::Cancelling;
                    return Ok(());
                }
                self.trigger_expiry(batch)?;
                self.start_finalizing(batch, due)
            }
            None if now >= window_end => {
                batch.executed_limit = Some(self.executed_lines(batch, window_end));
                batch.expiring = true;
                self.start_finalizing(batch, later(window_end, 1_000))
            }
            _ => Ok(()),
        }
    }

    /// Triggers the faults that close the window before its time.
    fn trigger_expiry(&self, batch: &mut BatchRecord) -> io::Result<()> {
        for fault in [Fault::ExpirePartial, Fault::ExpireServerError] {
            if let Some(value) = self.trigger_batch_fault(batch, fault)? {
                batch.executed_limit = Some(lines_of(&value, batch.counts.total));
                batch.expiring = true;
            }
        }
        if self
            .trigger_batch_fault(batch, Fault::ExpireWithOutput)?
            .is_some()
        {
            batch.expiring = true;
        }
        Ok(())
    }

    fn start_finalizing(&self, batch: &mut BatchRecord, at: i64) -> io::Result<()> {
        self.execute_batch(batch, at)?;
        batch.finalizing_ms = Some(at);
        batch.status = BatchStatus::Finalizing;
        Ok(())
    }

    fn leave_finalizing(&self, batch: &mut BatchRecord, now: i64) -> io::Result<()> {
        let latencies = self.latencies(batch);
        let latency = if batch.expiring {
            latencies.expire
        } else {
            latencies.finalizing
        };
        let start = batch.finalizing_ms.unwrap_or(batch.created_ms);
        let due = match self.trigger_batch_fault(batch, Fault::StallFinalizing)? {
            None => later(start, latency),
            Some(value) => match value.as_u64() {
                Some(more) => later(later(start, latency), more),
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
        let latency = match self.trigger_batch_fault(batch, Fault::SlowCancel)? {
            Some(value) => value.as_u64().unwrap_or(606_000),
            None => self.latencies(batch).cancel,
        };
        let due = later(batch.cancelling_ms.unwrap_or(batch.created_ms), latency);
        if now < due {
            return Ok(());
        }
        if batch.in_progress_ms.is_some() {
            self.execute_batch(batch, due)?;
        }
        batch.cancelled_ms = Some(due);
        batch.status = BatchStatus::Cancelled;
        Ok(())
    }

    /// Records a new status. A final batch leaves its queue and loses its copy of the input.
    fn record_status(&self, batch: &mut BatchRecord) -> io::Result<()> {
        self.batches.save(batch)?;
        if batch.status.is_final() {
            self.token_queue.remove(&batch.id);
            self.storage.remove(&input_name(&batch.id))?;
            self.storage.remove(&summary_name(&batch.id))?;
        }
        let entry = LedgerEntry::Status {
            batch: batch.id.clone(),
            status: batch.status.to_string(),
        };
        self.ledger.append(self.now(), entry)
    }

    /// The number of lines that were executed by a time.
    fn executed_lines(&self, batch: &BatchRecord, at: i64) -> u64 {
        if batch.has_fault(Fault::StallInProgress) {
            return 0;
        }
        let latency = self.latencies(batch).in_progress;
        let start = batch.in_progress_ms.unwrap_or(at);
        let elapsed = u64::try_from(at.saturating_sub(start)).unwrap_or(0);
        batch
            .counts
            .total
            .saturating_mul(elapsed.min(latency))
            .checked_div(latency)
            .unwrap_or(batch.counts.total)
    }

    fn latencies(&self, batch: &BatchRecord) -> Latencies {
        let mut latencies = self.settings.pace.latencies(&batch.id);
        if let Some(value) = batch.fault_value(Fault::RunTime) {
            latencies.in_progress = value.as_u64().unwrap_or(0);
        }
        if batch.has_fault(Fault::FastBatch) {
            return Latencies {
                validating: 0,
                in_progress: 0,
                finalizing: 0,
                ..latencies
            };
        }
        latencies
    }

    /// Computes when the batch's window closes, with the fault `late_expiry`.
    fn compute_window_end(&self, batch: &mut BatchRecord) -> io::Result<i64> {
        let more = match self.trigger_batch_fault(batch, Fault::LateExpiry)? {
            Some(value) => value.as_u64().unwrap_or(86_400_000),
            None => 0,
        };
        let end = later(batch.created_ms, self.settings.window_ms);
        Ok(later(end, more))
    }

    /// Completes what a kill between two writes left incomplete: batches without a ledger entry. Puts the
    /// running batches into their queues again.
    pub(in crate::sandbox::model) fn complete_interrupted_writes(&self) -> io::Result<()> {
        for shared in self.batches.all() {
            let batch = lock(&shared);
            let is_recorded = self.ledger.totals(|totals| totals.created.contains(&batch.id));
            if !is_recorded {
                let at = Timestamp::from_millis(batch.created_ms);
                self.ledger.append(at, batch.create_entry("", false))?;
            }
            if batch.in_progress_ms.is_some()
                && !batch.status.is_final()
                && let Some(model) = &batch.model
                && let Some(model) = self.settings.model(model)
            {
                self.token_queue
                    .add(&batch.id, &batch.project, model, batch.tokens);
            }
        }
        Ok(())
    }
}
