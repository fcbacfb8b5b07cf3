//! The workers against a simulated OpenAI, in one thread, with a clock of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod accounts;
mod alert_notifier;
mod auditor;
mod conversion;
mod out_of_order;
mod polling;
mod simulation;
mod submission;
#[path = "../support/world/mod.rs"]
mod world;
