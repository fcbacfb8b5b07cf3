//! What passes between the gate and the workers, through tiny_http: requests in a form that can't
//! be misread, and answers that show when they were cut short.
//!
//! Answers are written here and not by tiny_http, whose chunked encoder ends a stream properly
//! even when reading it failed half-way: the client would take the half for the whole.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::IpAddr;

use super::head::Head;
use super::{Body, Request};

/// Names of the gate's own header fields begin so; a client's are dropped.
pub const PRIVATE: &str = "x-gate-";

/// An answer's head has 256 KiB at most.
const MOST_HEAD: u64 = 256 * 1024;
/// An answer has so many header fields at most.
const MOST_HEADERS: usize = 128;
/// A stream is copied in pieces of this size.
const PIECE: usize = 64 * 1024;

/// The request's head in the gate's own words, for tiny_http: one request, then the end.
pub fn request_head(head: &Head, id: &str, peer: IpAddr) -> String {
    let Head { method, target, .. } = head;
    let mut text = format!(
        "{method} {target} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\
         {PRIVATE}peer: {peer}\r\n{PRIVATE}id: {id}\r\n",
        head.length
    );
    for (name, value) in &head.headers {
        text.push_str(name);
        text.push_str(": ");
        escape(value, &mut text);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text
}

/// tiny_http takes nothing but ASCII in a header field, and answers nothing to anything else.
fn escape(value: &str, text: &mut String) {
    for byte in value.bytes() {
        if (byte.is_ascii_graphic() && byte != b'%') || byte == b' ' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
}

fn unescape(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|hex| char::from(hex).to_digit(16));
            let (high, low) = (digit().unwrap_or(0), digit().unwrap_or(0));
            bytes.push(u8::try_from(high * 16 + low).unwrap_or(0));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The request as the handler sees it, with its whole body.
///
/// # Errors
/// When not all of it came, or it did not come from the gate.
pub fn take_request(from: &mut tiny_http::Request) -> io::Result<Request> {
    let mut peer: Option<IpAddr> = None;
    let mut id = None;
    let mut headers = Vec::with_capacity(from.headers().len());
    for field in from.headers() {
        let value = field.value.as_str();
        let name = field.field.as_str().as_str();
        match name.strip_prefix(PRIVATE) {
            Some("peer") => peer = value.parse().ok(),
            Some("id") => id = Some(value.to_owned()),
            // The client's fields have names in lower case.
            _ if matches!(name, "Connection" | "Content-Length") => {}
            _ => headers.push((name.to_owned(), unescape(value))),
        }
    }
    let (Some(peer), Some(id)) = (peer, id) else {
        return Err(invalid("a request that is not the gate's"));
    };
    let (path, query) = match from.url().split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (from.url().to_owned(), None),
    };
    let method = from.method().as_str().to_owned();
    let length = from.body_length().unwrap_or(0);
    let mut body = Vec::with_capacity(length);
    from.as_reader().read_to_end(&mut body)?;
    // tiny_http takes a body that was cut short for one that has ended.
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

/// Writes an answer for the gate; `body` is none where there must not be one, and `length` what
/// its `Content-Length` says.
///
/// # Errors
/// The stream's own, and what reading the body gives; the gate sees the answer cut short then.
pub fn write_answer(
    to: &mut dyn Write,
    status: u16,
    headers: &[(String, String)],
    length: Option<usize>,
    body: Option<Body>,
) -> io::Result<()> {
    write!(to, "HTTP/1.1 {status:03} -\r\n{PRIVATE}answer: 1\r\n")?;
    for (name, value) in headers {
        if sound(name, value) {
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
        Some(Body::Bytes(bytes)) => to.write_all(&bytes)?,
        Some(Body::Stream(mut reader)) => {
            // The head goes first: reading may take a while.
            to.flush()?;
            let mut piece = vec![0; PIECE];
            loop {
                let count = match reader.read(&mut piece) {
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                write!(to, "{count:x}\r\n")?;
                to.write_all(piece.get(..count).unwrap_or_default())?;
                to.write_all(b"\r\n")?;
                to.flush()?;
                if count == 0 {
                    break;
                }
            }
        }
    }
    to.flush()
}

fn sound(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token) && !value.contains(['\r', '\n', '\0'])
}

/// An answer's head, as the gate reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The handler's own header fields.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body's length; none where it comes in chunks.
    pub length: Option<u64>,
}

/// Reads the head of a worker's answer.
///
/// # Errors
/// When it was cut short, or is one that tiny_http made up (because the worker panicked).
pub fn read_answer(from: &mut impl BufRead) -> io::Result<Answer> {
    let mut head = Vec::with_capacity(512);
    let mut from = from.take(MOST_HEAD);
    while !head.ends_with(b"\r\n\r\n") {
        if from.read_until(b'\n', &mut head)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut fields);
    parsed
        .parse(&head)
        .map_err(|_| invalid("an answer that is no HTTP"))?;
    let mut answer = Answer {
        status: parsed.code.unwrap_or(0),
        headers: Vec::with_capacity(parsed.headers.len()),
        length: None,
    };
    let mut ours = false;
    for field in parsed.headers.iter() {
        match field.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                answer.length = std::str::from_utf8(field.value)
                    .ok()
                    .and_then(|value| value.parse().ok());
            }
            "transfer-encoding" => {}
            name if name.starts_with(PRIVATE) => ours = true,
            _ => answer
                .headers
                .push((field.name.to_owned(), field.value.to_vec())),
        }
    }
    if !ours {
        return Err(invalid("an answer that no worker wrote"));
    }
    Ok(answer)
}

