//! The gate's way back: answers passed on at the client's pace, and refusals.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use super::Response;
use super::gate::{GOODBYE, Gate, Next, RequestContext, Trouble};
use super::head::{Head, HttpError};
use super::socket::Client;
use super::wire::{self, Answer};

/// An answer up to this length is taken from its worker at once, whatever the client's pace.
pub const TAKEN_AT_ONCE: u64 = 1024 * 1024;
/// A refusal's body has this length at most.
const MOST_REFUSAL: u64 = 64 * 1024;
/// After how many seconds a client that met `OVERLOADED` is asked to come again.
const RETRY_AFTER: &str = "5";

impl Gate {
    /// Passes the answer on at the client's pace.
    pub fn pass_on(
        &self,
        client: &mut Client,
        context: &RequestContext,
        head: &Head,
        answer: &Answer,
        inner: &mut BufReader<UnixStream>,
    ) -> Result<Next, Trouble> {
        let empty = context.head_only || matches!(answer.status, 204 | 304);
        let chunked = answer.length.is_none();
        // HTTP/1.0 knows no chunks: there, the end of the connection ends the body, and a client can't
        // tell whether that was a cut. (A proxy in front is to speak HTTP/1.1.)
        let keep = head.keep_alive
            && !context.last
            && !self.limiter.closing()
            && (empty || head.v11 || !chunked);
        let framing = match answer.length {
            _ if matches!(answer.status, 204 | 304) => String::new(),
            Some(length) => format!("Content-Length: {length}\r\n"),
            None if head.v11 => "Transfer-Encoding: chunked\r\n".to_owned(),
            None => String::new(),
        };
        let connection = match (keep, head.v11) {
            (true, true) => "",
            (true, false) => "Connection: keep-alive\r\n",
            (false, _) => "Connection: close\r\n",
        };
        let mut text = self.status_line(answer.status, &context.id);
        for (name, value) in &answer.headers {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(format!("{framing}{connection}\r\n").as_bytes());

        client.begin_answer();
        match answer.length {
            _ if empty => client.write(&text)?,
            Some(length) if length <= TAKEN_AT_ONCE => {
                wire::read_exactly(inner, length, |piece| {
                    text.extend_from_slice(piece);
                    Ok(())
                })
                .map_err(|error| broken_off(context, &error))?;
                client.write(&text)?;
            }
            Some(length) => {
                client.write(&text)?;
                wire::read_exactly(inner, length, |piece| client.write(piece))?;
            }
            None => {
                client.write(&text)?;
                let mut chunk = Vec::new();
                while wire::read_chunk(inner, |piece| {
                    if !head.v11 {
                        return client.write(piece);
                    }
                    chunk.clear();
                    write!(chunk, "{:x}\r\n", piece.len())?;
                    chunk.extend_from_slice(piece);
                    chunk.extend_from_slice(b"\r\n");
                    client.write(&chunk)
                })? {}
                if head.v11 {
                    client.write(b"0\r\n\r\n")?;
                }
            }
        }
        Ok(if keep {
            Next::Request
        } else {
            Next::Linger(GOODBYE)
        })
    }

    /// A refusal in the handler's form, whole.
    pub fn refusal_text(&self, id: &str, refusal: &HttpError, head_only: bool) -> Vec<u8> {
        let HttpError {
            status,
            code,
            message,
        } = refusal;
        let mut response = self.handler.refuse(*status, code, message);
        if *status == 503 {
            response = retry_later(response);
        }
        let mut text = self.status_line(response.status, id);
        for (name, value) in plain_headers(&response) {
            text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let mut body = Vec::new();
        let read = response
            .into_reader()
            .take(MOST_REFUSAL)
            .read_to_end(&mut body);
        if let Err(error) = read {
            log::error!(event = "http_refusal_without_body", request:% = id, error:%; "");
        }
        let end = format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        text.extend_from_slice(end.as_bytes());
        if !head_only {
            text.append(&mut body);
        }
        text
    }

    fn status_line(&self, status: u16, id: &str) -> Vec<u8> {
        let reason = tiny_http::StatusCode(status).default_reason_phrase();
        let now = self.clock.now().wall.millis();
        let date = jiff::Timestamp::from_millisecond(now)
            .map(|now| now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
            .unwrap_or_default();
        format!("HTTP/1.1 {status} {reason}\r\nDate: {date}\r\nX-Request-Id: {id}\r\n").into_bytes()
    }
}

/// The header fields that are the handler's to set.
pub fn plain_headers(response: &Response) -> impl Iterator<Item = &(String, String)> {
    const OURS: [&str; 6] = [
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
        .filter(|(name, _)| !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)))
}

/// The same with `Retry-After`, where it has none.
pub fn retry_later(response: Response) -> Response {
    let has = response
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    if has {
        response
    } else {
        response.with_header("Retry-After", RETRY_AFTER)
    }
}

/// The worker ended before its answer did; nothing of it has reached the client.
pub fn broken_off(context: &RequestContext, error: &io::Error) -> HttpError {
    log::error!(event = "http_worker_broke_off", request:% = context.id, error:%; "");
    HttpError::new(
        500,
        "INTERNAL_ERROR",
        "the request failed here; whether it took effect is not known",
    )
}
