//! What one line of a result file says, or one synchronous answer: a text, or why there is none.
//!
//! HTTP 200 is not success: the body may be cut short, refused, filtered or failed inside. Facts are from
//! OpenAI's OpenAPI document 2.3.0 (`Response`, `CreateChatCompletionResponse`, `ResponseErrorCode`), from
//! recorded result files, and from what users reported. A member that is null, absent or `{}` (so R writes
//! null) counts as absent.

mod answer;
mod error;
mod json;
mod read;

pub use answer::{Answer, BrokenLine, ResultLine};
pub use read::{read_body, read_line};

#[cfg(test)]
mod tests;
