//! A batch's form on the wire, and the faults of its form.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::http::Response;
use crate::sandbox::Sandbox;
use crate::sandbox::model::batches::operations::{BatchRecord, LineCounts, LineError};
use crate::sandbox::model::error_reply::{ErrorReply, ok};
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::responses::object::UsageObject;

/// Members in the order of recorded answers; what is not set is null.
#[derive(Serialize)]
struct BatchView<'a> {
    id: &'a str,
    object: &'static str,
    endpoint: &'a str,
    model: Option<&'a str>,
    errors: Option<BatchErrors<'a>>,
    input_file_id: &'a str,
    completion_window: &'a str,
    status: &'static str,
    output_file_id: Option<&'a str>,
    error_file_id: Option<&'a str>,
    created_at: i64,
    in_progress_at: Option<i64>,
    expires_at: i64,
    finalizing_at: Option<i64>,
    completed_at: Option<i64>,
    failed_at: Option<i64>,
    expired_at: Option<i64>,
    cancelling_at: Option<i64>,
    cancelled_at: Option<i64>,
    request_counts: LineCounts,
    usage: UsageObject,
    metadata: Option<&'a BTreeMap<String, String>>,
}

#[derive(Serialize)]
struct BatchErrors<'a> {
    object: &'static str,
    data: &'a [LineError],
}

impl Sandbox {
    /// The batch as an answer.
    pub(in crate::sandbox) fn show(&self, batch: &mut BatchRecord) -> Result<Response, ErrorReply> {
        ok(&self.view(batch)?)
    }

    /// The batch as it is seen from outside, now.
    pub(in crate::sandbox) fn view(
        &self,
        batch: &mut BatchRecord,
    ) -> Result<Box<RawValue>, ErrorReply> {
        let now = self.now();
        let ended = batch.ended_ms();
        let off = self.draw(batch, Fault::CountsMismatch)?;
        let zero = self.draw(batch, Fault::ZeroCounts)?.is_some();
        let late = self
            .draw(batch, Fault::LateFileIds)?
            .map_or(0, |value| value.as_i64().unwrap_or(1_000));
        let empty = self.draw(batch, Fault::EmptyStringIds)?.is_some();
        let absent = self.draw(batch, Fault::NullVsAbsent)?.is_some();
        let mut counts = self.counts_now(batch, now);
        if ended.is_some() {
            if let Some(value) = &off {
                counts.completed = counts
                    .completed
                    .saturating_add_signed(value.as_i64().unwrap_or(-1));
            }
        } else if zero {
            counts = LineCounts::default();
        }
        if off.is_none() && !zero {
            self.self_check(batch, counts)?;
        }
        let ids_shown = ended.is_some_and(|end| now.millis() >= end.saturating_add(late));
        let id = |id: &'_ Option<String>| match id {
            Some(id) if ids_shown => Some(id.clone()),
            _ if empty => Some(String::new()),
            _ => None,
        };
        let output = id(&batch.output_file_id);
        let error = id(&batch.error_file_id);
        let seconds = |millis: Option<i64>| millis.map(|millis| millis / 1000);
        let object = BatchView {
            id: &batch.id,
            object: "batch",
            endpoint: &batch.endpoint,
            model: batch.model.as_deref(),
            errors: (batch.status == BatchStatus::Failed).then_some(BatchErrors {
                object: "list",
                data: &batch.errors,
            }),
            input_file_id: &batch.input_file_id,
            completion_window: &batch.completion_window,
            status: batch.status.as_str(),
            output_file_id: output.as_deref(),
            error_file_id: error.as_deref(),
            created_at: batch.created_ms / 1000,
            in_progress_at: seconds(batch.in_progress_ms),
            expires_at: batch.expires_at,
            finalizing_at: seconds(batch.finalizing_ms),
            completed_at: seconds(batch.completed_ms),
            failed_at: seconds(batch.failed_ms),
            expired_at: seconds(batch.expired_ms),
            cancelling_at: seconds(batch.cancelling_ms),
            cancelled_at: seconds(batch.cancelled_ms),
            request_counts: counts,
            usage: if ended.is_some() {
                batch.usage
            } else {
                UsageObject::default()
            },
            metadata: batch.metadata.as_ref(),
        };
        let raw = if absent {
            let mut value = serde_json::to_value(&object).map_err(io::Error::from)?;
            if let Some(members) = value.as_object_mut() {
                members.retain(|_, member| !member.is_null());
            }
            to_raw_value(&value)
        } else {
            to_raw_value(&object)
        };
        Ok(raw.map_err(io::Error::from)?)
    }

    /// Flags what the real one never does: a status or a count that goes back.
    fn self_check(&self, batch: &mut BatchRecord, counts: LineCounts) -> io::Result<()> {
        if let Some((status, before)) = batch.shown {
            let back = (status.is_final() && status != batch.status)
                || rank(batch.status) < rank(status)
                || counts.completed < before.completed
                || counts.failed < before.failed
                || (before.total != 0 && counts.total != before.total);
            // `expire_with_output` lies about its counts by design.
            if back && !batch.has(Fault::ExpireWithOutput) {
                let entry = LedgerEntry::Flag {
                    flag: "self_check".into(),
                    request: batch.id.clone(),
                    detail: format!("{status} {before:?} → {} {counts:?}", batch.status),
                };
                self.ledger.note(self.now(), entry)?;
            }
        }
        batch.shown = Some((batch.status, counts));
        Ok(())
    }

    /// What is counted now.
    pub(in crate::sandbox) fn counts_now(&self, batch: &BatchRecord, now: Timestamp) -> LineCounts {
        if batch.status != BatchStatus::InProgress {
            return batch.counts;
        }
        let shown = batch.shown.map_or(0, |(_, counts)| counts.completed);
        LineCounts {
            completed: self.progress(batch, now).max(shown),
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
        BatchStatus::Failed
        | BatchStatus::Completed
        | BatchStatus::Expired
        | BatchStatus::Cancelled => 4,
    }
}
