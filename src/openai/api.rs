//! The parts of OpenAI's API that this program uses, as traits.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::domain::endpoint::Endpoint;
use crate::domain::openai::{Batch, CallError, FileObject, Identity, ServerDate};

/// The variable parts of a `POST /batches`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// The uploaded input file.
    pub input_file_id: String,
    /// The endpoint of every line.
    pub endpoint: Endpoint,
    /// At most 16 pairs of at most 64 and 512 characters.
    pub metadata: BTreeMap<String, String>,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The elements, newest first.
    pub data: Vec<T>,
    /// Whether another page follows. To get it, pass the last element's id as `after`. `None` if the server does not
    /// say.
    pub has_more: Option<bool>,
    /// OpenAI's time when it sent the page; `None` if the answer has no `Date`, or it is not trusted.
    pub date: Option<Timestamp>,
}

/// The result of a call.
pub type CallResult<T> = Result<T, CallError>;

/// The Files and Batches API as the workers use it. An implementation never repeats a call: the worker
/// decides.
pub trait BatchApi: Send + Sync {
    /// The account of the calls.
    fn identity(&self) -> &Identity;

    /// The `Date` of the newest answer with status 2xx. `None` if there is none yet, or it is not trusted. An
    /// error may come from a proxy with a clock of its own.
    fn newest_date(&self) -> Option<ServerDate>;

    /// `POST /files` with purpose `batch`: uploads the file at `path`. `name` must end in `.jsonl`.
    fn upload(&self, name: &str, path: &Path) -> CallResult<FileObject>;

    /// `GET /files/{id}`.
    fn file(&self, id: &str) -> CallResult<FileObject>;

    /// `GET /files?purpose=batch&order=desc`: one page of at most `limit` files.
    fn input_files(&self, after: Option<&str>, limit: u32) -> CallResult<Page<FileObject>>;

    /// `DELETE /files/{id}`.
    fn delete_file(&self, id: &str) -> CallResult<()>;

    /// `GET /files/{id}/content`: writes the content to `into` while it arrives, and returns the number of
    /// bytes. If it fails, a part may be written. OpenAI sends no `Content-Length` with it. Without that and
    /// without chunks, an incomplete file looks complete, so compare the number with [`FileObject::bytes`].
    fn download(&self, id: &str, into: &mut dyn Write) -> CallResult<u64>;

    /// `POST /batches`. Not idempotent: a repeated call is a second, paid batch.
    fn create_batch(&self, new: &NewBatch) -> CallResult<Batch>;

    /// `GET /batches/{id}`.
    fn batch(&self, id: &str) -> CallResult<Batch>;

    /// `GET /batches`: one page of at most 100 batches.
    fn batches(&self, after: Option<&str>, limit: u32) -> CallResult<Page<Batch>>;

    /// `POST /batches/{id}/cancel`.
    fn cancel_batch(&self, id: &str) -> CallResult<Batch>;
}

/// The Responses API as synchronous jobs use it.
pub trait ResponsesApi: Send + Sync {
    /// `POST /responses`: returns the body of a 2xx. Not idempotent: a repeated call is billed again.
    fn respond(&self, endpoint: Endpoint, body: &Value) -> CallResult<Value>;
}
