//! The Batches API.

pub(in crate::sandbox) mod create;
pub(in crate::sandbox) mod execution;
pub(in crate::sandbox) mod object;
pub(in crate::sandbox) mod operations;
pub(in crate::sandbox) mod past;
pub(in crate::sandbox) mod progress;
pub(in crate::sandbox) mod result_lines;
pub(in crate::sandbox) mod validation;
