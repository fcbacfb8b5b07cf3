//! The real daemon beside the sandbox: whole jobs, money, hostile answers, attacks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod address_guard;
#[path = "../support/appliance/mod.rs"]
mod appliance;
mod chain;
mod chat_endpoint;
mod dialects;
mod hostile_openai;
mod hostile_results;
mod image_turns;
mod incident;
mod injection;
mod keeping;
mod large;
mod large_changes;
mod money;
mod odd_server;
mod probe_batch;
mod queue;
mod refusals;
mod relay;
mod second_names;
mod secrets;
mod unlisted;
#[path = "../support/world/mod.rs"]
mod world;
