//! batchkeeper takes jobs of car lots through OpenAI's Batch API and cannot lose a batch.
//!
//! The folders in reading order. Imports go down this page, never up (held by `tests/house/architecture.rs`).
#![warn(missing_docs)]

pub mod cli;

pub mod daemon;

pub mod api;

pub mod ops;

pub mod workers;

pub mod recovery;

pub mod jobs;

pub mod store;

pub mod openai;

pub mod outbound;

pub mod sandbox;

pub mod http;

pub mod config;

pub mod domain;

pub mod python_json;

pub mod base;
