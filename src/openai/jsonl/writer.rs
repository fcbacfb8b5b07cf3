//! Writes input files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::wide;
use crate::base::hex;
use crate::domain::endpoint::Endpoint;

/// Encodes a line of an input file, with its LF.
///
/// # Errors
/// If `body` cannot be serialized, or has line breaks between its members.
pub fn encode_request_line(
    endpoint: Endpoint,
    custom_id: &str,
    body: &impl Serialize,
) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct LineMembers<'a, B> {
        custom_id: &'a str,
        method: &'a str,
        url: &'a str,
        body: &'a B,
    }
    let line = serde_json::to_vec(&LineMembers {
        custom_id,
        method: "POST",
        url: endpoint.as_str(),
        body,
    })?;
    // Line breaks in strings are escaped. A `RawValue` may have line breaks between its members.
    if memchr::memchr2(b'\n', b'\r', &line).is_some() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the body of {custom_id} is not on one line"),
        ));
    }
    let mut line = escape_line_separators(line);
    line.push(b'\n');
    Ok(line)
}

/// Escapes U+0085, U+2028 and U+2029. JSON allows them in strings, but a reader that follows Unicode's rules
/// for lines, such as Python's `splitlines`, ends a line there.
fn escape_line_separators(line: Vec<u8>) -> Vec<u8> {
    const SEPARATORS: [(&[u8], &[u8]); 3] = [
        ("\u{85}".as_bytes(), b"\\u0085"),
        ("\u{2028}".as_bytes(), b"\\u2028"),
        ("\u{2029}".as_bytes(), b"\\u2029"),
    ];
    let mut escaped = Vec::new();
    let mut copied = 0;
    // These bytes begin the three characters. They also begin others, such as typographic quotes and dashes.
    for at in memchr::memchr2_iter(0xC2, 0xE2, &line) {
        if let Some((raw, escape)) = SEPARATORS.iter().find(|(raw, _)| line[at..].starts_with(raw)) {
            escaped.extend_from_slice(&line[copied..at]);
            escaped.extend_from_slice(escape);
            copied = at + raw.len();
        }
    }
    if copied == 0 {
        return line;
    }
    escaped.extend_from_slice(&line[copied..]);
    escaped
}

/// The measures of a written input file. Writing the same batch again must give the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenFile {
    /// The number of lines.
    pub lines: u64,
    /// The number of bytes.
    pub bytes: u64,
    /// The SHA-256 of the file, in lower-case hexadecimal digits.
    pub sha256_hex: String,
}

/// Writes an input file, and counts and hashes it.
#[derive(Debug)]
pub struct LineWriter<W> {
    into: W,
    endpoint: Endpoint,
    hash: Sha256,
    lines: u64,
    bytes: u64,
}

impl<W: Write> LineWriter<W> {
    /// Writes requests of an endpoint to `into`, with one write for each line. So `into` should be buffered.
    pub fn new(into: W, endpoint: Endpoint) -> Self {
        Self {
            into,
            endpoint,
            hash: Sha256::new(),
            lines: 0,
            bytes: 0,
        }
    }

    /// The number of lines written so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The number of bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes one request.
    ///
    /// # Errors The errors of [`encode_request_line`], after which nothing is written. The errors of the
    /// writer, after which the file must be discarded.
    pub fn write(&mut self, custom_id: &str, body: &impl Serialize) -> io::Result<()> {
        let line = encode_request_line(self.endpoint, custom_id, body)?;
        self.into.write_all(&line)?;
        self.hash.update(&line);
        self.lines += 1;
        self.bytes += wide(line.len());
        Ok(())
    }

    /// Flushes the writer, and returns the measures of the file. The caller must sync the file.
    ///
    /// # Errors
    /// The errors of the writer.
    pub fn finish(mut self) -> io::Result<WrittenFile> {
        self.into.flush()?;
        Ok(WrittenFile {
            lines: self.lines,
            bytes: self.bytes,
            sha256_hex: hex::encode(&self.hash.finalize()),
        })
    }
}

/// A file's length, and its SHA-256 in lower-case hexadecimal digits.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_file(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((length, hex::encode(&hash.finalize()))),
            Ok(read) => {
                hash.update(&buffer[..read]);
                length += wide(read);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
