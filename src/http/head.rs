//! The head of a request: where it ends, what it says, and what is refused before any body is
//! read. Pure, so that it can be fuzzed.
//!
//! Whatever two parsers could read in two ways is refused, never mended: a bare line feed, a
//! folded line, a length given twice, a transfer coding. Rules: RFC 9112.

use httparse::{EMPTY_HEADER, Error, Status};

/// Why a request is refused before anyone but the gate has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    /// The HTTP status.
    pub status: u16,
    /// The code in the error's body.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl HttpError {
    /// A refusal from its parts.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// The request is not well-formed HTTP.
    fn malformed(message: &str) -> Self {
        Self::new(400, "INVALID_PARAMETER", message)
    }
}

/// A request's head, checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// As sent.
    pub method: String,
    /// Path and query in origin form, visible ASCII only; `*` for `OPTIONS *`.
    pub target: String,
    /// Whether it is HTTP/1.1, which knows chunked answers; otherwise HTTP/1.0.
    pub v11: bool,
    /// Field names in lower case, in their order, less those that speak of this one connection.
    pub headers: Vec<(String, String)>,
    /// Bytes of the body that follows.
    pub length: u64,
    /// Whether the client would send another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// Where the head ends (just behind its empty line), once all of it is there. Bytes before `from`
/// have been looked at by an earlier call.
///
/// # Errors
/// At the first line feed that no carriage return precedes.
pub fn end_of_head(bytes: &[u8], from: usize) -> Result<Option<usize>, HttpError> {
    let fresh = bytes.get(from..).unwrap_or_default();
    for (offset, _) in fresh.iter().enumerate().filter(|(_, b)| **b == b'\n') {
        let line = bytes.get(..from + offset).unwrap_or_default();
        if !line.ends_with(b"\r") {
            return Err(HttpError::malformed(
                "a line of the request's head does not end in CR LF",
            ));
        }
        if line.ends_with(b"\r\n\r") {
            return Ok(Some(from + offset + 1));
        }
    }
    Ok(None)
}

/// Reads a whole head, as [`end_of_head`] delimits it, with at most `max_headers` fields.
///
/// # Errors
/// The refusal to answer with; the connection can't be used any further then, because nobody
/// knows where the next request would begin.
pub fn parse(bytes: &[u8], max_headers: usize) -> Result<Head, HttpError> {
    let mut fields = vec![EMPTY_HEADER; max_headers];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(HttpError::malformed("the request's head is malformed")),
        Err(error) => return Err(refused(error)),
    }
    let method = request.method.unwrap_or_default().to_owned();
    let v11 = request.version == Some(1);
    let (target, authority) = origin_form(&method, request.path.unwrap_or_default())?;
    let mut headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), text(field.value)))
        .collect();

    let length = length(&headers)?;
    let expects_continue = expectation(&headers)? && v11 && length > 0;
    let hosts = headers.iter().filter(|(name, _)| name == "host").count();
    if hosts > 1 || (hosts == 0 && v11) {
        return Err(HttpError::malformed(
            "a request has exactly one Host header field",
        ));
    }
    let keep_alive = keep_alive(&headers, v11);
    headers.retain(|(name, _)| !of_the_connection(name));
    if let Some(authority) = authority {
        // RFC 9112, 3.2.2: the absolute form's authority outweighs the Host field.
        headers.retain(|(name, _)| name != "host");
        headers.insert(0, ("host".into(), authority));
    }
    Ok(Head {
        method,
        target,
        v11,
        headers,
        length,
        keep_alive,
        expects_continue,
    })
}

fn refused(error: Error) -> HttpError {
    match error {
        Error::TooManyHeaders => HttpError::new(
            431,
            "REQUEST_TOO_LARGE",
            "the request has too many header fields",
        ),
        Error::Version => HttpError::new(
            505,
            "INVALID_PARAMETER",
            "only HTTP/1.0 and HTTP/1.1 are spoken here",
        ),
        _ => HttpError::malformed("the request's head is malformed"),
    }
}

