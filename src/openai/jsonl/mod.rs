//! The JSONL files of batches, read and written line by line, so that no file is ever in memory as a whole.

mod reader;
mod request_lines;
mod splitter;
mod writer;

pub use reader::{JsonlLine, LineContent, LineReader};
pub use request_lines::{RequestLine, RequestLines, request_lines};
pub use splitter::LineSplitter;
pub use writer::{LineWriter, WrittenFile, encode_request_line, sha256_file};

/// The longest line that is read. Result lines are about a thousandth of this.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
