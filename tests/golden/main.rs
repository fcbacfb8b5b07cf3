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
/// Image URLs are not looked at: they may be fixed texts.
const UNCHECKED: &str = "images.check = false\n";

/// An appliance whose calls of OpenAI pass through a relay.
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

/// Placeholders for the addresses of an appliance, and for the version of the program.
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
