//! The memory that large transfers and many readers take. The tests run one after another, because
//! the figures are those of the whole process.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "../support/appliance/mod.rs"]
mod appliance;

mod over_time;
mod readers;
mod strangers;
mod transfers;

/// The running test holds this lock: the figures are those of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
