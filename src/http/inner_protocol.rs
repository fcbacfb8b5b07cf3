//! What passes between a connection and the workers through tiny_http: requests rewritten from their checked
//! parts, and responses whose end is recognizable.
//!
//! Workers write responses with this code and not with tiny_http. Its chunked encoder ends a stream properly
//! even if reading the stream failed half-way, so an incomplete response would look complete.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::IpAddr;

use super::message::{Request, ResponseBody};
use super::request_head::{PRIVATE_FIELD_PREFIX, RequestHead};
use crate::base::percent;

/// The longest head of a response.
const MAX_HEAD_BYTES: u64 = 256 * 1024;
/// The most header fields of a response.
const MAX_HEADERS: usize = 128;
/// Bytes of a stream that are copied at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Writes a request's head for tiny_http, from its checked parts. The connection carries no further request.
pub fn write_request_head(head: &RequestHead, id: &str, peer: IpAddr) -> String {
    let RequestHead { method, target, .. } = head;
    let mut text = format!(
        "{method} {target} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\
         {PRIVATE_FIELD_PREFIX}peer: {peer}\r\n{PRIVATE_FIELD_PREFIX}id: {id}\r\n",
        head.body_length
    );
    for (name, value) in &head.headers {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(&encode_value(value));
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text
}

/// Encodes a field's value, since tiny_http accepts only ASCII in a header field.
fn encode_value(value: &str) -> String {
    percent::encode(value, |byte| {
        (byte.is_ascii_graphic() && byte != b'%') || byte == b' '
    })
}

/// Reads the request for the handler, with its whole body.
///
/// # Errors
/// If the request is incomplete, or was not written by [`write_request_head`].
pub fn read_request(from: &mut tiny_http::Request) -> io::Result<Request> {
    let mut peer: Option<IpAddr> = None;
    let mut id = None;
    let mut headers = Vec::with_capacity(from.headers().len());
    for field in from.headers() {
        let value = field.value.as_str();
        let name = field.field.as_str().as_str();
        match name.strip_prefix(PRIVATE_FIELD_PREFIX) {
            Some("peer") => peer = value.parse().ok(),
            Some("id") => id = Some(value.to_owned()),
            // `write_request_head` wrote these two. The client's own fields have names in lower case.
            _ if matches!(name, "Connection" | "Content-Length") => {}
            _ => headers.push((name.to_owned(), percent::decode(value))),
        }
    }
    let (Some(peer), Some(id)) = (peer, id) else {
        return Err(invalid("a request without the private fields"));
    };
    let (path, query) = match from.url().split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (from.url().to_owned(), None),
    };
    let method = from.method().as_str().to_owned();
    let length = from.body_length().unwrap_or(0);
    let mut body = Vec::with_capacity(length);
    from.as_reader().read_to_end(&mut body)?;
    // tiny_http reports an incomplete body as a complete one.
    if body.len() != length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(Request {
        method,
        path,
        query,
        headers,
        body,
        peer,
        id,
    })
}

/// Writes a response for the connection. `body` is `None` if the response must not have content. `length` is
/// the value of its `Content-Length`.
///
/// # Errors
/// If writing fails, or reading the body. The connection finds the response incomplete then.
pub fn write_response(
    to: &mut dyn Write,
    status: u16,
    headers: &[(String, String)],
    length: Option<usize>,
    body: Option<ResponseBody>,
) -> io::Result<()> {
    write!(
        to,
        "HTTP/1.1 {status:03} -\r\n{PRIVATE_FIELD_PREFIX}answer: 1\r\n"
    )?;
    for (name, value) in headers {
        if is_valid_field(name, value) {
            write!(to, "{name}: {value}\r\n")?;
        } else {
            log::error!(event = "http_impossible_header", name; "");
        }
    }
    match length {
        Some(length) => write!(to, "Content-Length: {length}\r\n\r\n")?,
        None => write!(to, "Transfer-Encoding: chunked\r\n\r\n")?,
    }
    match body {
        None => {}
        Some(ResponseBody::Bytes(bytes)) => to.write_all(&bytes)?,
        Some(ResponseBody::Stream(reader)) => write_chunks(to, reader)?,
    }
    to.flush()
}

fn write_chunks(to: &mut dyn Write, mut reader: impl Read) -> io::Result<()> {
    // The head goes first, since reading may take long.
    to.flush()?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match reader.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        write!(to, "{count:x}\r\n")?;
        to.write_all(chunk.get(..count).unwrap_or_default())?;
        to.write_all(b"\r\n")?;
        to.flush()?;
        if count == 0 {
            return Ok(());
        }
    }
}

fn is_valid_field(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token) && !value.contains(['\r', '\n', '\0'])
}

