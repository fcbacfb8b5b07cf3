//! HTTP towards our own clients: requests in, responses out. Knows nothing of jobs or of SQL.
//!
//! A request's way: `gate` (with [`head`], `forwarded`, `limiter` and `socket`) takes it in whole, `inner` and
//! `wire` carry it to a worker of [`server`], which asks the [`Handler`]; the answer goes back
//! through `wire` and `reply`.

mod connection_limiter;
mod forwarded;
mod gate;
pub mod head;
mod inner;
mod reply;
pub mod server;
mod socket;
mod wire;

use std::io::{Cursor, Read};
use std::net::IpAddr;

pub use server::{Limits, Server};

/// One request, whole: its body has arrived before anyone sees it.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST`, …, as sent.
    pub method: String,
    /// The path as sent, without the query.
    pub path: String,
    /// What stands after `?`, as sent.
    pub query: Option<String>,
    /// Header fields in their order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// Who sent it; behind a trusted proxy, whom that names.
    pub peer: IpAddr,
    /// Made here; in the answer's `X-Request-Id` and in the log.
    pub id: String,
}

impl Request {
    /// The first header field of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The values of all lines of a header, by its lower-case name.
    pub fn headers<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Path and query as sent.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// The first query parameter of that name, percent-decoded (`+` is a space).
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).next()
    }

    /// Every query parameter of that name, percent-decoded.
    pub fn parameters(&self, name: &str) -> impl Iterator<Item = String> {
        let query = self.query.as_deref().unwrap_or("");
        query.split('&').filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key) == name).then(|| percent_decode(value))
        })
    }
}

/// Percent-decoding; what is no valid escape stays as it is, invalid UTF-8 becomes U+FFFD.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match (
            bytes[at],
            escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A response's body.
pub enum Body {
    /// All of it, here; sent with its `Content-Length`.
    Bytes(Vec<u8>),
    /// Read while it is sent, in chunks; an error while reading cuts the connection, so that the
    /// client sees that it has not all of it.
    Stream(Box<dyn Read + Send>),
}

/// What is answered.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header fields beside those that the server itself adds (`Content-Length`, `Date`,
    /// `Connection`, `X-Request-Id`).
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

impl Response {
    /// A JSON document.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::bytes(status, "application/json", value.to_string().into_bytes())
    }

    /// Bytes of a media type.
    pub fn bytes(status: u16, media_type: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), media_type.into())],
            body: Body::Bytes(body),
        }
    }

    /// A stream of a media type.
    pub fn stream(status: u16, media_type: &str, body: impl Read + Send + 'static) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), media_type.into())],
            body: Body::Stream(Box::new(body)),
        }
    }

    /// The same with one more header field. Line breaks in the value are dropped.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_owned(), value.replace(['\r', '\n'], "")));
        self
    }

    /// The body as a reader.
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        match self.body {
            Body::Bytes(bytes) => Box::new(Cursor::new(bytes)),
            Body::Stream(reader) => reader,
        }
    }
}

/// What answers requests: the client API, the operator's pages, the sandbox.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Called from several threads at once.
    fn handle(&self, request: Request) -> Response;

    /// The answer to what the server itself refuses (bad framing, too large, too slow, too many),
    /// in the handler's own form. `code` is one of the contract's error codes.
    fn refuse(&self, status: u16, code: &str, message: &str) -> Response;
}
