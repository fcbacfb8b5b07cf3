//! Reads a file line by line, with a limit on a line's length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use super::{MAX_LINE_BYTES, wide};

/// The content of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineContent<'a> {
    /// The line's bytes without the LF and the CRs before it. They may be anything, not only UTF-8 or JSON.
    Bytes(&'a [u8]),
    /// The line is longer than the limit, and its bytes were skipped.
    TooLong {
        /// The number of its bytes without the LF.
        length: u64,
    },
}

/// One line of a JSONL file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonlLine<'a> {
    /// The offset at which the next line begins. Reading can go on from there.
    pub next_offset: u64,
    /// Whether an LF ends it. A last line without LF may be incomplete.
    pub is_terminated: bool,
    /// The line's content.
    pub content: LineContent<'a>,
}

/// Reads lines. Only the byte 0x0A ends a line: JSON strings may contain U+2028, U+2029 and U+0085, which
/// other readers take for line ends. Lines of white space are skipped.
#[derive(Debug)]
pub struct LineReader<R> {
    source: R,
    offset: u64,
    max_length: usize,
    line: Vec<u8>,
}

impl LineReader<BufReader<File>> {
    /// Opens the file at `path`, to read from `offset`, which must be the beginning of a line.
    ///
    /// # Errors
    /// If the file cannot be opened, or is shorter than `offset`.
    pub fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if file.metadata()?.len() < offset {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} is shorter than {offset} bytes", path.display()),
            ));
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self::new(
            BufReader::with_capacity(128 * 1024, file),
            offset,
            MAX_LINE_BYTES,
        ))
    }
}

impl<R: BufRead> LineReader<R> {
    /// Reads lines of at most `max_length` bytes from `source`, whose position is `offset`.
    pub fn new(source: R, offset: u64, max_length: usize) -> Self {
        Self {
            source,
            offset,
            max_length,
            line: Vec::new(),
        }
    }

    /// The offset at which the next line begins. At the end, this is the length of the source.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the next line; `None` at the end. An error of the source loses the current line: to continue,
    /// open the source again at [`JsonlLine::next_offset`] of the last line.
    ///
    /// # Errors
    /// The errors of the source.
    pub fn next_line(&mut self) -> io::Result<Option<JsonlLine<'_>>> {
        loop {
            let (length, is_terminated) = self.read_line()?;
            if length == 0 && !is_terminated {
                return Ok(None);
            }
            let is_too_long = usize::try_from(length).map_or(true, |it| it > self.max_length);
            if !is_too_long && self.line.iter().all(|byte| is_blank(*byte)) {
                continue;
            }
            let content = if is_too_long {
                LineContent::TooLong { length }
            } else {
                let end = self.line.iter().rposition(|byte| *byte != b'\r');
                LineContent::Bytes(&self.line[..end.map_or(0, |end| end + 1)])
            };
            return Ok(Some(JsonlLine {
                next_offset: self.offset,
                is_terminated,
                content,
            }));
        }
    }

    #[cfg(test)]
    pub(super) fn line_capacity(&self) -> usize {
        self.line.capacity()
    }

    /// Reads a line with its LF. Returns the number of bytes before the LF, and whether there was an LF.
    fn read_line(&mut self) -> io::Result<(u64, bool)> {
        self.line.clear();
        let mut length = 0_u64;
        loop {
            let available = match self.source.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                return Ok((length, false));
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            length += wide(part.len());
            if length <= wide(self.max_length) {
                append_within(&mut self.line, part, self.max_length);
            } else {
                self.line.clear();
            }
            let consumed = part.len() + usize::from(end.is_some());
            self.source.consume(consumed);
            self.offset += wide(consumed);
            if end.is_some() {
                return Ok((length, true));
            }
        }
    }
}

/// Appends to a line, whose capacity stays within `max_length`. A `Vec` alone would double it.
pub(super) fn append_within(line: &mut Vec<u8>, part: &[u8], max_length: usize) {
    let needed = line.len() + part.len();
    if needed > line.capacity() {
        let wanted = needed.max(line.capacity().saturating_mul(2)).min(max_length);
        line.reserve_exact(wanted.max(needed) - line.len());
    }
    line.extend_from_slice(part);
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}
