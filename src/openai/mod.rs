//! OpenAI's Files, Batches and Responses: the trait that the steps use, and its types.
//!
//! Facts about the API are from OpenAI's OpenAPI document 2.3.0 and recorded traffic; where a
//! field may be null, absent or an empty string, all three mean "none".

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

pub use crate::domain::openai::{Batch, BatchError, FileObject, Identity, RequestCounts};

mod answer;
pub mod client;
pub mod jsonl;
pub mod listing;

/// What a create sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// The uploaded input.
    pub input_file_id: String,
    /// At most 16 pairs of at most 64 and 512 characters.
    pub metadata: BTreeMap<String, String>,
}

/// The endpoint of every line and batch that we make.
pub const ENDPOINT: &str = "/v1/responses";

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Newest first.
    pub data: Vec<T>,
    /// Whether another page follows; pass the last element's id as `after`.
    pub has_more: bool,
}

/// Why a call did not give its answer; the distinction that the submission protocol stands on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It failed before a byte of the request was sent: it certainly had no effect.
    #[error("not sent: {message}")]
    NotSent {
        /// For people.
        message: String,
    },
    /// OpenAI answered, with a status other than 2xx (3xx among them: no redirect is followed).
    #[error("{0}")]
    Refused(OpenAiError),
    /// It may have had its effect: a time-out, a broken connection, an answer that makes no sense.
    #[error("outcome unknown: {message}")]
    Unknown {
        /// For people.
        message: String,
    },
}

/// An answer with a status other than 2xx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenAiError {
    /// The HTTP status.
    pub status: u16,
    /// `error.code`, or where that is null an `error.type` that says as much (`insufficient_quota`,
    /// but not `invalid_request_error`), or an empty string. Numbers as text.
    pub code: String,
    /// `error.param`, or an empty string.
    pub param: String,
    /// `error.message` (or `detail`, or the start of a body that is not JSON), cut to 500
    /// characters, control characters replaced, `org-…` ids and keys blotted out.
    pub message: String,
    /// `retry-after-ms` or `Retry-After`, one hour at most.
    pub retry_after: Option<Duration>,
    /// `x-request-id`, or an empty string.
    pub request_id: String,
}

impl CallError {
    /// Whether the call certainly had no effect: refused with 4xx (408 and 409 apart), or never sent.
    pub fn had_no_effect(&self) -> bool {
        match self {
            Self::NotSent { .. } => true,
            Self::Refused(refusal) => {
                (400..500).contains(&refusal.status) && !matches!(refusal.status, 408 | 409)
            }
            Self::Unknown { .. } => false,
        }
    }

    /// Whether the whole account is refused: 401, 403, or want of money. All work at OpenAI waits.
    pub fn is_account_trouble(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                matches!(refusal.status, 401 | 403)
                    || matches!(
                        refusal.code.as_str(),
                        "insufficient_quota"
                            | "billing_hard_limit_reached"
                            | "credit_balance_exhausted"
                    )
            }
            _ => false,
        }
    }

    /// Whether OpenAI says that there is no such thing, under this identity.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 404)
    }

    /// How long OpenAI asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for OpenAiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.param.is_empty() {
            write!(f, " (param {})", self.param)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.request_id.is_empty() {
            write!(f, " [request {}]", self.request_id)?;
        }
        Ok(())
    }
}

/// A call's result.
pub type Call<T> = Result<T, CallError>;

/// OpenAI, as the steps see it. No call is ever repeated by itself: who calls decides.
pub trait BatchApi: Send + Sync {
    /// Under which account the calls are made.
    fn identity(&self) -> &Identity;

    /// `POST /files` with purpose `batch`: the file at `path` under `name` (ends in `.jsonl`).
    fn upload(&self, name: &str, path: &Path) -> Call<FileObject>;

    /// `GET /files/{id}`.
    fn file(&self, id: &str) -> Call<FileObject>;

    /// `GET /files?purpose=batch&order=desc`, one page of up to `limit`.
    fn input_files(&self, after: Option<&str>, limit: u32) -> Call<Page<FileObject>>;

    /// `DELETE /files/{id}`.
    fn delete_file(&self, id: &str) -> Call<()>;

    /// `GET /files/{id}/content`, written to `into` as it comes; gives the number of bytes.
    /// An error may leave a part of it written. OpenAI sends no length with it, and where neither
    /// a length nor chunks frame it, a cut looks like the end: hold the number against
    /// [`FileObject::bytes`].
    fn download(&self, id: &str, into: &mut dyn Write) -> Call<u64>;

    /// `POST /batches`. Not idempotent: a repeated call is a second, paid batch.
    fn create_batch(&self, new: &NewBatch) -> Call<Batch>;

    /// `GET /batches/{id}`.
    fn batch(&self, id: &str) -> Call<Batch>;

    /// `GET /batches`, one page of up to 100, newest first.
    fn batches(&self, after: Option<&str>, limit: u32) -> Call<Page<Batch>>;

    /// `POST /batches/{id}/cancel`.
    fn cancel_batch(&self, id: &str) -> Call<Batch>;
}

/// OpenAI, as synchronous jobs see it.
pub trait ResponsesApi: Send + Sync {
    /// `POST /responses`; gives the body of a 2xx. Not idempotent: a repeated call is paid again.
    fn respond(&self, body: &Value) -> Call<Value>;
}
