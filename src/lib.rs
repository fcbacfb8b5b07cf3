//! batchkeeper takes jobs of car lots through OpenAI's Batch API and cannot lose a batch.
//!
//! The modules in reading order. Arrows go up this page, never down: `main → daemon → front → steps
//! → edges → pure → clock` (held by `tests/architecture.rs`).
#![warn(missing_docs)]

pub mod clock;
pub mod threads;

// Pure: no SQL, no HTTP, no threads.

pub mod cidr;

pub mod printable;

pub mod batch;

pub mod remote;

pub mod json;

pub mod signature;

pub mod refusal;

pub mod job;

pub mod vision;

pub mod translation;

pub mod parameters;

pub mod answer;

pub mod html;

pub mod legacy;

pub mod config;
pub mod money;

// Edges: each knows one technology, and no other edge.

pub mod store;

pub mod openai;

pub mod net;

pub mod http;

// The sandbox: a simulated OpenAI, served through `http`.

pub mod sandbox;

// Steps: a step knows the store and at most one edge, and no other step.

pub mod step;

pub mod trouble;

pub mod submitter;

pub mod poller;

pub mod ingester;

pub mod finisher;

pub mod reconcile;

pub mod results;

pub mod estimate;

pub mod intake;

pub mod images;

pub mod direct;

pub mod courier;

pub mod herald;

pub mod auditor;

pub mod janitor;

pub mod retention;

pub mod recovery;

// The front: requests to steps and store.

pub mod api;

// The whole.

pub mod daemon;

pub mod commands;
