//! A batch as a caller sees it, and the faults of that.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::records::{BatchRecord, LineCounts, LineError};
use crate::sandbox::model::simulated_openai::SimulatedOpenAi;
use crate::sandbox::model::usage::UsageObject;

/// A batch as a caller sees it (schema `Batch`). Members in the order of recorded answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the members are OpenAI's")]
pub struct BatchView {
    pub id: String,
    pub object: &'static str,
    pub endpoint: String,
    pub model: Option<String>,
    pub errors: Option<BatchErrors>,
    pub input_file_id: String,
    pub completion_window: String,
    pub status: String,
    pub output_file_id: Option<String>,
    pub error_file_id: Option<String>,
    pub created_at: i64,
    pub in_progress_at: Option<i64>,
    pub expires_at: i64,
    pub finalizing_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub failed_at: Option<i64>,
    pub expired_at: Option<i64>,
    pub cancelling_at: Option<i64>,
    pub cancelled_at: Option<i64>,
    pub request_counts: LineCounts,
    pub usage: UsageObject,
    pub metadata: Option<BTreeMap<String, String>>,
    /// Whether JSON leaves out the members that are not set (fault `null_vs_absent`).
    #[serde(skip)]
    pub omits_nulls: bool,
}

/// The member `errors` of a failed batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchErrors {
    /// Always `list`.
    pub object: &'static str,
    /// The errors.
    pub data: Vec<LineError>,
}

impl SimulatedOpenAi {
    /// The batch as a caller sees it now.
    pub(super) fn view_batch(&self, batch: &mut BatchRecord) -> Result<BatchView, ErrorReply> {
        let request_counts = self.view_counts(batch)?;
        let (output_file_id, error_file_id) = self.view_file_ids(batch)?;
        let omits_nulls = self.trigger_batch_fault(batch, Fault::NullVsAbsent)?.is_some();
        let seconds = |millis: Option<i64>| millis.map(|millis| millis / 1000);
        Ok(BatchView {
            id: batch.id.clone(),
            object: "batch",
            endpoint: batch.endpoint.clone(),
            model: batch.model.clone(),
            errors: batch
                .errors
                .clone()
                .map(|data| BatchErrors { object: "list", data }),
            input_file_id: batch.input_file_id.clone(),
            completion_window: batch.completion_window.clone(),
            status: self.view_status(batch)?,
            output_file_id,
            error_file_id,
            created_at: batch.created_ms / 1000,
            in_progress_at: seconds(batch.in_progress_ms),
            expires_at: batch.expires_at,
            finalizing_at: seconds(batch.finalizing_ms),
            completed_at: seconds(batch.completed_ms),
            failed_at: seconds(batch.failed_ms),
            expired_at: seconds(batch.expired_ms),
            cancelling_at: seconds(batch.cancelling_ms),
            cancelled_at: seconds(batch.cancelled_ms),
            request_counts,
            usage: self.view_usage(batch)?,
            metadata: batch.metadata.clone(),
            omits_nulls,
        })
    }

    /// The ids of the output file and of the error file, which a batch shows once it is final.
    fn view_file_ids(&self, batch: &mut BatchRecord) -> io::Result<(Option<String>, Option<String>)> {
        let delay = self
            .trigger_batch_fault(batch, Fault::LateFileIds)?
            .map_or(0, |value| value.as_i64().unwrap_or(1_000));
        let output_delay = self
            .trigger_batch_fault(batch, Fault::LateOutputId)?
            .map_or(0, |value| value.as_i64().unwrap_or(1_000));
        let are_empty_texts = self.trigger_batch_fault(batch, Fault::EmptyStringIds)?.is_some();
        let now = self.now().millis();
        let view = |id: &Option<String>, delay: i64| {
            let ended = batch.ended_ms();
            let is_shown = ended.is_some_and(|end| now >= end.saturating_add(delay));
            let id = id.clone().filter(|_| is_shown);
            id.or_else(|| are_empty_texts.then(String::new))
        };
        let output = view(&batch.output_file_id, delay.max(output_delay));
        Ok((output, view(&batch.error_file_id, delay)))
    }

