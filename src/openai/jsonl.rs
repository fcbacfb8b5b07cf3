//! The files of a batch, a line at a time and never whole in memory: result files as they come,
//! input files as they go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::base::hex;

use super::{ENDPOINT, answer};

/// The longest line that is taken in: a thousand times what a result has.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Its bytes, without the LF and the CRs before it. Not checked to be UTF-8 or JSON.
    Bytes(&'a [u8]),
    /// It is longer than the cap, and was passed over.
    TooLong {
        /// Its bytes without the LF.
        length: u64,
    },
}

/// One line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where the next line begins: the offset to go on from once this one is stored.
    pub next: u64,
    /// Whether an LF ends it. A last line without one may be the trace of a cut.
    pub ended: bool,
    /// What it holds.
    pub content: Content<'a>,
}

/// Splits a source at byte 0x0A and at nothing else: JSON strings may hold U+2028, U+2029 and
/// U+0085, which other splitters take for line ends. Lines of white space only are passed over.
#[derive(Debug)]
pub struct LineReader<R> {
    source: R,
    offset: u64,
    cap: usize,
    line: Vec<u8>,
}

impl LineReader<BufReader<File>> {
    /// Reads the file at `path` from `offset`, which must be a line's beginning.
    ///
    /// # Errors
    /// When it cannot be opened, or is shorter than `offset`: what was read before is gone.
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
            MAX_LINE,
        ))
    }
}

impl<R: BufRead> LineReader<R> {
    /// Reads lines of at most `cap` bytes from `source`, which stands at `offset`.
    pub fn new(source: R, offset: u64, cap: usize) -> Self {
        Self {
            source,
            offset,
            cap,
            line: Vec::new(),
        }
    }

    /// Where the next line begins; at the end, the length of the source.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next line, or nothing at the end. After an error of the source, what was read of the
    /// present line is lost: open it anew at the last line's [`Line::next`].
    ///
    /// # Errors
    /// Those of the source.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            let (length, ended) = self.take_line()?;
            if length == 0 && !ended {
                return Ok(None);
            }
            let too_long = usize::try_from(length).map_or(true, |length| length > self.cap);
            if !too_long && self.line.iter().all(|byte| is_blank(*byte)) {
                continue;
            }
            let content = if too_long {
                Content::TooLong { length }
            } else {
                let end = self.line.iter().rposition(|byte| *byte != b'\r');
                Content::Bytes(&self.line[..end.map_or(0, |end| end + 1)])
            };
            return Ok(Some(Line {
                next: self.offset,
                ended,
                content,
            }));
        }
    }

    /// Reads up to and over the next LF; gives the bytes before it, and whether there was one.
    fn take_line(&mut self) -> io::Result<(u64, bool)> {
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
            if length <= wide(self.cap) {
                append(&mut self.line, part, self.cap);
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

/// `Vec` doubles as it grows; here it must not pass the cap.
fn append(line: &mut Vec<u8>, part: &[u8], cap: usize) {
    let needed = line.len() + part.len();
    if needed > line.capacity() {
        let wanted = needed.max(line.capacity().saturating_mul(2)).min(cap);
        line.reserve_exact(wanted.max(needed) - line.len());
    }
    line.extend_from_slice(part);
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A request line as it is written, LF included: what it adds to the file.
///
/// # Errors
/// When `body` cannot be serialized, or comes with line breaks between its members.
pub fn request_line(custom_id: &str, body: &impl Serialize) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct RequestLine<'a, B> {
        custom_id: &'a str,
        method: &'a str,
        url: &'a str,
        body: &'a B,
    }
    let line = serde_json::to_vec(&RequestLine {
        custom_id,
        method: "POST",
        url: ENDPOINT,
        body,
    })?;
    // Within strings they are escaped; a RawValue may have them between.
    if line.contains(&b'\n') || line.contains(&b'\r') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the body of {custom_id} is not on one line"),
        ));
    }
    let mut line = escape_line_separators(line);
    line.push(b'\n');
    Ok(line)
}

