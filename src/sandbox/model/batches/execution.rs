//! Runs a batch's lines and writes its result files: once, whatever kills the process meanwhile.
//!
//! Order of writes: both result files under their names, the result record, the ledger's lines in
//! one append (which makes the execution count), the file records, the batch's record. File ids
//! follow from the batch's, so that doing it again gives the same.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::sandbox::Sandbox;
use crate::sandbox::model::batches::operations::{BatchRecord, LineCounts};
use crate::sandbox::model::batches::result_lines::{BatchExecution, SkipReason};
use crate::sandbox::model::disk;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::files::operations::FileRecord;
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::responses::execution;
use crate::sandbox::model::responses::object::UsageObject;

/// What an execution gave.
#[derive(Default, Serialize, Deserialize)]
struct ExecutionSummary {
    counts: LineCounts,
    usage: UsageObject,
    output_bytes: Option<u64>,
    error_bytes: Option<u64>,
}

/// A result file that exists once something is written to it.
pub(in crate::sandbox) struct ResultFileWriter {
    path: PathBuf,
    writer: Option<BufWriter<File>>,
    bytes: u64,
}

impl ResultFileWriter {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            writer: None,
            bytes: 0,
        }
    }

    /// Writes a line and its line feed.
    pub(in crate::sandbox) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(BufWriter::with_capacity(
                1 << 18,
                File::create(disk::temporary(&self.path))?,
            )),
        };
        writer.write_all(line)?;
        writer.write_all(b"\n")?;
        self.bytes += u64::try_from(line.len()).unwrap_or(0) + 1;
        Ok(())
    }

    /// Gives the file its name; its size, where there is one.
    fn close(self) -> io::Result<Option<u64>> {
        let Some(mut writer) = self.writer else {
            return Ok(None);
        };
        writer.flush()?;
        fs::rename(disk::temporary(&self.path), &self.path)?;
        Ok(Some(self.bytes))
    }
}

impl Sandbox {
    /// Runs the batch's lines up to its limit, dated `at`, unless that was done before.
    pub(in crate::sandbox) fn execute(&self, batch: &mut BatchRecord, at: i64) -> io::Result<()> {
        if batch.executed {
            return Ok(());
        }
        let output_id = ids::file(&["output", &batch.id]);
        let error_id = ids::file(&["error", &batch.id]);
        let counted = self
            .ledger
            .sums(|tally| tally.executed_batches.contains(&batch.id));
        let before = disk::read_json::<ExecutionSummary>(&self.batches.result(&batch.id)).ok();
        let done = match before.filter(|_| counted) {
            Some(done) => done,
            None => self.run_lines(batch, at, &output_id, &error_id)?,
        };
        if let Some(bytes) = done.output_bytes {
            self.put_result(batch, &output_id, "output", bytes, at)?;
            batch.output_file_id = Some(output_id);
        }
        if let Some(bytes) = done.error_bytes {
            self.put_result(batch, &error_id, "error", bytes, at)?;
            batch.error_file_id = Some(error_id);
        }
        batch.counts = done.counts;
        if batch.has(Fault::ExpireWithOutput) {
            batch.counts.completed = 0;
        }
        batch.usage = done.usage;
        batch.executed = true;
        Ok(())
    }

    fn run_lines(
        &self,
        batch: &mut BatchRecord,
        at: i64,
        output_id: &str,
        error_id: &str,
    ) -> io::Result<ExecutionSummary> {
        let whole = self.whole_batch_fails(batch)?;
        let alias = self.draw(batch, Fault::SnapshotModel)? == Some(Value::Bool(false));
        let in_order = self.draw(batch, Fault::ShuffleOutput)? == Some(Value::Bool(false));
        let unrun = if batch.has(Fault::ExpireServerError) {
            SkipReason::ServerError
        } else if batch.status == BatchStatus::Cancelling {
            SkipReason::Cancelled
        } else {
            SkipReason::Expired
        };
        let path = self.batches.input(&batch.id);
        let mut order = line_places(&path)?;
        if self.settings.shuffle && !in_order {
            ids::shuffle(&mut order, ids::number(&["shuffle", &batch.id]));
        }
        let mut run = BatchExecution {
            sandbox: self,
            batch,
            whole,
            alias,
            at: at / 1000,
            output: ResultFileWriter::new(self.files.content(output_id)),
            error: ResultFileWriter::new(self.files.content(error_id)),
            counts: batch.counts_of_total(),
            usage: UsageObject::default(),
            entries: Vec::with_capacity(order.len() + 1),
            struck: Vec::new(),
        };
        let mut input = File::open(&path)?;
        let limit = batch.limit.unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        for (rank, (offset, length)) in (0_u64..).zip(order) {
            bytes.resize(length, 0);
            input.seek(SeekFrom::Start(offset))?;
            input.read_exact(&mut bytes)?;
            if rank < limit {
                run.run(&bytes)?;
            } else {
                run.leave(&bytes, unrun)?;
            }
        }
        let BatchExecution {
            output,
            error,
            counts,
            usage,
            mut entries,
            struck,
            ..
        } = run;
        let done = ExecutionSummary {
            counts,
            usage,
            output_bytes: output.close()?,
            error_bytes: error.close()?,
        };
        if batch.seeded {
            // Nobody ran these now: they are as old as the batch.
            return Ok(done);
        }
        disk::write_json(&self.batches.result(&batch.id), &done)?;
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        entries.extend(struck);
        entries.push(LedgerEntry::ExecutedAll {
            batch: batch.id.clone(),
            count,
        });
        self.ledger.append(Timestamp::from_millis(at), &entries)?;
        Ok(done)
    }

    fn whole_batch_fails(&self, batch: &mut BatchRecord) -> io::Result<Option<ErrorReply>> {
        if let Some(value) = self.draw(batch, Fault::AllFailed)? {
            return Ok(Some(if value.is_null() {
                execution::server_error()
            } else {
                ErrorReply::told(&value, 500, "server_error")
            }));
        }
        Ok(self.draw(batch, Fault::All404)?.map(|_| {
            ErrorReply::new(404, "The model does not exist or you do not have access.")
                .code("model_not_found")
                .param("model")
        }))
    }

    fn put_result(
        &self,
        batch: &BatchRecord,
        id: &str,
        kind: &str,
        bytes: u64,
        at: i64,
    ) -> io::Result<()> {
        let lifetime = i64::try_from(batch.output_lifetime).unwrap_or(i64::MAX);
        self.files.put(FileRecord {
            id: id.to_owned(),
            seq: self.next_seq(),
            project: batch.project.clone(),
            purpose: "batch_output".into(),
            filename: format!("{}_{kind}.jsonl", batch.id),
            bytes,
            created_ms: at,
            // Seeded batches are of a time when files lived for ever.
            expires_at: (!batch.seeded).then(|| (at / 1000).saturating_add(lifetime)),
            deleted: false,
        })
    }
}

/// Offset and length of each line.
fn line_places(path: &std::path::Path) -> io::Result<Vec<(u64, usize)>> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut places = Vec::new();
    let mut offset = 0;
    loop {
        let length = reader.skip_until(b'\n')?;
        if length == 0 {
            return Ok(places);
        }
        places.push((offset, length));
        offset += u64::try_from(length).unwrap_or(0);
    }
}
