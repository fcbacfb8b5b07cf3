//! Golden files: the program's output, byte for byte.
//!
//! The tests drive the real program and compare its output with the files in
//! `tests/fixtures/golden`: the calls to OpenAI, the answers to clients and operators, webhooks and
//! signatures. A difference fails the test and shows the first line that differs. `GOLDEN_UPDATE=1
//! cargo test --test golden` writes the files again; commit them with the change that caused the
//! difference.
//!
//! Texts that differ between runs (times, random ids, addresses) are replaced by placeholders
//! (`names.rs`). Everything else must be equal.
#![allow(
    clippy::unwrap_used,
    reason = "clippy does not count the helpers of an integration test as tests"
)]

#[path = "../support/appliance/mod.rs"]
mod appliance;

mod batches;
mod client;
mod fixtures;
mod hand;
mod inside;
mod names;
mod operators;
mod relay;
mod signatures;
mod synchronous;
mod talk;

use appliance::Appliance;
use names::Names;
use relay::Relay;

/// The path of submissions.
const SUBMIT: &str = "/api/v1/generate-descriptions";

/// The program's `User-Agent`.
const AGENT: &str = concat!("batchkeeper/", env!("CARGO_PKG_VERSION"));

/// The configuration of every test. The times are long, so that a slow machine changes nothing. The
/// prices are fixed here, so that a change of prices changes nothing.
const STEADY: &str = r#"
prices = [{ model = "gpt-6-luna", since = "2020-01-01", batch = ["0.05", "0.005", "0.25"],
            synchronous = ["0.10", "0.01", "0.50"] }]
openai.create_timeout = "1m"
openai.settling_time = "2m"
openai.results_timeout = "1m"
"#;
/// Image URLs are not checked: they may be constant texts.
const UNCHECKED: &str = "images.check = false\n";

/// An appliance whose calls to OpenAI go through a relay.
fn relayed(config: &str) -> (Appliance, Relay) {
    let mut appliance = Appliance::without_daemon("");
    let relay = Relay::start(&appliance.sandbox);
    appliance.configure(&format!(
        "{STEADY}{config}\nopenai.base_url = \"http://{}/v1\"",
        relay.address
    ));
    appliance.start_daemon();
    (appliance, relay)
}

/// Placeholders for the addresses of an appliance and for the program's version.
fn names_of(appliance: &Appliance) -> Names {
    let names = Names::default();
    for (url, name) in [
        (&appliance.sandbox, "sandbox"),
        (&appliance.api, "api"),
        (&appliance.ops, "ops"),
    ] {
        names.know(url.trim_start_matches("http://"), name);
    }
    names.know(AGENT, "batchkeeper and its version");
    names
}
