//! The routes under `/sandbox/`: for tests and the demo, without a key, from this machine only.

use serde::Deserialize;
use serde_json::json;

use super::{Sandbox, replies, unknown_url};
use crate::http::{Request, Response};
use crate::sandbox::model::{ErrorReply, FaultRule};

/// The body of `POST /sandbox/faults`.
fn parse_rules(body: &[u8]) -> Result<Vec<FaultRule>, serde_json::Error> {
    let rules = match serde_json::from_slice(body)? {
        serde_json::Value::Array(rules) => rules,
        rule => vec![rule],
    };
    rules.into_iter().map(FaultRule::deserialize).collect()
}

fn invalid_body(error: serde_json::Error) -> ErrorReply {
    ErrorReply::new(400, error.to_string())
}

impl Sandbox {
    pub(super) fn answer_control(&self, request: &Request, path: &[&str]) -> Result<Response, ErrorReply> {
        if !request.peer.is_loopback() {
            return Err(ErrorReply::new(403, "From this machine only."));
        }
        match (request.method.as_str(), path) {
            ("GET", ["state"]) => replies::json(&self.openai.summarize_state()?),
            ("GET", ["ledger"]) => Ok(Response::stream(
                200,
                "application/jsonl",
                self.openai.read_ledger()?,
            )),
            ("GET", ["faults"]) => replies::json(&self.openai.fault_rules()),
            ("POST", ["faults"]) => {
                let rules = parse_rules(&request.body).map_err(invalid_body)?;
                let added = rules.len();
                self.openai.add_fault_rules(rules)?;
                replies::json(&json!({"added": added}))
            }
            ("DELETE", ["faults"]) => {
                self.openai.clear_fault_rules()?;
                replies::json(&json!({"deleted": true}))
            }
            ("GET", ["hooks", name]) => self.webhook_sink.list(name),
            ("POST", ["batches", "seed"]) => {
                let past = serde_json::from_slice(&request.body).map_err(invalid_body)?;
                replies::batch(&self.openai.add_past_batches(&past)?)
            }
            _ => Err(unknown_url(request)),
        }
    }
}