/// Path and query, and the authority where the target names one.
fn origin_form(method: &str, target: &str) -> Result<(String, Option<String>), HttpError> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#') {
        return Err(HttpError::malformed(
            "the request's target has characters that must be percent-encoded",
        ));
    }
    if target.starts_with('/') || (method == "OPTIONS" && target == "*") {
        return Ok((target.to_owned(), None));
    }
    let Some(rest) = ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    }) else {
        return Err(HttpError::malformed(
            "the request's target must be a path that begins with /",
        ));
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    if authority.is_empty() || authority.contains('@') {
        return Err(HttpError::malformed("the request's target names no host"));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((format!("{slash}{path}"), Some(authority.to_owned())))
}

/// A field's value; what is no UTF-8 is read as Latin-1, which HTTP once said it was.
fn text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().copied().map(char::from).collect(),
    }
}

fn values<'a>(headers: &'a [(String, String)], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

/// The body's length. One plain number or nothing: everything else is how smuggling begins.
fn length(headers: &[(String, String)]) -> Result<u64, HttpError> {
    let mut lengths = values(headers, "content-length");
    let first = lengths.next();
    if values(headers, "transfer-encoding").next().is_some() {
        return Err(match first {
            None => HttpError::new(
                411,
                "INVALID_PARAMETER",
                "chunked bodies are not taken: send the body with its Content-Length",
            ),
            Some(_) => HttpError::malformed("both Transfer-Encoding and Content-Length are given"),
        });
    }
    let Some(first) = first else {
        return Ok(0);
    };
    if lengths.next().is_some() {
        return Err(HttpError::malformed(
            "Content-Length is given more than once",
        ));
    }
    if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HttpError::malformed(
            "Content-Length must be a plain number",
        ));
    }
    // More than 64 bits is well-formed and, like everything near it, too large.
    Ok(first.parse().unwrap_or(u64::MAX))
}

fn expectation(headers: &[(String, String)]) -> Result<bool, HttpError> {
    let mut expected = false;
    for value in values(headers, "expect") {
        if !value.eq_ignore_ascii_case("100-continue") {
            return Err(HttpError::new(
                417,
                "INVALID_PARAMETER",
                "the only expectation met here is 100-continue",
            ));
        }
        expected = true;
    }
    Ok(expected)
}

fn keep_alive(headers: &[(String, String)], v11: bool) -> bool {
    let says = |word: &str| {
        values(headers, "connection")
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case(word))
    };
    !says("close") && (v11 || says("keep-alive"))
}

