//! Sends requests, and reads the JSON of their responses.

use std::io::Read;
use std::sync::{MutexGuard, PoisonError};

use serde_json::Value;
use ureq::http::{Method, Request, Response, header, request};
use ureq::{Agent, AsSendBody, Body};

use super::OpenAiClient;
use super::downloads::PageReader;
use crate::base::clock::{Clock, Timestamp};
use crate::base::http_date::http_date;
use crate::base::percent;
use crate::domain::openai::{Batch, CallError, FileObject, ServerDate};
use crate::openai::api::{CallResult, Page};
use crate::openai::json_objects;

/// The longest JSON of a response. A failed batch may have an error of about 200 bytes for each of its 50,000
/// lines.
const MAX_JSON_BYTES: u64 = 32 * 1024 * 1024;

/// Bytes of an answer that is not JSON that are quoted.
const MAX_QUOTED_BYTES: usize = 300;

impl OpenAiClient {
    /// Begins a request with the header fields of every call. `path` begins with a slash and is
    /// percent-encoded.
    pub(super) fn request(&self, method: Method, path: &str) -> request::Builder {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.identity.base_url));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        // ureq is built without decompression.
        request = request.header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(organization) = &self.organization {
            request = request.header("OpenAI-Organization", organization);
        }
        if let Some(project) = &self.project {
            request = request.header("OpenAI-Project", project);
        }
        request
    }

    /// Sends a request. Returns a response of status 2xx, whose body is still to be read.
    pub(super) fn send<B: AsSendBody>(
        &self,
        agent: &Agent,
        request: request::Builder,
        body: B,
    ) -> CallResult<Response<Body>> {
        let request = request
            .body(body)
            .map_err(|error| self.not_sent(&format!("no request: {error}")))?;
        let call = format!("{} {}", request.method(), request.uri().path());
        let response = agent.run(request).map_err(|error| self.transport_error(&error))?;
        if response.status().is_success() {
            if let Some(date) = self.date_of(&response) {
                let received = self.clock.now();
                *self.lock_newest_date() = Some(ServerDate { date, received });
            }
            Ok(response)
        } else {
            Err(CallError::Refused(self.read_error(call, response)))
        }
    }

    /// The `Date` of a response; `None` if it has none that can be read, or it is not trusted.
    pub(super) fn date_of(&self, response: &Response<Body>) -> Option<Timestamp> {
        let date = response.headers().get(header::DATE).filter(|_| self.trust_date)?;
        http_date(date.to_str().ok()?)
    }

    pub(super) fn lock_newest_date(&self) -> MutexGuard<'_, Option<ServerDate>> {
        self.newest_date.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a GET for JSON.
    pub(super) fn get_response(&self, path: &str) -> CallResult<Response<Body>> {
        let request = self
            .request(Method::GET, path)
            .header(header::ACCEPT, "application/json");
        self.send(&self.small, request, ())
    }

    /// Sends a GET for JSON that may be long. It has no total timeout as short as that of other calls: it must keep
    /// a minimum rate ([`PageReader`]).
    pub(super) fn get_long(&self, path: &str) -> CallResult<Response<Body>> {
        let request = self
            .request(Method::GET, path)
            .header(header::ACCEPT, "application/json");
        self.send(&self.download, request, ())
    }

    /// Sends a GET and reads the JSON of the response.
    pub(super) fn get(&self, path: &str) -> CallResult<Value> {
        self.json(self.get_response(path)?)
    }

    /// Reads the JSON of a 2xx. If it is incomplete, too long or malformed, the call may have had its effect.
    pub(super) fn json(&self, response: Response<Body>) -> CallResult<Value> {
        let mut body = Vec::new();
        let from = response.into_body().into_with_config().limit(MAX_JSON_BYTES);
        PageReader::new(self, from.reader())
            .read_to_end(&mut body)
            .map_err(|error| self.unknown(&format!("the answer broke off: {error}")))?;
        serde_json::from_slice(&body).map_err(|error| {
            let start = String::from_utf8_lossy(&body[..body.len().min(MAX_QUOTED_BYTES)]);
            let message = format!("the answer is not JSON: {error}: {start}");
            match error.is_eof() {
                true => self.unknown(&message),
                false => self.unreadable(&message),
            }
        })
    }

    /// Encodes an id for a path or a query.
    pub(super) fn encoded(&self, id: &str) -> CallResult<String> {
        // With such an id, `GET /batches/` would be a listing, and `/files/../…` another call.
        if id.is_empty() || id.len() > 256 || id.bytes().all(|byte| byte == b'.') {
            return Err(self.not_sent(&format!("{id:?} is not an id")));
        }
        Ok(percent_encode(id))
    }

    /// The query of a listing, with a limit of at most `max_limit`.
    pub(super) fn query(&self, after: Option<&str>, limit: u32, max_limit: u32) -> CallResult<String> {
        let mut query = format!("limit={}", limit.clamp(1, max_limit));
        if let Some(after) = after {
            query.push_str("&after=");
            query.push_str(&self.encoded(after)?);
        }
        Ok(query)
    }

    /// Reads a File object, which must have this id.
    pub(super) fn as_file(&self, value: &Value, id: Option<&str>) -> CallResult<FileObject> {
        FileObject::from_json(value)
            .filter(|file| id.is_none_or(|id| file.id == id))
            .ok_or_else(|| self.unreadable(&format!("the answer is not that file: {value}")))
    }

    /// Reads a Batch object, which must have this id.
    pub(super) fn as_batch(&self, value: &Value, id: Option<&str>) -> CallResult<Batch> {
        Batch::from_json(value)
            .filter(|batch| id.is_none_or(|id| batch.id == id))
            .ok_or_else(|| self.unreadable(&format!("the answer is not that batch: {value}")))
    }

    /// Reads a page of a listing that OpenAI sent at `date`.
    pub(super) fn as_page<T>(
        &self,
        value: &Value,
        date: Option<Timestamp>,
        element: fn(&Value) -> Option<T>,
    ) -> CallResult<Page<T>> {
        json_objects::page(value, element)
            .map(|page| Page { date, ..page })
            .ok_or_else(|| self.unreadable(&format!("the answer is not that listing: {value}")))
    }
}

/// Encodes all characters but the unreserved ones of RFC 3986.
fn percent_encode(text: &str) -> String {
    percent::encode(text, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_encoded() {
        assert_eq!(percent_encode("file-a_B.~1"), "file-a_B.~1");
        assert_eq!(percent_encode("a/b?c&d é"), "a%2Fb%3Fc%26d%20%C3%A9");
    }
}