    fn view_status(&self, batch: &mut BatchRecord) -> io::Result<String> {
        let shown = batch.status.to_string();
        let Some(value) = self.trigger_batch_fault(batch, Fault::UnknownStatus)? else {
            return Ok(shown);
        };
        let is_final = batch.status.is_final();
        let status = |member: &str| value.get(member).and_then(Value::as_str);
        Ok(match (status("final"), status("ended")) {
            (Some(status), _) => status.to_owned(),
            (None, Some(status)) if is_final => status.to_owned(),
            (None, Some(_)) => shown,
            (None, None) if is_final => shown,
            (None, None) => value.as_str().unwrap_or("paused").to_owned(),
        })
    }

    fn view_usage(&self, batch: &mut BatchRecord) -> io::Result<UsageObject> {
        if batch.ended_ms().is_none() {
            return Ok(UsageObject::default());
        }
        let mut usage = batch.usage;
        match self.trigger_batch_fault(batch, Fault::UsageDiffers)? {
            Some(value) if value == "none" => usage = UsageObject::default(),
            Some(value) => {
                let more = value.as_u64().unwrap_or(1);
                usage.input_tokens = usage.input_tokens.saturating_add(more);
                usage.total_tokens = usage.total_tokens.saturating_add(more);
            }
            None => {}
        }
        Ok(usage)
    }

    fn view_counts(&self, batch: &mut BatchRecord) -> io::Result<LineCounts> {
        let mismatch = self.trigger_batch_fault(batch, Fault::CountsMismatch)?;
        let are_zero = self.trigger_batch_fault(batch, Fault::ZeroCounts)?.is_some();
        let mut counts = self.counts_at(batch, self.now());
        if batch.ended_ms().is_some() {
            if let Some(value) = &mismatch {
                let by = |name: &str| value.get(name).and_then(Value::as_i64).unwrap_or(0);
                let completed = if value.is_object() {
                    by("completed")
                } else {
                    value.as_i64().unwrap_or(-1)
                };
                counts.completed = counts.completed.saturating_add_signed(completed);
                counts.failed = counts.failed.saturating_add_signed(by("failed"));
                counts.total = counts.total.saturating_add_signed(by("total"));
            }
        } else if are_zero {
            counts = LineCounts::default();
        }
        if mismatch.is_none() && !are_zero {
            self.flag_regression(batch, counts)?;
        }
        Ok(counts)
    }

    /// Flags a status or a count that goes back, which would be an error of the sandbox itself.
    fn flag_regression(&self, batch: &mut BatchRecord, counts: LineCounts) -> io::Result<()> {
        if let Some((status, before)) = batch.last_shown {
            let goes_back = (status.is_final() && status != batch.status)
                || rank(batch.status) < rank(status)
                || counts.completed < before.completed
                || counts.failed < before.failed
                || (before.total != 0 && counts.total != before.total);
            // The fault `expire_with_output` takes back the completed lines.
            if goes_back && !batch.has_fault(Fault::ExpireWithOutput) {
                let entry = LedgerEntry::Flag {
                    flag: "self_check".into(),
                    request: batch.id.clone(),
                    detail: format!("{status} {before:?} → {} {counts:?}", batch.status),
                };
                self.ledger.append(self.now(), entry)?;
            }
        }
        batch.last_shown = Some((batch.status, counts));
        Ok(())
    }

    /// The counts at a time.
    pub(super) fn counts_at(&self, batch: &BatchRecord, now: Timestamp) -> LineCounts {
        if batch.status != BatchStatus::InProgress {
            return batch.counts;
        }
        let shown = batch.last_shown.map_or(0, |(_, counts)| counts.completed);
        LineCounts {
            completed: self.completed_lines(batch, now).max(shown),
            ..batch.counts
        }
    }
}

fn rank(status: BatchStatus) -> u8 {
    match status {
        BatchStatus::Validating => 0,
        BatchStatus::InProgress => 1,
        BatchStatus::Finalizing => 2,
        BatchStatus::Cancelling => 3,
        BatchStatus::Failed | BatchStatus::Completed | BatchStatus::Expired | BatchStatus::Cancelled => 4,
    }
}
