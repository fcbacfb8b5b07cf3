//! [`BatchApi`] over ureq. What matters here is what a failure means: [`CallError::NotSent`] is
//! said only when certainly no byte of the request went out.
//!
//! How that is known: everything that comes before sending (finding the address, connecting, the
//! TLS handshake) happens in ureq's resolver and connector. Ours wrap their errors in
//! `BeforeSending`; an error without that mark came later and is [`CallError::Unknown`].
//!
//! No connection is kept for the next call. A kept one may have been closed by the other side
//! meanwhile, which shows only after the request is written: each such break would be a create
//! whose outcome is unknown. A handshake per call costs less than one settling time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use ureq::http::{HeaderValue, Method, Request, Response, header, request};
use ureq::{Agent, AsSendBody, Body, SendBody};

mod form;
mod settings;
mod wire;

use self::form::{Form, is_upload_name};
pub use self::settings::{ApiKey, Settings, Timeouts, Unusable};
use self::settings::{check_base_url, optional};
use self::wire::{BeforeSending, agent};
use super::answer::{self, Redactor};
use super::{
    Batch, BatchApi, Call, CallError, ENDPOINT, FileObject, Identity, NewBatch, Page, ResponsesApi,
};
use crate::base::clock::{Clock, SystemClock};

/// The longest answer in JSON: a refused batch may blame each of its 50,000 lines, in 200 bytes or so.
const MAX_JSON: u64 = 32 * 1024 * 1024;
/// The longest page of batches: each of a hundred may be such a one. It is not held in memory.
const MAX_LISTING: u64 = 1 << 30;
/// How much of an error's body is read.
const MAX_COMPLAINT: usize = 64 * 1024;
/// What is read of a download at a time.
const CHUNK: usize = 64 * 1024;