/// Fields that end at the gate, its own private ones among them: a client can't forge those.
fn of_the_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) || name.starts_with(super::wire::PRIVATE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Head, HttpError> {
        parse(text.as_bytes(), 8)
    }

    fn get(fields: &str) -> Result<Head, HttpError> {
        head(&format!("GET /a?b=c HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
    }

    fn status(result: Result<Head, HttpError>) -> u16 {
        result.map_or_else(|refusal| refusal.status, |_| 200)
    }

    #[test]
    fn a_plain_request_is_read() {
        let head = get("X-A:  1 \r\nContent-Length: 007\r\nExpect: 100-Continue\r\n").unwrap();
        assert_eq!(head.method, "GET");
        assert_eq!(head.target, "/a?b=c");
        assert_eq!(head.length, 7);
        assert!(head.v11 && head.keep_alive && head.expects_continue);
        let expected = [("host", "h"), ("x-a", "1")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(head.headers, expected);
    }

    #[test]
    fn framing_that_could_be_read_in_two_ways_is_refused() {
        for (fields, expected) in [
            ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: 5\r\ncontent-length: 6\r\n", 400),
            ("Content-Length: 5, 5\r\n", 400),
            ("Content-Length: +5\r\n", 400),
            ("Content-Length: -5\r\n", 400),
            ("Content-Length: 0x5\r\n", 400),
            ("Content-Length: 5 5\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Transfer-Encoding: chunked\r\n", 411),
            ("Transfer-Encoding: identity\r\n", 411),
            ("Transfer-Encoding: xchunked\r\n", 411),
            ("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", 400),
            ("Transfer-Encoding : chunked\r\n", 400),
            ("X-A: 1\r\n folded\r\n", 400),
            ("X-A: a\0b\r\n", 400),
            ("X-A: a\rb\r\n", 400),
            ("X A: 1\r\n", 400),
            (": 1\r\n", 400),
            ("no colon\r\n", 400),
            ("Host: other\r\n", 400),
            ("Expect: a-cake\r\n", 417),
        ] {
            assert_eq!(status(get(fields)), expected, "{fields:?}");
        }
        assert_eq!(
            get("Content-Length: 99999999999999999999999\r\n").map(|head| head.length),
            Ok(u64::MAX)
        );
    }

    #[test]
    fn only_two_versions_and_four_forms_of_target_are_known() {
        for (line, expected) in [
            ("GET / HTTP/1.0", 200),
            ("GET / HTTP/1.1", 400), // without Host
            ("GET / HTTP/1.2", 505),
            ("GET / HTTP/2.0", 505),
            ("PRI * HTTP/2.0", 505),
            ("GET /", 400),
            ("GET  / HTTP/1.0", 400),
            ("GET / HTTP/1.0 ", 400),
            ("GET /\u{e9} HTTP/1.0", 400),
            ("GET /#a HTTP/1.0", 400),
            ("GET a HTTP/1.0", 400),
            ("GET * HTTP/1.0", 400),
            ("OPTIONS * HTTP/1.0", 200),
            ("CONNECT h:1 HTTP/1.0", 400),
            ("GET ftp://h/ HTTP/1.0", 400),
            ("GET http://u@h/ HTTP/1.0", 400),
            ("GET http:///a HTTP/1.0", 400),
            ("G\u{0}T / HTTP/1.0", 400),
        ] {
            assert_eq!(status(head(&format!("{line}\r\n\r\n"))), expected, "{line}");
        }
        for (target, path) in [
            ("http://h.example/a?b", "/a?b"),
            ("HTTPS://h.example", "/"),
            ("http://h.example?b", "/?b"),
        ] {
            let head = head(&format!("GET {target} HTTP/1.1\r\nHost: evil\r\n\r\n")).unwrap();
            assert_eq!(head.target, path);
            assert_eq!(head.headers, [("host".to_owned(), "h.example".to_owned())]);
        }
    }

    #[test]
    fn the_connection_is_the_gates_affair() {
        let fields = "Connection: X, Close\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n";
        let head = get(fields).unwrap();
        assert!(!head.keep_alive);
        assert_eq!(head.headers.len(), 1);
        let forged = format!("{}Peer: 10.0.0.1\r\n", super::super::wire::PRIVATE);
        assert_eq!(get(&forged).unwrap().headers.len(), 1);
        let old = parse(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 8).unwrap();
        assert!(old.keep_alive && !old.v11);
        assert!(!parse(b"GET / HTTP/1.0\r\n\r\n", 8).unwrap().keep_alive);
    }

    #[test]
    fn too_many_fields_are_refused() {
        assert_eq!(status(get(&"A: b\r\n".repeat(7))), 200);
        assert_eq!(status(get(&"A: b\r\n".repeat(8))), 431);
    }

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let bytes = b"GET / HTTP/1.0\r\nA: b\r\n\r\nrest";
        for split in 0..bytes.len() {
            let early = end_of_head(&bytes[..split], 0).unwrap();
            let found = match early {
                Some(end) => end,
                None => end_of_head(bytes, split).unwrap().unwrap(),
            };
            assert_eq!(found, bytes.len() - 4);
        }
        assert!(end_of_head(b"GET / HTTP/1.1\nHost: a\r\n\r\n", 0).is_err());
        assert!(end_of_head(b"GET / HTTP/1.1\r\nHost: a\n\n", 0).is_err());
        assert!(end_of_head(b"\n", 0).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_passes_is_clean(
            bytes in "(GET|POST|[A-Z]{1,5}) [/a-z?#%\u{0}-\u{ff}]{0,12} HTTP/[0-2].[0-2]\r\n\
                      (([a-zA-Z-]{1,8}|Host|Content-Length|Connection): ?[ -~\u{0}-\u{ff}]{0,9}\r\n){0,5}\r\n"
        ) {
            if let Ok(head) = parse(bytes.as_bytes(), 8) {
                prop_assert!(head.target.bytes().all(|byte| byte.is_ascii_graphic()));
                for (name, value) in head.headers {
                    prop_assert!(!name.is_empty() && name.is_ascii());
                    prop_assert!(!value.contains(['\r', '\n', '\0']));
                }
            }
        }
    }
}
