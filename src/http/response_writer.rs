//! Writes responses to clients: those of the workers at the client's pace, and the server's own errors.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use super::client_stream::ClientStream;
use super::handler::Handler;
use super::http_error::{HttpError, RequestFailure};
use super::inner_protocol::{ResponseHead, read_chunk, read_exactly};
use super::message::Response;
use super::request_context::RequestContext;
use super::request_head::RequestHead;
use crate::base::clock::Clock;

/// A response up to this length is read from its worker at once, independent of the client's pace.
pub const BUFFERED_RESPONSE_BYTES: u64 = 1024 * 1024;
/// The longest body of an error.
const MAX_ERROR_BYTES: u64 = 64 * 1024;
/// After how many seconds a client that got `OVERLOADED` may try again.
const RETRY_AFTER: &str = "5";

/// Writes the responses of one server.
pub struct ResponseWriter {
    clock: Arc<dyn Clock>,
    handler: Arc<dyn Handler>,
}

/// How the client finds the end of a response's body (RFC 9112, 6.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyFraming {
    Length(u64),
    Chunked,
    /// The end of the connection ends the body. HTTP/1.0 has no chunks, so its clients cannot recognize an
    /// incomplete stream. A proxy in front of this server must use HTTP/1.1.
    UntilClose,
}

impl BodyFraming {
    fn new(request: &RequestHead, response: &ResponseHead) -> Self {
        match response.body_length {
            Some(length) => Self::Length(length),
            None if request.is_http_1_1 => Self::Chunked,
            None => Self::UntilClose,
        }
    }

    fn header_line(self) -> String {
        match self {
            Self::Length(length) => format!("Content-Length: {length}\r\n"),
            Self::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Self::UntilClose => String::new(),
        }
    }
}

impl ResponseWriter {
    /// Creates a writer that uses `clock` for `Date`, and `handler` for the form of errors.
    pub fn new(clock: Arc<dyn Clock>, handler: Arc<dyn Handler>) -> Self {
        Self { clock, handler }
    }

    /// Forwards a worker's response at the client's pace. Returns whether the connection persists, which it
    /// does if the client wants it and `may_keep_alive`.
    ///
    /// # Errors
    /// If the client is gone or too slow, or the response is incomplete.
    pub fn forward(
        &self,
        client: &mut ClientStream,
        context: &RequestContext,
        request: &RequestHead,
        response: &ResponseHead,
        body: &mut impl BufRead,
        may_keep_alive: bool,
    ) -> Result<bool, RequestFailure> {
        let status_has_no_content = matches!(response.status, 204 | 304);
        let has_content = !context.is_head && !status_has_no_content;
        let framing = BodyFraming::new(request, response);
        let keep_alive =
            may_keep_alive && request.keep_alive && !(has_content && framing == BodyFraming::UntilClose);
        let framing_line = if status_has_no_content {
            String::new()
        } else {
            framing.header_line()
        };
        let connection_line = match (keep_alive, request.is_http_1_1) {
            (true, true) => "",
            (true, false) => "Connection: keep-alive\r\n",
            (false, _) => "Connection: close\r\n",
        };
        let mut head = self.status_and_own_fields(response.status, &context.id);
        for (name, value) in &response.headers {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(format!("{framing_line}{connection_line}\r\n").as_bytes());

        client.begin_response();
        if has_content {
            forward_body(client, context, framing, head, body)?;
        } else {
            client.write(&head)?;
        }
        Ok(keep_alive)
    }

    /// The text of a whole error response, in the handler's form.
    pub fn error_response(&self, id: &str, error: &HttpError, is_head: bool) -> Vec<u8> {
        let HttpError {
            status,
            code,
            message,
        } = error;
        let mut response = self.handler.refuse(*status, code, message);
        if *status == 503 {
            response = with_retry_after(response);
        }
        let mut text = self.status_and_own_fields(response.status, id);
        for (name, value) in handler_fields(&response) {
            text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let mut body = Vec::new();
        let read = response
            .into_reader()
            .take(MAX_ERROR_BYTES)
            .read_to_end(&mut body);
        if let Err(error) = read {
            log::error!(event = "http_refusal_without_body", request:% = id, error:%; "");
        }
        let end = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        text.extend_from_slice(end.as_bytes());
        if !is_head {
            text.append(&mut body);
        }
        text
    }

    fn status_and_own_fields(&self, status: u16, id: &str) -> Vec<u8> {
        let reason = tiny_http::StatusCode(status).default_reason_phrase();
        let now = self.clock.now().wall.millis();
        let date = jiff::Timestamp::from_millisecond(now)
            .map(|now| now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
            .unwrap_or_default();
        format!("HTTP/1.1 {status} {reason}\r\nDate: {date}\r\nX-Request-Id: {id}\r\n").into_bytes()
    }
}

/// Writes a response's head and body. A short body is read whole before the first byte is written, so that
/// the client gets an error if the worker fails.
fn forward_body(
    client: &mut ClientStream,
    context: &RequestContext,
    framing: BodyFraming,
    mut head: Vec<u8>,
    body: &mut impl BufRead,
) -> Result<(), RequestFailure> {
    match framing {
        BodyFraming::Length(length) if length <= BUFFERED_RESPONSE_BYTES => {
            read_exactly(body, length, |piece| {
                head.extend_from_slice(piece);
                Ok(())
            })
            .map_err(|error| worker_failure(context, &error))?;
            client.write(&head)?;
        }
        BodyFraming::Length(length) => {
            client.write(&head)?;
            read_exactly(body, length, |piece| client.write(piece))?;
        }
        BodyFraming::Chunked => {
            client.write(&head)?;
            let mut chunk = Vec::new();
            while read_chunk(body, |piece| {
                chunk.clear();
                write!(chunk, "{:x}\r\n", piece.len())?;
                chunk.extend_from_slice(piece);
                chunk.extend_from_slice(b"\r\n");
                client.write(&chunk)
            })? {}
            client.write(b"0\r\n\r\n")?;
        }
        BodyFraming::UntilClose => {
            client.write(&head)?;
            while read_chunk(body, |piece| client.write(piece))? {}
        }
    }
    Ok(())
}

/// The header fields of a handler's response, without those that only the server sets.
pub fn handler_fields(response: &Response) -> impl Iterator<Item = &(String, String)> {
    const SERVER_FIELDS: [&str; 6] = [
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "transfer-encoding",
        "x-request-id",
    ];
    response
        .headers
        .iter()
        .filter(|(name, _)| !SERVER_FIELDS.iter().any(|it| name.eq_ignore_ascii_case(it)))
}

/// Adds `Retry-After`, unless the response has one.
pub fn with_retry_after(response: Response) -> Response {
    let has_field = response
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    if has_field {
        response
    } else {
        response.with_header("Retry-After", RETRY_AFTER)
    }
}

/// The error for a worker that ended before its response did. The client has got nothing of the response yet.
pub fn worker_failure(context: &RequestContext, error: &io::Error) -> HttpError {
    log::error!(event = "http_worker_broke_off", request:% = context.id, error:%; "");
    HttpError::new(
        500,
        "INTERNAL_ERROR",
        "the request failed here; whether it took effect is not known",
    )
}
