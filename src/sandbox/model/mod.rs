//! The simulated OpenAI as plain data: its state, its rules and what can go wrong.

pub(in crate::sandbox) mod batches;
pub(in crate::sandbox) mod disk;
pub(in crate::sandbox) mod error_reply;
pub(in crate::sandbox) mod faults;
pub(in crate::sandbox) mod files;
pub(in crate::sandbox) mod ids;
pub(in crate::sandbox) mod ledger;
pub(in crate::sandbox) mod responses;
pub(in crate::sandbox) mod settings;
