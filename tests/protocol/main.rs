//! The workers against a simulated OpenAI, in one thread, with a clock of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod abandoned_batches;
mod accounts;
mod accounts_changed;
mod alert_notifier;
mod auditor;
mod cancelled_jobs;
mod clocks;
mod conversion;
mod crashes;
mod duplicate_batches;
mod ingesting;
mod late_input_files;
mod lost_answers;
mod missing_evidence;
mod out_of_order;
mod outages;
mod polling;
mod recovery;
mod refused_batches;
mod refused_objects;
mod restore;
mod schema;
mod shared_projects;
mod simulation;
mod unreadable_rows;
mod whole_jobs;
#[path = "../support/world/mod.rs"]
mod world;

use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);
