//! The demo's proof: what OpenAI counted, beside what the daemon stored.

use serde_json::Value;

use super::CommandError;
use super::client::{Demo, get};
use crate::outbound::LocalClient;
use crate::store::{Store, inspect};

/// The batches of the daemon, their answered lines, and their cost in dollars.
const STORED: &str = "SELECT count(*), coalesce(sum(answered), 0), \
    printf('%d.%06d', sum(cost_picodollars) / 1000000000000, sum(cost_picodollars) % 1000000000000 / 1000000) \
    FROM v_costs";

/// Shows that each batch was made once, that each request was answered once, and what it cost.
pub(super) fn show_proof(demo: &Demo) -> Result<(), CommandError> {
    let (_, state) = get(
        &LocalClient::new(),
        &format!("{}/sandbox/state", demo.sandbox),
        &[],
    )?;
    let number = |name: &str| state.get(name).and_then(Value::as_u64).unwrap_or_default();
    let store = Store::open(&demo.database, demo.clock.now().wall).map_err(|error| error.to_string())?;
    let stored = store
        .read(|view| inspect::table(view, STORED, []))
        .map_err(|error| error.to_string())?;
    let cells: Vec<String> = stored.rows.iter().flatten().map(inspect::plain).collect();
    let [batches, answered, cost] = cells.as_slice() else {
        return Err("the account is incomplete".to_owned().into());
    };
    let (creates, requests) = (number("creates"), number("custom_ids"));
    let is_sound = number("executed") == requests
        && number("answered") == requests
        && creates.to_string() == *batches
        && requests.to_string() == *answered;
    if !is_sound {
        return Err(format!(
            "OpenAI counted {creates} batches and {} answers to {requests} requests; the daemon has {batches} \
             batches and {answered} answers",
            number("answered")
        )
        .into());
    }
    demo.display.line(
        "proof",
        &format!(
            "OpenAI made {creates} batches and answered {requests} requests, each once; the daemon has all of \
             them: nothing is lost, nothing is billed twice"
        ),
    )?;
    demo.display
        .line("cost", &format!("{cost} USD, at the prices of gpt-6-luna"))
}
