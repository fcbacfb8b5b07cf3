//! Golden files: what the program says, byte for byte.
//!
//! The tests drive the real program and compare what it says with the files in `tests/fixtures/golden`:
//! what it sends to OpenAI, what clients and operators get, what webhooks bring, signatures. A difference
//! fails, with the first line that differs. `GOLDEN_UPDATE=1 cargo test --test golden` writes the files anew;
//! the change of the files is then a part of the commit.
//!
//! Texts that differ from run to run (times, random ids, addresses) are replaced by placeholders
//! (`names.rs`). Everything else must be equal.
#![allow(
    clippy::unwrap_used,
    reason = "clippy does not count the helpers of an integration test as tests"
)]

#[path = "../support/appliance/mod.rs"]
mod appliance;

mod fixtures;
mod hand;
mod inside;
mod signatures;

/// Where submissions go.
const SUBMIT: &str = "/api/v1/generate-descriptions";

/// How the program names itself in requests.
const AGENT: &str = concat!("batchkeeper/", env!("CARGO_PKG_VERSION"));

/// The configuration of every test. Times are long, so that a slow machine changes nothing. Prices are of
/// this test, so that no day changes them.
const STEADY: &str = r#"
prices = [{ model = "gpt-6-luna", since = "2020-01-01", batch = ["0.05", "0.005", "0.25"],
            synchronous = ["0.10", "0.01", "0.50"] }]
openai.create_timeout = "1m"
openai.settling_time = "2m"
openai.results_timeout = "1m"
"#;
