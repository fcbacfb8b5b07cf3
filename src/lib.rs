//! batchkeeper takes jobs of car lots through OpenAI's Batch API and cannot lose a batch.
//!
//! The modules in reading order; each knows only those above it (held by `tests/architecture.rs`).
#![warn(missing_docs)]

pub mod clock;
pub mod threads;

// Pure: no SQL, no HTTP, no threads.
pub mod batch;

// Edges: each knows one technology, and no other edge.
pub mod http;
pub mod openai;

// A simulated OpenAI: knows the types of http, and nothing of ours beyond `batch`.
pub mod sandbox;