/// The head of a worker's response.
#[derive(Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The handler's header fields.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Bytes of the body; `None` if it is chunked.
    pub body_length: Option<u64>,
}

/// Reads the head of a worker's response.
///
/// # Errors
/// If it is incomplete, or tiny_http wrote it because the worker panicked.
pub fn read_response_head(from: &mut impl BufRead) -> io::Result<ResponseHead> {
    let mut head = Vec::with_capacity(512);
    let mut from = from.take(MAX_HEAD_BYTES);
    while !head.ends_with(b"\r\n\r\n") {
        if from.read_until(b'\n', &mut head)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut fields);
    parsed
        .parse(&head)
        .map_err(|_| invalid("the response is not HTTP"))?;
    let mut response = ResponseHead {
        status: parsed.code.unwrap_or(0),
        headers: Vec::with_capacity(parsed.headers.len()),
        body_length: None,
    };
    let mut is_from_worker = false;
    for field in parsed.headers.iter() {
        match field.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                response.body_length = std::str::from_utf8(field.value)
                    .ok()
                    .and_then(|value| value.parse().ok());
            }
            "transfer-encoding" => {}
            name if name.starts_with(PRIVATE_FIELD_PREFIX) => is_from_worker = true,
            _ => response
                .headers
                .push((field.name.to_owned(), field.value.to_vec())),
        }
    }
    if !is_from_worker {
        return Err(invalid("no worker wrote the response"));
    }
    Ok(response)
}

/// Reads one chunk of a response and passes its bytes on in pieces. Returns false after the last, empty
/// chunk.
///
/// # Errors
/// If the response is incomplete, and the errors of `pass`.
pub fn read_chunk(from: &mut impl BufRead, pass: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
    let size = read_line(from)?;
    let size = std::str::from_utf8(&size)
        .ok()
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| invalid("a chunk has no size"))?;
    read_exactly(from, size, pass)?;
    if !read_line(from)?.is_empty() {
        return Err(invalid("a chunk has another size"));
    }
    Ok(size > 0)
}

/// Reads exactly `length` bytes and passes them on in pieces.
///
/// # Errors
/// If there are fewer bytes, and the errors of `pass`.
pub fn read_exactly(
    from: &mut impl BufRead,
    mut length: u64,
    mut pass: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while length > 0 {
        let piece = from.fill_buf()?;
        let most = usize::try_from(length).unwrap_or(usize::MAX);
        let piece = piece.get(..most).unwrap_or(piece);
        if piece.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        pass(piece)?;
        let count = piece.len();
        from.consume(count);
        length = length.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok(())
}

fn read_line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(20);
    from.take(20).read_until(b'\n', &mut line)?;
    line.strip_suffix(b"\r\n")
        .map(<[u8]>::to_vec)
        .ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that cannot be read.
    struct FailingReader;

    impl Read for FailingReader {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is on fire"))
        }
    }

    fn streamed(reader: impl Read + Send + 'static) -> (Vec<u8>, io::Result<()>) {
        let mut wire = Vec::new();
        let body = Some(ResponseBody::Stream(Box::new(reader)));
        let result = write_response(&mut wire, 200, &[], None, body);
        (wire, result)
    }

    fn read_stream(mut wire: &[u8]) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        assert_eq!(read_response_head(&mut wire)?.body_length, None);
        while read_chunk(&mut wire, |piece| {
            body.extend_from_slice(piece);
            Ok(())
        })? {}
        Ok(body)
    }

    #[test]
    fn a_failed_stream_is_recognized_as_incomplete() {
        let (wire, result) = streamed(io::Cursor::new(b"half".to_vec()).chain(FailingReader));
        assert!(result.is_err());
        assert!(read_stream(&wire).is_err());
        let (wire, result) = streamed(io::Cursor::new(vec![7; 200_000]));
        assert!(result.is_ok());
        assert_eq!(read_stream(&wire).unwrap(), vec![7; 200_000]);
        assert!(read_stream(&wire[..wire.len() - 1]).is_err());
    }

    #[test]
    fn a_response_keeps_only_the_valid_fields_of_the_handler() {
        let fields = [
            ("Content-Type", "text/plain"),
            ("X-Split", "a\r\nb"),
            ("Bad Name", "c"),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut wire = Vec::new();
        let body = Some(ResponseBody::Bytes(b"four".to_vec()));
        write_response(&mut wire, 201, &fields, Some(4), body).unwrap();
        let response = read_response_head(&mut wire.as_slice()).unwrap();
        let kept = vec![("Content-Type".to_owned(), b"text/plain".to_vec())];
        assert_eq!((response.status, response.body_length), (201, Some(4)));
        assert_eq!(response.headers, kept);
        let by_tiny_http = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
        assert!(read_response_head(&mut by_tiny_http.as_slice()).is_err());
    }
}
