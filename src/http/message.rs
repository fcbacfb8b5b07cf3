//! Requests and responses as handlers see them.

use std::io::{Cursor, Read};
use std::net::IpAddr;

use crate::base::percent;

/// A request whose whole body has arrived.
#[derive(Debug)]
pub struct Request {
    /// The method as sent: `GET`, `POST`, ….
    pub method: String,
    /// The path as sent, without the query.
    pub path: String,
    /// The query as sent: the part of the target after `?`.
    pub query: Option<String>,
    /// The header fields in their order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// The client's address; behind a trusted proxy, the address that the proxy names.
    pub peer: IpAddr,
    /// The id that this server gives the request, shown in the response's `X-Request-Id` and in the log.
    pub id: String,
}

impl Request {
    /// The value of the first header field of that name. `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first of these names that more than one header field has. `names` are in any case.
    pub fn repeated_field<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        let count = |name: &str| {
            let mine = self.headers.iter();
            mine.filter(|(key, _)| key.eq_ignore_ascii_case(name)).count()
        };
        names.iter().copied().find(|name| count(name) > 1)
    }

    /// The values of all header fields of that name. `name` is in lower case.
    pub fn headers<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The target as sent: path and query.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// The first query parameter of that name, percent-decoded. A `+` is a space.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).next()
    }

    /// The names of the query parameters, percent-decoded, in their order.
    pub fn parameter_names(&self) -> Vec<String> {
        let query = self.query.as_deref().unwrap_or("");
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| query_decode(pair.split_once('=').map_or(pair, |(name, _)| name)))
            .collect()
    }

    /// Every query parameter of that name, percent-decoded. A `+` is a space.
    pub fn parameters(&self, name: &str) -> impl Iterator<Item = String> {
        let query = self.query.as_deref().unwrap_or("");
        query.split('&').filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (query_decode(key) == name).then(|| query_decode(value))
        })
    }
}

/// A response's body.
pub enum ResponseBody {
    /// The whole body, sent with its `Content-Length`.
    Bytes(Vec<u8>),
    /// A stream, sent in chunks. If reading it fails, the connection ends, so that the client sees that the
    /// body is incomplete.
    Stream(Box<dyn Read + Send>),
}

/// A response.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields without those that the server adds: `Content-Length`, `Date`, `Connection` and
    /// `X-Request-Id`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: ResponseBody,
    /// The client to which the response counts if it is long; `None` for the peer.
    pub owner: Option<String>,
}

impl Response {
    /// A response with a JSON document.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::bytes(status, "application/json", value.to_string().into_bytes())
    }

    /// A response with bytes of a media type.
    pub fn bytes(status: u16, media_type: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), media_type.into())],
            body: ResponseBody::Bytes(body),
            owner: None,
        }
    }

    /// A response with a stream of a media type.
    pub fn stream(status: u16, media_type: &str, body: impl Read + Send + 'static) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), media_type.into())],
            body: ResponseBody::Stream(Box::new(body)),
            owner: None,
        }
    }

    /// Adds a header field. Line breaks in the value are dropped.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_owned(), value.replace(['\r', '\n'], "")));
        self
    }

    /// Counts the response to a client, if it is long.
    #[must_use]
    pub fn owned_by(mut self, client: &str) -> Self {
        self.owner = Some(client.to_owned());
        self
    }

    /// Turns the body into a reader.
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        match self.body {
            ResponseBody::Bytes(bytes) => Box::new(Cursor::new(bytes)),
            ResponseBody::Stream(reader) => reader,
        }
    }
}

fn query_decode(text: &str) -> String {
    percent::decode(&text.replace('+', " "))
}
