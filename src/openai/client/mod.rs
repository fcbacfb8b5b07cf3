//! The HTTP client for OpenAI's API. A call that fails is [`CallError::NotSent`] only if certainly no byte of
//! the request was sent.
//!
//! ureq resolves the name, connects and does the TLS handshake in its resolver and connector. Ours (in
//! [`agents`]) wrap their errors in `ErrorBeforeSending`. An error without this mark came later, and is
//! [`CallError::Unknown`].
//!
//! No connection is used for a second call. OpenAI may have closed a kept connection, which this program sees
//! only after it has written the request: the outcome of a create would be unknown. A handshake for each call
//! costs less than one settling time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;
use serde_json::Value;
use ureq::http::{HeaderName, HeaderValue, Method, header};
use ureq::{Agent, SendBody};

mod agents;
mod downloads;
mod errors;
mod requests;
mod settings;
mod upload_form;

use self::agents::{Limits, agent};
use self::downloads::PageReader;
pub use self::settings::{ApiKey, ClientSettings, SettingsError, Timeouts};
use self::settings::{additional_headers, check_base_url, optional_header};
use self::upload_form::{UploadForm, is_upload_name};
use super::api::{BatchApi, CallResult, NewBatch, Page, ResponsesApi};
use super::json_objects;
use super::redactor::Redactor;
use crate::base::clock::SystemClock;
use crate::domain::endpoint::Endpoint;
use crate::domain::openai::{Batch, FileObject, Identity, ServerDate};

/// The longest page of batches. Each of its hundred batches may have an error for each of its lines. The page
/// is parsed while it arrives.
const MAX_LISTING_BYTES: u64 = 1 << 30;

/// The shortest value of a header field that is taken out of messages.
const SHORTEST_SECRET: usize = 8;

/// OpenAI's API over HTTP/1.1.
pub struct OpenAiClient {
    identity: Identity,
    /// `None` if one of `headers` takes its place, or it is not wanted.
    authorization: Option<HeaderValue>,
    /// Additional fields.
    headers: Vec<(HeaderName, HeaderValue)>,
    organization: Option<HeaderValue>,
    project: Option<HeaderValue>,
    timeouts: Timeouts,
    trust_date: bool,
    newest_date: Mutex<Option<ServerDate>>,
    max_download: u64,
    redactor: Redactor,
    clock: SystemClock,
    // Each kind of call has its agent, since timeouts set on a request make ureq build its TLS configuration
    // again, and then it cannot resume a TLS session.
    small: Agent,
    create: Agent,
    upload: Agent,
    download: Agent,
    respond: Agent,
}

impl fmt::Debug for OpenAiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiClient")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl OpenAiClient {
    /// Creates a client from checked settings. It connects with the first call.
    ///
    /// # Errors
    /// If a setting is not usable.
    pub fn new(settings: ClientSettings) -> Result<Self, SettingsError> {
        let ClientSettings {
            mut identity,
            api_key,
            allow_plain_http,
            timeouts,
            trust_date,
            max_download,
            ca_file,
            headers,
        } = settings;
        let end = identity.base_url.trim_end_matches('/').len();
        identity.base_url.truncate(end);
        let https_only = check_base_url(&identity.base_url, allow_plain_http)?;
        if api_key.0.is_empty() {
            return Err(SettingsError::ApiKey);
        }
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {}", api_key.0)).map_err(|_| SettingsError::ApiKey)?;
        authorization.set_sensitive(true);
        let (fields, has_authorization) = additional_headers(&headers)?;
        // A short value is a word, such as a version.
        let values = headers.iter().map(|(_, value)| value.0.as_str());
        let secrets = values.filter(|value| value.len() >= SHORTEST_SECRET);
        let new_agent = |limits: Limits<'_>| agent(https_only, &timeouts, ca_file.as_ref(), limits);
        Ok(Self {
            organization: optional_header(&identity.organization, "organization")?,
            project: optional_header(&identity.project, "project")?,
            identity,
            authorization: Some(authorization).filter(|_| !has_authorization),
            redactor: Redactor::new(secrets.chain([api_key.0.as_str()])),
            headers: fields,
            clock: SystemClock::new(),
            small: new_agent(&|config| config.timeout_global(Some(timeouts.small))),
            create: new_agent(&|config| config.timeout_global(Some(timeouts.create))),
            upload: new_agent(&|config| {
                config
                    .timeout_send_request(Some(timeouts.small))
                    .timeout_per_write(Some(timeouts.stall))
                    .timeout_send_body(Some(timeouts.upload))
                    .timeout_recv_response(Some(timeouts.upload_answer))
                    .timeout_recv_body(Some(timeouts.small))
            }),
            download: new_agent(&|config| {
                config
                    .timeout_send_request(Some(timeouts.small))
                    .timeout_recv_response(Some(timeouts.small))
                    .timeout_per_read(Some(timeouts.stall))
            }),
            respond: new_agent(&|config| config.timeout_global(Some(timeouts.respond))),
            timeouts,
            trust_date,
            newest_date: Mutex::default(),
            max_download,
        })
    }
}

