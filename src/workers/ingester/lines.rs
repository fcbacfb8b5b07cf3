//! Result lines: read in chunks, classified, and taken into their lots.

use crate::domain::batch::Outcome;
use crate::domain::result_line;
use crate::domain::usage::TokenUsage;
use crate::openai::jsonl::{Content, LineReader};
use crate::store::batches::BatchRow;
use crate::store::settle::{self, LineResult};
use crate::store::{StoreError, Tx};

/// Result lines in one transaction.
const LINES: usize = 200;
/// Bytes of them.
const BYTES: u64 = 1 << 20;

/// Some lines of a result file, as they stand there.
pub struct Chunk {
    /// Their bytes.
    pub lines: Vec<Vec<u8>>,
    /// Where the next line begins.
    pub end: u64,
    /// Whether the file ends there.
    pub is_last: bool,
}

/// Reads the next lines, as many as one transaction takes.
pub fn read_chunk(reader: &mut LineReader<impl std::io::BufRead>) -> std::io::Result<Chunk> {
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
        chunk.end = line.next;
        match line.content {
            Content::Bytes(line) => {
                bytes += line.len() as u64;
                chunk.lines.push(line.to_vec());
            }
            // Too long to be an answer of ours: as good as unreadable, and it names nobody.
            Content::TooLong { .. } => chunk.lines.push(Vec::new()),
        }
    }
    Ok(chunk)
}

/// One line into its lot. False when it belongs to none of this batch; what is broken about it is
/// added to `noted`.
pub fn take_line(
    tx: &Tx<'_>,
    row: &BatchRow,
    line: &[u8],
    noted: &mut Vec<String>,
) -> Result<bool, StoreError> {
    let read = result_line::read_line(line);
    let (custom_id, result) = match &read {
        Ok(line) => {
            let (outcome, text, error) = line.answer.outcome();
            let tokens = line.usage;
            (line.custom_id.as_str(), (outcome, text, error, tokens))
        }
        Err(broken) => {
            noted.push(broken.message.clone());
            let Some(custom_id) = &broken.custom_id else {
                return Ok(false);
            };
            (
                custom_id.as_str(),
                (
                    Outcome::Unreadable,
                    "",
                    broken.message.clone(),
                    TokenUsage::ZERO,
                ),
            )
        }
    };
    let (outcome, text, error, tokens) = result;
    settle::take_line(
        tx,
        row,
        &LineResult {
            custom_id,
            outcome,
            text,
            error: &error,
            tokens,
        },
    )
}
