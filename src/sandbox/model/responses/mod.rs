//! The Responses API: what one request gets, in a batch or synchronously.

mod chat;
mod execution;
mod faults;
mod input;
mod object;
mod request;
mod sample_images;
mod texts;

pub use chat::to_responses_form;
pub use faults::ResponseFaults;
pub use object::{ODD_UNICODE, RequestResult};
pub use request::{ResponsesRequest, request_names};
pub use sample_images::{image_names, sample_image};
pub use texts::{expected_description, expected_translation};