impl BatchApi for OpenAiClient {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn newest_date(&self) -> Option<ServerDate> {
        *self.lock_newest_date()
    }

    fn upload(&self, name: &str, path: &Path) -> CallResult<FileObject> {
        if !is_upload_name(name) {
            return Err(self.not_sent(&format!("{name:?} is not a name for an input file")));
        }
        let (mut form, length) = File::open(path)
            .and_then(|file| UploadForm::new(name, file))
            .map_err(|error| self.not_sent(&format!("reading {}: {error}", path.display())))?;
        let request = self
            .request(Method::POST, "/files")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, form.content_type())
            .header(header::CONTENT_LENGTH, form.length());
        let response = self.send(&self.upload, request, SendBody::from_reader(&mut form))?;
        let file = self.as_file(&self.json(response)?, None)?;
        match file.bytes {
            Some(bytes) if bytes != length => {
                Err(self.unreadable(&format!("{length} bytes were sent, and {} has {bytes}", file.id)))
            }
            _ => Ok(file),
        }
    }

    fn file(&self, id: &str) -> CallResult<FileObject> {
        let value = self.get(&format!("/files/{}", self.encoded(id)?))?;
        self.as_file(&value, Some(id))
    }

    fn input_files(&self, after: Option<&str>, limit: u32) -> CallResult<Page<FileObject>> {
        let query = self.query(after, limit, 10_000)?;
        let response = self.get_long(&format!("/files?purpose=batch&order=desc&{query}"))?;
        let date = self.date_of(&response);
        self.as_page(&self.json(response)?, date, FileObject::from_json)
    }

    fn delete_file(&self, id: &str) -> CallResult<()> {
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

    fn download(&self, id: &str, into: &mut dyn Write) -> CallResult<u64> {
        let path = format!("/files/{}/content", self.encoded(id)?);
        let request = self.request(Method::GET, &path).header(header::ACCEPT, "*/*");
        let response = self.send(&self.download, request, ())?;
        if let Some(coding) = response.headers().get(header::CONTENT_ENCODING)
            && coding != "identity"
        {
            return Err(self.unknown(&format!("the file is compressed: {coding:?}")));
        }
        let body = response.into_body();
        let announced = body.content_length();
        let length = self.copy_download(body.into_reader(), announced, into)?;
        match announced {
            Some(announced) if announced != length => {
                Err(self.unknown(&format!("{length} of {announced} bytes arrived")))
            }
            _ => Ok(length),
        }
    }

    fn create_batch(&self, new: &NewBatch) -> CallResult<Batch> {
        let body = serde_json::to_vec(&CreateBatchBody {
            input_file_id: &new.input_file_id,
            endpoint: new.endpoint.as_str(),
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
            Err(self.unknown(&format!("{} has another input file", batch.id)))
        }
    }

    fn batch(&self, id: &str) -> CallResult<Batch> {
        let response = self.get_long(&format!("/batches/{}", self.encoded(id)?))?;
        self.as_batch(&self.json(response)?, Some(id))
    }

    fn batches(&self, after: Option<&str>, limit: u32) -> CallResult<Page<Batch>> {
        let path = format!("/batches?{}", self.query(after, limit, 100)?);
        let response = self.get_long(&path)?;
        let date = self.date_of(&response);
        let body = response
            .into_body()
            .into_with_config()
            .limit(MAX_LISTING_BYTES)
            .reader();
        let body = PageReader::new(self, body);
        let value = json_objects::batches_without_errors(BufReader::with_capacity(64 * 1024, body))
            .map_err(|error| self.unknown(&format!("the listing broke off, or is malformed: {error}")))?;
        self.as_page(&value, date, Batch::from_json)
    }

    fn cancel_batch(&self, id: &str) -> CallResult<Batch> {
        let path = format!("/batches/{}/cancel", self.encoded(id)?);
        let request = self
            .request(Method::POST, &path)
            .header(header::ACCEPT, "application/json");
        let no_body: &[u8] = &[];
        let value = self.json(self.send(&self.small, request, no_body)?)?;
        self.as_batch(&value, Some(id))
    }
}

impl ResponsesApi for OpenAiClient {
    fn respond(&self, endpoint: Endpoint, body: &Value) -> CallResult<Value> {
        let body = serde_json::to_vec(body).map_err(|error| self.not_sent(&error.to_string()))?;
        let request = self
            .request(Method::POST, endpoint.path())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json");
        self.json(self.send(&self.respond, request, &body)?)
    }
}

/// The body of `POST /batches`.
#[derive(Serialize)]
struct CreateBatchBody<'a> {
    input_file_id: &'a str,
    endpoint: &'a str,
    completion_window: &'a str,
    metadata: &'a BTreeMap<String, String>,
}

#[cfg(test)]
mod tests;
