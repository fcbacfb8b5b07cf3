//! The multipart body of an upload.

use std::fs::File;
use std::io::{self, Read};

/// The multipart body of an upload (RFC 7578). The file is read while it is sent.
///
/// ureq's own form writes the file's name without escapes, and if the file is shorter than announced, it
/// loops without end. This one returns an error.
pub(super) struct UploadForm {
    boundary: String,
    head: io::Cursor<Vec<u8>>,
    file: io::Take<File>,
    tail: io::Cursor<Vec<u8>>,
    length: u64,
}

impl UploadForm {
    /// Creates the form for `file`. Also returns the length of the file.
    pub(super) fn new(name: &str, file: File) -> io::Result<(Self, u64)> {
        let size = file.metadata()?.len();
        let boundary = format!("batchkeeper-{}", uuid::Uuid::new_v4().simple());
        let head = format!(
            "--{boundary}\r\n\
             Content-Disposition: form-data; name=\"purpose\"\r\n\r\n\
             batch\r\n\
             --{boundary}\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/jsonl\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let framing_bytes = u64::try_from(head.len() + tail.len()).map_err(io::Error::other)?;
        let form = Self {
            boundary,
            head: io::Cursor::new(head.into_bytes()),
            file: file.take(size),
            tail: io::Cursor::new(tail.into_bytes()),
            length: size + framing_bytes,
        };
        Ok((form, size))
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// The value of `Content-Length`.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

impl Read for UploadForm {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let head = self.head.read(buffer)?;
        if head > 0 {
            return Ok(head);
        }
        if self.file.limit() == 0 {
            return self.tail.read(buffer);
        }
        match self.file.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the input file became shorter while it was sent",
            )),
            read => Ok(read),
        }
    }
}

/// Whether a name ends in `.jsonl`, as OpenAI requires, and needs no quoting.
pub(super) fn is_upload_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.ends_with(".jsonl") && name.len() <= 200 && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_quoting() {
        assert!(is_upload_name("batchkeeper-0f.jsonl"));
        for name in ["a.json", "a\".jsonl", "a\r\nb.jsonl", "a/b.jsonl", "é.jsonl"] {
            assert!(!is_upload_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_file_that_became_shorter_fails_its_upload() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(100).unwrap();
        let (mut form, size) = UploadForm::new("a.jsonl", file.reopen().unwrap()).unwrap();
        assert_eq!(size, 100);
        file.as_file().set_len(10).unwrap();
        let error = form.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
