//! OpenAI's Files, Batches and Responses: the trait that the steps use, and its types.
//!
//! Facts about the API are from OpenAI's OpenAPI document 2.3.0 and recorded traffic; where a
//! field may be null, absent or an empty string, all three mean "none".

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

pub use crate::domain::openai::{
    Batch, BatchError, CallError, FileObject, Identity, OpenAiError, RequestCounts,
};

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
