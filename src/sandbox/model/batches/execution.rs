//! Executes a batch's lines and writes its result files, once, even if a kill interrupts it.
//!
//! Order of the writes: both result files under their names, the summary, the ledger's entries in one append,
//! the file records, the batch's record. The append makes the execution count. File ids follow from the
//! batch's id, so that a repetition gives the same files.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::result_lines::{BatchExecution, SkipReason};
use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::records::{
    BatchRecord, FileRecord, LineCounts, content_name, input_name, summary_name,
};
use crate::sandbox::model::simulated_openai::SimulatedOpenAi;
use crate::sandbox::model::storage::{Content, LineWriter};
use crate::sandbox::model::usage::UsageObject;

/// The summary of an execution.
#[derive(Default, Serialize, Deserialize)]
struct ExecutionSummary {
    counts: LineCounts,
    usage: UsageObject,
    output_bytes: Option<u64>,
    error_bytes: Option<u64>,
}

/// The ids of the two result files.
struct ResultFileIds {
    output: String,
    error: String,
}

impl SimulatedOpenAi {
    /// Executes the batch's lines up to its limit, dated `at` (milliseconds), unless that was done before.
    pub(super) fn execute_batch(&self, batch: &mut BatchRecord, at: i64) -> io::Result<()> {
        if batch.executed {
            return Ok(());
        }
        let ids = ResultFileIds {
            output: ids::file(&["output", &batch.id]),
            error: ids::file(&["error", &batch.id]),
        };
        let is_counted = self
            .ledger
            .totals(|totals| totals.executed_batches.contains(&batch.id));
        let before = self
            .storage
            .read_record::<ExecutionSummary>(&summary_name(&batch.id));
        let summary = match before.ok().flatten().filter(|_| is_counted) {
            Some(summary) => summary,
            None => self.execute_lines(batch, at, &ids)?,
        };
        if let Some(bytes) = summary.output_bytes {
            self.add_result_file(batch, &ids.output, "output", bytes, at)?;
            batch.output_file_id = Some(ids.output);
        }
        if let Some(bytes) = summary.error_bytes {
            self.add_result_file(batch, &ids.error, "error", bytes, at)?;
            batch.error_file_id = Some(ids.error);
        }
        batch.counts = summary.counts;
        if batch.has_fault(Fault::ExpireWithOutput) {
            batch.counts.completed = 0;
        }
        batch.usage = summary.usage;
        batch.executed = true;
        Ok(())
    }

    fn execute_lines(
        &self,
        batch: &mut BatchRecord,
        at: i64,
        ids: &ResultFileIds,
    ) -> io::Result<ExecutionSummary> {
        self.trigger_batch_fault(batch, Fault::UnendedFile)?;
        let error_of_all = self.trigger_error_of_all(batch)?;
        let snapshot = self.trigger_batch_fault(batch, Fault::SnapshotModel)?;
        let mut input = self.storage.open(&input_name(&batch.id))?;
        let positions = self.order_lines(batch, &mut input)?;
        let mut execution = BatchExecution {
            openai: self,
            batch,
            error_of_all,
            names_alias: snapshot == Some(Value::Bool(false)),
            executed_at: at / 1000,
            output_file: LineWriter::new(&self.storage, content_name(&ids.output)),
            error_file: LineWriter::new(&self.storage, content_name(&ids.error)),
            counts: batch.initial_counts(),
            usage: UsageObject::default(),
            executed: Vec::with_capacity(positions.len() + 1),
            triggered: Vec::new(),
        };
        let reason = skip_reason(batch);
        let limit = batch.executed_limit.unwrap_or(u64::MAX);
        let mut line = Vec::new();
        for (rank, (number, offset, length)) in (0_u64..).zip(positions) {
            line.resize(length, 0);
            input.seek(SeekFrom::Start(offset))?;
            input.read_exact(&mut line)?;
            if rank < limit {
                execution.execute_line(number, &line)?;
            } else {
                execution.skip_line(&line, reason)?;
            }
        }
        self.finish_execution(execution, at)
    }

