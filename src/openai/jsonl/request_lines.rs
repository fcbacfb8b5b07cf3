//! Reads the lines of input files, for recovery.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde::Deserialize;
use serde_json::Value;

use super::MAX_LINE_BYTES;
use super::reader::{LineContent, LineReader};
use crate::openai::json_objects::metadata;

/// A line of an input file: the members that recovery reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// The custom id, which names the request of the line.
    pub custom_id: String,
    /// The string values of `body.metadata`.
    pub metadata: BTreeMap<String, String>,
}

/// Reads the lines of an input file. A malformed line is an error of the kind `InvalidData` that names the
/// line's number, and the next line can be read. Any other error comes from the source.
pub fn request_lines<R: BufRead>(source: R) -> RequestLines<R> {
    RequestLines {
        reader: LineReader::new(source, 0, MAX_LINE_BYTES),
        number: 0,
    }
}

/// The iterator of [`request_lines`].
#[derive(Debug)]
pub struct RequestLines<R> {
    reader: LineReader<R>,
    /// The number of the last line, from 1.
    number: u64,
}

impl<R: BufRead> Iterator for RequestLines<R> {
    type Item = io::Result<RequestLine>;

    fn next(&mut self) -> Option<Self::Item> {
        let content = match self.reader.next_line() {
            Ok(line) => line?.content,
            Err(error) => return Some(Err(error)),
        };
        self.number += 1;
        Some(parse(content).map_err(|error| {
            let message = format!("line {}: {error}", self.number);
            io::Error::new(io::ErrorKind::InvalidData, message)
        }))
    }
}

/// Why a line is malformed.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("{length} bytes are too long")]
    TooLong { length: u64 },
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

fn parse(content: LineContent<'_>) -> Result<RequestLine, LineError> {
    #[derive(Deserialize)]
    struct LineMembers {
        custom_id: String,
        #[serde(default)]
        body: BodyMembers,
    }
    #[derive(Default, Deserialize)]
    struct BodyMembers {
        #[serde(default)]
        metadata: Value,
    }
    match content {
        LineContent::TooLong { length } => Err(LineError::TooLong { length }),
        LineContent::Bytes(bytes) => {
            let line: LineMembers = serde_json::from_slice(bytes)?;
            Ok(RequestLine {
                custom_id: line.custom_id,
                metadata: metadata(&line.body.metadata),
            })
        }
    }
}
