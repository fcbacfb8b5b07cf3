//! The Files API.

pub(in crate::sandbox) mod operations;