    /// Closes the result files, then writes the summary and the ledger's entries.
    fn finish_execution(&self, execution: BatchExecution<'_>, at: i64) -> io::Result<ExecutionSummary> {
        let batch = execution.batch;
        let summary = ExecutionSummary {
            counts: execution.counts,
            usage: execution.usage,
            output_bytes: execution
                .output_file
                .finish(!batch.has_fault(Fault::UnendedFile))?,
            error_bytes: execution.error_file.finish(true)?,
        };
        if batch.past {
            // The ledger counts nothing for a batch that ran before the sandbox was started.
            return Ok(summary);
        }
        self.storage.write_record(&summary_name(&batch.id), &summary)?;
        let mut entries = execution.executed;
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        entries.extend(execution.triggered);
        entries.push(LedgerEntry::ExecutedAll {
            batch: batch.id.clone(),
            count,
        });
        self.ledger.append_all(Timestamp::from_millis(at), &entries)?;
        Ok(summary)
    }

    /// Triggers the faults that fail every line of a batch.
    fn trigger_error_of_all(&self, batch: &mut BatchRecord) -> io::Result<Option<ErrorReply>> {
        if let Some(value) = self.trigger_batch_fault(batch, Fault::AllFailed)? {
            return Ok(Some(if value.is_null() {
                ErrorReply::server_error()
            } else {
                ErrorReply::from_fault_value(&value, 500, "server_error")
            }));
        }
        let value = self.trigger_batch_fault(batch, Fault::All404)?;
        Ok(value.map(|_| {
            ErrorReply::new(404, "The model does not exist or you do not have access.")
                .code("model_not_found")
                .param("model")
        }))
    }

    /// Puts the lines into the order of execution; gives number, offset and length of each.
    fn order_lines(
        &self,
        batch: &mut BatchRecord,
        input: &mut Content,
    ) -> io::Result<Vec<(u64, u64, usize)>> {
        let shuffle = self.trigger_batch_fault(batch, Fault::ShuffleOutput)?;
        let mut positions = line_positions(input)?;
        if self.settings.shuffle && shuffle != Some(Value::Bool(false)) {
            ids::shuffle(&mut positions, ids::number(&["shuffle", &batch.id]));
        }
        Ok(positions)
    }

    fn add_result_file(
        &self,
        batch: &BatchRecord,
        id: &str,
        kind: &str,
        bytes: u64,
        at: i64,
    ) -> io::Result<()> {
        let lifetime = i64::try_from(batch.output_lifetime).unwrap_or(i64::MAX);
        self.files.save(FileRecord {
            id: id.to_owned(),
            seq: self.next_seq(),
            project: batch.project.clone(),
            purpose: "batch_output".into(),
            filename: format!("{}_{kind}.jsonl", batch.id),
            bytes,
            created_ms: at,
            // Past batches are from a time when files did not expire.
            expires_at: (!batch.past).then(|| (at / 1000).saturating_add(lifetime)),
            deleted: false,
        })
    }
}

fn skip_reason(batch: &BatchRecord) -> SkipReason {
    if batch.has_fault(Fault::ExpireServerError) {
        SkipReason::ServerError
    } else if batch.status == BatchStatus::Cancelling {
        SkipReason::Cancelled
    } else {
        SkipReason::Expired
    }
}

/// Number, offset and length of each line of the input.
fn line_positions(input: &mut Content) -> io::Result<Vec<(u64, u64, usize)>> {
    let mut reader = BufReader::with_capacity(1 << 20, input);
    let mut positions = Vec::new();
    let mut offset = 0;
    for number in 1.. {
        let length = reader.skip_until(b'\n')?;
        if length == 0 {
            break;
        }
        positions.push((number, offset, length));
        offset += u64::try_from(length).unwrap_or(0);
    }
    Ok(positions)
}
