//! Everything that talks to OpenAI.
//!
//! - [`api`]: the traits that the workers use.
//! - [`client`]: their implementation over HTTP.
//! - [`json_objects`], [`error_response`]: read OpenAI's JSON; [`redactor`]: removes secrets from it.
//! - [`jsonl`]: the input and result files of batches.
//! - [`listing`]: complete listings of batches.
//!
//! The facts about the API are from OpenAI's OpenAPI document 2.3.0 and from recorded traffic. If a field is
//! null, absent or an empty string, it has no value: all three mean the same.

pub use crate::domain::openai::{
    Batch, BatchError, CallError, FileObject, Identity, OpenAiError, RequestCounts, ServerDate,
};

mod api;
pub mod client;
mod error_response;
mod json_objects;
pub mod jsonl;
pub mod listing;
mod redactor;

pub use api::{BatchApi, CallResult, NewBatch, Page, ResponsesApi};