/// Writes U+0085, U+2028 and U+2029 as escapes: JSON lets them stand in strings as they are, but
/// readers that split a text into lines by Unicode's rules (Python's `splitlines` does) end one there.
fn escape_line_separators(line: Vec<u8>) -> Vec<u8> {
    const SEPARATORS: [(&[u8], &[u8]); 3] = [
        ("\u{85}".as_bytes(), b"\\u0085"),
        ("\u{2028}".as_bytes(), b"\\u2028"),
        ("\u{2029}".as_bytes(), b"\\u2029"),
    ];
    // What they begin with; most texts have neither.
    if !line.contains(&0xC2) && !line.contains(&0xE2) {
        return line;
    }
    let separator = |rest: &[u8]| SEPARATORS.iter().find(|(raw, _)| rest.starts_with(raw));
    let mut escaped = Vec::with_capacity(line.len() + 64);
    let mut rest = line.as_slice();
    while let [first, after @ ..] = rest {
        match separator(rest) {
            Some((raw, written)) => {
                escaped.extend_from_slice(written);
                rest = &rest[raw.len()..];
            }
            None => {
                escaped.push(*first);
                rest = after;
            }
        }
    }
    escaped
}

/// What was written: the seal that a second writing must reproduce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Lines.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of them all, in lower-case hex.
    pub sha256_hex: String,
}

/// Writes an input file, counting and hashing.
#[derive(Debug)]
pub struct LineWriter<W> {
    into: W,
    hash: Sha256,
    lines: u64,
    bytes: u64,
}

impl<W: Write> LineWriter<W> {
    /// Writes to `into`, a write per line: give it a buffered one.
    pub fn new(into: W) -> Self {
        Self {
            into,
            hash: Sha256::new(),
            lines: 0,
            bytes: 0,
        }
    }

    /// Lines written so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds one request.
    ///
    /// # Errors
    /// Those of [`request_line`], after which nothing is written; those of the writer, after which
    /// the file is to be thrown away.
    pub fn write(&mut self, custom_id: &str, body: &impl Serialize) -> io::Result<()> {
        let line = request_line(custom_id, body)?;
        self.into.write_all(&line)?;
        self.hash.update(&line);
        self.lines += 1;
        self.bytes += wide(line.len());
        Ok(())
    }

    /// Flushes (it is the caller's to sync the file) and gives the seal.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<Sealed> {
        self.into.flush()?;
        Ok(Sealed {
            lines: self.lines,
            bytes: self.bytes,
            sha256_hex: hex::encode(&self.hash.finalize()),
        })
    }
}

/// A file's length and the SHA-256 of its content in lower-case hex.
///
/// # Errors
/// When it cannot be read.
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

/// What recovery needs of an input line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputLine {
    /// Says where the line belongs.
    pub custom_id: String,
    /// The string values of `body.metadata`.
    pub metadata: BTreeMap<String, String>,
}

/// Takes a file as it comes and gives its lines to `each`, so that it need never lie anywhere whole.
/// Longer ones than [`MAX_LINE`] are passed over.
#[derive(Debug)]
pub struct EachLine<F> {
    line: Vec<u8>,
    too_long: bool,
    each: F,
}

impl<F: FnMut(&[u8])> EachLine<F> {
    /// Gives lines, without their LF, to `each`.
    pub fn new(each: F) -> Self {
        Self {
            line: Vec::new(),
            too_long: false,
            each,
        }
    }

    /// The file is over: a last line without an LF is given too.
    pub fn finish(mut self) {
        if !self.line.is_empty() {
            self.give();
        }
    }

    fn give(&mut self) {
        if !self.too_long {
            (self.each)(&self.line);
        }
        self.line.clear();
        self.too_long = false;
    }
}

