//! OpenAI's objects, as far as they matter here: files, batches, the account they are under, and errors.
//!
//! Facts are from OpenAI's OpenAPI document 2.3.0 and recorded traffic. A field that is null, absent or an empty
//! string counts as absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::clock::{Moment, Timestamp};
use crate::base::text_enum::text_enum;
use crate::domain::usage::TokenUsage;

mod error;

pub use error::{CallError, OpenAiError};

/// The account that a call is made under. "Not found" proves something only under the
/// identity that a batch was made under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The API's base URL, without a slash at its end.
    pub base_url: String,
    /// `OpenAI-Organization`, or empty.
    pub organization: String,
    /// `OpenAI-Project`, or empty.
    pub project: String,
}

/// The time that OpenAI gave in the header `Date` of an answer (RFC 9110, 6.6.1).
#[derive(Clone, Copy, Debug)]
pub struct ServerDate {
    /// OpenAI's time, in whole seconds.
    pub date: Timestamp,
    /// Our clocks when the answer arrived.
    pub received: Moment,
}

impl ServerDate {
    /// Milliseconds by which our wall clock is ahead of OpenAI's now: OpenAI's is at `date` and the steady
    /// time since then.
    pub fn skew(&self, now: Moment) -> i64 {
        let since = now.steady.saturating_sub(self.received.steady);
        now.wall.millis() - (self.date + since).millis()
    }
}

/// A file at OpenAI (schema `OpenAIFile`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileObject {
    /// `file-…`, opaque.
    pub id: String,
    /// Its size in bytes.
    pub bytes: Option<u64>,
    /// OpenAI's time of it, in seconds.
    pub created_at: i64,
    /// The name it was uploaded under.
    pub filename: String,
}

text_enum! {
    /// OpenAI's status of a batch (openai-openapi, schema `Batch`, member `status`).
    BatchStatus {
        /// The input is being checked.
        Validating = "validating",
        /// The input is not valid.
        Failed = "failed",
        /// The lines run.
        InProgress = "in_progress",
        /// The result files are being written.
        Finalizing = "finalizing",
        /// Results are ready.
        Completed = "completed",
        /// The window of 24 hours closed first; partial results may be there.
        Expired = "expired",
        /// It is being cancelled; OpenAI waits for the requests in flight.
        Cancelling = "cancelling",
        /// Cancelled; partial results may be there.
        Cancelled = "cancelled",
    }
}

impl BatchStatus {
    /// Whether the batch keeps this status for ever.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Completed | Self::Expired | Self::Cancelled
        )
    }
}

/// `request_counts` of a batch. Lines that never ran are counted nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Lines in the input, 0 before validation.
    pub total: u64,
    /// Lines answered with 2xx.
    pub completed: u64,
    /// Lines answered otherwise.
    pub failed: u64,
}

/// One entry of a failed batch's `errors.data`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchError {
    /// For example `invalid_json_line` or `token_limit_exceeded`.
    pub code: Option<String>,
    /// A text for people.
    pub message: Option<String>,
    /// The parameter at fault: `file_id` if OpenAI did not find the input file.
    pub param: Option<String>,
    /// The input's line, from 1, if one line is to blame.
    pub line: Option<u64>,
}

/// A batch at OpenAI (schema `Batch`), as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `batch_…`, opaque.
    pub id: String,
    /// The status as OpenAI sent it.
    pub status_text: String,
    /// The status; `None` if it is not known here.
    pub status: Option<BatchStatus>,
    /// The file it was made from.
    pub input_file_id: String,
    /// Answered lines; trust it in final states only.
    pub output_file_id: Option<String>,
    /// Lines that failed or never ran; trust it in final states only.
    pub error_file_id: Option<String>,
    /// OpenAI's time of it, in seconds.
    pub created_at: i64,
    /// When its window closes, in seconds.
    pub expires_at: Option<i64>,
    /// The dated model, once it runs.
    pub model: Option<String>,
    /// Its lines, counted by result.
    pub counts: RequestCounts,
    /// The tokens of the whole batch, once it has ended and if OpenAI reports them.
    pub usage: Option<TokenUsage>,
    /// Why validation failed.
    pub errors: Vec<BatchError>,
    /// As sent with the create.
    pub metadata: BTreeMap<String, String>,
}

/// OpenAI's text, fit for logs, alerts and clients. What follows `org-` and `sk-` at the start of a word is left
/// out. OpenAI masks keys in part only (`sk-ab***yz`), and organizations not at all.
pub fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut inside_word = false;
    while let Some(first) = rest.chars().next() {
        let prefix = ["org-", "sk-"]
            .into_iter()
            .find(|prefix| !inside_word && rest.starts_with(prefix));
        if let Some(prefix) = prefix {
            out.push_str(prefix);
            rest = rest[prefix.len()..].trim_start_matches(is_token);
            out.push('…');
            inside_word = false;
        } else {
            out.push(first);
            inside_word = first.is_alphanumeric();
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*')
}
