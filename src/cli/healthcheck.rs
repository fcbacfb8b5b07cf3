//! `healthcheck`: asks the running daemon whether it is healthy, for containers and scripts.

use serde_json::Value;

use super::context::Context;
use super::{CommandError, Outcome, Verdict};
use crate::outbound::LocalClient;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1_000_000;

pub(super) fn run(context: &Context) -> Outcome {
    let config = context.config()?;
    // The operators' listener says more, but may need a token; the client listener is there otherwise.
    let address = match config.listen.is_empty() {
        true => &config.ops_listen,
        false => &config.listen,
    };
    let url = format!("http://{}/health", reachable(address));
    let (status, body) = LocalClient::new()
        .get(&url, &[], MAX_ANSWER)
        .map_err(|error| CommandError::Failed(format!("{url}: {error}")))?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let said = answer["status"].as_str().unwrap_or("no health");
    context.output.report(&answer, &format!("{said}\n"))?;
    Ok(Verdict::clean_if(status == 200))
}

/// A listener on every address is asked on this machine's own.
fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => address.to_owned(),
    }
}
