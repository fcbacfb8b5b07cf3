//! The Responses API: what one request to a model gets.

pub(in crate::sandbox) mod execution;
pub(in crate::sandbox) mod images;
pub(in crate::sandbox) mod input;
pub(in crate::sandbox) mod object;
pub(in crate::sandbox) mod request;
pub(in crate::sandbox) mod texts;
