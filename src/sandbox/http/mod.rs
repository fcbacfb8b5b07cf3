//! The simulated OpenAI over HTTP.

pub(in crate::sandbox) mod call_faults;
pub(in crate::sandbox) mod control;
pub(in crate::sandbox) mod multipart;
pub(in crate::sandbox) mod webhook_sink;