/// Reads one chunk of an answer and hands its bytes on in pieces; false after the last, empty one.
///
/// # Errors
/// When the answer was cut short, and what `pass` gives.
pub fn read_chunk(
    from: &mut impl BufRead,
    pass: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let size = read_line(from)?;
    let size = std::str::from_utf8(&size)
        .ok()
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| invalid("an answer's chunk without a size"))?;
    read_exactly(from, size, pass)?;
    if !read_line(from)?.is_empty() {
        return Err(invalid("an answer's chunk of another size"));
    }
    Ok(size > 0)
}

/// Reads exactly `length` bytes and hands them on in pieces.
///
/// # Errors
/// When there are fewer, and what `pass` gives.
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
    use proptest::prelude::*;

    use super::*;

    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is on fire"))
        }
    }

    fn streamed(reader: impl Read + Send + 'static) -> (Vec<u8>, io::Result<()>) {
        let mut wire = Vec::new();
        let body = Some(Body::Stream(Box::new(reader)));
        let result = write_answer(&mut wire, 200, &[], None, body);
        (wire, result)
    }

    fn read_stream(mut wire: &[u8]) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        assert_eq!(read_answer(&mut wire)?.length, None);
        while read_chunk(&mut wire, |piece| {
            body.extend_from_slice(piece);
            Ok(())
        })? {}
        Ok(body)
    }

    #[test]
    fn a_stream_that_fails_is_seen_to_be_cut() {
        let (wire, result) = streamed(io::Cursor::new(b"half".to_vec()).chain(Failing));
        assert!(result.is_err());
        assert!(read_stream(&wire).is_err());
        let (wire, result) = streamed(io::Cursor::new(vec![7; 200_000]));
        assert!(result.is_ok());
        assert_eq!(read_stream(&wire).unwrap(), vec![7; 200_000]);
        assert!(read_stream(&wire[..wire.len() - 1]).is_err());
    }

    #[test]
    fn an_answer_keeps_its_own_fields_alone() {
        let fields = [
            ("Content-Type", "text/plain"),
            ("X-Split", "a\r\nb"),
            ("Bad Name", "c"),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut wire = Vec::new();
        let body = Some(Body::Bytes(b"four".to_vec()));
        write_answer(&mut wire, 201, &fields, Some(4), body).unwrap();
        let answer = read_answer(&mut wire.as_slice()).unwrap();
        let kept = vec![("Content-Type".to_owned(), b"text/plain".to_vec())];
        assert_eq!((answer.status, answer.length), (201, Some(4)));
        assert_eq!(answer.headers, kept);
        let made_up = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
        assert!(read_answer(&mut made_up.as_slice()).is_err());
    }

    proptest! {
        #[test]
        fn values_pass_in_ascii(value in "[^\r\n\u{0}]{0,40}") {
            let mut text = String::new();
            escape(&value, &mut text);
            prop_assert!(text.is_ascii());
            prop_assert_eq!(unescape(&text), value);
        }
    }
}
