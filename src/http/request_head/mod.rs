//! Reads and checks the head of a request (RFC 9112), before its body is read. It uses neither sockets nor
//! clocks, so that it can be fuzzed.
//!
//! Two parsers may read some requests in two ways, which makes request smuggling possible. This parser
//! refuses all of them and never corrects one: a bare LF, a folded line, two `Content-Length`, a transfer
//! coding.

use httparse::{EMPTY_HEADER, Error, Status};

use super::http_error::HttpError;

/// The prefix of the header fields that the server itself adds for its workers. A client's fields of such
/// names are removed, so a client cannot forge them.
pub const PRIVATE_FIELD_PREFIX: &str = "x-gate-";

/// The checked head of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method as sent.
    pub method: String,
    /// Path and query in origin form, in visible ASCII; `*` for `OPTIONS *`.
    pub target: String,
    /// Whether the version is HTTP/1.1, which has chunked responses. Otherwise it is HTTP/1.0.
    pub is_http_1_1: bool,
    /// The header fields in their order, with names in lower case, without those for this connection alone.
    pub headers: Vec<(String, String)>,
    /// Bytes of the body that follows.
    pub body_length: u64,
    /// Whether the client may send another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// The offset just after the head's empty line; `None` if the head is not complete yet. An earlier call has
/// searched the bytes before `from`.
///
/// # Errors
/// If an LF does not follow a CR.
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
/// # Errors If the request must be refused. The connection is not usable any further then, since the place at
/// which the next request begins is not known.
pub fn parse(bytes: &[u8], max_headers: usize) -> Result<RequestHead, HttpError> {
    let mut fields = vec![EMPTY_HEADER; max_headers];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(HttpError::malformed("the request's head is malformed")),
        Err(error) => return Err(parser_error(error)),
    }
    let method = request.method.unwrap_or_default().to_owned();
    let is_http_1_1 = request.version == Some(1);
    let (target, authority) = origin_form(&method, request.path.unwrap_or_default())?;
    let mut headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), field_value(field.value)))
        .collect();

    let body_length = body_length(&headers)?;
    let expects_continue = has_expectation(&headers)? && is_http_1_1 && body_length > 0;
    let hosts = headers.iter().filter(|(name, _)| name == "host").count();
    if hosts > 1 || (hosts == 0 && is_http_1_1) {
        return Err(HttpError::malformed(
            "a request has exactly one Host header field",
        ));
    }
    let keep_alive = keep_alive(&headers, is_http_1_1);
    headers.retain(|(name, _)| !is_hop_by_hop(name));
    if let Some(authority) = authority {
        // RFC 9112, 3.2.2: the authority of an absolute form overrides the Host field.
        headers.retain(|(name, _)| name != "host");
        headers.insert(0, ("host".into(), authority));
    }
    Ok(RequestHead {
        method,
        target,
        is_http_1_1,
        headers,
        body_length,
        keep_alive,
        expects_continue,
    })
}

fn parser_error(error: Error) -> HttpError {
    match error {
        Error::TooManyHeaders => {
            HttpError::new(431, "REQUEST_TOO_LARGE", "the request has too many header fields")
        }
        Error::Version => HttpError::new(
            505,
            "INVALID_PARAMETER",
            "this server supports HTTP/1.0 and HTTP/1.1 only",
        ),
        _ => HttpError::malformed("the request's head is malformed"),
    }
}

/// The path and query of a target, and its authority if it has one.
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

/// A field's value as a text. A value that is not UTF-8 is read as Latin-1 (RFC 9110, 5.5).
fn field_value(value: &[u8]) -> String {
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

/// The body's length. Only a single plain number is allowed, since other forms make request smuggling
/// possible.
fn body_length(headers: &[(String, String)]) -> Result<u64, HttpError> {
    let mut lengths = values(headers, "content-length");
    let first = lengths.next();
    if values(headers, "transfer-encoding").next().is_some() {
        return Err(match first {
            None => HttpError::new(
                411,
                "INVALID_PARAMETER",
                "chunked bodies are not supported: send the body with its Content-Length",
            ),
            Some(_) => HttpError::malformed("both Transfer-Encoding and Content-Length are given"),
        });
    }
    let Some(first) = first else {
        return Ok(0);
    };
    if lengths.next().is_some() {
        return Err(HttpError::malformed("Content-Length is given more than once"));
    }
    if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HttpError::malformed("Content-Length must be a plain number"));
    }
    // A number of more than 64 bits is well-formed. It is refused later as too large.
    Ok(first.parse().unwrap_or(u64::MAX))
}

/// Whether the client expects `100 Continue`.
fn has_expectation(headers: &[(String, String)]) -> Result<bool, HttpError> {
    let mut expected = false;
    for value in values(headers, "expect") {
        if !value.eq_ignore_ascii_case("100-continue") {
            return Err(HttpError::new(
                417,
                "INVALID_PARAMETER",
                "the only supported expectation is 100-continue",
            ));
        }
        expected = true;
    }
    Ok(expected)
}

/// Whether the connection persists after the response (RFC 9112, 9.3).
fn keep_alive(headers: &[(String, String)], is_http_1_1: bool) -> bool {
    let has_option = |name: &str| {
        values(headers, "connection")
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case(name))
    };
    !has_option("close") && (is_http_1_1 || has_option("keep-alive"))
}

/// Whether a field is for this connection alone, or has a name that is private to the server.
fn is_hop_by_hop(name: &str) -> bool {
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
    ) || name.starts_with(PRIVATE_FIELD_PREFIX)
}

#[cfg(test)]
mod tests;
