//! How much memory large transfers and many readers take. Each test runs alone: the figures are the process' own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};

mod readers;
mod transfers;

/// Held by the test that runs: the figures are the process' own.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