/// OpenAI over HTTP/1.1.
pub struct Client {
    identity: Identity,
    authorization: HeaderValue,
    organization: Option<HeaderValue>,
    project: Option<HeaderValue>,
    timeouts: Timeouts,
    max_download: u64,
    redactor: Redactor,
    clock: SystemClock,
    // An agent per kind of call and not a setting per request: with those, ureq builds its TLS
    // configuration anew each time and can resume no session.
    small: Agent,
    create: Agent,
    upload: Agent,
    download: Agent,
    respond: Agent,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Checks the settings; connects to nothing.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn new(settings: Settings) -> Result<Self, Unusable> {
        let Settings {
            mut identity,
            api_key,
            allow_plain_http,
            timeouts,
            max_download,
        } = settings;
        let end = identity.base_url.trim_end_matches('/').len();
        identity.base_url.truncate(end);
        let https_only = check_base_url(&identity.base_url, allow_plain_http)?;
        if api_key.0.is_empty() {
            return Err(Unusable::ApiKey);
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", api_key.0))
            .map_err(|_| Unusable::ApiKey)?;
        authorization.set_sensitive(true);
        Ok(Self {
            organization: optional(&identity.organization, "organization")?,
            project: optional(&identity.project, "project")?,
            identity,
            authorization,
            redactor: Redactor::new(&api_key.0),
            clock: SystemClock::new(),
            small: agent(https_only, &timeouts, |config| {
                config.timeout_global(Some(timeouts.small))
            }),
            create: agent(https_only, &timeouts, |config| {
                config.timeout_global(Some(timeouts.create))
            }),
            upload: agent(https_only, &timeouts, |config| {
                config
                    .timeout_send_request(Some(timeouts.small))
                    .timeout_per_write(Some(timeouts.stall))
                    .timeout_send_body(Some(timeouts.upload))
                    .timeout_recv_response(Some(timeouts.upload_answer))
                    .timeout_recv_body(Some(timeouts.small))
            }),
            download: agent(https_only, &timeouts, |config| {
                config
                    .timeout_send_request(Some(timeouts.small))
                    .timeout_recv_response(Some(timeouts.small))
                    .timeout_per_read(Some(timeouts.stall))
            }),
            respond: agent(https_only, &timeouts, |config| {
                config.timeout_global(Some(timeouts.respond))
            }),
            timeouts,
            max_download,
        })
    }

    /// A request with our headers. `path` begins with a slash and is percent-encoded.
    fn request(&self, method: Method, path: &str) -> request::Builder {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.identity.base_url))
            .header(header::AUTHORIZATION, &self.authorization)
            // ureq unpacks nothing as it is built here.
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(organization) = &self.organization {
            request = request.header("OpenAI-Organization", organization);
        }
        if let Some(project) = &self.project {
            request = request.header("OpenAI-Project", project);
        }
        request
    }

    /// Sends it; gives the answer where its status is 2xx, with the body still to be read.
    fn send<B: AsSendBody>(
        &self,
        agent: &Agent,
        request: request::Builder,
        body: B,
    ) -> Call<Response<Body>> {
        let request = request
            .body(body)
            .map_err(|error| self.not_sent(&format!("no request: {error}")))?;
        let response = agent.run(request).map_err(|error| self.failure(&error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(CallError::Refused(self.refusal(response)))
        }
    }

    fn get(&self, path: &str) -> Call<Value> {
        let request = self
            .request(Method::GET, path)
            .header(header::ACCEPT, "application/json");
        self.json(self.send(&self.small, request, ())?)
    }

    /// The JSON of a 2xx. Where it is cut, too long or none, the call may have had its effect.
    fn json(&self, response: Response<Body>) -> Call<Value> {
        let mut body = Vec::new();
        response
            .into_body()
            .into_with_config()
            .limit(MAX_JSON)
            .reader()
            .read_to_end(&mut body)
            .map_err(|error| self.unknown(&format!("the answer broke off: {error}")))?;
        serde_json::from_slice(&body)
            .map_err(|error| self.unknown(&format!("the answer is no JSON: {error}")))
    }

    fn refusal(&self, response: Response<Body>) -> super::OpenAiError {
        let (parts, body) = response.into_parts();
        let body = self.read_some(body.into_reader());
        answer::refusal(
            parts.status.as_u16(),
            |name| parts.headers.get(name)?.to_str().ok(),
            &body,
            self.clock.now().wall,
            &self.redactor,
        )
    }

    /// What can be had of an error's body without waiting long: the status is known already.
    fn read_some(&self, mut reader: impl Read) -> Vec<u8> {
        let mut body = vec![0; MAX_COMPLAINT];
        let mut length = 0;
        let until = self.clock.now().steady + self.timeouts.small;
        while length < body.len() && self.clock.now().steady < until {
            match reader.read(&mut body[length..]) {
                Ok(0) | Err(_) => break,
                Ok(read) => length += read,
            }
        }
        body.truncate(length);
        body
    }

    fn failure(&self, error: &ureq::Error) -> CallError {
        match error {
            ureq::Error::Other(inner) => match inner.downcast_ref::<BeforeSending>() {
                Some(BeforeSending(before)) => self.not_sent(&before.to_string()),
                None => self.unknown(&error.to_string()),
            },
            _ => self.unknown(&error.to_string()),
        }
    }

    fn not_sent(&self, message: &str) -> CallError {
        CallError::NotSent {
            message: self.redactor.message(message),
        }
    }

    fn unknown(&self, message: &str) -> CallError {
        CallError::Unknown {
            message: self.redactor.message(message),
        }
    }

    /// `id` as a part of a path or query.
    fn encoded(&self, id: &str) -> Call<String> {
        // `GET /batches/` would list, `/files/../…` go elsewhere.
        if id.is_empty() || id.len() > 256 || id.bytes().all(|byte| byte == b'.') {
            return Err(self.not_sent(&format!("{id:?} is no id")));
        }
        Ok(percent_encoded(id))
    }

    fn query(&self, after: Option<&str>, limit: u32, most: u32) -> Call<String> {
        let mut query = format!("limit={}", limit.clamp(1, most));
        if let Some(after) = after {
            query.push_str("&after=");
            query.push_str(&self.encoded(after)?);
        }
        Ok(query)
    }

    fn as_file(&self, value: &Value, id: Option<&str>) -> Call<FileObject> {
        FileObject::from_json(value)
            .filter(|file| id.is_none_or(|id| file.id == id))
            .ok_or_else(|| self.unknown(&format!("the answer is not that file: {value}")))
    }

    fn as_batch(&self, value: &Value, id: Option<&str>) -> Call<Batch> {
        Batch::from_json(value)
            .filter(|batch| id.is_none_or(|id| batch.id == id))
            .ok_or_else(|| self.unknown(&format!("the answer is not that batch: {value}")))
    }

    fn as_page<T>(&self, value: &Value, element: fn(&Value) -> Option<T>) -> Call<Page<T>> {
        answer::page(value, element)
            .ok_or_else(|| self.unknown(&format!("the answer is no such listing: {value}")))
    }
}

