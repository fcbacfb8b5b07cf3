//! The structure of the crate, and the corpora of the fuzz targets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod architecture;
#[path = "../../fuzz/checks.rs"]
mod checks;
mod fuzz_corpus;