impl<F: FnMut(&[u8])> Write for EachLine<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, ended) = match part {
                [part @ .., b'\n'] => (part, true),
                part => (part, false),
            };
            self.too_long |= self.line.len() + part.len() > MAX_LINE;
            if !self.too_long {
                append(&mut self.line, part, MAX_LINE);
            }
            if ended {
                self.give();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Walks over an input file. A line that is no request line is an error of kind `InvalidData`
/// (naming the line, from 1), and the walk may go on; any other error is the source's.
pub fn custom_ids<R: BufRead>(source: R) -> CustomIds<R> {
    CustomIds {
        reader: LineReader::new(source, 0, MAX_LINE),
        line: 0,
    }
}

/// See [`custom_ids`].
#[derive(Debug)]
pub struct CustomIds<R> {
    reader: LineReader<R>,
    line: u64,
}

impl<R: BufRead> Iterator for CustomIds<R> {
    type Item = io::Result<InputLine>;

    fn next(&mut self) -> Option<Self::Item> {
        let content = match self.reader.next_line() {
            Ok(line) => line?.content,
            Err(error) => return Some(Err(error)),
        };
        self.line += 1;
        Some(input_line(content).map_err(|reason| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("line {}: {reason}", self.line),
            )
        }))
    }
}

fn input_line(content: Content<'_>) -> Result<InputLine, String> {
    #[derive(Deserialize)]
    struct Request {
        custom_id: String,
        #[serde(default)]
        body: Body,
    }
    #[derive(Default, Deserialize)]
    struct Body {
        #[serde(default)]
        metadata: Value,
    }
    match content {
        Content::TooLong { length } => Err(format!("{length} bytes")),
        Content::Bytes(bytes) => serde_json::from_slice::<Request>(bytes)
            .map(|request| InputLine {
                custom_id: request.custom_id,
                metadata: answer::metadata(&request.body.metadata),
            })
            .map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{json, value::RawValue};

    use super::*;

    type Owned = (u64, bool, Result<Vec<u8>, u64>);

    fn read(bytes: &[u8], chunk: usize, cap: usize, offset: usize) -> (Vec<Owned>, u64) {
        let source = BufReader::with_capacity(chunk, &bytes[offset..]);
        let mut reader = LineReader::new(source, wide(offset), cap);
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            let content = match line.content {
                Content::Bytes(bytes) => Ok(bytes.to_vec()),
                Content::TooLong { length } => Err(length),
            };
            lines.push((line.next, line.ended, content));
        }
        assert!(reader.line.capacity() <= cap);
        (lines, reader.offset())
    }

    #[test]
    fn only_lf_splits_and_blank_lines_are_passed_over() {
        let text = "a\u{2028}\u{85}b\r\n\r\n  \n\n123456789\n12345678\r\nlast\r";
        let (lines, end) = read(text.as_bytes(), 3, 8, 0);
        assert_eq!(
            lines,
            [
                (9, true, Ok("a\u{2028}\u{85}b".into())),
                (25, true, Err(9)),
                (35, true, Err(9)),
                (40, false, Ok("last".into())),
            ]
        );
        assert_eq!(end, 40);
    }

    #[test]
    fn a_line_of_just_the_cap_is_read() {
        let (lines, _) = read(b"12345678\n123456789", 64, 8, 0);
        assert_eq!(
            lines,
            [(9, true, Ok(b"12345678".into())), (18, false, Err(9))]
        );
    }

    #[test]
    fn a_file_is_read_from_an_offset_within_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"one\ntwo\n").unwrap();
        let mut reader = LineReader::open(file.path(), 4).unwrap();
        let line = reader.next_line().unwrap().unwrap();
        assert_eq!((line.next, line.content), (8, Content::Bytes(b"two")));
        assert_eq!(reader.next_line().unwrap(), None);
        assert_eq!(
            LineReader::open(file.path(), 8)
                .unwrap()
                .next_line()
                .unwrap(),
            None
        );
        assert!(LineReader::open(file.path(), 9).is_err());
        assert_eq!(
            sha256_file(file.path()).unwrap(),
            (
                8,
                "c3f9c8c283a2b1f2f1896f27a01cbe3cddc0c9d93f752e4639035a0f5b36f6e8".to_owned()
            )
        );
    }

    #[test]
    fn a_request_line_is_exactly_so() {
        let line = request_line(
            "v_1",
            &json!({"input": "a\nb\u{2028}\u{85}é\u{2029}\u{2027}"}),
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"custom_id\":\"v_1\",\"method\":\"POST\",\"url\":\"/v1/responses\",\
             \"body\":{\"input\":\"a\\nb\\u2028\\u0085é\\u2029\u{2027}\"}}\n"
        );
        let spread = RawValue::from_string("{\n}".to_owned()).unwrap();
        let mut out = Vec::new();
        let mut writer = LineWriter::new(&mut out);
        let error = writer.write("v_1", &spread).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!((writer.lines(), writer.bytes()), (0, 0));
        assert!(out.is_empty());
    }

    #[test]
    fn recovery_reads_ids_and_metadata_and_names_bad_lines() {
        let text = concat!(
            r#"{"custom_id":"a","body":{"metadata":{"job":"1","n":2},"input":[{"x":[1]}]}}"#,
            "\n\n{\"custom_id\":7}\n",
            r#"{"custom_id":"b","body":{"metadata":null}}"#,
        );
        let lines = custom_ids(text.as_bytes()).collect::<Vec<_>>();
        let first = lines[0].as_ref().unwrap();
        assert_eq!(first.custom_id, "a");
        assert_eq!(first.metadata, BTreeMap::from([("job".into(), "1".into())]));
        assert!(
            lines[1]
                .as_ref()
                .unwrap_err()
                .to_string()
                .starts_with("line 2: ")
        );
        assert_eq!(lines[2].as_ref().unwrap().custom_id, "b");
        assert_eq!(lines.len(), 3);
    }

    /// Bytes of which line ends, blanks and quotes are as likely as the rest together.
    fn rough() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(b'\n'),
            Just(b'\r'),
            Just(b' '),
            Just(b'"'),
            any::<u8>(),
        ];
        prop::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            entries in prop::collection::vec(("[a-zA-Z0-9_-]{1,64}", any::<String>()), 0..20),
            chunk in 1_usize..64,
        ) {
            let mut out = Vec::new();
            let mut writer = LineWriter::new(&mut out);
            for (id, text) in &entries {
                writer.write(id, &json!({"input": text, "metadata": {"text": text}})).unwrap();
            }
            let sealed = writer.finish().unwrap();
            prop_assert_eq!(sealed.bytes, wide(out.len()));
            prop_assert_eq!(sealed.lines, wide(entries.len()));
            prop_assert_eq!(&sealed.sha256_hex, &hex::encode(&Sha256::digest(&out)));
            let mut lines = Vec::new();
            let mut each = EachLine::new(|line: &[u8]| lines.push(line.to_vec()));
            out.chunks(chunk).for_each(|part| each.write_all(part).unwrap());
            each.finish();
            let whole: Vec<_> = out.split(|byte| *byte == b'\n').take(entries.len()).collect();
            prop_assert_eq!(lines, whole);
            let back = custom_ids(BufReader::with_capacity(chunk, out.as_slice()))
                .map(|line| line.map(|line| (line.custom_id, line.metadata["text"].clone())))
                .collect::<io::Result<Vec<_>>>()
                .unwrap();
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn the_chunks_of_the_source_do_not_matter(
            bytes in rough(), chunk in 1_usize..20, cap in 1_usize..30,
        ) {
            prop_assert_eq!(
                read(&bytes, chunk, cap, 0),
                read(&bytes, bytes.len().max(1), cap, 0)
            );
        }

        #[test]
        fn reading_goes_on_from_every_offset_it_gave(bytes in rough(), cap in 1_usize..30) {
            let (lines, end) = read(&bytes, 7, cap, 0);
            prop_assert_eq!(end, wide(bytes.len()));
            for (index, (next, _, _)) in lines.iter().enumerate() {
                let offset = usize::try_from(*next).unwrap();
                let (rest, _) = read(&bytes, 7, cap, offset);
                prop_assert_eq!(&rest, &lines[index + 1..]);
            }
        }

        #[test]
        fn nothing_in_an_input_file_panics(bytes in rough()) {
            for line in custom_ids(bytes.as_slice()) {
                prop_assert!(line.is_ok() || line.is_err());
            }
        }
    }
}