impl BatchApi for Client {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn upload(&self, name: &str, path: &Path) -> Call<FileObject> {
        if !is_upload_name(name) {
            return Err(self.not_sent(&format!("{name:?} is no name for an input file")));
        }
        let (mut form, length) = File::open(path)
            .and_then(|file| Form::new(name, file))
            .map_err(|error| self.not_sent(&format!("reading {}: {error}", path.display())))?;
        let request = self
            .request(Method::POST, "/files")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, form.content_type())
            .header(header::CONTENT_LENGTH, form.length());
        let response = self.send(&self.upload, request, SendBody::from_reader(&mut form))?;
        let file = self.as_file(&self.json(response)?, None)?;
        match file.bytes {
            Some(bytes) if bytes != length => Err(self.unknown(&format!(
                "{length} bytes were sent, and {} has {bytes}",
                file.id
            ))),
            _ => Ok(file),
        }
    }

    fn file(&self, id: &str) -> Call<FileObject> {
        let value = self.get(&format!("/files/{}", self.encoded(id)?))?;
        self.as_file(&value, Some(id))
    }

    fn input_files(&self, after: Option<&str>, limit: u32) -> Call<Page<FileObject>> {
        let query = self.query(after, limit, 10_000)?;
        let value = self.get(&format!("/files?purpose=batch&order=desc&{query}"))?;
        self.as_page(&value, FileObject::from_json)
    }

    fn delete_file(&self, id: &str) -> Call<()> {
        let path = format!("/files/{}", self.encoded(id)?);
        let request = self
            .request(Method::DELETE, &path)
            .header(header::ACCEPT, "application/json");
        let value = self.json(self.send(&self.small, request, ())?)?;
        if value["deleted"] == true {
            Ok(())
        } else {
            Err(self.unknown(&format!("the answer does not say deleted: {value}")))
        }
    }

    fn download(&self, id: &str, into: &mut dyn Write) -> Call<u64> {
        let path = format!("/files/{}/content", self.encoded(id)?);
        let request = self
            .request(Method::GET, &path)
            .header(header::ACCEPT, "*/*");
        let response = self.send(&self.download, request, ())?;
        if let Some(coding) = response.headers().get(header::CONTENT_ENCODING)
            && coding != "identity"
        {
            return Err(self.unknown(&format!("the file comes packed: {coding:?}")));
        }
        let body = response.into_body();
        let announced = body.content_length();
        let length = self.pour(body.into_reader(), announced, into)?;
        match announced {
            Some(announced) if announced != length => {
                Err(self.unknown(&format!("{length} bytes came of {announced}")))
            }
            _ => Ok(length),
        }
    }

    fn create_batch(&self, new: &NewBatch) -> Call<Batch> {
        let body = serde_json::to_vec(&CreateBody {
            input_file_id: &new.input_file_id,
            endpoint: ENDPOINT,
            completion_window: "24h",
            metadata: &new.metadata,
        })
        .map_err(|error| self.not_sent(&error.to_string()))?;
        let request = self
            .request(Method::POST, "/batches")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json");
        let value = self.json(self.send(&self.create, request, &body)?)?;
        let batch = self.as_batch(&value, None)?;
        if batch.input_file_id.is_empty() || batch.input_file_id == new.input_file_id {
            Ok(batch)
        } else {
            Err(self.unknown(&format!("{} is of another input file", batch.id)))
        }
    }

    fn batch(&self, id: &str) -> Call<Batch> {
        let value = self.get(&format!("/batches/{}", self.encoded(id)?))?;
        self.as_batch(&value, Some(id))
    }

    fn batches(&self, after: Option<&str>, limit: u32) -> Call<Page<Batch>> {
        let path = format!("/batches?{}", self.query(after, limit, 100)?);
        let request = self
            .request(Method::GET, &path)
            .header(header::ACCEPT, "application/json");
        let body = self
            .send(&self.small, request, ())?
            .into_body()
            .into_with_config()
            .limit(MAX_LISTING)
            .reader();
        let value = answer::batches_without_errors(io::BufReader::with_capacity(CHUNK, body))
            .map_err(|error| {
                self.unknown(&format!("the listing broke off, or is none: {error}"))
            })?;
        self.as_page(&value, Batch::from_json)
    }

    fn cancel_batch(&self, id: &str) -> Call<Batch> {
        let path = format!("/batches/{}/cancel", self.encoded(id)?);
        let request = self
            .request(Method::POST, &path)
            .header(header::ACCEPT, "application/json");
        let no_body: &[u8] = &[];
        let value = self.json(self.send(&self.small, request, no_body)?)?;
        self.as_batch(&value, Some(id))
    }
}

impl ResponsesApi for Client {
    fn respond(&self, body: &Value) -> Call<Value> {
        let body = serde_json::to_vec(body).map_err(|error| self.not_sent(&error.to_string()))?;
        let request = self
            .request(Method::POST, "/responses")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json");
        self.json(self.send(&self.respond, request, &body)?)
    }
}

#[derive(Serialize)]
struct CreateBody<'a> {
    input_file_id: &'a str,
    endpoint: &'a str,
    completion_window: &'a str,
    metadata: &'a BTreeMap<String, String>,
}

