//! The lines of a spooled result file are read in chunks and ingested into their lots.

use std::{fs, io};

use super::Ingester;
use crate::base::clock::Moment;
use crate::base::fields::Fields;
use crate::domain::batch::{Outcome, ResultKind};
use crate::domain::decide::stated_usage::UsageLimits;
use crate::domain::result_line;
use crate::domain::usage::{AttemptUsage, TokenUsage};
use crate::openai::jsonl::{LineContent, LineReader};
use crate::store::batches::{self, BatchRow};
use crate::store::settle::{self, LineResult};
use crate::store::{Stored, Tx, events};
use crate::workers::worker::{TickOutcome, WorkerError};

/// Result lines in one transaction.
const LINES: usize = 200;
/// Bytes of result lines in one transaction.
const BYTES: u64 = 1 << 20;

/// Some lines of a result file.
struct Chunk {
    /// Their bytes.
    lines: Vec<Vec<u8>>,
    /// Where the next line begins.
    end: u64,
    /// Whether the file ends there.
    is_last: bool,
}

impl Ingester {
    /// Ingests the next lines of a spooled file.
    pub(super) fn ingest_lines(
        &self,
        row: &BatchRow,
        kind: ResultKind,
        now: Moment,
    ) -> Result<TickOutcome, WorkerError> {
        let file = row.file(kind);
        let path = self.spool.path(&row.key, kind.into());
        let mut reader = match LineReader::open(&path, file.ingested) {
            Ok(reader) if fs::metadata(&path)?.len() == file.bytes.unwrap_or(0) => reader,
            _ => {
                log::warn!(
                    event = "spooled_again", batch = row.id;
                    "the spooled {kind} file is gone or another; it is fetched again"
                );
                self.store
                    .write(now.wall, |tx| batches::mark_unspooled(tx, row.id, kind))?;
                return Ok(TickOutcome::again());
            }
        };
        let mut chunk = read_chunk(&mut reader, LastLine::MayBeUnterminated)?;
        if chunk.is_last {
            chunk.end = file.bytes.unwrap_or(chunk.end);
        }
        self.store
            .write(now.wall, |tx| ingest_chunk(tx, row, kind, &chunk))?;
        Ok(TickOutcome::again())
    }

    /// Ingests the next complete lines of a file whose download broke off. Returns whether there were any.
    pub(super) fn ingest_part(
        &self,
        row: &BatchRow,
        kind: ResultKind,
        now: Moment,
    ) -> Result<bool, WorkerError> {
        let path = self.spool.part_path(&row.key, kind.into());
        let Ok(mut reader) = LineReader::open(&path, row.file(kind).ingested) else {
            return Ok(false);
        };
        let chunk = read_chunk(&mut reader, LastLine::MayBeCut)?;
        if chunk.lines.is_empty() {
            return Ok(false);
        }
        self.store
            .write(now.wall, |tx| ingest_chunk(tx, row, kind, &chunk))?;
        Ok(true)
    }
}

/// Ingests some lines of a result file, and stores how far it is read.
fn ingest_chunk(tx: &Tx<'_>, row: &BatchRow, kind: ResultKind, chunk: &Chunk) -> Stored<()> {
    let mut faults = ChunkFaults::new(row);
    let mut unknown = 0;
    for line in &chunk.lines {
        if !ingest_line(tx, row, line, &mut faults)? {
            unknown += 1;
        }
    }
    if let Some(first) = faults.broken.first() {
        let detail = Fields::new()
            .with("file", kind.as_str())
            .with("lines", faults.broken.len())
            .with("first", first.as_str());
        events::record(tx, None, Some(row.id), "broken_lines", detail)?;
    }
    if let Some(first) = faults.absurd.first() {
        let detail = Fields::new().with_text(first);
        events::record(tx, None, Some(row.id), "usage_unknown", detail)?;
    }
    batches::record_ingested(tx, row.id, kind, chunk.end, unknown)
}

/// The faults of the lines of a chunk.
struct ChunkFaults {
    /// The most tokens that a line can have.
    limits: UsageLimits,
    /// The fault of each line that cannot be read.
    broken: Vec<String>,
    /// Each line that states tokens which it cannot have.
    absurd: Vec<String>,
}

impl ChunkFaults {
    fn new(row: &BatchRow) -> Self {
        Self {
            limits: row.usage_limits(),
            broken: Vec::new(),
            absurd: Vec::new(),
        }
    }
}

/// How the last line of a file may end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastLine {
    /// The file is whole: its last line may have no LF.
    MayBeUnterminated,
    /// The file may be cut: a line without LF is read only if it is a whole JSON text.
    MayBeCut,
}

/// Reads as many of the next lines as one transaction may have.
fn read_chunk(reader: &mut LineReader<impl io::BufRead>, last: LastLine) -> io::Result<Chunk> {
    let mut chunk = Chunk {
        lines: Vec::new(),
        end: reader.offset(),
        is_last: false,
    };
    let mut bytes = 0;
    while chunk.lines.len() < LINES && bytes < BYTES {
        let Some(line) = reader.next_line()? else {
            chunk.is_last = true;
            break;
        };
        if !line.is_terminated && last == LastLine::MayBeCut && !is_whole(&line.content) {
            break;
        }
        chunk.end = line.next_offset;
        match line.content {
            LineContent::Bytes(line) => {
                bytes += line.len() as u64;
                chunk.lines.push(line.to_vec());
            }
            // It is too long to be an answer of ours, and it names no request.
            LineContent::TooLong { .. } => chunk.lines.push(Vec::new()),
        }
    }
    Ok(chunk)
}

/// Whether a line is a whole JSON text. A cut one is not.
fn is_whole(line: &LineContent<'_>) -> bool {
    match line {
        LineContent::Bytes(line) => serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok(),
        LineContent::TooLong { .. } => false,
    }
}

/// Ingests one line into its lot. False if it belongs to no line of this batch. A fault of the
/// line is added to `faults`.
fn ingest_line(tx: &Tx<'_>, row: &BatchRow, line: &[u8], faults: &mut ChunkFaults) -> Stored<bool> {
    let line = match result_line::read_line(line) {
        Ok(line) => line,
        Err(unreadable) => {
            faults.broken.push(unreadable.message.clone());
            let Some(custom_id) = &unreadable.custom_id else {
                return Ok(false);
            };
            let result = LineResult {
                custom_id,
                outcome: Outcome::Unreadable,
                text: "",
                error: &unreadable.message,
                setting: None,
                usage: AttemptUsage::Known(TokenUsage::ZERO),
            };
            return settle::ingest_line(tx, row, &result);
        }
    };
    let (outcome, text, error) = line.answer.outcome();
    let usage = faults.limits.usage(line.usage);
    let result = LineResult {
        custom_id: &line.custom_id,
        outcome,
        text,
        error: &error,
        setting: line.answer.setting(),
        usage,
    };
    let is_known = settle::ingest_line(tx, row, &result)?;
    if is_known && usage.is_unknown() {
        let stated = faults.limits.describe(line.usage);
        faults.absurd.push(format!("of line {} {stated}", line.custom_id));
    }
    Ok(is_known)
}