impl Client {
    /// Moves a file's content along. One timeout for the whole would cut honest long downloads or
    /// let dripping ones live: so a timeout per read (ureq's), and a least rate over a window.
    fn pour(&self, mut from: impl Read, announced: Option<u64>, into: &mut dyn Write) -> Call<u64> {
        let too_large = || self.unknown(&format!("longer than {} bytes", self.max_download));
        if announced.is_some_and(|announced| announced > self.max_download) {
            return Err(too_large());
        }
        let mut chunk = vec![0; CHUNK];
        let mut total = 0_u64;
        let mut rate = Rate::default();
        loop {
            let before = self.clock.now().steady;
            let read = match from.read(&mut chunk) {
                Ok(0) => return Ok(total),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(self.unknown(&format!("broke off after {total} bytes: {error}")));
                }
            };
            let spent = self.clock.now().steady.saturating_sub(before);
            let bytes = u64::try_from(read).unwrap_or(u64::MAX);
            total = total.saturating_add(bytes);
            if total > self.max_download {
                return Err(too_large());
            }
            if rate.is_too_low(bytes, spent, &self.timeouts) {
                return Err(self.unknown(&format!("too slow, after {total} bytes")));
            }
            into.write_all(&chunk[..read])
                .map_err(|error| self.unknown(&format!("writing the download: {error}")))?;
        }
    }
}

/// How much came in the present window of waiting. Time spent writing counts for nothing: a slow
/// disk here is no fault of the other side.
#[derive(Default)]
struct Rate {
    bytes: u64,
    waited: Duration,
}

impl Rate {
    fn is_too_low(&mut self, bytes: u64, waited: Duration, timeouts: &Timeouts) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited += waited;
        if self.waited < timeouts.rate_window {
            return false;
        }
        let millis = u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX);
        let least = timeouts.least_rate.saturating_mul(millis) / 1000;
        let too_low = self.bytes < least;
        *self = Self::default();
        too_low
    }
}

/// All but the unreserved characters of RFC 3986.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unusable(base_url: &str) -> Option<Unusable> {
        let identity = Identity {
            base_url: base_url.to_owned(),
            organization: String::new(),
            project: String::new(),
        };
        Client::new(Settings::new(identity, ApiKey::new("sk-1"))).err()
    }

    #[test]
    fn the_key_travels_in_the_clear_within_this_machine_only() {
        for url in [
            "https://api.openai.com/v1",
            "https://api.openai.com/v1//",
            "http://localhost:9/v1",
            "http://127.8.8.8",
            "http://[::1]:80/v1",
        ] {
            assert_eq!(unusable(url), None, "{url}");
        }
        for host in [
            "localhost.evil.test",
            "10.0.0.1",
            "[::2]",
            "127.1.evil.test",
        ] {
            let plain = Unusable::PlainHttp(host.to_owned());
            assert_eq!(unusable(&format!("http://{host}/v1")), Some(plain));
        }
        for url in [
            "",
            "/v1",
            "api.openai.com",
            "ftp://localhost",
            "https://key@api.openai.com/v1",
            "http://localhost@evil.test/v1",
            "https://api.openai.com/v1?x=1",
            "https://api.openai.com/v1#x",
        ] {
            assert_eq!(
                unusable(url),
                Some(Unusable::BaseUrl(url.to_owned())),
                "{url}"
            );
        }
    }

    #[test]
    fn odd_keys_and_identities_are_refused_without_showing_them() {
        let identity = |organization: &str| Identity {
            base_url: "https://api.openai.com/v1".to_owned(),
            organization: organization.to_owned(),
            project: String::new(),
        };
        for key in ["", " \n", "sk-\u{7f}secret", "sk-a\nb"] {
            let error = Client::new(Settings::new(identity(""), ApiKey::new(key))).unwrap_err();
            assert_eq!(error, Unusable::ApiKey);
        }
        let settings = Settings::new(identity("org\n"), ApiKey::new("sk-secret"));
        assert!(!format!("{settings:?}").contains("secret"));
        assert_eq!(
            Client::new(settings).unwrap_err(),
            Unusable::Identity("organization")
        );
        let client = Client::new(Settings::new(identity(""), ApiKey::new("sk-secret\n"))).unwrap();
        assert!(!format!("{client:?}").contains("secret"));
    }

    #[test]
    fn ids_are_encoded() {
        assert_eq!(percent_encoded("file-a_B.~1"), "file-a_B.~1");
        assert_eq!(percent_encoded("a/b?c&d é"), "a%2Fb%3Fc%26d%20%C3%A9");
    }
}
